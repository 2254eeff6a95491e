"""How states are written: their frame, their errors, and whole numbers of any size as few bytes.

A state's bytes are, in this order:

    8 bytes          b"actstate"
    4 bytes          the length of the header, little-endian
    header           JSON in ASCII, keys sorted, no spaces: "kind", "version" and what the kind says
    the rest         the kind's payload
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = ["StateError", "StateMismatch", "number", "pack", "parameter", "read_varints", "unpack", "varints"]

_MAGIC = b"actstate"
_LENGTH_BYTES = 4
_LARGEST_HEADER_BYTES = 1 << 16
_LONGEST_VARINT = 9
"""Bytes of a number below 2**63."""


class StateError(ValueError):
    """Expected error: bytes that are no state, or a state that contradicts itself. The fault of whoever made it."""


class StateMismatch(StateError):
    """Expected error: two states that cannot be merged, for they differ in an option. The fault of the caller."""

    def __init__(self, option: str, left: object, right: object) -> None:
        super().__init__(f"states of different {option} cannot be merged: {left!r} and {right!r}")
        self.option = option
        self.left = left
        self.right = right


# JSON has no infinity; as a parameter it travels as the text that Python writes.
INFINITIES = {"inf": math.inf, "-inf": -math.inf}


def number(what: str, value: object) -> float:
    """A number of a header as a float; raises StateError."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise StateError(f"{what} must be a number, not {value!r}")
    try:
        # A negative zero means the same, and must not make other bytes.
        result = float(value) + 0.0
    except OverflowError:
        raise StateError(f"{what} is too large") from None
    if math.isnan(result):
        raise StateError(f"{what} must be a number, not NaN")
    return result


def parameter(name: str, value: object) -> float | str:
    """A parameter of an activation; raises StateError."""
    if isinstance(value, str):
        return INFINITIES.get(value, value)
    return number(f"parameter {name}", value)


def _refuse_constant(name: str) -> None:
    raise ValueError(f"JSON has no {name}")


def pack(kind: str, version: int, header: Mapping[str, Any], payload: bytes) -> bytes:
    """A state's bytes."""
    whole = {"kind": kind, "version": version, **header}
    text = json.dumps(whole, sort_keys=True, separators=(",", ":"), allow_nan=False).encode()
    return b"".join((_MAGIC, len(text).to_bytes(_LENGTH_BYTES, "little"), text, payload))


def unpack(kind: str, version: int, expected: tuple[str, ...], data: bytes) -> tuple[dict[str, Any], bytes]:
    """The header and the payload of a state's bytes; raises StateError."""
    start = len(_MAGIC) + _LENGTH_BYTES
    if data[: len(_MAGIC)] != _MAGIC or len(data) < start:
        raise StateError("these bytes are no state")
    length = int.from_bytes(data[len(_MAGIC) : start], "little")
    if length > _LARGEST_HEADER_BYTES or len(data) < start + length:
        raise StateError("the state is cut short")
    try:
        header = json.loads(data[start : start + length], parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as error:
        raise StateError("the state's header cannot be read") from error
    if not isinstance(header, dict) or header.get("kind") != kind:
        found = header.get("kind") if isinstance(header, dict) else header
        raise StateError(f"this is a state of the kind {found!r}, and no state of the kind {kind}")
    if header.get("version") != version:
        raise StateError(f"a state of version {header.get('version')!r} is not understood, only {version}")
    if header.keys() != {"kind", "version", *expected}:
        raise StateError(f"the header of a state of the kind {kind} has other fields than it should")
    return header, data[start + length :]


def varints(values: npt.NDArray[np.int64]) -> bytes:
    """Whole numbers that are not negative, each in groups of 7 bits, least significant first (LEB128, as in protobuf).

    >>> varints(np.array([1, 300])).hex()
    '01ac02'
    """
    lengths = np.ones(values.size, np.int64)
    for group in range(1, _LONGEST_VARINT):
        lengths += values >> (7 * group) > 0
    ends = np.cumsum(lengths)
    out = np.zeros(int(ends[-1]) if values.size else 0, np.uint8)
    for group in range(_LONGEST_VARINT):
        longer = lengths > group
        if not longer.any():
            break
        more = np.where(lengths[longer] > group + 1, 128, 0)
        out[(ends - lengths)[longer] + group] = (values[longer] >> (7 * group)) & 127 | more
    return out.tobytes()


def read_varints(data: bytes) -> npt.NDArray[np.int64]:
    """What `varints` was given; raises StateError for bytes that it would not have made."""
    raw = np.frombuffer(data, np.uint8)
    last = np.flatnonzero(raw < 128)
    if raw.size and (not last.size or last[-1] != raw.size - 1):
        raise StateError("the state's histogram is cut short")
    starts = np.concatenate([[0], last[:-1] + 1]).astype(np.int64) if last.size else last
    lengths = last - starts + 1
    if (lengths > _LONGEST_VARINT).any() or ((raw[last] == 0) & (lengths > 1)).any():
        raise StateError("a number of the state's histogram is not in its shortest form")
    values = np.zeros(last.size, np.int64)
    for group in range(_LONGEST_VARINT):
        longer = lengths > group
        if not longer.any():
            break
        values[longer] |= (raw[starts[longer] + group].astype(np.int64) & 127) << (7 * group)
    return values
