"""The client's exceptions, and the one table from statuses to them.

ActserveError
├── UnknownActivation    no activation has that name; the text names near ones
├── ActivationExists     an activation of that name exists already
├── InvalidRequest       an argument has a value that it may not have; `.field` says which
├── LimitExceeded        beyond a limit of the server's settings
├── ServerUnavailable    no server answers, or it is busy or shutting down
├── DeadlineExceeded     the timeout passed
├── Unauthenticated      the server wants a token, or another one
├── PermissionDenied     the token does not allow this
└── ServerError          the server failed, or answered what it may not; `.error_id` finds the reason in its log
"""

from __future__ import annotations

import dataclasses
import re

from google.protobuf.message import DecodeError
from google.rpc import code_pb2, error_details_pb2, status_pb2


class ActserveError(Exception):
    """The base of all errors of this package.

    `field` is the argument or the message field at fault, where there is one; `reason` is what the server calls it (errors.proto has
    them all); `retry_after_s` is how long the server asks to wait, when trying again can help.
    """

    def __init__(
        self,
        message: str,
        *,
        field: str = "",
        reason: str = "",
        retry_after_s: float | None = None,
        error_id: str = "",
    ) -> None:
        super().__init__(message)
        self.field = field
        self.reason = reason
        self.retry_after_s = retry_after_s
        self.error_id = error_id


class UnknownActivation(ActserveError):
    """Expected error: no activation has that name. The caller's mistake; the text names near ones."""


class ActivationExists(ActserveError):
    """Expected error: an activation of that name exists already. The caller's mistake."""


class InvalidRequest(ActserveError):
    """Expected error: an argument has a value that it may not have. The caller's mistake; `.field` says which."""


class LimitExceeded(ActserveError):
    """Expected error: the request is beyond a limit of the server's settings, and always will be."""


class ServerUnavailable(ActserveError):
    """Expected error: no server answers at the address, or it is busy or shutting down. Worth another try later."""


class DeadlineExceeded(ActserveError):
    """Expected error: the timeout passed before the answer was complete."""


class Unauthenticated(ActserveError):
    """Expected error: the server wants a token, or another one."""


class PermissionDenied(ActserveError):
    """Expected error: the token given does not allow this."""


class ServerError(ActserveError):
    """Unexpected error: the server failed, or answered what it may not. `.error_id` finds the reason in its log."""


_CLASSES: dict[int, type[ActserveError]] = {
    code_pb2.NOT_FOUND: UnknownActivation,
    code_pb2.ALREADY_EXISTS: ActivationExists,
    code_pb2.INVALID_ARGUMENT: InvalidRequest,
    code_pb2.OUT_OF_RANGE: InvalidRequest,
    code_pb2.RESOURCE_EXHAUSTED: LimitExceeded,
    code_pb2.UNAVAILABLE: ServerUnavailable,
    # What gRPC answers to a call that a server cuts off at the end of its grace.
    code_pb2.CANCELLED: ServerUnavailable,
    code_pb2.ABORTED: ServerUnavailable,
    code_pb2.DEADLINE_EXCEEDED: DeadlineExceeded,
    code_pb2.UNAUTHENTICATED: Unauthenticated,
    code_pb2.PERMISSION_DENIED: PermissionDenied,
}


@dataclasses.dataclass(frozen=True, slots=True)
class _Details:
    info: error_details_pb2.ErrorInfo
    retry_after_s: float | None


def _details(status: status_pb2.Status) -> _Details:
    info, retry_after_s = error_details_pb2.ErrorInfo(), None
    for packed in status.details:
        retry = error_details_pb2.RetryInfo()
        if packed.Is(info.DESCRIPTOR):
            packed.Unpack(info)
        elif packed.Is(retry.DESCRIPTOR):
            packed.Unpack(retry)
            retry_after_s = retry.retry_delay.ToNanoseconds() / 1e9
    return _Details(info, retry_after_s)


def from_status(status: status_pb2.Status) -> ActserveError:
    """The exception that a status means."""
    details = _details(status)
    kind = _CLASSES.get(status.code, ServerError)
    if kind is LimitExceeded and details.retry_after_s is not None:
        kind = ServerUnavailable  # busy, not too large
    return kind(
        status.message or code_pb2.Code.Name(code_pb2.Code.ValueType(status.code)),
        field=_argument(details.info.metadata.get("field", "")),
        reason=details.info.reason,
        retry_after_s=details.retry_after_s,
        error_id=details.info.metadata.get("error_id", ""),
    )


def from_call(code: int, message: str, details: bytes | None) -> ActserveError:
    """The exception that the end of a call means: its code, its text and its grpc-status-details-bin."""
    status = status_pb2.Status()
    try:
        status.ParseFromString(details or b"")
    except DecodeError:
        status.Clear()
    # A proxy may have put a status of its own above the one that the server sent.
    if status.code != code:
        status = status_pb2.Status(code=code, message=message)
    return from_status(status)


_PARAMETER = re.compile(r"(?:header\.|header\.regularization\.)?parameters\['(.*)'\]", re.DOTALL)


def _argument(field: str) -> str:
    """The name of the client's argument behind a field of the request, so that `.field` speaks the caller's language."""
    arguments = {
        "header.activation": "name",
        "data": "x",
        "batch.shape": "x",
        "header.inputs[0].shape": "x",
        "header.inputs[0].data_type": "x",
        "header.inputs[1].shape": "upstream",
        "header.inputs[1].data_type": "upstream",
    }
    field = field.removeprefix("layer.")
    if named := _PARAMETER.fullmatch(field):
        return named[1]
    return arguments.get(field, field.rpartition(".")[2])


__all__ = [
    "ActivationExists",
    "ActserveError",
    "DeadlineExceeded",
    "InvalidRequest",
    "LimitExceeded",
    "PermissionDenied",
    "ServerError",
    "ServerUnavailable",
    "Unauthenticated",
    "UnknownActivation",
]
