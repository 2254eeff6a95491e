"""The kernels' speed beside that of other libraries, in one run: `make bench-kernels`, or

    python benchmarks/kernels.py [--only gelu,tanh] [--sizes 1e6] [--dtypes float32] [--threads 1] [--quick] [--output FILE]

Every elementwise activation, and softmax and log_softmax over rows of 1,024 and 32,768, forward and derivative (of softmax
the vector-Jacobian product), in process. A figure is GB/s read and written: an element of x and of the result, and of the
upstream gradient where there is one. All contenders of a row work on the same input and take turns, round by round; each
one's best round counts. Every number of threads has a process of its own, which may run on so many CPUs and no more.
A plain copy is the limit. The errors of float32 and float64 are measured beside: a peer that is off by more than
1,000 units in the last place in float32 is shown, and not counted as the best.

Prints tables, the geometric means, and every row that misses a goal; writes JSON.
"""

from __future__ import annotations

import argparse
import gc
import json
import math
import multiprocessing
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from actserve_server.activations.catalogue import CATALOGUE, find
from actserve_server.activations.spec import Activation, Record

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent / "tests" / "activations")]

import oracle
import peers
from ours import ours
from peers import expressions
from peers.bound import Bound, empty, pieces, shared

ROWS = (1_024, 32_768)
ALONG_AXIS = ("softmax", "log_softmax")
SIZES = ("1e4", "1e6", "2.5e7")
DTYPES = ("float32", "float64", "bfloat16")
ACCURACIES = ("exact", "fast")
SECONDS = 0.002
"""How long one contender's turn lasts at least: short, so that on a busy machine some turns are left alone."""
BUDGET, QUICK_BUDGET = 1.0, 0.4
"""For how many seconds the contenders of a row take turns."""
ROUNDS = (3, 40)
"""The fewest and the most rounds of turns."""
TOO_WRONG_ULP = 1_000.0
LARGE = 1e6
"""From this size on the goals hold."""
SAMPLE = 2_000

Row = dict[str, Any]


def _dtype(name: str) -> np.dtype[Any]:
    if name == "bfloat16":
        import ml_dtypes

        return np.dtype(ml_dtypes.bfloat16)
    return np.dtype(name)


def _records(only: Sequence[str]) -> list[Record]:
    known = [r for r in CATALOGUE if isinstance(r, Activation) or r.name in ALONG_AXIS]
    return [r for r in known if not only or r.name in only]


def _operations(record: Record) -> tuple[str, str]:
    return ("forward", "derivative") if isinstance(record, Activation) else ("forward", "vjp")


# ---- what is right ---------------------------------------------------------------------------------------------------


def sample() -> np.ndarray[Any, Any]:
    """Points in [-20, 20], one at random in each of equal parts, that float32 has exactly."""
    edges = np.linspace(-20, 20, SAMPLE, endpoint=False)
    return (edges + np.random.default_rng(6).uniform(0, 40 / SAMPLE, SAMPLE)).astype(np.float32)


def _exact(task: tuple[str, str]) -> list[tuple[float, float]]:
    """The true values at the sample as sums of two float64."""
    name, operation = task
    record = find(name)
    assert isinstance(record, Activation)
    params = oracle.parameters(record)
    found = []
    for x in sample():
        value = oracle.value(record, float(x), params, derivative=operation == "derivative")
        found.append((float(value), float(value - float(value)) if math.isfinite(float(value)) else 0.0))
    return found


def references(records: Iterable[Record]) -> dict[str, list[tuple[float, float]]]:
    """The true values for each activation and operation, by "name operation"."""
    tasks = [(r.name, operation) for r in records if isinstance(r, Activation) for operation in _operations(r)]
    with multiprocessing.get_context("spawn").Pool(os.cpu_count()) as pool:
        return {" ".join(task): found for task, found in zip(tasks, pool.imap(_exact, tasks, 1), strict=True)}


