"""The forms in which tensors are computed: what is read, in which precision it is computed, what is written.

A loop reads its input with `load` and writes with `store`, which rounds once and makes every NaN the canonical one, for
which operand's NaN survives an instruction differs between processors, and between the body of a vectorized loop and
its remainder. Sixteen-bit tensors are read as float32, which holds them exactly (`widen`), and written from float64.

This module knows neither loops nor activations.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Mapping
from typing import Any, Literal

import ml_dtypes
import numpy as np
import numpy.typing as npt
from llvmlite import ir
from numba.core import types as numba_types
from numba.extending import intrinsic

from actserve_server import elementary
from actserve_server.elementary.bits import bits_of, float_of
from actserve_server.kernels import target
from actserve_server.kernels.inner import inner

__all__ = [
    "ACCURACIES",
    "BFLOAT16",
    "DTYPES",
    "FLOAT16",
    "SIXTEEN_BITS",
    "Accuracy",
    "Form",
    "form_of",
    "overlap",
]

# Numba reads its target when the first function is marked for it, which happens below.
target.pin()

Accuracy = Literal["exact", "fast"]
ACCURACIES: tuple[Accuracy, ...] = ("exact", "fast")

Function = Callable[..., Any]

FLOAT16 = np.dtype(np.float16)
BFLOAT16: np.dtype[Any] = np.dtype(ml_dtypes.bfloat16)
SIXTEEN_BITS = (FLOAT16, BFLOAT16)
DTYPES: tuple[np.dtype[Any], ...] = (np.dtype(np.float32), np.dtype(np.float64), *SIXTEEN_BITS)
"""The data types that tensors may have."""


_NAN_32 = np.float32(np.nan)
_NAN_HALF = np.uint16(0x7E00)
_NAN_BFLOAT = np.uint16(0x7FC0)


@intrinsic
def _half_bits(typing_context: Any, value: Any) -> Any:
    """The bits of a float32 rounded to binary16: one instruction, of F16C or ARMv8."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.bitcast(builder.fptrunc(arguments[0], ir.HalfType()), ir.IntType(16))

    return numba_types.uint16(numba_types.float32), generate


@intrinsic
def _float_of_half(typing_context: Any, bits: Any) -> Any:
    """The float32 equal to the binary16 that has these bits."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.fpext(builder.bitcast(arguments[0], ir.HalfType()), ir.FloatType())

    return numba_types.float32(numba_types.uint16), generate


@intrinsic
def overlap(typing_context: Any, a: Any, b: Any) -> Any:
    """Whether two contiguous arrays share memory: an intrinsic, as a function would count references to them."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        word = ir.IntType(64)
        ends = []
        for kind, value in zip(signature.args, arguments, strict=True):
            array = context.make_array(kind)(context, builder, value)
            begin = builder.ptrtoint(array.data, word)
            ends.append((begin, builder.add(begin, builder.mul(array.nitems, array.itemsize))))
        (begin_a, end_a), (begin_b, end_b) = ends
        return builder.and_(builder.icmp_unsigned("<", begin_a, end_b), builder.icmp_unsigned("<", begin_b, end_a))

    return numba_types.boolean(a, b), generate


@inner
def _widen_half(bits: Any) -> Any:
    return _float_of_half(bits)


@inner
def _widen_bfloat(bits: Any) -> Any:
    shifted: Any = np.int32(np.int64(bits) << 16)
    return float_of(shifted)


@inner
def _odd_float32_bits(y: Any) -> Any:
    """The bits of y rounded to float32 towards zero, the last one set if that was inexact: so the next rounding, to fewer
    bits, is as if it were the first."""
    rounded = np.float32(y)
    back = np.float64(rounded)
    number: Any = rounded
    bits = np.int64(bits_of(number))
    bits = bits - 1 if abs(back) > abs(y) else bits
    return np.int32(bits | 1 if back != y else bits)


@inner
def _load(value: Any) -> Any:
    return np.float64(value)


@inner
def _load_fast(value: Any) -> Any:
    return np.float32(value)


@inner
def _store_64(v: float, y: float) -> float:
    return y if (v == v) & (y == y) else np.nan


@inner
def _store_32(v: float, y: float) -> Any:
    rounded = np.float32(y)
    return rounded if (v == v) & (rounded == rounded) else _NAN_32


@inner
def _store_half(v: float, y: float) -> Any:
    bits = _half_bits(float_of(_odd_float32_bits(y)))
    return bits if (v == v) & (y == y) else _NAN_HALF


