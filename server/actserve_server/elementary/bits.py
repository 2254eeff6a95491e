"""What the elementary functions need of the machine: fused multiply-add, the bits of a number, signs, roots, polynomials.

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

__all__ = [
    "add_in_any_order",
    "bits_of",
    "copysign",
    "float_of",
    "fma",
    "larger",
    "nearest_float32",
    "polynomial",
    "polynomial_in_halves",
    "rest_of_product",
    "smaller",
    "sqrt",
]

# Operations on numbers are for float32 where every number is one, and for float64 otherwise. Bits are as wide as the number.
_BITS: dict[Any, tuple[Any, Any, Any]] = {
    types.float32: (types.int32, ir.FloatType(), ir.IntType(32)),
    types.float64: (types.int64, ir.DoubleType(), ir.IntType(64)),
}
_FLOATS = {integer: (number, ir_float) for number, (integer, ir_float, _) in _BITS.items()}


def _common(*arguments: Any) -> Any:
    return types.float32 if all(argument == types.float32 for argument in arguments) else types.float64


@intrinsic
def _fma(typing_context: Any, a: Any, b: Any, c: Any) -> Any:
    """a * b + c, rounded once."""
    number = _common(a, b, c)

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.fma(*arguments)

    return number(number, number, number), generate


@intrinsic
def _copysign(typing_context: Any, magnitude: Any, sign: Any) -> Any:
    """The magnitude of the first number with the sign of the second, zeros included."""
    number = _common(magnitude, sign)

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        ir_float = _BITS[number][1]
        function = builder.module.declare_intrinsic(
            "llvm.copysign", [ir_float], ir.FunctionType(ir_float, [ir_float, ir_float])
        )
        return builder.call(function, arguments)

    return number(number, number), generate


@intrinsic
def _sqrt(typing_context: Any, x: Any) -> Any:
    """The square root, correctly rounded."""
    number = _common(x)

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        ir_float = _BITS[number][1]
        function = builder.module.declare_intrinsic("llvm.sqrt", [ir_float], ir.FunctionType(ir_float, [ir_float]))
        return builder.call(function, arguments)

    return number(number), generate


@intrinsic
def _add_in_any_order(typing_context: Any, total: Any, term: Any) -> Any:
    """total + term in a sum whose order the compiler may choose, so that a loop can keep several partial sums."""
    number = _common(total, term)

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.fadd(*arguments, flags=("reassoc", "nsz"))

    return number(number, number), generate


def _extreme(name: str, builder: Any, number: Any, arguments: Any) -> Any:
    ir_float = _BITS[number][1]
    function = builder.module.declare_intrinsic(name, [ir_float], ir.FunctionType(ir_float, [ir_float, ir_float]))
    return builder.call(function, arguments, fastmath=("nnan", "nsz"))


@intrinsic
def _larger(typing_context: Any, a: Any, b: Any) -> Any:
    """The larger of two numbers, by a single instruction; either one, or NaN, where one of them is NaN."""
    number = _common(a, b)

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return _extreme("llvm.maxnum", builder, number, arguments)

    return number(number, number), generate


@intrinsic
def _smaller(typing_context: Any, a: Any, b: Any) -> Any:
    """The smaller of two numbers, as `larger`."""
    number = _common(a, b)

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return _extreme("llvm.minnum", builder, number, arguments)

    return number(number, number), generate


@intrinsic
def _bits_of(typing_context: Any, value: Any) -> Any:
    """The bits of a number, as an integer of its width."""
    number = _common(value)

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.bitcast(arguments[0], _BITS[number][2])

    return _BITS[number][0](number), generate


@intrinsic
def _float_of(typing_context: Any, bits: Any) -> Any:
    """The number that has these bits: a float32 for an int32, a float64 for an int64."""
    integer = types.int32 if bits == types.int32 else types.int64

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.bitcast(arguments[0], _FLOATS[integer][1])

    return _FLOATS[integer][0](integer), generate


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
    number = _common(x, coefficients.dtype)
    return number(number, types.UniTuple(number, len(coefficients))), generate


@intrinsic
def _polynomial_in_halves(typing_context: Any, x: Any, coefficients: Any) -> Any:
    """The same, the constant last and the rest by Horner's rule in x^2, its even powers and its odd ones apart.

    It has one multiplication where Estrin's scheme has one for every doubling of the degree, most of its constants can
    be operands in memory, and where the constant is the largest term but one rounding is as large as the result's. Its
    chains are longer: for the two polynomials of a quotient, which keep a processor busy together.
    """

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        x, packed = arguments
        values = [builder.extract_value(packed, place) for place in range(len(signature.args[1]))]
        constant, *values = values
        square = builder.fmul(x, x)
        halves = []
        for half in (values[::2], values[1::2]):
            total = half[-1]
            for value in half[-2::-1]:
                total = builder.fma(total, square, value)
            halves.append(total)
        return builder.fma(builder.fma(halves[1], x, halves[0]), x, constant)

    if not isinstance(coefficients, types.UniTuple) or len(coefficients) < 3:
        return None
    number = _common(x, coefficients.dtype)
    return number(number, types.UniTuple(number, len(coefficients))), generate


def _split(builder: Any, value: Any) -> tuple[Any, Any]:
    """A float64 as the nearest float32 and that of the rest."""
    single = ir.FloatType()
    nearest = builder.fptrunc(value, single)
    return nearest, builder.fptrunc(builder.fsub(value, builder.fpext(nearest, ir.DoubleType())), single)


@intrinsic
def _nearest_float32(typing_context: Any, value: Any) -> Any:
    """A number as a float32; one that is a float32 is left alone."""
    number = _common(value)

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return arguments[0] if number == types.float32 else builder.fptrunc(arguments[0], ir.FloatType())

    return types.float32(number), generate


@intrinsic
def _rest_of_product(typing_context: Any, a: Any, x: Any, product: Any) -> Any:
    """a * x - product in float32 arithmetic, as good as exact where they nearly cancel; a may be a float64."""
    number = _common(a)

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        first, x, product = arguments
        if number == types.float32:
            return builder.fma(first, x, builder.fneg(product))
        first, second = _split(builder, first)
        return builder.fma(second, x, builder.fma(first, x, builder.fneg(product)))

    return types.float32(number, types.float32, types.float32), generate


# What callers see: numbers in, a number out, instead of Numba's types.
fma = cast("Callable[[float, float, float], float]", _fma)
copysign = cast("Callable[[float, float], float]", _copysign)
sqrt = cast("Callable[[float], float]", _sqrt)
add_in_any_order = cast("Callable[[float, float], float]", _add_in_any_order)
larger = cast("Callable[[float, float], float]", _larger)
smaller = cast("Callable[[float, float], float]", _smaller)
bits_of = cast("Callable[[float], int]", _bits_of)
float_of = cast("Callable[[Any], float]", _float_of)
polynomial = cast("Callable[[float, tuple[float, ...]], float]", _polynomial)
polynomial_in_halves = cast("Callable[[float, tuple[float, ...]], float]", _polynomial_in_halves)
nearest_float32 = cast("Callable[[float], float]", _nearest_float32)
rest_of_product = cast("Callable[[float, float, float], float]", _rest_of_product)