def error_ulp(results: np.ndarray[Any, Any], exact: np.ndarray[Any, Any], dtype: Any) -> float:
    """The largest error at the sample in units in the last place.

    Results that are subnormal, or within 0.25 of a zero that the function has elsewhere than at 0, do not count.
    """
    x = sample().astype(np.float64)
    high, low = exact[:, 0], exact[:, 1]
    information = np.finfo(dtype)
    _, exponent = np.frexp(high)
    unit = np.ldexp(1.0, np.maximum(exponent - 1, information.minexp) - information.nmant)
    crossings = np.flatnonzero((high[:-1] * high[1:] < 0) & (x[:-1] * x[1:] > 0))
    near = np.zeros(x.size, bool)
    for at in crossings:
        near |= np.abs(x - x[at]) < 0.25
    counted = ~near & (np.abs(high) >= float(information.tiny)) & (np.abs(high) <= float(information.max))
    if not counted.any():
        return 0.0
    with np.errstate(all="ignore"):
        error = np.abs((results.astype(np.float64) - high) - low) / unit
    error = np.where(np.isfinite(results.astype(np.float64)), error, np.inf)
    return float(error[counted].max())


def _slices_error_ulp(results: np.ndarray[Any, Any], inputs: Sequence[np.ndarray[Any, Any]], name: str) -> float:
    """As `error_ulp` for softmax, against extended precision; a vector-Jacobian product in units of its largest term."""
    x = inputs[0].astype(np.longdouble)
    shifted = x - x.max(axis=1, keepdims=True)
    powers = np.exp(shifted)
    total = powers.sum(axis=1, keepdims=True)
    share = powers / total
    if len(inputs) == 2:
        g = inputs[1].astype(np.longdouble)
        weights = share if name == "softmax" else np.longdouble(1)
        exact = (share if name == "softmax" else 1) * g - share * (weights * g).sum(axis=1, keepdims=True)
        scale = np.abs(share * g) + np.abs(share * (weights * g).sum(axis=1, keepdims=True))
        scale = np.maximum(scale, np.abs(exact))
    else:
        exact = share if name == "softmax" else shifted - np.log(total)
        scale = np.abs(exact)
    unit = np.spacing(scale.astype(results.dtype)).astype(np.longdouble)
    return float((np.abs(results.astype(np.longdouble) - exact) / unit).max())


# ---- measuring, in a process for each number of threads --------------------------------------------------------------