@inner
def _store_bfloat(v: float, y: float) -> Any:
    bits = np.int64(_odd_float32_bits(y)) & 0xFFFFFFFF
    rounded = np.uint16((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16)
    return rounded if (v == v) & (y == y) else _NAN_BFLOAT


@inner
def _write_64(y: float) -> tuple[float, bool]:
    return y, y != y


@inner
def _write_32(y: float) -> tuple[Any, bool]:
    rounded = np.float32(y)
    return rounded, rounded != rounded


@inner
def _write_half(y: float) -> tuple[Any, bool]:
    return _store_half(y, y), y != y


@inner
def _write_bfloat(y: float) -> tuple[Any, bool]:
    return _store_bfloat(y, y), y != y


@inner
def _mend(v: float, result: float) -> float:
    return result if (v == v) & (result == result) else np.nan


@inner
def _mend_half(v: float, result: Any) -> Any:
    return result if v == v else _NAN_HALF


@inner
def _mend_bfloat(v: float, result: Any) -> Any:
    return result if v == v else _NAN_BFLOAT


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class Form:
    """How tensors of one data type are computed."""

    name: str
    source: numba_types.Type
    """The type of the elements that a loop reads."""
    result: numba_types.Type
    """The type of those that it writes."""
    scalar: type[np.floating[Any]]
    """The type of the numbers between."""
    primitives: Mapping[str, Any]
    load: Function
    store: Function
    """store(v, y): the result y, computed from v, as it is written; NaN if either is."""
    write: Function
    """write(y): the same without a look at v and, maybe, with another NaN; and whether y is one."""
    mend: Function
    """mend(v, result): makes of what `write` gave what `store` would have given."""
    widen: Function = _load_fast
    """The value as a float32, of an element of 16 bits."""

    def wide(self) -> Form:
        """The same, with results that stay float64."""
        return _wide(self)


@functools.cache
def _wide(form: Form) -> Form:
    return dataclasses.replace(
        form, name=f"{form.name}-to-float64", result=numba_types.float64, store=_store_64, write=_write_64, mend=_mend
    )


_FORMS = {
    (np.dtype(np.float64), "exact"): Form(
        "float64",
        numba_types.float64,
        numba_types.float64,
        np.float64,
        elementary.WIDE,
        _load,
        _store_64,
        _write_64,
        _mend,
    ),
    (np.dtype(np.float32), "exact"): Form(
        "float32",
        numba_types.float32,
        numba_types.float32,
        np.float64,
        elementary.NARROW,
        _load,
        _store_32,
        _write_32,
        _mend,
    ),
    (np.dtype(np.float32), "wide"): Form(
        "float32-wide",
        numba_types.float32,
        numba_types.float32,
        np.float64,
        elementary.WIDE,
        _load,
        _store_32,
        _write_32,
        _mend,
    ),
    (np.dtype(np.float32), "fast"): Form(
        "float32-fast",
        numba_types.float32,
        numba_types.float32,
        np.float32,
        elementary.FAST,
        _load_fast,
        _store_32,
        _write_32,
        _mend,
    ),
    (FLOAT16, "exact"): Form(
        "float16",
        numba_types.float32,
        numba_types.uint16,
        np.float64,
        elementary.NARROW,
        _load,
        _store_half,
        _write_half,
        _mend_half,
        _widen_half,
    ),
    (BFLOAT16, "exact"): Form(
        "bfloat16",
        numba_types.float32,
        numba_types.uint16,
        np.float64,
        elementary.NARROW,
        _load,
        _store_bfloat,
        _write_bfloat,
        _mend_bfloat,
        _widen_bfloat,
    ),
}


def form_of(dtype: npt.DTypeLike, accuracy: str = "exact", *, cancels: bool = False) -> Form:
    """The form of a data type; only float32 has a fast one, the others are as fast as they can be.

    Where a kernel cancels, the exact form of float32 computes with the wide elementary functions. Raises ValueError for a
    data type that is not computed with.
    """
    dtype = np.dtype(dtype)
    if dtype not in DTYPES:
        raise ValueError(f"no loops are compiled for {dtype}, only for {', '.join(map(str, DTYPES))}")
    if accuracy == "fast" and (dtype, "fast") in _FORMS:
        return _FORMS[dtype, "fast"]
    return _FORMS[dtype, "wide" if cancels and (dtype, "wide") in _FORMS else "exact"]
