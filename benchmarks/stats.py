"""The full state of a layer's neurons over float32 activations, in process, against the same in NumPy, in one run.

    python benchmarks/stats.py [--rows 24576] [--neurons 4096] [--rounds 5]

Prints JSON: GB of activations read a second on one core, for the state without exact sums and histogram, with sums, and with
all; the resident memory that a longer batch adds; and how many times faster that is than NumPy. The activations are counted as they are
(`input="post"`, of relu), in blocks as they arrive on the wire. NumPy computes the same columns in the same blocks: its sums are plain
float64 ones, as it has no exact ones, and its histogram is a bincount of the same bins.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import time
from collections.abc import Callable
from typing import Any

import numpy as np
from actserve.stats import NeuronOptions
from actserve_server.activations.catalogue import find
from actserve_server.modes.base import Subject
from actserve_server.modes.neuron_tally import Layout, NeuronTally
from actserve_server.modes.slopes import slopes

BLOCK_BYTES = 1 << 20
Array = np.ndarray[Any, Any]

VARIANTS: dict[str, dict[str, Any]] = {
    "without sums and histogram": {"sums": False},
    "with sums": {"sums": True},
    "with all": {"sums": True, "histogram": "layer"},
}


def ours(a: Array, **options: Any) -> NeuronTally:
    record = find("relu")
    assert record is not None
    subject = Subject(record, (), a.dtype, a.shape, None, a.size)
    known = slopes(subject, 1e-3, after=True)
    tally = NeuronTally(
        NeuronOptions(input="post", slopes=known.known, **options), Layout.of(a.shape, (1,)), a.dtype, known
    )
    flat, step = a.reshape(-1), BLOCK_BYTES // a.itemsize
    for first in range(0, flat.size, step):
        tally.add(flat[first : first + step], None, None, first)
    tally.state("relu", {})
    return tally


def with_numpy(a: Array, *, sums: bool, histogram: str | None = None) -> dict[str, Array]:
    n = a.shape[1]
    names = ("positive", "negative", "nan", "up", "down", "zero", "inactive", "low", "flat")
    state: dict[str, Array] = {name: np.zeros(n, np.int64) for name in names}
    state |= {"least": np.full(n, np.inf), "largest": np.full(n, -np.inf), "last": np.full(n, -1)}
    state |= {name: np.zeros(n) for name in ("sum", "magnitude", "square")} | {"bins": np.zeros(1 << 16, np.int64)}
    rows = max(BLOCK_BYTES // a.itemsize // n, 1)
    for first in range(0, len(a), rows):
        block = a[first : first + rows]
        fired = block > 0
        state["positive"] += fired.sum(axis=0)
        state["negative"] += (block < 0).sum(axis=0)
        state["nan"] += np.isnan(block).sum(axis=0)
        state["up"] += (block == np.inf).sum(axis=0)
        state["down"] += (block == -np.inf).sum(axis=0)
        state["zero"] += (block == 0).sum(axis=0)
        state["inactive"] += (block <= 0).sum(axis=0)
        np.fmin(state["least"], np.fmin.reduce(block, axis=0), out=state["least"])
        np.fmax(state["largest"], np.fmax.reduce(block, axis=0), out=state["largest"])
        latest = len(block) - 1 - fired[::-1].argmax(axis=0)
        np.copyto(state["last"], first + latest, where=fired.any(axis=0))
        if sums:
            state["sum"] += block.sum(axis=0, dtype=np.float64)
            state["magnitude"] += np.abs(block).sum(axis=0, dtype=np.float64)
            state["square"] += np.square(block, dtype=np.float64).sum(axis=0)
        if histogram:
            state["bins"] += np.bincount(block.view(np.uint32).reshape(-1) >> 16, minlength=1 << 16)
    # Saturation and the zero gradient of relu are where the activation is not positive.
    state["low"], state["flat"] = state["inactive"].copy(), state["inactive"].copy()
    return state


def check(tally: NeuronTally, reference: dict[str, Array]) -> None:
    stats = tally.state("relu", {})
    for ours_name, theirs in (
        ("positive", "positive"),
        ("inactive", "inactive"),
        ("zero", "zero"),
        ("last_fired", "last"),
    ):
        np.testing.assert_array_equal(stats.columns[ours_name], reference[theirs])
    np.testing.assert_array_equal(stats.largest, reference["largest"])
    if stats.sums is not None:
        np.testing.assert_allclose(stats.mean, reference["sum"] / stats.samples, rtol=1e-12)
    if stats.histogram is not None:
        assert stats.histogram.total == reference["bins"].sum()


def seconds(run: Callable[[], Any]) -> float:
    """The time of one core that it takes: on an idle machine that is the time that passes, on a busy one less is others' doing."""
    begin = time.thread_time()
    run()
    return time.thread_time() - begin


def peak_mb() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=24_576)
    parser.add_argument("--neurons", type=int, default=4_096)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    random = np.random.default_rng(0)
    a = np.empty((options.rows, options.neurons), np.float32)
    for rows in np.array_split(a, max(options.rows // 1024, 1)):
        rows[:] = np.maximum(random.standard_normal(rows.shape, np.float32), 0)
    few = a[: max(options.rows // 16, 1)]
    report: dict[str, Any] = {
        "activations": a.size,
        "neurons": options.neurons,
        "cores": os.cpu_count(),
        "load_before": round(os.getloadavg()[0], 1),
        "variants": {},
    }
    for name, variant in VARIANTS.items():
        check(ours(few, **variant), with_numpy(few, **variant))
        before = peak_mb()
        times: dict[str, list[float]] = {"actserve": [], "numpy": []}
        grown = 0.0
        for _ in range(options.rounds):
            times["actserve"].append(seconds(lambda variant=variant: ours(a, **variant)))
            grown = max(grown, peak_mb() - before)
            # The same work on fewer rows: NumPy's time for all of them would fill the run.
            times["numpy"].append(seconds(lambda variant=variant: with_numpy(few, **variant)) * a.size / few.size)
        best = {who: min(measured) for who, measured in times.items()}
        report["variants"][name] = {
            "gb_per_s_best": round(a.nbytes / best["actserve"] / 1e9, 2),
            "gb_per_s_median": round(a.nbytes / statistics.median(times["actserve"]) / 1e9, 2),
            "numpy_gb_per_s_best": round(a.nbytes / best["numpy"] / 1e9, 3),
            "times_faster_by_best": round(best["numpy"] / best["actserve"], 1),
            "memory_grown_mb": round(grown, 1),
            "state_bytes": len(ours(few, **variant).state("relu", {}).state),
        }
    report["load_after"] = round(os.getloadavg()[0], 1)
    print(json.dumps(report, indent=2))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
