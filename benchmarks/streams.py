"""Two arrays at once: two streams to one worker and to two, beside one stream to one, in bytes per second altogether.

    python benchmarks/streams.py [--rounds 7] [--megabytes 100]

Prints JSON; `transport.py` runs this too. Each stream is sent by a thread of its own, by a client of its own; all threads are in one process.
With two workers the two connections are made to be of different workers: left to the kernel, every second pair would be of the same. The
same is asked of plain gRPC services, a process each. The contenders are timed in turn, round by round.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc
import numpy as np
import servers
from actserve_client import Client

TRIES = 64
"""Connections that are opened to find one of each worker: too few in one run of 2**63."""


@contextlib.contextmanager
def _one_of_each(address: str, workers: int) -> Iterator[list[Client]]:
    """A client for each of the workers behind an address; raises RuntimeError where the kernel gives none of them."""
    with contextlib.ExitStack() as kept:
        found: dict[int, Client] = {}
        for _ in range(TRIES):
            with contextlib.ExitStack() as stack:
                client = stack.enter_context(Client(address, channels=1))
                if found.setdefault(client.server_info().worker, client) is client:
                    kept.push(stack.pop_all())
            if len(found) == workers:
                yield list(found.values())
                return
        raise RuntimeError(f"{TRIES} connections reached {len(found)} of {workers} workers")


def _contenders(stack: contextlib.ExitStack, arrays: list[Any], pool: ThreadPoolExecutor) -> dict[str, Any]:
    """What each does, which gives the results, and how many arrays that takes."""
    first, _ = stack.enter_context(servers.actserve())
    both, _ = stack.enter_context(servers.actserve("--workers", "2"))
    alone = [stack.enter_context(Client(first, channels=1)) for _ in arrays]
    apart = stack.enter_context(_one_of_each(both, len(arrays)))
    plain = [stack.enter_context(servers.plain()) for _ in arrays]

    def channels(addresses: list[str]) -> list[grpc.Channel]:
        # A connection each, as our clients have: channels to one address share one unless they are told not to.
        options = [*servers.UNLIMITED, ("grpc.use_local_subchannel_pool", 1)]
        return [stack.enter_context(grpc.insecure_channel(address, options)) for address in addresses]

    def ours(clients: list[Client]) -> Callable[[], list[Any]]:
        return lambda: list(pool.map(lambda client, x: client.forward("sigmoid", x), clients, arrays))

    def theirs(clients: list[grpc.Channel]) -> Callable[[], list[Any]]:
        return lambda: list(pool.map(servers.bidirectional, clients, arrays))

    return {
        "actserve, one stream, one worker": ours(alone[:1]),
        "actserve, two streams, one worker": ours(alone),
        "actserve, two streams, two workers": ours(apart),
        "plain gRPC, one stream, one process": theirs(channels(plain[:1])),
        "plain gRPC, two streams, one process": theirs(channels([plain[0]] * len(arrays))),
        "plain gRPC, two streams, two processes": theirs(channels(plain)),
    }


def _report(speeds: dict[str, list[float]]) -> dict[str, Any]:
    """MB/s of each, and what it is of one stream, of ours or of theirs."""
    report = {}
    for name, found in speeds.items():
        alone = next(speed for other, speed in speeds.items() if other.split(",")[0] == name.split(",")[0])
        report[name] = {
            "best_mb_per_s": round(max(found) / 1e6),
            "median_mb_per_s": round(statistics.median(found) / 1e6),
            "of_one_stream_by_best": round(max(found) / max(alone), 2),
            "of_one_stream_by_median": round(statistics.median(found) / statistics.median(alone), 2),
        }
    return report


def measure(megabytes: int, rounds: int) -> dict[str, Any]:
    """The report of a run."""
    random = np.random.default_rng(0)
    arrays = [(random.standard_normal(megabytes * 250_000) * 3).astype(np.float32) for _ in range(2)]
    with np.errstate(over="ignore"):
        expected = [1 / (1 + np.exp(-x)) for x in arrays]
    with contextlib.ExitStack() as stack:
        pool = stack.enter_context(ThreadPoolExecutor(len(arrays)))
        contenders = _contenders(stack, arrays, pool)
        speeds: dict[str, list[float]] = {name: [] for name in contenders}
        for run in contenders.values():
            for result, wanted in zip(run(), expected, strict=False):
                np.testing.assert_allclose(result, wanted, rtol=1e-5)
        for _ in range(rounds):
            for name, run in contenders.items():
                begin = time.perf_counter()
                results = run()
                speeds[name].append(sum(result.nbytes for result in results) / (time.perf_counter() - begin))
    return {
        "megabytes_a_stream": megabytes,
        "cores": os.cpu_count(),
        "load": os.getloadavg()[0],
        "contenders": _report(speeds),
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--megabytes", type=int, default=100, help="a stream")
    options = parser.parse_args()
    print(json.dumps(measure(options.megabytes, options.rounds), indent=2))
    return 0


if __name__ == "__main__":
    sys.exit(main())
