"""Errors as statuses: the one table from `actserve_server.errors` to codes and reasons, and the details that go with them."""

from __future__ import annotations

import grpc
from actserve.v1 import errors_pb2
from google.protobuf.any_pb2 import Any
from google.protobuf.message import Message
from google.rpc import error_details_pb2, status_pb2

from actserve_server import errors

DOMAIN = "actserve"

_CODES: dict[type[errors.RequestError], tuple[grpc.StatusCode, errors_pb2.ErrorReason]] = {
    errors.UnknownActivation: (grpc.StatusCode.NOT_FOUND, errors_pb2.ERROR_REASON_UNKNOWN_ACTIVATION),
    errors.UnknownParameter: (grpc.StatusCode.INVALID_ARGUMENT, errors_pb2.ERROR_REASON_UNKNOWN_PARAMETER),
    errors.InvalidParameter: (grpc.StatusCode.INVALID_ARGUMENT, errors_pb2.ERROR_REASON_INVALID_PARAMETER),
    errors.UnsupportedDataType: (grpc.StatusCode.INVALID_ARGUMENT, errors_pb2.ERROR_REASON_UNSUPPORTED_DATA_TYPE),
    errors.InvalidShape: (grpc.StatusCode.INVALID_ARGUMENT, errors_pb2.ERROR_REASON_INVALID_SHAPE),
    errors.InvalidAxis: (grpc.StatusCode.INVALID_ARGUMENT, errors_pb2.ERROR_REASON_INVALID_AXIS),
    errors.InvalidOption: (grpc.StatusCode.INVALID_ARGUMENT, errors_pb2.ERROR_REASON_INVALID_OPTION),
    errors.OutOfDomain: (grpc.StatusCode.INVALID_ARGUMENT, errors_pb2.ERROR_REASON_OUT_OF_DOMAIN),
    errors.Nonfinite: (grpc.StatusCode.INVALID_ARGUMENT, errors_pb2.ERROR_REASON_NONFINITE),
    errors.InvalidState: (grpc.StatusCode.INVALID_ARGUMENT, errors_pb2.ERROR_REASON_INVALID_STATE),
    errors.DataSizeMismatch: (grpc.StatusCode.INVALID_ARGUMENT, errors_pb2.ERROR_REASON_DATA_SIZE_MISMATCH),
    errors.ChunkOutOfPlace: (grpc.StatusCode.INVALID_ARGUMENT, errors_pb2.ERROR_REASON_CHUNK_OUT_OF_PLACE),
    errors.StreamEndedEarly: (grpc.StatusCode.INVALID_ARGUMENT, errors_pb2.ERROR_REASON_STREAM_ENDED_EARLY),
    errors.UnexpectedFrame: (grpc.StatusCode.INVALID_ARGUMENT, errors_pb2.ERROR_REASON_UNEXPECTED_FRAME),
    errors.MalformedMessage: (grpc.StatusCode.INVALID_ARGUMENT, errors_pb2.ERROR_REASON_MALFORMED_MESSAGE),
    errors.InvalidFormula: (grpc.StatusCode.INVALID_ARGUMENT, errors_pb2.ERROR_REASON_INVALID_FORMULA),
    errors.ActivationExists: (grpc.StatusCode.ALREADY_EXISTS, errors_pb2.ERROR_REASON_ACTIVATION_EXISTS),
    errors.CreationOff: (grpc.StatusCode.PERMISSION_DENIED, errors_pb2.ERROR_REASON_CREATION_OFF),
    errors.CannotKeep: (grpc.StatusCode.FAILED_PRECONDITION, errors_pb2.ERROR_REASON_CANNOT_KEEP),
    errors.OtherBits: (grpc.StatusCode.ABORTED, errors_pb2.ERROR_REASON_OTHER_BITS),
    errors.UnknownRegion: (grpc.StatusCode.ABORTED, errors_pb2.ERROR_REASON_UNKNOWN_REGION),
    errors.LimitExceeded: (grpc.StatusCode.RESOURCE_EXHAUSTED, errors_pb2.ERROR_REASON_LIMIT_EXCEEDED),
    errors.CompileLimit: (grpc.StatusCode.RESOURCE_EXHAUSTED, errors_pb2.ERROR_REASON_LIMIT_EXCEEDED),
    errors.Busy: (grpc.StatusCode.RESOURCE_EXHAUSTED, errors_pb2.ERROR_REASON_BUSY),
    errors.Draining: (grpc.StatusCode.UNAVAILABLE, errors_pb2.ERROR_REASON_DRAINING),
}

_LONGEST_MESSAGE_BYTES = 700
_LONGEST_FACT_BYTES = 200
"""What callers sent is quoted in messages; however long it was, the status stays under 8 KB (gRPC's soft limit of metadata,
in which a byte that is not ASCII counts three times)."""


def status_of(error: errors.RequestError) -> status_pb2.Status:
    """The status of an expected error."""
    code, reason = _CODES[type(error)]
    facts = {"field": error.field, **error.facts}
    details: list[Message] = []
    if code is grpc.StatusCode.INVALID_ARGUMENT:
        violation = error_details_pb2.BadRequest.FieldViolation(
            field=_cut(error.field, _LONGEST_FACT_BYTES), description=_cut(error.message, _LONGEST_MESSAGE_BYTES)
        )
        details.append(error_details_pb2.BadRequest(field_violations=[violation]))
    if isinstance(error, errors.Busy):
        retry = error_details_pb2.RetryInfo()
        retry.retry_delay.FromMilliseconds(round(error.retry_after_s * 1000))
        details.append(retry)
    return _status(code, error.message, reason, facts, *details)


def internal(error_id: str) -> status_pb2.Status:
    """The status of a bug: an id that finds the traceback in the server's log, and nothing of the traceback itself."""
    message = f"the server failed; its log has the reason under {error_id}"
    return _status(grpc.StatusCode.INTERNAL, message, errors_pb2.ERROR_REASON_INTERNAL, {"error_id": error_id})


def _status(
    code: grpc.StatusCode, message: str, reason: errors_pb2.ErrorReason, facts: dict[str, str], *details: Message
) -> status_pb2.Status:
    info = error_details_pb2.ErrorInfo(
        reason=errors_pb2.ErrorReason.Name(reason).removeprefix("ERROR_REASON_"),
        domain=DOMAIN,
        metadata={name: _cut(fact, _LONGEST_FACT_BYTES) for name, fact in facts.items() if fact},
    )
    status = status_pb2.Status(code=code.value[0], message=_cut(message, _LONGEST_MESSAGE_BYTES))
    for detail in (info, *details):
        packed = Any()
        packed.Pack(detail)
        status.details.append(packed)
    return status


def _cut(text: str, length: int) -> str:
    raw = text.encode()
    return text if len(raw) <= length else raw[: length - 3].decode(errors="ignore") + "…"
