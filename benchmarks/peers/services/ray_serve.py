"""Ray Serve's gRPC ingress: a unary call and a bidirectional stream of 1 MiB messages through its proxy; NumPy in one replica behind it.

What it listens with is bound to every interface, whatever it is told: it runs in a network of its own, where it is alone, or not at all. No
dashboard, no statistics of use, 2 GB for objects, and its files in a folder that goes with it. The module is the client, and what the
proxy and the replica import.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import secrets
import socket
import struct
import tempfile
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from typing import Any

import contest
import grpc
import numpy as np
from google.protobuf.wrappers_pb2 import BytesValue

BIGGEST = (1 << 31) - 1
OBJECTS = 2_000_000_000
"""Bytes for what its processes hand to one another: requests, results, and some to spare."""
PORT = 9000
"""Of its proxy. It is free: nobody else is in this network."""
_SIOCSIFFLAGS, _IFF_UP = 0x8914, 1


def add_to_server(servicer: Any, server: Any) -> None:
    """What generated code would bring; the proxy imports it by its name."""
    codec = {"request_deserializer": BytesValue.FromString, "response_serializer": BytesValue.SerializeToString}
    methods = {
        "Unary": grpc.unary_unary_rpc_method_handler(servicer.Unary, **codec),
        "Bidirectional": grpc.stream_stream_rpc_method_handler(servicer.Bidirectional, **codec),
    }
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("plain.Plain", methods),))


def _compute(request: Any) -> Any:
    return BytesValue(value=contest.sigmoid(np.frombuffer(request.value, np.float32)).tobytes())


class Plain:
    """What is deployed."""

    def Unary(self, request: Any) -> Any:
        return _compute(request)

    async def Bidirectional(self, requests: AsyncIterator[Any]) -> AsyncIterator[Any]:
        async for request in requests:
            yield _compute(request)


def _alone() -> None:
    """Turn this network on. Raises SystemExit where others are in it."""
    if [name for _, name in socket.if_nameindex()] != ["lo"]:
        raise SystemExit(
            "Ray Serve would listen on every interface: `unshare --net`, as services.py has it, keeps it apart"
        )
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as control:
        fcntl.ioctl(control, _SIOCSIFFLAGS, struct.pack("16sH14x", b"lo", _IFF_UP))


def _settings(folder: str) -> dict[str, str]:
    """Nothing sent about its use; what it would keep elsewhere; and no half a minute of waiting for callers when it ends."""
    return {
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_AUTH_TOKEN": secrets.token_hex(32),
        "RAY_SERVE_HAPROXY_CONFIG_FILE_LOC": f"{folder}/h/cfg",
        "RAY_SERVE_HAPROXY_METRICS_SOCKET_PATH": f"{folder}/h/metrics",
        "RAY_SERVE_HAPROXY_SERVER_STATE_BASE": f"{folder}/h",
        "RAY_SERVE_HAPROXY_SERVER_STATE_FILE": f"{folder}/h/state",
        "RAY_SERVE_HAPROXY_SOCKET_PATH": f"{folder}/h/admin",
        "RAY_SERVE_DIRECT_INGRESS_MIN_DRAINING_PERIOD_S": "0",
    }


@contextlib.contextmanager
def _served(settings: Mapping[str, str]) -> Iterator[None]:
    # Its sockets are in there, whose paths may have 107 characters.
    with tempfile.TemporaryDirectory(prefix="bench-", dir="/tmp", ignore_cleanup_errors=True) as folder:
        os.environ.update({**_settings(folder), **settings})
        # They read their settings when they are imported, as do their processes, which inherit them.
        import ray
        from ray import serve

        ray.init(
            address="local",
            include_dashboard=False,
            log_to_driver=False,
            object_store_memory=OBJECTS,
            _node_ip_address="127.0.0.1",
            _temp_dir=folder,
        )
        try:
            serve.start(
                http_options={"host": "127.0.0.1"},
                grpc_options={"port": PORT, "grpc_servicer_functions": ["ray_serve.add_to_server"]},
            )
            serve.run(serve.deployment(Plain).bind())
            yield
            serve.shutdown()
        finally:
            ray.shutdown()


def _contenders(name: str, channel: grpc.Channel, x: Any) -> dict[str, Callable[[], Any]]:
    codec = {"request_serializer": BytesValue.SerializeToString, "response_deserializer": BytesValue.FromString}
    unary: Any = channel.unary_unary("/plain.Plain/Unary", **codec)
    stream: Any = channel.stream_stream("/plain.Plain/Bidirectional", **codec)

    def bidirectional() -> Any:
        view, step = memoryview(x).cast("B"), contest.CHUNK
        requests = (BytesValue(value=bytes(view[at : at + step])) for at in range(0, len(view), step))
        out, at = np.empty_like(x), 0
        for answer in stream(requests):
            part = np.frombuffer(answer.value, np.float32)
            out[at : at + part.size] = part
            at += part.size
        return out

    return {
        f"{name}, unary": lambda: np.frombuffer(unary(BytesValue(value=x.tobytes())).value, np.float32),
        f"{name}, bidirectional": bidirectional,
    }


def compete(ports: Mapping[str, int], settings: Mapping[str, str]) -> None:
    """Call it by each of the ways that lead to it; `settings` are its environment."""
    _alone()
    x = contest.tensor()
    options = [("grpc.max_receive_message_length", BIGGEST), ("grpc.max_send_message_length", BIGGEST)]
    with _served(settings), contextlib.ExitStack() as channels:
        contenders: dict[str, Callable[[], Any]] = {}
        for name, port in ports.items():
            channel = channels.enter_context(grpc.insecure_channel(f"127.0.0.1:{port}", options))
            contenders.update(_contenders(name, channel, x))
        contest.compete(contenders, x)


if __name__ == "__main__":
    compete({"Ray Serve": PORT}, {})
