"""The servers that the benchmarks of the transport call, each a process of its own on loopback: ours, and plain gRPC as people write it.

    with servers.actserve("--workers", "2") as address: ...
    with servers.plain() as address, grpc.insecure_channel(address, servers.UNLIMITED) as channel:
        servers.bidirectional(channel, x)

The plain service has generated classes and default options, but for the message limit, and computes sigmoid with NumPy. Another gives back the
bytes that it was sent, tuned as ours is: that is what grpcio itself takes. Knows nothing of time.
"""

from __future__ import annotations

import contextlib
import json
import multiprocessing
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent import futures
from typing import Any

import grpc
import numpy as np
from actserve.allocator import keep_freed_chunks
from actserve.v1 import compute_pb2

CHUNK = 1 << 20
"""Bytes of a message of the plain stream."""
UNLIMITED = [("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1)]
TUNED = [*UNLIMITED, ("grpc.http2.max_frame_size", 16 * 1024 * 1024 - 1)]
"""What our own channels and servers say of messages and frames."""
MESSAGE = compute_pb2.ComputeRequest
_CODEC = {"request_serializer": MESSAGE.SerializeToString, "response_deserializer": MESSAGE.FromString}


@contextlib.contextmanager
def actserve(*options: str) -> Iterator[tuple[str, int]]:
    """The address of a server of ours, from its log, and its process id."""
    command = [sys.executable, "-m", "actserve_server", "serve", "--address", "127.0.0.1:0", "--log-format", "json"]
    with subprocess.Popen([*command, "--log-level", "info", *options], stderr=subprocess.PIPE) as process:
        assert process.stderr is not None
        try:
            for line in process.stderr:
                # A supervisor has more to say than where it listens.
                if found := json.loads(line).get("addresses"):
                    break
            else:
                raise RuntimeError(f"the server ended with status {process.wait()}")
            # It logs a line a call, and would wait for a reader once the pipe is full.
            threading.Thread(target=process.stderr.read, daemon=True).start()
            yield found[0], process.pid
        finally:
            process.terminate()
            process.wait()


def plain() -> contextlib.AbstractContextManager[str]:
    """The address of a plain service."""
    return _process(_serve)


def echo() -> contextlib.AbstractContextManager[str]:
    """The address of a service that gives back what it gets."""
    return _process(_serve_echo)


@contextlib.contextmanager
def _process(serve: Callable[[Any], None]) -> Iterator[str]:
    context = multiprocessing.get_context("spawn")
    mine, theirs = context.Pipe()
    process = context.Process(target=serve, args=(theirs,), daemon=True)
    process.start()
    try:
        yield f"127.0.0.1:{mine.recv()}"
    finally:
        mine.send(None)
        process.join()


def unary(channel: grpc.Channel) -> Any:
    """Its method for a whole array in one message."""
    return channel.unary_unary("/plain.Plain/Unary", **_CODEC)


def stream(channel: grpc.Channel) -> Any:
    """Its method for an array in pieces."""
    return channel.stream_stream("/plain.Plain/Bidirectional", **_CODEC)


def bidirectional(channel: grpc.Channel, x: Any) -> Any:
    """What its stream makes of an array."""
    view = memoryview(x).cast("B")
    requests = (MESSAGE(data=bytes(view[at : at + CHUNK])) for at in range(0, len(view), CHUNK))
    out, at = np.empty_like(x), 0
    for answer in stream(channel)(requests):
        part = np.frombuffer(answer.data, np.float32)
        out[at : at + part.size] = part
        at += part.size
    return out


def echoed(channel: grpc.Channel, x: Any) -> Any:
    """An array as it comes back: sent and received as bytes, and copied once on each side."""
    view = memoryview(x).cast("B")
    requests = (bytes(view[at : at + CHUNK]) for at in range(0, len(view), CHUNK))
    out, at = np.empty_like(x), 0
    into = memoryview(out).cast("B")
    for answer in channel.stream_stream("/echo.Echo/Bidirectional")(requests):
        into[at : at + len(answer)] = answer
        at += len(answer)
    return out


def _sigmoid(data: bytes) -> bytes:
    x = np.frombuffer(data, np.float32)
    with np.errstate(over="ignore"):
        return (1 / (1 + np.exp(-x))).tobytes()


def _serve(pipe: Any) -> None:
    def one(request: Any, context: Any) -> Any:
        return MESSAGE(data=_sigmoid(request.data))

    def many(requests: Iterator[Any], context: Any) -> Iterator[Any]:
        for request in requests:
            yield MESSAGE(data=_sigmoid(request.data))

    codec = {"request_deserializer": MESSAGE.FromString, "response_serializer": MESSAGE.SerializeToString}
    methods = {
        "Unary": grpc.unary_unary_rpc_method_handler(one, **codec),
        "Bidirectional": grpc.stream_stream_rpc_method_handler(many, **codec),
    }
    _run("plain.Plain", methods, UNLIMITED, pipe)


def _serve_echo(pipe: Any) -> None:
    def back(requests: Iterator[bytes], context: Any) -> Iterator[bytes]:
        yield from requests

    keep_freed_chunks()
    _run("echo.Echo", {"Bidirectional": grpc.stream_stream_rpc_method_handler(back)}, TUNED, pipe)


def _run(name: str, methods: dict[str, Any], options: list[tuple[str, Any]], pipe: Any) -> None:
    server = grpc.server(futures.ThreadPoolExecutor(4), options=options)
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(name, methods),))
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    pipe.send(port)
    pipe.recv()
    server.stop(0)
