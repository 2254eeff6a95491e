"""A client of the server's sockets that keeps to no rule but its own."""

from __future__ import annotations

import socket
from typing import Any

import grpc
from actserve import shared
from actserve.v1 import compute_pb2
from actserve_client import _channel
from actserve_server.app import Server


class Raw:
    """A client of the broker and of gRPC without any manners."""

    def __init__(self, server: Server) -> None:
        address = server.addresses[0]
        self.socket = shared.endpoint()
        self.socket.settimeout(60)
        self.socket.connect(address.removeprefix("unix:") + shared.SUFFIX)
        self.hello = shared.Hello.unpack(self.socket.recv(100))
        self.channel = grpc.insecure_channel(address)
        self.compute: Any = self.channel.unary_stream(_channel.COMPUTE)
        self.compute_stream: Any = self.channel.stream_stream(_channel.COMPUTE_STREAM)
        self.monitor: Any = self.channel.stream_stream(_channel.MONITOR)

    def ask(self, nbytes: int) -> tuple[shared.Answer, int]:
        self.socket.sendall(shared.Request(shared.CREATE, nbytes).pack())
        raw, descriptors, _, _ = socket.recv_fds(self.socket, 100, 1)
        return shared.Answer.unpack(raw), descriptors[0] if descriptors else -1

    def call(self, header: Any, data: bytes = b"") -> list[Any]:
        request = compute_pb2.ComputeRequest(header=header, data=data).SerializeToString()
        return [compute_pb2.ComputeResponse.FromString(raw) for raw in self.compute(request, timeout=300)]

    def close(self) -> None:
        self.socket.close()
        self.channel.close()
