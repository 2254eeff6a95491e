"""What the elementary functions need of the machine: fused multiply-add, the bits of a float64, signs, polynomials.

Numba intrinsics, each a single LLVM instruction or a chain of them, that run only in compiled code. Nothing here knows
which functions are computed with them.

A multiply-add is written out wherever it is meant: were the compiler free to contract, the body of a vectorized loop,
its remainder and another CPU could give different bits.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

from llvmlite import ir
from numba import types
from numba.extending import intrinsic

__all__ = ["bits_of", "copysign", "float_of", "fma", "polynomial"]


@intrinsic
def _fma(typing_context: Any, a: Any, b: Any, c: Any) -> Any:
    """a * b + c, rounded once."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.fma(*arguments)

    return types.float64(types.float64, types.float64, types.float64), generate


@intrinsic
def _copysign(typing_context: Any, magnitude: Any, sign: Any) -> Any:
    """The magnitude of the first number with the sign of the second, zeros included."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        double = ir.DoubleType()
        function = builder.module.declare_intrinsic(
            "llvm.copysign", [double], ir.FunctionType(double, [double, double])
        )
        return builder.call(function, arguments)

    return types.float64(types.float64, types.float64), generate


@intrinsic
def _bits_of(typing_context: Any, value: Any) -> Any:
    """The bits of a float64, as an integer."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.bitcast(arguments[0], ir.IntType(64))

    return types.int64(types.float64), generate


@intrinsic
def _float_of(typing_context: Any, bits: Any) -> Any:
    """The float64 that has these bits."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.bitcast(arguments[0], ir.DoubleType())

    return types.float64(types.int64), generate


@intrinsic
def _polynomial(typing_context: Any, x: Any, coefficients: Any) -> Any:
    """The value at x of a polynomial, coefficients lowest power first, in fused multiply-adds.

    By Estrin's scheme, whose longest chain of dependent instructions grows with the logarithm of the degree: by
    Horner's rule the loops around it would wait for the latency of each step.
    """

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        power, packed = arguments
        values = [builder.extract_value(packed, place) for place in range(len(signature.args[1]))]
        while len(values) > 1:
            pairs = zip(values[::2], values[1::2], strict=False)
            values = [builder.fma(high, power, low) for low, high in pairs] + values[len(values) // 2 * 2 :]
            power = builder.fmul(power, power)
        return values[0]

    if not isinstance(coefficients, types.UniTuple):
        return None
    return types.float64(types.float64, coefficients), generate


# What callers see: numbers in, a number out, instead of Numba's types.
fma = cast("Callable[[float, float, float], float]", _fma)
copysign = cast("Callable[[float, float], float]", _copysign)
bits_of = cast("Callable[[float], int]", _bits_of)
float_of = cast("Callable[[int], float]", _float_of)
polynomial = cast("Callable[[float, tuple[float, ...]], float]", _polynomial)
