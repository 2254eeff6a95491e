"""Arrays as bytes, and the framing of the one field that carries them.

Both ends use this module: the table of element types, the little-endian C-order bytes of an array read and written piece
by piece, and the bulk field `data` put into a message and lifted off it with one copy each way. It knows NumPy and
protobuf, and neither gRPC nor what the bytes mean.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Iterator, Sequence
from typing import Any, Protocol, TypeVar

import numpy as np
import numpy.typing as npt
from google.protobuf.message import DecodeError

from actserve.v1 import tensor_pb2

Array = npt.NDArray[Any]

_TYPES: dict[int, np.dtype[Any]] = {
    tensor_pb2.DATA_TYPE_FLOAT: np.dtype("<f4"),
    tensor_pb2.DATA_TYPE_UINT8: np.dtype("u1"),
    tensor_pb2.DATA_TYPE_INT64: np.dtype("<i8"),
    tensor_pb2.DATA_TYPE_BOOL: np.dtype("?"),
    tensor_pb2.DATA_TYPE_FLOAT16: np.dtype("<f2"),
    tensor_pb2.DATA_TYPE_DOUBLE: np.dtype("<f8"),
}
_NUMBERS = {dtype: number for number, dtype in _TYPES.items()}

COMPUTABLE: tuple[tensor_pb2.DataType, ...] = (
    tensor_pb2.DATA_TYPE_FLOAT,
    tensor_pb2.DATA_TYPE_DOUBLE,
    tensor_pb2.DATA_TYPE_FLOAT16,
    tensor_pb2.DATA_TYPE_BFLOAT16,
)
"""The element types that inputs may have."""

_BFLOAT16 = "bfloat16"
"""NumPy has no such type; whoever has an array of it has ml_dtypes, which is therefore only imported to make one."""

DATA_FIELD_NUMBER = 1000
_LENGTH_DELIMITED = 2
_DATA_TAG = DATA_FIELD_NUMBER << 3 | _LENGTH_DELIMITED
_FRAME_OVERHEAD_BYTES = 64
"""More than the tag, the length and the position beside a payload ever take."""


def dtype_of(data_type: int) -> np.dtype[Any]:
    """The little-endian NumPy type of a DataType that travels in this version.

    >>> dtype_of(tensor_pb2.DATA_TYPE_FLOAT)
    dtype('float32')

    Raises KeyError for any other, and ImportError for BFLOAT16 without ml_dtypes.
    """
    return bfloat16() if data_type == tensor_pb2.DATA_TYPE_BFLOAT16 else _TYPES[data_type]


def bfloat16() -> np.dtype[Any]:
    """The little-endian NumPy type of bfloat16, from ml_dtypes; ImportError when that is not installed."""
    import ml_dtypes

    dtype: np.dtype[Any] = np.dtype(ml_dtypes.bfloat16)
    return dtype.newbyteorder("<")


@functools.lru_cache(maxsize=64)
def data_type_of(dtype: np.dtype[Any]) -> Any:
    """The DataType of a NumPy type, whatever its byte order; KeyError for one that does not travel."""
    return tensor_pb2.DATA_TYPE_BFLOAT16 if dtype.name == _BFLOAT16 else _NUMBERS[dtype.newbyteorder("<")]


def _movable(array: Array) -> Array:
    """The same memory as elements that NumPy itself moves and swaps: bfloat16 as the 16-bit patterns that it is."""
    # Asked first, because NumPy makes up a type's name each time.
    if array.dtype.isbuiltin == 1 or array.dtype.name != _BFLOAT16:
        return array
    return array.view(np.dtype(np.uint16).newbyteorder(array.dtype.byteorder))


def data_type_name(data_type: int) -> str:
    """A DataType in words for messages: its enum name, or its number when this version has none for it."""
    try:
        return tensor_pb2.DataType.Name(tensor_pb2.DataType.ValueType(data_type))
    except ValueError:
        return str(data_type)


def byte_count(shape: Sequence[int], itemsize: int) -> int:
    """The number of bytes of a tensor.

    >>> byte_count((2, 3), 4)
    24
    """
    return math.prod(shape) * itemsize


def in_step(sizes: Sequence[int], step: int, itemsize: int) -> Iterator[tuple[tuple[int, int], ...]]:
    """The bytes of several tensors in pieces, interleaved so that each is as far as the others.

    >>> list(in_step((16, 8), 12, 4))
    [((0, 12), (0, 4)), ((12, 16), (4, 8))]

    The largest one goes in steps of `step` bytes, a multiple of `itemsize`; pieces end on element boundaries.
    """
    largest = max(sizes)
    ends = [0] * len(sizes)
    for start in range(0, largest, step):
        reached = min(start + step, largest)
        starts, ends = ends, [size * reached // largest // itemsize * itemsize for size in sizes]
        yield tuple(zip(starts, ends, strict=True))


class ArraySource:
    """An array read as little-endian C-order bytes, piece by piece.

    >>> ArraySource(np.arange(3, dtype=">f4")).read(4, 12).hex()
    '0000803f00000040'

    A contiguous little-endian array is never copied: pieces are views. Any other is made so on the way, one piece at a
    time, so that strides and byte order cost no second array.
    """

    def __init__(self, array: Array) -> None:
        self._array = array = _movable(array)
        self._wire_dtype = array.dtype.newbyteorder("<")
        self.nbytes = array.nbytes
        self.itemsize = array.itemsize
        in_place = array.flags.c_contiguous and array.dtype == self._wire_dtype
        self._bytes = array.reshape(-1).view(np.uint8) if in_place else None

    def read(self, start: int, stop: int) -> memoryview:
        """The bytes start..stop, which must lie on element boundaries."""
        if self._bytes is not None:
            return self._bytes[start:stop].data
        itemsize = self._wire_dtype.itemsize
        piece = self._array.flat[start // itemsize : stop // itemsize]
        return np.ascontiguousarray(piece, self._wire_dtype).view(np.uint8).data


class ArraySink:
    """An array filled from little-endian C-order bytes, piece by piece.

    >>> target = np.zeros(2, np.float32)
    >>> ArraySink(target).write(4, bytes.fromhex("0000803f")); target
    array([0., 1.], dtype=float32)

    The array may have any strides and byte order; a contiguous native one is written by plain copies.
    """

    def __init__(self, array: Array) -> None:
        self._array = array = _movable(array)
        self._wire_dtype = array.dtype.newbyteorder("<")
        self.nbytes = array.nbytes
        in_place = array.flags.c_contiguous and array.dtype == self._wire_dtype
        self._bytes = array.reshape(-1).view(np.uint8) if in_place else None

    def write(self, offset: int, data: bytes | memoryview) -> None:
        """Put bytes at an offset; both offset and length must lie on element boundaries."""
        if self._bytes is not None:
            self._bytes[offset : offset + len(data)] = np.frombuffer(data, np.uint8)
            return
        itemsize = self._wire_dtype.itemsize
        first = offset // itemsize
        self._array.flat[first : first + len(data) // itemsize] = np.frombuffer(data, self._wire_dtype)


class Message(Protocol):
    """The part of a generated message that framing needs."""

    data: bytes

    def SerializeToString(self) -> bytes:
        """The message in protobuf's encoding."""

    def MergeFromString(self, serialized: Any) -> int:
        """Parse into this message."""