def _inputs(record: Record, operation: str, n: int, row: int | None, dtype: np.dtype[Any]) -> list[Any]:
    generator = np.random.default_rng(1)
    shape: Any = n if row is None else (n // row, row)
    found = []
    for _ in range(2 if operation == "vjp" else 1):
        array = empty(shape, dtype)
        array.reshape(-1)[...] = generator.standard_normal(array.size, np.float32) * np.float32(3)
        found.append(array)
    return found


def _copy(x: np.ndarray[Any, Any], threads: int) -> Bound:
    out = empty(x.shape, x.dtype)
    source, target = x.reshape(-1), out.reshape(-1)

    def part(piece: slice) -> Callable[[], None]:
        return lambda: np.copyto(target[piece], source[piece])

    return Bound(shared([part(piece) for piece in pieces(source.size, threads)]), lambda: out)


def _our(record: Record, operation: str, inputs: Sequence[Any], accuracy: str, threads: int) -> Bound | None:
    call = ours(record, operation, inputs[0].dtype, accuracy, threads)
    if call is None:
        return None
    out = empty(inputs[0].shape, inputs[0].dtype)

    def result() -> np.ndarray[Any, Any]:
        call(*inputs, out)
        return out

    return Bound(lambda: call(*inputs, out), result)


def contenders(record: Record, operation: str, inputs: Sequence[Any], threads: int) -> dict[str, Bound]:
    """All that can compute it, by name."""
    found = {accuracy: _our(record, operation, inputs, accuracy, threads) for accuracy in ACCURACIES}
    for peer in peers.available():
        try:
            found[peer.NAME] = peer.bind(record, operation, inputs, threads)
        except Exception as error:  # noqa: BLE001 - one library's failure must not end an hour's run
            print(f"\n{peer.NAME} fails at {record.name} {operation}: {error}", file=sys.stderr)
    return {name: bound for name, bound in found.items() if bound is not None}


def best_seconds(runs: dict[str, Callable[[], Any]], budget: float) -> dict[str, float]:
    """The time of one call of each, of the best round; in every round each has its turn."""
    count: dict[str, int] = {}
    round_seconds = 0.0
    for name, run in runs.items():
        once = math.inf
        for _ in range(3):
            begin = time.perf_counter()
            run()
            once = min(once, max(time.perf_counter() - begin, 1e-7))
            if once > 0.05:  # one warm-up will do
                break
        count[name] = max(1, math.ceil(SECONDS / once))
        round_seconds += count[name] * once
    rounds = min(max(ROUNDS[0], int(budget / round_seconds)), ROUNDS[1])
    best = dict.fromkeys(runs, math.inf)
    names = list(runs)
    gc.disable()
    for turn in range(rounds):
        for name in names[turn % len(names) :] + names[: turn % len(names)]:
            run = runs[name]
            begin = time.perf_counter()
            for _ in range(count[name]):
                run()
            best[name] = min(best[name], (time.perf_counter() - begin) / count[name])
    gc.enable()
    return best


def _errors(
    record: Record, operation: str, dtype: np.dtype[Any], exact: dict[str, Any], threads: int
) -> dict[str, float]:
    if isinstance(record, Activation):
        x = empty(SAMPLE, dtype)
        x[...] = sample()
        truth = np.array(exact[f"{record.name} {operation}"])
        found = contenders(record, operation, [x], threads)
        return {name: error_ulp(bound.result(), truth, dtype) for name, bound in found.items()}
    inputs = _inputs(record, operation, 8 * ROWS[0], ROWS[0], dtype)
    found = contenders(record, operation, inputs, threads)
    results = {name: bound.result().astype(dtype) for name, bound in found.items()}
    return {name: _slices_error_ulp(result, inputs, record.name) for name, result in results.items()}


def measure(options: argparse.Namespace, threads: int, exact: dict[str, Any]) -> Iterator[Row]:
    """The rows of one number of threads."""
    budget = QUICK_BUDGET if options.quick else BUDGET
    for record in _records(options.only):
        for operation in _operations(record):
            for dtype in map(_dtype, options.dtypes):
                errors: dict[str, float] = {}
                if dtype.itemsize > 2 and threads == min(options.threads):
                    errors = _errors(record, operation, dtype, exact, threads)
                for n in (int(float(size)) for size in options.sizes):
                    for row in (None,) if isinstance(record, Activation) else [r for r in ROWS if r <= n]:
                        inputs = _inputs(record, operation, n, row, dtype)
                        bound = contenders(record, operation, inputs, threads)
                        runs: dict[str, Any] = {name: b.run for name, b in bound.items()}
                        runs["copy"] = _copy(inputs[0], threads).run
                        seconds = best_seconds(runs, budget)
                        arrays = {name: 2 if name == "copy" else len(inputs) + 1 for name in runs}
                        yield {
                            "activation": record.name,
                            "operation": operation,
                            "dtype": dtype.name,
                            "size": n,
                            "row": row,
                            "threads": threads,
                            "gb_per_s": {
                                name: float(f"{arrays[name] * inputs[0].nbytes / t / 1e9:.4g}")
                                for name, t in seconds.items()
                            },
                            "error_ulp": {name: float(f"{error:.3g}") for name, error in errors.items()},
                        }


def _child(options: argparse.Namespace, threads: int) -> None:
    """Writes rows as lines of JSON; the true values come in from the parent."""
    exact = json.load(sys.stdin)
    for row in measure(options, threads, exact):
        print(json.dumps(row), flush=True)


def _measured(options: argparse.Namespace, threads: int, exact: dict[str, Any]) -> Iterator[Row]:
    cpus = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []
    if threads > (len(cpus) or os.cpu_count() or 1):
        print(f"{threads} threads are left out: there are not so many CPUs", file=sys.stderr)
        return
    command = [sys.executable, __file__, "--child", str(threads), "--only", ",".join(options.only)]
    command += ["--sizes", ",".join(options.sizes), "--dtypes", ",".join(options.dtypes)]
    command += ["--threads", ",".join(map(str, options.threads)), *(["--quick"] if options.quick else [])]
    # Before the libraries are loaded, since some count the CPUs only then.
    pin = (lambda: os.sched_setaffinity(0, cpus[-threads:])) if cpus else None
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, preexec_fn=pin) as process:
        assert process.stdin is not None and process.stdout is not None
        json.dump(exact, process.stdin)
        process.stdin.close()
        for line in process.stdout:
            yield json.loads(line)
    if process.returncode:
        raise SystemExit(f"the process of {threads} threads failed")


# ---- what it comes to ------------------------------------------------------------------------------------------------

NOT_PEERS = (*ACCURACIES, "copy")


