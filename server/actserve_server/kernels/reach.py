"""Which elements lie beyond a limit, asked of their bits: the bits of numbers above zero are in the order of the numbers.

A comparison gives a mask, which LLVM packs and unpacks where elements and results are of different widths: half of what a short
kernel itself takes. Subtractions of bits, whose signs are gathered, are three instructions for a whole vector. This module
knows no kernels.
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba.core import types as numba_types
from numba.extending import intrinsic

from actserve_server.kernels.inner import inner

__all__ = ["any_beyond", "beyond", "limit_of"]

_WIDTHS: dict[Any, int] = {numba_types.float32: 32, numba_types.float64: 64}
_INTEGERS: dict[int, Any] = {32: numba_types.int32, 64: numba_types.int64}
_FLOATS = {32: ir.FloatType(), 64: ir.DoubleType()}


@intrinsic
def limit_of(typing_context: Any, array: Any, reach: Any) -> Any:
    """The bits of the largest element of an array's type up to `reach`; -1, which every element is beyond, where it is not above
    zero."""
    width = _WIDTHS[array.dtype]

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        value = arguments[1]
        word = ir.IntType(width)
        if signature.args[1] == array.dtype:
            bits = builder.bitcast(value, word)
        elif width == 64:
            bits = builder.bitcast(builder.fpext(value, _FLOATS[64]), word)
        else:
            near = builder.fptrunc(value, _FLOATS[32])
            above = builder.fcmp_ordered(">", builder.fpext(near, _FLOATS[64]), value)
            bits = builder.sub(builder.bitcast(near, word), builder.zext(above, word))
        some = builder.fcmp_ordered(">", value, ir.Constant(value.type, 0.0))
        return builder.select(some, bits, ir.Constant(word, -1))

    return _INTEGERS[width](array, reach), generate


@intrinsic
def beyond(typing_context: Any, seen: Any, limit: Any, element: Any) -> Any:
    """`seen`, made negative where |element| is beyond the limit, infinite or not a number."""
    width = _WIDTHS[element]

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        seen, limit, element = arguments
        word = ir.IntType(width)
        magnitude = builder.and_(builder.bitcast(element, word), ir.Constant(word, 2 ** (width - 1) - 1))
        return builder.or_(seen, builder.sub(limit, magnitude))

    integer = _INTEGERS[width]
    return integer(integer, integer, element), generate


@inner
def any_beyond(array: Any, begin: Any, end: Any, limit: Any) -> Any:
    """Whether an element from `begin` up to `end`, both unsigned, is beyond the limit."""
    seen = limit
    for p in range(begin, end):
        seen = beyond(seen, limit, array[p])
    return seen < 0
