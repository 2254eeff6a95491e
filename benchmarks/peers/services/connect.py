"""Connect for Python: a unary call and a bidirectional stream of 1 MiB messages, served by pyvoy; NumPy behind both.

Its client compresses unless told not to; here it is told. The module is the client, and the application that pyvoy loads.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import contest
import numpy as np
from connectrpc.client import ConnectClientSync
from connectrpc.compat import google_protobuf_binary_codec, google_protobuf_codecs
from connectrpc.errors import ConnectError
from connectrpc.method import IdempotencyLevel, MethodInfo, StreamType
from connectrpc.server import ConnectWSGIApplication, EndpointSync
from google.protobuf.wrappers_pb2 import BytesValue
from pyqwest import HTTPVersion, SyncClient, SyncHTTPTransport


def _method(name: str, kind: StreamType) -> Any:
    return MethodInfo(
        name=name,
        service_name="plain.Plain",
        input=BytesValue,
        output=BytesValue,
        idempotency_level=IdempotencyLevel.UNKNOWN,
        stream_type=kind,
    )


UNARY = _method("Unary", StreamType.UNARY)
BIDIRECTIONAL = _method("Bidirectional", StreamType.BIDI_STREAM)


def _compute(request: Any, context: Any = None) -> Any:
    return BytesValue(value=contest.sigmoid(np.frombuffer(request.value, np.float32)).tobytes())


def _bidirectional(requests: Iterator[Any], context: Any) -> Iterator[Any]:
    return map(_compute, requests)


class _Plain(ConnectWSGIApplication):  # type: ignore[misc]  # not installed where types are checked
    path = "/plain.Plain"


app = _Plain(
    endpoints={
        "/plain.Plain/Unary": EndpointSync.unary(method=UNARY, function=_compute),
        "/plain.Plain/Bidirectional": EndpointSync.bidi_stream(method=BIDIRECTIONAL, function=_bidirectional),
    },
    read_max_bytes=None,
    compressions=(),
    codecs=google_protobuf_codecs(),
)


def main() -> None:
    x = contest.tensor()
    port = contest.free_port()
    command = [str(Path(sys.executable).with_name("pyvoy")), "connect:app", "--interface", "wsgi", "--port", str(port)]
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parent)}
    with subprocess.Popen(command, env=environment, stdin=subprocess.DEVNULL) as server:
        try:
            transport = SyncHTTPTransport(http_version=HTTPVersion.HTTP2)
            with ConnectClientSync(
                f"http://127.0.0.1:{port}",
                codec=google_protobuf_binary_codec(),
                accept_compression=(),
                send_compression=None,
                http_client=SyncClient(transport),
            ) as client:

                def unary(x: Any) -> Any:
                    return np.frombuffer(
                        client.execute_unary(request=BytesValue(value=x.tobytes()), method=UNARY).value, np.float32
                    )

                def bidirectional() -> Any:
                    view, step = memoryview(x).cast("B"), contest.CHUNK
                    requests = (BytesValue(value=bytes(view[at : at + step])) for at in range(0, len(view), step))
                    out, at = np.empty_like(x), 0
                    for answer in client.execute_bidi_stream(request=requests, method=BIDIRECTIONAL):
                        part = np.frombuffer(answer.value, np.float32)
                        out[at : at + part.size] = part
                        at += part.size
                    return out

                def ready() -> bool:
                    try:
                        return bool(unary(x[:1]).size)
                    except ConnectError:
                        return False

                contest.wait(ready)
                contest.compete({"Connect, unary": lambda: unary(x), "Connect, bidirectional": bidirectional}, x)
        finally:
            server.terminate()


if __name__ == "__main__":
    main()
