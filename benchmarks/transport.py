"""100 MB of float32 through sigmoid over loopback, and 4 KB again and again: actserve against plain gRPC services, in one run.

    python benchmarks/transport.py [--rounds 7] [--megabytes 100] [--small-calls 1000]

Prints JSON. The peers are what people write: a unary service and a bidirectional one with generated classes and default
options (but for the message limit), whose server computes with NumPy. Client and servers are processes of their own, the
contenders are timed in turn, round by round, and compared by their best and their median within the run. Last comes
`shared_memory.py`: the same 100 MB without a network.
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import json
import multiprocessing
import os
import statistics
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from concurrent import futures
from typing import Any

import grpc
import numpy as np
import shared_memory
from actserve.v1 import compute_pb2
from actserve_client import Client

CHUNK = 1 << 20
AHEAD = 16
"""How many unary calls are in flight at once, where they do not wait for one another."""
UNLIMITED = [("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1)]


def _sigmoid(data: bytes) -> bytes:
    x = np.frombuffer(data, np.float32)
    with np.errstate(over="ignore"):
        return (1 / (1 + np.exp(-x))).tobytes()


def _plain_server(pipe: Any) -> None:
    kind = compute_pb2.ComputeRequest

    def unary(request: Any, context: Any) -> Any:
        return kind(data=_sigmoid(request.data))

    def bidirectional(requests: Iterator[Any], context: Any) -> Iterator[Any]:
        for request in requests:
            yield kind(data=_sigmoid(request.data))

    server = grpc.server(futures.ThreadPoolExecutor(4), options=UNLIMITED)
    codec = {"request_deserializer": kind.FromString, "response_serializer": kind.SerializeToString}
    methods = {
        "Unary": grpc.unary_unary_rpc_method_handler(unary, **codec),
        "Bidirectional": grpc.stream_stream_rpc_method_handler(bidirectional, **codec),
    }
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("plain.Plain", methods),))
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    pipe.send(port)
    pipe.recv()
    server.stop(0)


@contextlib.contextmanager
def _actserve() -> Iterator[str]:
    """The address of a server of ours on loopback, from its log."""
    command = [sys.executable, "-m", "actserve_server", "serve", "--address", "127.0.0.1:0", "--log-format", "json"]
    with subprocess.Popen([*command, "--log-level", "info"], stderr=subprocess.PIPE) as process:
        assert process.stderr is not None
        address = json.loads(process.stderr.readline())["addresses"][0]
        # It logs a line a call, and would wait for a reader once the pipe is full.
        threading.Thread(target=process.stderr.read, daemon=True).start()
        yield address
        process.terminate()
        process.wait()


def _contenders(x: Any, plain: grpc.Channel, clients: dict[str, Client]) -> dict[str, Callable[[], Any]]:
    kind = compute_pb2.ComputeRequest
    codec = {"request_serializer": kind.SerializeToString, "response_deserializer": kind.FromString}
    unary: Any = plain.unary_unary("/plain.Plain/Unary", **codec)
    stream: Any = plain.stream_stream("/plain.Plain/Bidirectional", **codec)

    def plain_unary() -> Any:
        return np.frombuffer(unary(kind(data=x.tobytes())).data, np.float32)

    def plain_bidirectional() -> Any:
        view = memoryview(x).cast("B")
        requests = (kind(data=bytes(view[at : at + CHUNK])) for at in range(0, len(view), CHUNK))
        out, at = np.empty_like(x), 0
        for answer in stream(requests):
            part = np.frombuffer(answer.data, np.float32)
            out[at : at + part.size] = part
            at += part.size
        return out

    ours = {
        f"actserve, {where}": (lambda client=client: client.forward("sigmoid", x)) for where, client in clients.items()
    }
    return {**ours, "plain gRPC, unary": plain_unary, "plain gRPC, bidirectional": plain_bidirectional}


def _small_contenders(x: Any, calls: int, plain: grpc.Channel, client: Client) -> dict[str, Callable[[], Any]]:
    """Each makes so many calls with the same small array, and gives the last answer."""
    kind = compute_pb2.ComputeRequest
    codec = {"request_serializer": kind.SerializeToString, "response_deserializer": kind.FromString}
    unary: Any = plain.unary_unary("/plain.Plain/Unary", **codec)

    def plain_unary() -> Any:
        for _ in range(calls):
            answer = np.frombuffer(unary(kind(data=x.tobytes())).data, np.float32)
        return answer

    def plain_ahead() -> Any:
        waiting: deque[Any] = deque()
        for _ in range(calls):
            waiting.append(unary.future(kind(data=x.tobytes())))
            if len(waiting) == AHEAD:
                waiting.popleft().result()
        while waiting:
            answer = np.frombuffer(waiting.popleft().result().data, np.float32)
        return answer

    def forward() -> Any:
        for _ in range(calls):
            answer = client.forward("sigmoid", x)
        return answer

    def mapped() -> Any:
        for answer in client.map("sigmoid", itertools.repeat(x, calls)):
            last = answer
        return last

    return {
        "actserve, map": mapped,
        "actserve, forward": forward,
        "plain gRPC, unary": plain_unary,
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
    mine, theirs = multiprocessing.get_context("spawn").Pipe()
    process = multiprocessing.get_context("spawn").Process(target=_plain_server, args=(theirs,), daemon=True)
    process.start()
    small = x[:1024].copy()
    with (
        grpc.insecure_channel(f"127.0.0.1:{mine.recv()}", UNLIMITED) as plain,
        _actserve() as address,
        Client(address) as tcp,
    ):
        large_seconds = _timed(_contenders(x, plain, {"TCP": tcp}), tcp.forward("sigmoid", x), options.rounds)
        contenders = _small_contenders(small, options.small_calls, plain, tcp)
        small_seconds = _timed(contenders, tcp.forward("sigmoid", small), options.rounds)
    mine.send(None)
    process.join()
    report = {
        "megabytes": options.megabytes,
        "cores": os.cpu_count(),
        "contenders": _report(large_seconds, "ms", 1e3),
        "small": _report(small_seconds, "us", 1e6 / options.small_calls),
        "shared_memory": shared_memory.measure(options.megabytes, options.rounds),
    }
    print(json.dumps(report, indent=2))
    return 0


if __name__ == "__main__":
    sys.exit(main())