def compare(row: Row, errors: dict[str, float]) -> None:
    """Put ratios into a row: of each accuracy to PyTorch, the best peer and the copy. `errors` are the row's kernel's."""
    speed = row["gb_per_s"]
    counted = {
        name: value
        for name, value in speed.items()
        if name not in NOT_PEERS and not (row["dtype"] == "float32" and errors.get(name, 0.0) > TOO_WRONG_ULP)
    }
    row["best_peer"] = best = max(counted, key=lambda name: counted[name], default=None)
    for accuracy in ACCURACIES:
        if accuracy in speed:
            row[accuracy] = {
                "to_pytorch": _ratio(speed[accuracy], speed.get("PyTorch")),
                "to_best_peer": _ratio(speed[accuracy], counted.get(best) if best else None),
                "to_copy": _ratio(speed[accuracy], speed["copy"]),
            }


def _ratio(ours_: float, other: float | None) -> float | None:
    return None if other is None else round(ours_ / other, 3)


def _label(row: Row) -> str:
    rows = f" rows of {row['row']}" if row["row"] else ""
    return f"{row['activation']} {row['operation']}{rows} {row['dtype']} {row['size']:.3g} x{row['threads']}"


def _geometric(values: Sequence[float]) -> float | None:
    return round(statistics.geometric_mean(values), 3) if values else None


def judge(rows: Sequence[Row]) -> dict[str, Any]:
    """The geometric means and the rows that miss a goal; goals are for one thread and large sizes."""
    straight = {r.name for r in CATALOGUE if isinstance(r, Activation) and expressions.is_piecewise_linear(r)}
    large = [row for row in rows if row["threads"] == 1 and row["size"] >= LARGE]

    def ratios(accuracy: str, to: str, dtype: str | None = None, among: Iterable[Row] = large) -> dict[str, float]:
        return {
            _label(row): row[accuracy][to]
            for row in among
            if accuracy in row and row[accuracy][to] is not None and dtype in (None, row["dtype"])
        }

    means: dict[str, float | None] = {}
    for dtype in DTYPES:
        for accuracy in ACCURACIES if dtype == "float32" else ACCURACIES[:1]:
            for to in ("to_pytorch", "to_best_peer", "to_copy"):
                found = list(ratios(accuracy, to, dtype).values())
                means[f"{accuracy} {dtype} {to}"] = _geometric(found)
    means["exact all types to_pytorch"] = _geometric(list(ratios("exact", "to_pytorch").values()))
    goals: dict[str, Any] = {
        "exact is 1.5 times PyTorch on the geometric mean": (means["exact all types to_pytorch"], 1.5),
        "exact float64 is 1.5 times the best peer on the geometric mean": (means["exact float64 to_best_peer"], 1.5),
        "fast float32 is 3 times PyTorch on the geometric mean": (means["fast float32 to_pytorch"], 3.0),
    }
    biggest = [row for row in large if row["size"] >= 2e7 and row["activation"] not in straight]
    lines = [row for row in large if row["activation"] in straight and row["operation"] == "forward"]
    each = {
        "no exact float32 row is below 0.7 of PyTorch": (ratios("exact", "to_pytorch", "float32"), 0.7),
        "each fast float32 row reaches the best peer": (ratios("fast", "to_best_peer", "float32"), 1.0),
        **{
            f"{accuracy} piecewise-linear ones reach 80 % of the copy": (ratios(accuracy, "to_copy", among=lines), 0.8)
            for accuracy in ACCURACIES
        },
        **{
            f"{accuracy} others reach 35 % of the copy at 2.5e7": (ratios(accuracy, "to_copy", among=biggest), 0.35)
            for accuracy in ACCURACIES
        },
    }
    return {
        "geometric_means": means,
        "on_the_mean": {
            goal: {"is": value, "goal": least, "met": value is not None and value >= least}
            for goal, (value, least) in goals.items()
        },
        "each_row": {
            goal: {
                "rows": len(found),
                "missed": {label: ratio for label, ratio in sorted(found.items(), key=lambda i: i[1]) if ratio < least},
            }
            for goal, (found, least) in each.items()
        },
    }


# ---- what is shown ---------------------------------------------------------------------------------------------------


