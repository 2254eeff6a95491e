"""What people write with gRPC: a unary call and a bidirectional stream of 1 MiB messages, NumPy behind both."""

from __future__ import annotations

import multiprocessing
from collections.abc import Iterator
from concurrent import futures
from typing import Any

import contest
import grpc
import numpy as np
from google.protobuf.wrappers_pb2 import BytesValue

OPTIONS = [("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1)]


def _compute(request: Any, context: Any = None) -> Any:
    return BytesValue(value=contest.sigmoid(np.frombuffer(request.value, np.float32)).tobytes())


def _bidirectional(requests: Iterator[Any], context: Any) -> Iterator[Any]:
    return map(_compute, requests)


def serve(pipe: Any) -> None:
    """The server, in a process of its own."""
    codec = {"request_deserializer": BytesValue.FromString, "response_serializer": BytesValue.SerializeToString}
    methods = {
        "Unary": grpc.unary_unary_rpc_method_handler(_compute, **codec),
        "Bidirectional": grpc.stream_stream_rpc_method_handler(_bidirectional, **codec),
    }
    server = grpc.server(futures.ThreadPoolExecutor(4), options=OPTIONS)
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("plain.Plain", methods),))
    pipe.send(server.add_insecure_port("127.0.0.1:0"))
    server.start()
    server.wait_for_termination()


def main() -> None:
    x = contest.tensor()
    mine, theirs = multiprocessing.get_context("spawn").Pipe()
    multiprocessing.get_context("spawn").Process(target=serve, args=(theirs,), daemon=True).start()
    with grpc.insecure_channel(f"127.0.0.1:{mine.recv()}", OPTIONS) as channel:
        codec = {"request_serializer": BytesValue.SerializeToString, "response_deserializer": BytesValue.FromString}
        unary: Any = channel.unary_unary("/plain.Plain/Unary", **codec)
        stream: Any = channel.stream_stream("/plain.Plain/Bidirectional", **codec)

        def bidirectional() -> Any:
            view = memoryview(x).cast("B")
            step = contest.CHUNK
            requests = (BytesValue(value=bytes(view[at : at + step])) for at in range(0, len(view), step))
            out, at = np.empty_like(x), 0
            for answer in stream(requests, wait_for_ready=True):
                part = np.frombuffer(answer.value, np.float32)
                out[at : at + part.size] = part
                at += part.size
            return out

        contenders = {
            "plain gRPC, unary": lambda: np.frombuffer(
                unary(BytesValue(value=x.tobytes()), wait_for_ready=True).value, np.float32
            ),
            "plain gRPC, bidirectional": bidirectional,
        }
        contest.compete(contenders, x)


if __name__ == "__main__":
    main()
