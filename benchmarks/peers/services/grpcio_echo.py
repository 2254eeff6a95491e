"""What grpcio itself takes: messages of 1 MiB sent back as they come, by a server and a client that are tuned as ours are. Computes nothing."""

from __future__ import annotations

import multiprocessing
from collections.abc import Iterator
from concurrent import futures
from typing import Any

import contest
import grpc
import numpy as np
from actserve.allocator import keep_freed_chunks

OPTIONS = [
    ("grpc.max_receive_message_length", -1),
    ("grpc.max_send_message_length", -1),
    ("grpc.http2.max_frame_size", 16 * 1024 * 1024 - 1),
]


def _back(requests: Iterator[bytes], context: Any) -> Iterator[bytes]:
    yield from requests


def serve(pipe: Any) -> None:
    """The server, in a process of its own."""
    keep_freed_chunks()
    methods = {"Bidirectional": grpc.stream_stream_rpc_method_handler(_back)}
    server = grpc.server(futures.ThreadPoolExecutor(4), options=OPTIONS)
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("echo.Echo", methods),))
    pipe.send(server.add_insecure_port("127.0.0.1:0"))
    server.start()
    server.wait_for_termination()


def main() -> None:
    keep_freed_chunks()
    x = contest.tensor()
    mine, theirs = multiprocessing.get_context("spawn").Pipe()
    multiprocessing.get_context("spawn").Process(target=serve, args=(theirs,), daemon=True).start()
    with grpc.insecure_channel(f"127.0.0.1:{mine.recv()}", OPTIONS) as channel:
        stream: Any = channel.stream_stream("/echo.Echo/Bidirectional")

        def echoed() -> Any:
            view = memoryview(x).cast("B")
            requests = (bytes(view[at : at + contest.CHUNK]) for at in range(0, len(view), contest.CHUNK))
            out, at = np.empty_like(x), 0
            into = memoryview(out).cast("B")
            for answer in stream(requests, wait_for_ready=True):
                into[at : at + len(answer)] = answer
                at += len(answer)
            return out

        contest.compete({}, x, echoes={"grpcio, the bytes sent back": echoed})


if __name__ == "__main__":
    main()
