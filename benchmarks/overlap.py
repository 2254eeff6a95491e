"""Whether a server receives, computes and sends at once within one stream: the time of a call beside that of its transport and its compute.

    python benchmarks/overlap.py [--rounds 7] [--megabytes 100]

Prints JSON; `transport.py` runs this too. Transport is the same array through `identity`, compute the same kernels in this process, as the server
cuts and shares the work, from memory to memory. A call that did one after the other would take their sum; one that did both at once, the longer
of them. Neither can a call be shorter than what its CPU-seconds take on all cores, client and server together: `cpu_ms` is that of transport and
compute, shared out without a rest. Where the cores are few, this is the bound, as transport alone keeps more than one core busy.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import psutil
import servers
from actserve_client import Client
from actserve_server.activations.catalogue import find
from actserve_server.kernels.threads import available
from ours import ours

CASES = (("softplus", np.float64), ("entmax", np.float32), ("serf", np.float64))
"""Forward. On the machine of the README softplus computes for a third of what transport takes, serf for two thirds, entmax for longer."""
ROW = 1000
"""Elements along which entmax goes."""


class Clock:
    """Seconds, and CPU-seconds of all processes, of each run of a call."""

    def __init__(self, processes: list[psutil.Process]) -> None:
        self._processes = processes
        self.seconds: list[float] = []
        self.cpu: list[float] = []

    def _used(self) -> float:
        return sum(sum(process.cpu_times()[:2]) for process in self._processes)

    def time(self, run: Callable[[], Any]) -> None:
        """Run it once."""
        used, begin = self._used(), time.perf_counter()
        run()
        self.seconds.append(time.perf_counter() - begin)
        self.cpu.append(self._used() - used)


def _array(name: str, dtype: Any, megabytes: int) -> Any:
    items = megabytes * 1_000_000 // np.dtype(dtype).itemsize
    x = (np.random.default_rng(0).standard_normal(items) * 3).astype(dtype)
    return x.reshape(-1, ROW) if name == "entmax" else x


def _computation(name: str, x: Any, out: Any) -> Callable[[], Any]:
    record = find(name)
    assert record is not None
    compute = ours(record, "forward", x.dtype, threads=available())
    assert compute is not None
    return lambda: compute(x, out)


def _figures(clocks: dict[str, Clock], cores: int, choose: Callable[[list[float]], float]) -> dict[str, float]:
    """In milliseconds; `overlapped` is what of the time that could be hidden was: 1 for the longer, 0 for the sum."""
    call, transport, compute = (choose(clocks[name].seconds) * 1e3 for name in ("call", "transport", "compute"))
    longer, both = max(transport, compute), transport + compute
    cpu = sum(statistics.median(clocks[name].cpu) for name in ("transport", "compute")) * 1e3 / cores
    return {
        "call_ms": round(call),
        "transport_ms": round(transport),
        "compute_ms": round(compute),
        "longer_ms": round(longer),
        "cpu_ms": round(cpu),
        "sum_ms": round(both),
        "of_the_longer": round(call / longer, 2),
        "of_the_sum": round(call / both, 2),
        "overlapped": round((both - call) / (both - longer), 2),
    }


def measure(megabytes: int, rounds: int) -> dict[str, Any]:
    """The report of a run."""
    cores = len(os.sched_getaffinity(0))
    report = {}
    with servers.actserve() as (address, pid), Client(address) as client:
        processes = [psutil.Process(), psutil.Process(pid)]
        for name, dtype in CASES:
            x = _array(name, dtype, megabytes)
            out, result = np.zeros_like(x), np.zeros_like(x)
            runs = {
                "call": lambda name=name, x=x, out=result: client.forward(name, x, out=out),
                "transport": lambda x=x, out=result: client.forward("identity", x, out=out),
                "compute": _computation(name, x, out),
            }
            clocks = {which: Clock(processes) for which in runs}
            runs["transport"]()
            np.testing.assert_array_equal(result, x)
            runs["call"]()
            runs["compute"]()
            np.testing.assert_array_equal(result, out)
            for _ in range(rounds):
                for which, run in runs.items():
                    clocks[which].time(run)
            report[f"{name}, {x.dtype.name}"] = {
                "best": _figures(clocks, cores, min),
                "median": _figures(clocks, cores, statistics.median),
            }
    return {"megabytes": megabytes, "cores": cores, "load": os.getloadavg()[0], "cases": report}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--megabytes", type=int, default=100)
    options = parser.parse_args()
    print(json.dumps(measure(options.megabytes, options.rounds), indent=2))
    return 0


if __name__ == "__main__":
    sys.exit(main())