def _show(rows: Sequence[Row], errors: dict[str, dict[str, float]], verdict: dict[str, Any]) -> None:
    from rich.console import Console
    from rich.table import Table

    console = Console(width=None if sys.stdout.isatty() else 170)
    names = [name for name in dict.fromkeys(name for row in rows for name in row["gb_per_s"]) if name not in NOT_PEERS]
    sections = dict.fromkeys((row["dtype"], row["threads"], row["size"]) for row in rows)
    for dtype, threads, size in sections:
        title = (
            f"{dtype}, {size:,} elements, {threads} thread{'s' * (threads > 1)}: GB/s read and written (error in ULP)"
        )
        table = Table(title=title, title_justify="left", header_style="bold")
        table.add_column("activation")
        for name in (*ACCURACIES, *names, "copy", "exact to PyTorch, best, copy", "fast to PyTorch, best, copy"):
            table.add_column(name, justify="right")
        for row in rows:
            if (row["dtype"], row["threads"], row["size"]) != (dtype, threads, size):
                continue
            wrong = errors.get(_kernel(row), {})
            cells = [
                f"{row['activation']}{chr(39) * (row['operation'] != 'forward')}"
                + (f" {row['row']}" if row["row"] else "")
            ]
            for name in (*ACCURACIES, *names, "copy"):
                speed = row["gb_per_s"].get(name)
                text = "" if speed is None else f"{speed:.3g}"
                if speed is not None and name in wrong:
                    mark = "dim" if wrong[name] > TOO_WRONG_ULP else ""
                    text = f"[{mark}]{text} ({wrong[name]:.2g})[/]" if mark else f"{text} ({wrong[name]:.2g})"
                cells.append(text if name != row["best_peer"] else f"[bold]{text}[/]")
            for accuracy in ACCURACIES:
                found = row.get(accuracy, {})
                cells.append(" ".join("-" if value is None else f"{value:.2f}" for value in found.values()))
            table.add_row(*cells)
        console.print(table)
    console.print("Geometric means, one thread, 1e6 elements and up", style="bold")
    for name, value in verdict["geometric_means"].items():
        if value is not None:
            console.print(f"  {name}: {value:.2f}", highlight=False)
    console.print("Goals", style="bold")
    for goal, found in verdict["on_the_mean"].items():
        if found["is"] is not None:
            console.print(f"  {'met' if found['met'] else 'MISSED'}: {goal} (is {found['is']})", highlight=False)
    for goal, found in verdict["each_row"].items():
        if found["rows"]:
            missed = found["missed"]
            word = "met" if not missed else f"MISSED by {len(missed)} of {found['rows']}"
            console.print(f"  {word}: {goal}", highlight=False)
            for label, ratio in missed.items():
                console.print(f"      {ratio:.2f}  {label}", highlight=False)


def _kernel(row: Row) -> str:
    return f"{row['activation']} {row['operation']} {row['dtype']}"


def _arguments() -> argparse.Namespace:
    words = lambda text: [word for word in text.split(",") if word]
    parser = argparse.ArgumentParser(description="Measure the kernels beside other libraries'.")
    parser.add_argument("--only", type=words, default=[], help="names of activations, separated by commas")
    parser.add_argument("--sizes", type=words, default=list(SIZES))
    parser.add_argument("--dtypes", type=words, default=list(DTYPES))
    parser.add_argument("--threads", type=lambda text: [int(word) for word in text.split(",")], default=[1, 2])
    parser.add_argument(
        "--quick", action="store_true", help="fewer turns, and 1e6 elements only unless --sizes says so"
    )
    parser.add_argument(
        "--output", type=Path, help="where to write JSON; a whole run writes benchmarks/results/kernels.json"
    )
    parser.add_argument("--child", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.quick and options.sizes == list(SIZES):
        options.sizes = ["1e6"]
    whole = not options.only and not options.quick
    if options.output is None and whole:
        options.output = HERE / "results" / "kernels.json"
    return options


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), platform.machine())


def main() -> int:
    options = _arguments()
    if options.child is not None:
        _child(options, options.child)
        return 0
    records = _records(options.only)
    precise = [dtype for dtype in options.dtypes if dtype != "bfloat16"]
    exact = references(records) if precise else {}
    rows: list[Row] = []
    for threads in options.threads:
        for row in _measured(options, threads, exact):
            rows.append(row)
            print(f"\r{len(rows)} rows: {_label(row):70}", end="", file=sys.stderr, flush=True)
    print(file=sys.stderr)
    errors: dict[str, dict[str, float]] = {}
    for row in rows:
        if found := row.pop("error_ulp"):
            errors[_kernel(row)] = found
    for row in rows:
        compare(row, errors.get(_kernel(row), {}))
    verdict = judge(rows)
    _show(rows, errors, verdict)
    if options.output is not None:
        report = {
            "machine": {"processor": _processor(), "cpus": os.cpu_count(), "system": platform.platform()},
            "versions": {peer.NAME: peer.version() for peer in peers.available()},
            "unit": "GB/s read and written",
            "verdict": verdict,
            "error_ulp": errors,
            "rows": rows,
        }
        options.output.write_text(json.dumps(report, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
