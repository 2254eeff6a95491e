"""100 MB of float32 through sigmoid on one host: shared memory beside the stream of a Unix socket and the engine in process.

    python benchmarks/shared_memory.py [--rounds 9] [--megabytes 100]

Prints JSON. The server is a process of its own, with the default settings but for room for all contenders' regions; `transport.py` runs this too. The contenders are timed in
turn, round by round. CPU seconds are those of both processes, a GB is 1e9 bytes of input, memory is the peak of the whole
run for each process (both count what they share).
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
from actserve_client import Client, _shared
from actserve_client.local import LocalServer
from actserve_server.config import Config
from actserve_server.engine.inlets import Chunk
from actserve_server.engine.plan import Job, Limits, plan
from actserve_server.engine.run import Run
from actserve_server.kernels import compiler
from actserve_server.kernels.threads import Team, available
from actserve_server.modes.base import Tensor
from actserve_server.modes.maps import Forward

IN_PROCESS = "the engine in process, from memory to memory"
SIZES = (1 << 14, 1 << 16, 1 << 17, 1 << 18, 1 << 19, 1 << 20, 1 << 22, 1 << 24)
"""Bytes, of the search for the size from which on shared memory is worth it."""


SLICES = (8 << 20, 16 << 20, 32 << 20, 64 << 20, 128 << 20, 256 << 20)
"""Bytes, of the search for how much of a large plain array a call takes."""


def _engine(x: Any) -> Callable[[], Any]:
    """What the server does with an array in a region, without a server."""
    settings = Config()
    compiler.configure(settings.kernel_cache())
    limits = Limits(
        chunk_bytes=settings.chunk_bytes,
        max_chunk_bytes=1 << 22,
        max_tensor_bytes=settings.max_tensor_bytes,
        max_slice_bytes=settings.max_slice_bytes,
        max_lead_bytes=settings.max_lead_bytes,
        max_dimensions=settings.max_dimensions,
    )
    job = Job("sigmoid", Forward(), {}, (Tensor("x", x.dtype, x.shape),))
    planned = plan(job, limits, Team(available()))
    out, raw = np.zeros_like(x), x.view(np.uint8).data
    step = planned.block_units * x.itemsize

    def run() -> Any:
        chunks = (Chunk(0, at, raw[at : at + step]) for at in range(0, len(raw), step))
        for _ in Run(planned, into=out).pieces(chunks):
            pass
        return out

    return run


def _contenders(client: Client, sender: Client, x: Any) -> dict[str, Callable[[], Any]]:
    region, room, plain = client.empty(x.shape, x.dtype), client.empty(x.shape, x.dtype), np.zeros_like(x)
    region[:] = x
    return {
        "client.empty, into client.empty": lambda: client.forward("sigmoid", region, out=room),
        "client.empty": lambda: client.forward("sigmoid", region),
        "plain arrays, out=": lambda: client.forward("sigmoid", x, out=plain),
        "plain arrays": lambda: client.forward("sigmoid", x),
        "Unix socket, stream, out=": lambda: sender.forward("sigmoid", x, out=plain),
        "Unix socket, stream": lambda: sender.forward("sigmoid", x),
    }


def _cpu_s(processes: list[psutil.Process]) -> float:
    return sum(sum(process.cpu_times()[:2]) for process in processes)


def _timed(
    contenders: dict[str, Callable[[], Any]], reference: Any, rounds: int, processes: list[psutil.Process]
) -> tuple[dict[str, list[float]], dict[str, float]]:
    seconds: dict[str, list[float]] = {name: [] for name in contenders}
    cpu = dict.fromkeys(contenders, 0.0)
    for run in contenders.values():
        np.testing.assert_array_equal(run(), reference)
    for _ in range(rounds):
        for name, run in contenders.items():
            used, begin = _cpu_s(processes), time.perf_counter()
            run()
            seconds[name].append(time.perf_counter() - begin)
            cpu[name] += _cpu_s(processes) - used
    return seconds, cpu


def measure(megabytes: int, rounds: int) -> dict[str, Any]:
    """The report of a run."""
    x = (np.random.default_rng(0).standard_normal(megabytes * 250_000) * 3).astype(np.float32)
    engine = _engine(x)
    reference = engine().copy()
    room = 6 * x.nbytes + (1 << 30)
    limits = {"max_shared_bytes": room, "max_shared_bytes_per_client": room}
    with LocalServer(**limits) as server, Client(server.address) as client, Client(server.address) as sender:
        sender._regions.close()  # so that it sends the bytes
        processes = [psutil.Process(), psutil.Process(server.pid)]
        contenders = {IN_PROCESS: engine, **_contenders(client, sender, x)}
        seconds, cpu = _timed(contenders, reference, rounds, processes)
        base, gigabytes = seconds[IN_PROCESS], x.nbytes / 1e9 * rounds
        large = {
            name: {
                "best_ms": round(min(times) * 1e3, 1),
                "median_ms": round(statistics.median(times) * 1e3, 1),
                "of_the_engine_by_best": round(min(base) / min(times), 2),
                "of_the_engine_by_median": round(statistics.median(base) / statistics.median(times), 2),
                "cpu_s_a_gb": round(cpu[name] / gigabytes, 2),
            }
            for name, times in seconds.items()
        }
        peaks = {
            "client_mib": _peak_mib(processes[0].pid),
            "server_mib": _peak_mib(server.pid),
        }
        slices = {str(size): _in_slices(server.address, x, size, rounds) for size in SLICES if size < x.nbytes}
        sizes = {str(size): _crossover(client, sender, x[: size // 4], rounds * 8) for size in SIZES}
    return {
        "megabytes": megabytes,
        "cores": os.cpu_count(),
        "load": os.getloadavg()[0],
        "contenders": large,
        "peak_memory": peaks,
        "plain_arrays_by_slice": slices,
        "medians_us_by_bytes": sizes,
    }


def _peak_mib(pid: int) -> int:
    with open(f"/proc/{pid}/status") as status:
        return next(int(line.split()[1]) // 1024 for line in status if line.startswith("VmHWM"))


def _in_slices(address: str, x: Any, size: int, rounds: int) -> dict[str, float]:
    """Milliseconds of plain arrays in slices of a size: the first call of a client, whose memory is new, and those after it."""
    kept = _shared.SLICE_BYTES
    _shared.SLICE_BYTES = size
    out = np.zeros_like(x)
    try:
        with Client(address) as client:
            client.forward("sigmoid", x[:1])
            seconds: list[float] = []
            for _ in range(rounds + 1):
                begin = time.perf_counter()
                client.forward("sigmoid", x, out=out)
                seconds.append(time.perf_counter() - begin)
    finally:
        _shared.SLICE_BYTES = kept
    first, *others = (round(each * 1e3, 1) for each in seconds)
    return {"first_ms": first, "best_ms": min(others), "median_ms": statistics.median(others)}


def _crossover(client: Client, sender: Client, x: Any, rounds: int) -> dict[str, int]:
    """Microseconds of each way at a size, with the thresholds of the client out of the way."""
    kept = _shared.LEAST_BYTES, _shared.LEAST_COPIED_BYTES
    _shared.LEAST_BYTES = _shared.LEAST_COPIED_BYTES = 1
    try:
        ways = _contenders(client, sender, x)
        names = ("client.empty", "plain arrays", "Unix socket, stream")
        seconds: dict[str, list[float]] = {name: [] for name in names}
        for _ in range(rounds):
            for name in names:
                begin = time.perf_counter()
                ways[name]()
                seconds[name].append(time.perf_counter() - begin)
        return {name: round(statistics.median(times) * 1e6) for name, times in seconds.items()}
    finally:
        _shared.LEAST_BYTES, _shared.LEAST_COPIED_BYTES = kept


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--megabytes", type=int, default=100)
    options = parser.parse_args()
    print(json.dumps(measure(options.megabytes, options.rounds), indent=2))
    return 0


if __name__ == "__main__":
    sys.exit(main())
