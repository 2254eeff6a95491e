"""100 MB of float32 through sigmoid over loopback, and 4 KB again and again: actserve against plain gRPC services, in one run.

    python benchmarks/transport.py [--rounds 7] [--megabytes 100] [--small-calls 1000]

Prints JSON. The peers are what people write: a unary service and a bidirectional one with generated classes and default
options (but for the message limit), whose server computes with NumPy; the limit is grpcio itself, with the same bytes sent back. Client and servers are processes of their own, the
contenders are timed in turn, round by round, and compared by their best and their median within the run. Last come
`streams.py`, two arrays at once, `overlap.py`, what a call takes beside its transport and its compute, and
`shared_memory.py`, the same 100 MB without a network.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import queue
import statistics
import sys
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc
import numpy as np
import overlap
import servers
import shared_memory
import streams
from actserve_client import Client

AHEAD = 16
"""How many unary calls are in flight at once, where one thread does not wait for them."""
THREADS = 8
"""How many there are at once, where each has a thread that waits."""


def _contenders(
    x: Any, reference: Any, plain: grpc.Channel, echo: grpc.Channel, clients: dict[str, Client]
) -> dict[str, Callable[[], Any]]:
    assert np.array_equal(servers.echoed(echo, x), x)
    unary = servers.unary(plain)
    ours = {
        f"actserve, {where}": (lambda client=client: client.forward("sigmoid", x)) for where, client in clients.items()
    }
    return {
        **ours,
        "plain gRPC, unary": lambda: np.frombuffer(unary(servers.MESSAGE(data=x.tobytes())).data, np.float32),
        "plain gRPC, bidirectional": lambda: servers.bidirectional(plain, x),
        # What comes back is x; whoever times it is given what the others give.
        "the limit: grpcio, the bytes sent back": lambda: (servers.echoed(echo, x), reference)[1],
    }


def _small_contenders(
    x: Any, calls: int, plain: grpc.Channel, client: Client, pool: ThreadPoolExecutor
) -> dict[str, Callable[[], Any]]:
    """Each makes so many calls with the same small array, and gives the last answer."""
    unary = servers.unary(plain)

    def one() -> Any:
        return np.frombuffer(unary(servers.MESSAGE(data=x.tobytes())).data, np.float32)

    def over_a_stream() -> Any:
        outbox: queue.SimpleQueue[Any] = queue.SimpleQueue()
        answers = servers.stream(plain)(iter(outbox.get, None))
        for _ in range(calls):
            outbox.put(servers.MESSAGE(data=x.tobytes()))
            answer = np.frombuffer(next(answers).data, np.float32)
        outbox.put(None)
        return answer

    def plain_ahead() -> Any:
        waiting: deque[Any] = deque()
        for _ in range(calls):
            waiting.append(unary.future(servers.MESSAGE(data=x.tobytes())))
            if len(waiting) == AHEAD:
                waiting.popleft().result()
        while waiting:
            answer = np.frombuffer(waiting.popleft().result().data, np.float32)
        return answer

    def again(call: Callable[[], Any], times: int = calls) -> Any:
        for _ in range(times):
            answer = call()
        return answer

    def in_threads(call: Callable[[], Any]) -> Any:
        shares = [len(range(thread, calls, THREADS)) for thread in range(min(THREADS, calls))]
        return list(pool.map(again, [call] * THREADS, shares))[-1]

    def forward() -> Any:
        return client.forward("sigmoid", x)

    def mapped() -> Any:
        for answer in client.map("sigmoid", itertools.repeat(x, calls)):
            last = answer
        return last

    def mapped_list() -> Any:
        return list(client.map("sigmoid", [x] * calls))[-1]

    return {
        "actserve, map of an iterable": mapped,
        "actserve, map of a list": mapped_list,
        "actserve, forward": lambda: again(forward),
        f"actserve, forward, {THREADS} threads": lambda: in_threads(forward),
        "plain gRPC, unary": lambda: again(one),
        "plain gRPC, a stream, one after another": over_a_stream,
        f"plain gRPC, unary, {THREADS} threads": lambda: in_threads(one),
        f"plain gRPC, unary, {AHEAD} at once": plain_ahead,
    }


def _timed(contenders: dict[str, Callable[[], Any]], reference: Any, rounds: int) -> dict[str, list[float]]:
    """Seconds of each contender, round by round, in turns."""
    for run in contenders.values():
        np.testing.assert_allclose(run(), reference, rtol=1e-5)
    seconds: dict[str, list[float]] = {name: [] for name in contenders}
    for _ in range(rounds):
        for name, run in contenders.items():
            begin = time.perf_counter()
            run()
            seconds[name].append(time.perf_counter() - begin)
    return seconds


def _report(seconds: dict[str, list[float]], unit: str, scale: float) -> dict[str, Any]:
    """Best and median of each, and how they stand to the first, which is ours."""
    ours = next(iter(seconds.values()))
    return {
        name: {
            f"best_{unit}": round(min(times) * scale),
            f"median_{unit}": round(statistics.median(times) * scale),
            "actserve_is_faster_by_best": round(min(times) / min(ours), 2),
            "actserve_is_faster_by_median": round(statistics.median(times) / statistics.median(ours), 2),
        }
        for name, times in seconds.items()
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--megabytes", type=int, default=100)
    parser.add_argument("--small-calls", type=int, default=1000, help="of 4 KB, in a round")
    options = parser.parse_args()
    x = (np.random.default_rng(0).standard_normal(options.megabytes * 250_000) * 3).astype(np.float32)
    small = x[:1024].copy()
    with (
        servers.plain() as theirs,
        grpc.insecure_channel(theirs, servers.UNLIMITED) as plain,
        servers.echo() as back,
        grpc.insecure_channel(back, servers.TUNED) as echo,
        servers.actserve() as (address, _),
        Client(address) as tcp,
        ThreadPoolExecutor(THREADS) as pool,
    ):
        reference = tcp.forward("sigmoid", x)
        large_seconds = _timed(_contenders(x, reference, plain, echo, {"TCP": tcp}), reference, options.rounds)
        contenders = _small_contenders(small, options.small_calls, plain, tcp, pool)
        small_seconds = _timed(contenders, tcp.forward("sigmoid", small), options.rounds)
    report = {
        "megabytes": options.megabytes,
        "cores": os.cpu_count(),
        "contenders": _report(large_seconds, "ms", 1e3),
        "small": _report(small_seconds, "us", 1e6 / options.small_calls),
        "calls_per_s": {name: round(options.small_calls / min(times)) for name, times in small_seconds.items()},
        "streams": streams.measure(options.megabytes, options.rounds),
        "overlap": overlap.measure(options.megabytes, options.rounds),
        "shared_memory": shared_memory.measure(options.megabytes, options.rounds),
    }
    print(json.dumps(report, indent=2))
    return 0


if __name__ == "__main__":
    sys.exit(main())