M = TypeVar("M", bound=Message)


def _varint(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


_DATA_TAG_BYTES = _varint(_DATA_TAG)


def frame(message: Message, data: bytes | memoryview) -> bytes:
    """Serialize a message with `data` as its bulk field, copying the data once.

    The bytes equal those of `message.data = data; message.SerializeToString()`, which would copy it three times. The
    message itself must have no data set.
    """
    if not len(data):
        return message.SerializeToString()
    return b"".join((message.SerializeToString(), _DATA_TAG_BYTES, _varint(len(data)), data))


def framed_size(data_bytes: int) -> int:
    """An upper bound of a chunk message's size, for a payload of so many bytes."""
    return data_bytes + _FRAME_OVERHEAD_BYTES


def _read_varint(raw: bytes, at: int) -> tuple[int, int]:
    """The varint at a position and the position behind it; IndexError at the end, ValueError when it is too long."""
    value = shift = 0
    while True:
        byte = raw[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
        shift += 7
        if shift > 28:
            raise ValueError("longer than any tag or length here")


def unframe(kind: type[M], raw: bytes) -> tuple[M, memoryview]:
    """Parse a message, leaving its bulk field where it lies: the message without `data`, and the data as a view.

    Whatever the generated code accepts is read in the same way: fields in any order, unknown ones, a repeated bulk field
    (the last one counts). Raises google.protobuf.message.DecodeError for what it refuses.
    """
    message = kind()
    view = memoryview(raw)
    head: list[memoryview] = []
    data = view[:0]
    kept = at = 0
    try:
        while at < len(raw):
            begin = at
            tag, at = _read_varint(raw, at)
            wire_type = tag & 7
            if wire_type == _LENGTH_DELIMITED:
                length, at = _read_varint(raw, at)
                if length > len(raw) - at:
                    raise ValueError("reaches beyond the end")
                if tag == _DATA_TAG:
                    head.append(view[kept:begin])
                    data = view[at : at + length]
                    kept = at + length
                at += length
            elif wire_type == 0:
                while raw[at] >= 0x80:
                    at += 1
                at += 1
            elif wire_type in (1, 5):
                at += 8 if wire_type == 1 else 4
            else:
                raise ValueError("a group, or nothing")
        head.append(view[kept:])
    except (IndexError, ValueError):
        # Malformed, or of a shape that no encoder produces: the generated parser is the judge of both.
        message.MergeFromString(raw)
        data = memoryview(message.data)
        message.data = b""
        return message, data
    message.MergeFromString(b"".join(head))
    return message, data


__all__ = [
    "COMPUTABLE",
    "Array",
    "ArraySink",
    "ArraySource",
    "DecodeError",
    "bfloat16",
    "byte_count",
    "data_type_name",
    "data_type_of",
    "dtype_of",
    "frame",
    "framed_size",
    "in_step",
    "unframe",
]
