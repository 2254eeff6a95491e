from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from typing import ClassVar as _ClassVar

DESCRIPTOR: _descriptor.FileDescriptor

class ErrorReason(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    ERROR_REASON_UNSPECIFIED: _ClassVar[ErrorReason]
    ERROR_REASON_UNKNOWN_ACTIVATION: _ClassVar[ErrorReason]
    ERROR_REASON_UNKNOWN_PARAMETER: _ClassVar[ErrorReason]
    ERROR_REASON_INVALID_PARAMETER: _ClassVar[ErrorReason]
    ERROR_REASON_UNSUPPORTED_DATA_TYPE: _ClassVar[ErrorReason]
    ERROR_REASON_INVALID_SHAPE: _ClassVar[ErrorReason]
    ERROR_REASON_INVALID_AXIS: _ClassVar[ErrorReason]
    ERROR_REASON_INVALID_OPTION: _ClassVar[ErrorReason]
    ERROR_REASON_DATA_SIZE_MISMATCH: _ClassVar[ErrorReason]
    ERROR_REASON_CHUNK_OUT_OF_PLACE: _ClassVar[ErrorReason]
    ERROR_REASON_STREAM_ENDED_EARLY: _ClassVar[ErrorReason]
    ERROR_REASON_UNEXPECTED_FRAME: _ClassVar[ErrorReason]
    ERROR_REASON_MALFORMED_MESSAGE: _ClassVar[ErrorReason]
    ERROR_REASON_LIMIT_EXCEEDED: _ClassVar[ErrorReason]
    ERROR_REASON_BUSY: _ClassVar[ErrorReason]
    ERROR_REASON_DRAINING: _ClassVar[ErrorReason]
    ERROR_REASON_INTERNAL: _ClassVar[ErrorReason]
    ERROR_REASON_NONFINITE: _ClassVar[ErrorReason]
    ERROR_REASON_INVALID_STATE: _ClassVar[ErrorReason]
    ERROR_REASON_OUT_OF_DOMAIN: _ClassVar[ErrorReason]
    ERROR_REASON_OTHER_BITS: _ClassVar[ErrorReason]
    ERROR_REASON_INVALID_FORMULA: _ClassVar[ErrorReason]
    ERROR_REASON_ACTIVATION_EXISTS: _ClassVar[ErrorReason]
    ERROR_REASON_CREATION_OFF: _ClassVar[ErrorReason]
ERROR_REASON_UNSPECIFIED: ErrorReason
ERROR_REASON_UNKNOWN_ACTIVATION: ErrorReason
ERROR_REASON_UNKNOWN_PARAMETER: ErrorReason
ERROR_REASON_INVALID_PARAMETER: ErrorReason
ERROR_REASON_UNSUPPORTED_DATA_TYPE: ErrorReason
ERROR_REASON_INVALID_SHAPE: ErrorReason
ERROR_REASON_INVALID_AXIS: ErrorReason
ERROR_REASON_INVALID_OPTION: ErrorReason
ERROR_REASON_DATA_SIZE_MISMATCH: ErrorReason
ERROR_REASON_CHUNK_OUT_OF_PLACE: ErrorReason
ERROR_REASON_STREAM_ENDED_EARLY: ErrorReason
ERROR_REASON_UNEXPECTED_FRAME: ErrorReason
ERROR_REASON_MALFORMED_MESSAGE: ErrorReason
ERROR_REASON_LIMIT_EXCEEDED: ErrorReason
ERROR_REASON_BUSY: ErrorReason
ERROR_REASON_DRAINING: ErrorReason
ERROR_REASON_INTERNAL: ErrorReason
ERROR_REASON_NONFINITE: ErrorReason
ERROR_REASON_INVALID_STATE: ErrorReason
ERROR_REASON_OUT_OF_DOMAIN: ErrorReason
ERROR_REASON_OTHER_BITS: ErrorReason
ERROR_REASON_INVALID_FORMULA: ErrorReason
ERROR_REASON_ACTIVATION_EXISTS: ErrorReason
ERROR_REASON_CREATION_OFF: ErrorReason
