"""What both clients know of gRPC: how a channel is opened, the names of the methods, and how a call's end is read."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import grpc
from actserve.v1 import service_pb2

from actserve_client.errors import ActserveError, from_call
from actserve_client.options import Tls

_SERVICE = service_pb2.DESCRIPTOR.services_by_name["ActivationService"].full_name
COMPUTE = f"/{_SERVICE}/Compute"
COMPUTE_STREAM = f"/{_SERVICE}/ComputeStream"
MONITOR = f"/{_SERVICE}/Monitor"
LIST_ACTIVATIONS = f"/{_SERVICE}/ListActivations"
GET_ACTIVATION = f"/{_SERVICE}/GetActivation"
CREATE_ACTIVATION = f"/{_SERVICE}/CreateActivation"
DELETE_ACTIVATION = f"/{_SERVICE}/DeleteActivation"
GET_SERVER_INFO = f"/{_SERVICE}/GetServerInfo"
HEALTH_CHECK = "/grpc.health.v1.Health/Check"

SERVING = b"\x08\x01"
"""The HealthCheckResponse that says SERVING: status (field 1) = 1. Known by its bytes, because the health package belongs to the
server's dependencies."""

OPTIONS: tuple[tuple[str, Any], ...] = (
    ("grpc.max_receive_message_length", -1),
    ("grpc.max_send_message_length", -1),
    # Channels of one process would share a connection otherwise, and all streams of it one flow-control window.
    ("grpc.use_local_subchannel_pool", 1),
    ("grpc.http2.max_frame_size", 16 * 1024 * 1024 - 1),
    # gRPC's own retries cover no started stream; the client's do, and two kinds at once would multiply.
    ("grpc.enable_retries", 0),
    # A server that restarts is found again within the pauses of the retries.
    ("grpc.initial_reconnect_backoff_ms", 50),
    ("grpc.min_reconnect_backoff_ms", 50),
    ("grpc.max_reconnect_backoff_ms", 250),
)


def environment_address() -> str | None:
    """The server that the environment names."""
    return os.environ.get("ACTSERVE_ADDRESS") or None


def socket_path(address: str, tls: Tls | None) -> str | None:
    """The path of the Unix socket that an address names, unless what goes through is to be encrypted; None for any other."""
    if tls is not None or not address.startswith("unix:"):
        return None
    path = address.removeprefix("unix:")
    return path[2:] if path.startswith("//") else path


def credentials(tls: Tls) -> grpc.ChannelCredentials:
    """The credentials for an encrypted channel. Raises OSError when a file can't be read."""

    def read(path: Path | str | None) -> bytes | None:
        return None if path is None else Path(path).read_bytes()

    return grpc.ssl_channel_credentials(read(tls.roots), read(tls.key), read(tls.certificate))


def channel_options(tls: Tls | None) -> list[tuple[str, Any]]:
    """The options of a channel."""
    named = [("grpc.ssl_target_name_override", tls.server_name)] if tls and tls.server_name else []
    return [*OPTIONS, *named]


def metadata(token: str | None) -> tuple[tuple[str, str], ...]:
    """What goes with every call."""
    return (("authorization", f"Bearer {token}"),) if token else ()


_LOST = ("Internal error from Core", "Stream removed", "Received RST_STREAM")
"""What gRPC says of its own accord, as INTERNAL or UNKNOWN, where a connection broke at an unlucky moment."""


def error_of(error: grpc.RpcError | grpc.aio.AioRpcError) -> ActserveError:
    """The exception that the end of a call means."""
    code, text = error.code(), error.details() or ""
    trailing: Any = error.trailing_metadata() or ()
    details = next((value for key, value in trailing if key == "grpc-status-details-bin"), None)
    if details is None and code in (grpc.StatusCode.INTERNAL, grpc.StatusCode.UNKNOWN) and text.startswith(_LOST):
        code = grpc.StatusCode.UNAVAILABLE
    return from_call(code.value[0], text or code.name, details if isinstance(details, bytes) else None)
