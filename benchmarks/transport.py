"""100 MB of float32 through sigmoid over loopback: actserve against plain gRPC services, in one run.

    python benchmarks/transport.py [--rounds 7] [--megabytes 100]

Prints JSON. The peers are what people write: a unary service and a bidirectional one with generated classes and default
options (but for the message limit), whose server computes with NumPy. Client and servers are processes of their own, the
contenders are timed in turn, round by round, and compared by their best and their median within the run.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import multiprocessing
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent import futures
from typing import Any

import grpc
import numpy as np
from actserve.v1 import compute_pb2
from actserve_client import Client

CHUNK = 1 << 20
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
        yield json.loads(process.stderr.readline())["addresses"][0]
        process.terminate()
        process.communicate()


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


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--megabytes", type=int, default=100)
    options = parser.parse_args()
    x = (np.random.default_rng(0).standard_normal(options.megabytes * 250_000) * 3).astype(np.float32)
    mine, theirs = multiprocessing.get_context("spawn").Pipe()
    process = multiprocessing.get_context("spawn").Process(target=_plain_server, args=(theirs,), daemon=True)
    process.start()
    seconds: dict[str, list[float]] = {}
    with (
        grpc.insecure_channel(f"127.0.0.1:{mine.recv()}", UNLIMITED) as plain,
        _actserve() as address,
        Client(address) as tcp,
    ):
        contenders = _contenders(x, plain, {"TCP": tcp})
        reference = tcp.forward("sigmoid", x)
        for name, run in contenders.items():
            np.testing.assert_allclose(run(), reference, rtol=1e-5)
            seconds[name] = []
        for _ in range(options.rounds):
            for name, run in contenders.items():
                begin = time.perf_counter()
                run()
                seconds[name].append(time.perf_counter() - begin)
    mine.send(None)
    process.join()
    ours = seconds["actserve, TCP"]
    report = {
        "megabytes": options.megabytes,
        "cores": os.cpu_count(),
        "contenders": {
            name: {
                "best_ms": round(min(times) * 1e3),
                "median_ms": round(statistics.median(times) * 1e3),
                "actserve_is_faster_by_best": round(min(times) / min(ours), 2),
                "actserve_is_faster_by_median": round(statistics.median(times) / statistics.median(ours), 2),
            }
            for name, times in seconds.items()
        },
    }
    print(json.dumps(report, indent=2))
    return 0


if __name__ == "__main__":
    sys.exit(main())
