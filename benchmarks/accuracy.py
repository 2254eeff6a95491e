"""The error of every elementwise activation beside that of other libraries: `make accuracy`.

For each activation, forward and derivative: the largest error in units in the last place over stratified points (both
tails, every binade, kinks, zeros, results near overflow and underflow) against the record's formula at high precision, in
float32 exact and fast and in float64; of PyTorch, JAX and SciPy too, where they are installed and have the function. No
region is exempted but one: within 0.25 of a zero that the function has elsewhere than at 0, units in the last place mean
nothing, and the absolute error is held to a bound of its own. Subnormal results are held to one unit, and not in the table. In
float32 the largest of two million errors beside the float64 kernel counts too.

For float16 and bfloat16: whether all of the 65,536 inputs give the correctly rounded result. The float64 kernel decides
that, except where its result is so near to the middle of two neighbours that its own error could matter; there the
formula does.

Writes docs/accuracy.json, of which the page on activations takes its figures.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import math
import multiprocessing
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import mpmath as mp
import numpy as np
from actserve_server.activations.catalogue import CATALOGUE, find
from actserve_server.activations.spec import Activation

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent / "tests" / "activations")]

import bounds
import dense
import oracle
import peers
from ours import ours
from peers.bound import empty

OPERATIONS = ("forward", "derivative")
PEERS = ("PyTorch", "JAX", "NumPy/SciPy")
SCIPY = ("sigmoid", "log_sigmoid", "erf")
"""What SciPy has; the rest of that peer is written out in NumPy."""
COLUMNS = (("float32", "exact"), ("float32", "fast"), ("float64", "exact"))
FORMS = {(form.dtype.name, form.accuracy): form for form in bounds.FORMS}
DENSE = 500_000
"""At how many points of each kind, besides, kernels of float32 are held to those of float64."""
ABSOLUTE = {"float32": bounds.FLOAT32_NEAR_ZERO, "float64": bounds.FLOAT64_NEAR_ZERO}
"""Near a zero of the function; in float32 beside half a unit for the rounding."""

Array = np.ndarray[Any, Any]


def points(record: Activation, dtype: Any, n: int) -> Array:
    """About n finite arguments where errors hide."""
    generator = np.random.default_rng(20)
    information = np.finfo(dtype)
    edge = -math.log(float(information.smallest_subnormal))
    part = n // 12
    bulk = [generator.uniform(-width, width, 2 * part) for width in (1.0, 6.0, 40.0)]
    tails = [side * (edge - generator.uniform(-8, 40, part)) for side in (-1, 1)]
    normal_tails = [side * (math.sqrt(2 * edge) - generator.uniform(-0.5, 2, part)) for side in (-1, 1)]
    binades = [side * 2.0 ** generator.uniform(information.minexp, information.maxexp, part) for side in (-1, 1)]
    small = [side * 10.0 ** generator.uniform(-6, -1, part // 2) for side in (-1, 1)]
    kinks = np.array([*record.kinks, 0.0]).astype(dtype)
    beside = [np.nextafter(kinks, dtype(side * math.inf)) for side in (-1, 1)]
    limits = [0.0, float(information.smallest_subnormal), float(information.max)]
    with np.errstate(all="ignore"):
        x = np.concatenate(
            [*bulk, *tails, *normal_tails, *binades, *small, kinks, *beside, limits, np.negative(limits)]
        )
        x = np.unique(x.astype(dtype))
    return x[np.isfinite(x)]


@dataclasses.dataclass(frozen=True)
class Truth:
    """What is exactly right at one point, and whether the function has a zero nearby."""

    value: Any
    near_zero: bool


def _truths(task: tuple[str, str, str, int]) -> list[Truth]:
    name, operation, dtype, n = task
    record = find(name)
    assert isinstance(record, Activation)
    params = oracle.parameters(record)
    derivative = operation == "derivative"
    found = []
    at_zero = oracle.value(record, 0.0, params, derivative=derivative)
    for x in map(float, points(record, np.dtype(dtype).type, n)):
        value = oracle.value(record, x, params, derivative=derivative)
        near = False
        # The sign is known well enough without many digits, and a zero further out than this has another neighbour.
        if 0 < abs(value) < 1 and abs(x) < 1e6 and not (abs(x) <= 0.25 and at_zero == 0):
            left, right = (oracle.value(record, x + step, params, derivative=derivative) for step in (-0.25, 0.25))
            near = left * right < 0
        found.append(Truth(value, bool(near)))
    return found


@dataclasses.dataclass
class Found:
    """The errors of one implementation at the points of a cell."""

    ulp: float = 0.0
    at: float = 0.0
    absolute: float = 0.0
    """Near a zero of the function, where nothing is counted in `ulp`."""
    subnormal: float = 0.0


def errors(results: Array, x: Array, truths: Sequence[Truth], dtype: Any) -> Found:
    """How far results are from what is right."""
    found = Found()
    tiny = float(np.finfo(dtype).tiny)
    for argument, result, truth in zip(x, results, truths, strict=True):
        error = oracle.error_in_ulp(float(result), truth.value, dtype)
        if truth.near_zero and math.isfinite(float(result)):
            off = float(abs(mp.mpf(float(result)) - truth.value))
            rounding = float(oracle.ulp(truth.value, dtype)) / 2 if dtype == np.float32 else 0.0
            found.absolute = max(found.absolute, off - rounding)
        elif abs(truth.value) < tiny:
            found.subnormal = max(found.subnormal, error)
        elif error > found.ulp:
            found.ulp, found.at = error, float(argument)
    return found


def _peer(module: Any, record: Activation, operation: str, x: Array) -> Array | None:
    if module.NAME == "NumPy/SciPy" and (record.name not in SCIPY or operation != "forward"):
        return None
    if module.NAME == "NumPy/SciPy":
        from scipy import special

        function = {"sigmoid": special.expit, "log_sigmoid": special.log_expit, "erf": special.erf}[record.name]
        return np.asarray(function(x))
    bound = module.bind(record, operation, [x], 1)
    return None if bound is None else bound.result()


# ---- 16-bit types ----------------------------------------------------------------------------------------------------


def sixteen_bit() -> dict[str, np.dtype[Any]]:
    """The types by name: bfloat16 where ml_dtypes is installed."""
    found = {"float16": np.dtype(np.float16)}
    try:
        import ml_dtypes
    except ImportError:
        return found
    return found | {"bfloat16": np.dtype(ml_dtypes.bfloat16)}


FORMATS = {"float16": (11, -14, 65504.0), "bfloat16": (8, -126, (2 - 2.0**-7) * 2.0**127)}
"""Digits of the significand, the exponent of the smallest normal number, the largest number."""


def _grid(y: Array, name: str) -> Array:
    """The distance of the neighbours between which each float64 lies."""
    digits, smallest, _ = FORMATS[name]
    _, exponent = np.frexp(y)
    return np.ldexp(1.0, np.maximum(exponent - 1, smallest) - (digits - 1))


def rounded(y: Array, name: str) -> Array:
    """Float64 rounded once to a 16-bit type, as float64.

    >>> rounded(np.array([1 + 2**-8 + 2**-40]), "bfloat16")
    array([1.0078125])
    """
    _, _, largest = FORMATS[name]
    grid = _grid(y, name)
    with np.errstate(all="ignore"):
        found = np.rint(y / grid) * grid
    found = np.where(np.abs(found) > largest, np.copysign(np.inf, y), found)
    return np.where(np.isfinite(y), found, y)


def wrongly_rounded(record: Activation, operation: str, name: str) -> int | None:
    """How many of all inputs do not give the correctly rounded result; None if the engine has not the type."""
    kind = sixteen_bit()[name]
    call = ours(record, operation, kind)
    wide = ours(record, operation, np.float64)
    if call is None or wide is None:
        return None
    x = np.arange(65_536, dtype=np.uint16).view(kind)
    results, fine = np.empty_like(x), np.empty(x.size)
    call(x, results)
    with np.errstate(invalid="ignore"):  # of NaN
        argument, given = x.astype(np.float64), results.astype(np.float64)
    wide(argument, fine)
    # The middle of two neighbours, and how far the float64 kernel may be from the truth: beside a zero of the function
    # its bound is absolute.
    with np.errstate(all="ignore"):
        grid = _grid(fine, name)
        from_middle = np.abs(fine / grid - np.floor(fine / grid) - 0.5) * grid
        doubt = 8 * np.spacing(np.abs(fine))
        doubt += np.where((np.abs(fine) > 2.0**-30) & (np.abs(fine) < 1), 2.0**-49, 0.0)
    unsure = np.isfinite(fine) & np.isfinite(argument) & (from_middle <= doubt)
    expected = rounded(fine, name)
    params = oracle.parameters(record)
    for at in np.flatnonzero(unsure):
        truth = oracle.value(record, float(argument[at]), params, derivative=operation == "derivative")
        expected[at] = _rounded_exactly(truth, name)
    same = (given == expected) & (np.signbit(given) == np.signbit(expected))
    # A zero of the formula has no sign, so float64 says which.
    same |= (given == 0) & (expected == 0) & unsure
    return int(np.count_nonzero(~(same | (np.isnan(given) & np.isnan(expected)))))


def _rounded_exactly(value: Any, name: str) -> float:
    digits, smallest, largest = FORMATS[name]
    if value == 0:
        return 0.0
    with mp.workdps(oracle.DIGITS):
        grid = mp.ldexp(1, max(mp.frexp(value)[1] - 1, smallest) - (digits - 1))
        steps = value / grid
        below = mp.floor(steps)
        rest = steps - below
        up = rest > 0.5 or (rest == 0.5 and int(below) % 2 == 1)
        found = float((below + (1 if up else 0)) * grid)
    return math.copysign(math.inf, found) if abs(found) > largest else found


# ---- the table -------------------------------------------------------------------------------------------------------


def _up(value: float) -> float | str:
    """Rounded up to a figure that may be published as a bound; JSON has no infinity, so it is a word."""
    if math.isinf(value):
        return "inf"
    if value < 1:
        return math.ceil(value * 1e4 - 1e-9) / 1e4
    unit = 10.0 ** (math.floor(math.log10(value)) - 2)
    return float(f"{math.ceil(value / unit - 1e-9) * unit:.3g}")


def examine(record: Activation, truths: dict[tuple[str, str], list[Truth]], n: int) -> tuple[dict[str, Any], list[str]]:
    """The figures of one activation, and what is not as promised, in words."""
    report: dict[str, Any] = {}
    faults: list[str] = []
    for operation in OPERATIONS:
        entry: dict[str, Any] = {}
        scans = () if record.indexed else dense.scans(record, operation, oracle.parameters(record), DENSE)
        by_form = {scan.form: scan for scan in scans}
        for dtype, accuracy in COLUMNS:
            x = points(record, np.dtype(dtype).type, n)
            call = ours(record, operation, dtype, accuracy)
            if call is None:
                continue
            out = np.empty_like(x)
            call(x, out)
            found = errors(out, x, truths[operation, dtype], np.dtype(dtype))
            scan = by_form.get(FORMS[dtype, accuracy])
            if scan is not None:
                faults += [f"{record.name} {operation}: {failure}" for failure in scan.failures[:1]]
            word = f"{dtype} {accuracy}" if dtype == "float32" else dtype
            most = max(found.ulp, scan.ulp if scan else 0.0)
            entry[word] = {"ulp": _up(most), "absolute_near_zeros": found.absolute or None}
            where = f"{record.name} {operation} {word}"
            bound = bounds.budget(record, operation, FORMS[dtype, accuracy])
            if found.ulp > bound:
                faults.append(f"{where}: {found.ulp:.4g} ULP at {found.at!r}, over {bound:g}")
            if accuracy == "exact" and found.absolute > ABSOLUTE[dtype]:
                faults.append(f"{where}: off by {found.absolute:.3g} beside a zero, over {ABSOLUTE[dtype]:.3g}")
            if accuracy == "exact" and found.subnormal > 1:
                faults.append(f"{where}: {found.subnormal:.4g} ULP where the result is subnormal, over 1")
        entry["others"] = {}
        for module in peers.available():
            for dtype in ("float32", "float64") if module.NAME in PEERS else ():
                x = points(record, np.dtype(dtype).type, n)
                aligned = empty(x.size, x.dtype)
                aligned[...] = x
                results = _peer(module, record, operation, aligned)
                if results is not None:
                    found = errors(results, x, truths[operation, dtype], np.dtype(dtype))
                    name = module.NAME.removeprefix("NumPy/")
                    entry["others"].setdefault(name, {})[dtype] = _up(found.ulp)
        for name in sixteen_bit():
            wrong = wrongly_rounded(record, operation, name)
            if wrong is not None:
                entry[name] = {"wrongly_rounded": wrong}
            if wrong:
                faults.append(f"{record.name} {operation} {name}: {wrong} of 65,536 are not correctly rounded")
        report[operation] = entry
    return report, faults


def _figure(value: float | str | None) -> str:
    if value is None or isinstance(value, str):
        return value or ""
    return f"{value:.4g}" if value < 1 else f"{value:.3g}"


def _show(report: dict[str, Any]) -> None:
    from rich.console import Console
    from rich.table import Table

    others = [name.removeprefix("NumPy/") for name in PEERS]
    table = Table(title="The largest error found, in units in the last place", title_justify="left")
    for heading in ("activation", "float32 exact", "float32 fast", "float64", "float16", "bfloat16"):
        table.add_column(heading, justify="left" if heading == "activation" else "right")
    for dtype in ("float32", "float64"):
        for name in others:
            table.add_column(f"{name} {dtype}", justify="right")
    for name, operations in report.items():
        for operation, entry in operations.items():
            cells = [name + ("'" if operation == "derivative" else "")]
            cells += [_figure(entry.get(word, {}).get("ulp")) for word in ("float32 exact", "float32 fast", "float64")]
            for word in ("float16", "bfloat16"):
                wrong = entry.get(word, {}).get("wrongly_rounded")
                cells.append("" if wrong is None else "right" if wrong == 0 else f"{wrong} wrong")
            for dtype in ("float32", "float64"):
                cells += [_figure(entry["others"].get(other, {}).get(dtype)) for other in others]
            table.add_row(*cells)
    Console(width=None if sys.stdout.isatty() else 170).print(table)


def main() -> int:
    parser = argparse.ArgumentParser(description="Measure the kernels' errors beside other libraries'.")
    parser.add_argument("--only", default="", help="names of activations, separated by commas")
    parser.add_argument("--points", type=int, default=300, help="how many for each activation and type")
    parser.add_argument("--output", type=Path, help="where to write JSON; a whole run writes docs/accuracy.json")
    options = parser.parse_args()
    only = [name for name in options.only.split(",") if name]
    records = [r for r in CATALOGUE if isinstance(r, Activation) and (not only or r.name in only)]
    output = options.output or (None if only else HERE.parent / "docs" / "accuracy.json")
    tasks = [
        (record.name, operation, dtype, options.points)
        for record in records
        for operation in OPERATIONS
        for dtype in ("float32", "float64")
    ]
    report: dict[str, Any] = {}
    faults: list[str] = []
    with multiprocessing.get_context("spawn").Pool(os.cpu_count()) as pool:
        coming = pool.imap(_truths, tasks, 1)
        for record in records:
            truths = {(operation, dtype): next(coming) for operation in OPERATIONS for dtype in ("float32", "float64")}
            report[record.name], found = examine(record, truths, options.points)
            faults += found
            print(f"\r{len(report)} of {len(records)}: {record.name:30}", end="", file=sys.stderr, flush=True)
    print(file=sys.stderr)
    _show(report)
    for fault in faults:
        print(fault)
    if output is not None:
        versions = {peer.NAME: peer.version() for peer in peers.available() if peer.NAME in PEERS}
        output.write_text(
            json.dumps({"points": options.points, "versions": versions, "activations": report}, indent=1) + "\n"
        )
    print(f"{len(faults)} figures are over their bounds" if faults else "all figures are within their bounds")
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
