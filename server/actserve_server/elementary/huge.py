"""Sines and cosines of huge numbers: what a number leaves of a turn, however many turns it holds.

Payne and Hanek's way: only the digits of 2/pi that a number's own exponent makes matter are multiplied, as integers.
It takes about a hundred instructions and branches, so it is for the few elements that are beyond `TRIG_LIMIT`.
Everything here is float64 and integer in every precision.

The digits are printed by `tools/fit_elementary.py`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

import numpy as np
from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from actserve_server.elementary.bits import bits_of, fma
from actserve_server.elementary.source import Exact, kernel

HALF_PI_HI = Exact(1.5707963267948966)
HALF_PI_LO = Exact(6.123233995736766e-17)

DIGIT_BITS = 24
DIGIT_MASK = (1 << DIGIT_BITS) - 1
HALF_DIGIT = 1 << (DIGIT_BITS - 1)
FRACTION_DIGITS = 9
"""How many digits are computed after the point: 216 bits, of which the least 77 are inexact."""
DIGIT_RADIX = Exact(2.0**DIGIT_BITS)
LEAST_WEIGHT = Exact(2.0 ** (-DIGIT_BITS * FRACTION_DIGITS))
LEADING_ZEROS = 7
LEAST_WINDOW_EXPONENT = -143
"""Multiples of a smaller power of two than this begin before the table, and count for nothing beside a huge number."""

# fmt: off
# LEADING_ZEROS zeros, then 2/pi after its point, in digits of 24 bits.
INVERSE_HALF_PI_DIGITS = (
    0x000000, 0x000000, 0x000000, 0x000000, 0x000000, 0x000000, 0x000000, 0xA2F983,
    0x6E4E44, 0x1529FC, 0x2757D1, 0xF534DD, 0xC0DB62, 0x95993C, 0x439041, 0xFE5163,
    0xABDEBB, 0xC561B7, 0x246E3A, 0x424DD2, 0xE00649, 0x2EEA09, 0xD1921C, 0xFE1DEB,
    0x1CB129, 0xA73EE8, 0x8235F5, 0x2EBB44, 0x84E99C, 0x7026B4, 0x5F7E41, 0x3991D6,
    0x398353, 0x39F49C, 0x845F8B, 0xBDF928, 0x3B1FF8, 0x97FFDE, 0x05980F, 0xEF2F11,
    0x8B5A0A, 0x6D1F6D, 0x367ECF, 0x27CB09, 0xB74F46, 0x3F669E, 0x5FEA2D, 0x7527BA,
    0xC7EBE5, 0xF17B3D, 0x0739F7, 0x8A5292, 0xEA6BFB, 0x5FB11F, 0x8D5D08, 0x560330,
    0x46FC7B, 0x6BABF0, 0xCFBC20, 0x9AF436, 0x1DA9E3, 0x91615E, 0xE61B08, 0x659985,
    0x5F14A0, 0x68408D, 0xFFD880, 0x4D7327, 0x310606, 0x1556CA, 0x73A8C9, 0x60E27B,
    0xC08C6B, 0x47C419, 0xC367CD, 0xDCE809, 0x2A8359, 0xC4768B, 0x961CA6, 0xDDAF44,
    0xD15719, 0x053EA5, 0xFF0705, 0x3F7E33, 0xE832C2, 0xDE4F98, 0x327DBB, 0xC33D26,
    0xEF6B1E, 0x5EF89F, 0x3A1F35, 0xCAF27F, 0x1D87F1, 0x21907C, 0x7C246A, 0xFA6ED5,
    0x772D30, 0x433B15, 0xC614B5, 0x9D19C3, 0xC2C4AD, 0x414D2C, 0x5D000C, 0x467D86,
)
# fmt: on


@intrinsic
def _table_digit(typing_context: Any, place: Any) -> Any:
    """The digit at a place, from a table in the code: indexing a tuple would be a branch for each of its elements."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        table_type = ir.ArrayType(ir.IntType(64), len(INVERSE_HALF_PI_DIGITS))
        table = ir.GlobalVariable(builder.module, table_type, builder.module.get_unique_name("inverse_half_pi_digits"))
        table.linkage, table.global_constant = "internal", True
        table.initializer = ir.Constant(table_type, INVERSE_HALF_PI_DIGITS)
        return builder.load(builder.gep(table, [ir.Constant(ir.IntType(64), 0), arguments[0]]))

    return types.int64(types.int64), generate


_digit = cast("Callable[[int], int]", _table_digit)


@kernel
def _column(significand: int, exponent: int, column: int) -> int:
    """One column of the schoolbook product of significand * 2^exponent by 2/pi, in which columns beyond the units are missing.

    Column FRACTION_DIGITS is that of the units. The significand is shifted until the table's digits fit it.
    """
    if exponent < LEAST_WINDOW_EXPONENT:
        return 0
    first = (exponent - 1) // DIGIT_BITS
    shift = exponent - DIGIT_BITS * first
    place = LEADING_ZEROS + first + FRACTION_DIGITS - 1 - column
    total = (significand << shift & DIGIT_MASK) * _digit(place)
    for part in range(1, 4):
        total += (significand >> min(DIGIT_BITS * part - shift, 63) & DIGIT_MASK) * _digit(place + part)
    return total


@kernel
def _integer_and_exponent(x: float) -> tuple[int, int]:
    """m and e with |x| = m 2^e, for a finite x."""
    bits = bits_of(x)
    exponent = (bits >> 52) & 0x7FF
    fraction = bits & ((1 << 52) - 1)
    return (fraction, -1074) if exponent == 0 else (fraction | (1 << 52), exponent - 1075)


@kernel
def angle(hi: float, lo: float, scale: int) -> tuple[float, float, int]:
    """r, rest and k modulo 4, for (hi + lo) 2^scale = k pi/2 + r + rest, |r| <= pi/4 and 0 <= scale <= 1024.

    Digits are signed, so that their carry out of the fraction is the nearest number of quarter turns.
    """
    hi_significand, hi_exponent = _integer_and_exponent(hi)
    lo_significand, lo_exponent = _integer_and_exponent(lo)
    total = rest = np.float64(0.0)
    weight = np.float64(LEAST_WEIGHT)
    carry = 0
    for column in range(FRACTION_DIGITS + 1):
        hi_part = _column(hi_significand, hi_exponent + scale, column)
        lo_part = _column(lo_significand, lo_exponent + scale, column)
        carry += (hi_part if hi > 0.0 else -hi_part) + (lo_part if lo > 0.0 else -lo_part)
        if column < FRACTION_DIGITS:
            digit = ((carry + HALF_DIGIT) & DIGIT_MASK) - HALF_DIGIT
            carry = (carry - digit) >> DIGIT_BITS
            term = digit * weight
            grown = term + total
            rest += total - (grown - term)
            total = grown
            weight *= DIGIT_RADIX
    r = total * HALF_PI_HI
    return r, fma(total, HALF_PI_HI, -r) + (total * HALF_PI_LO + rest * HALF_PI_HI), carry & 3
