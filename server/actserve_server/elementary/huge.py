"""Sines and cosines of huge numbers: what a number leaves of a turn, however many turns it holds.

Payne and Hanek's way: only the digits of 1/pi that a number's own exponent makes matter are multiplied, as integers.
It takes about a hundred instructions and branches, so it is for the few elements that are beyond `TRIG_LIMIT`.
Everything here is float64 and integer in every precision.

The digits are printed by `tools/fit_elementary.py`.
"""

from __future__ import annotations

import numpy as np

from actserve_server.elementary.bits import bits_of, fma
from actserve_server.elementary.source import Exact, kernel

PI_HI = Exact(3.141592653589793)
PI_LO = Exact(1.2246467991473532e-16)

DIGIT_BITS = 24
DIGIT_MASK = (1 << DIGIT_BITS) - 1
HALF_DIGIT = 1 << (DIGIT_BITS - 1)
FRACTION_DIGITS = 9
"""How many digits are computed after the point: 216 bits, of which the least 77 are inexact."""
DIGIT_RADIX = Exact(2.0**DIGIT_BITS)
LEAST_WEIGHT = Exact(2.0 ** (-DIGIT_BITS * FRACTION_DIGITS))
LEADING_ZEROS = 7
LEAST_WINDOW_EXPONENT = -160
"""Multiples of a smaller power of two than this begin before the table, and count for nothing beside a huge number."""

# fmt: off
# LEADING_ZEROS zeros, then 1/pi after its point, in digits of 24 bits.
INVERSE_PI_DIGITS = (
    0x000000, 0x000000, 0x000000, 0x000000, 0x000000, 0x000000, 0x000000, 0x517CC1,
    0xB72722, 0x0A94FE, 0x13ABE8, 0xFA9A6E, 0xE06DB1, 0x4ACC9E, 0x21C820, 0xFF28B1,
    0xD5EF5D, 0xE2B0DB, 0x92371D, 0x2126E9, 0x700324, 0x977504, 0xE8C90E, 0x7F0EF5,
    0x8E5894, 0xD39F74, 0x411AFA, 0x975DA2, 0x4274CE, 0x38135A, 0x2FBF20, 0x9CC8EB,
    0x1CC1A9, 0x9CFA4E, 0x422FC5, 0xDEFC94, 0x1D8FFC, 0x4BFFEF, 0x02CC07, 0xF79788,
    0xC5AD05, 0x368FB6, 0x9B3F67, 0x93E584, 0xDBA7A3, 0x1FB34F, 0x2FF516, 0xBA93DD,
    0x63F5F2, 0xF8BD9E, 0x839CFB, 0xC52949, 0x7535FD, 0xAFD88F, 0xC6AE84, 0x2B0198,
    0x237E3D, 0xB5D5F8, 0x67DE10, 0x4D7A1B, 0x0ED4F1, 0xC8B0AF, 0x730D84, 0x32CCC2,
)
# fmt: on


@kernel
def _column(significand: int, exponent: int, column: int) -> int:
    """One column of the schoolbook product of significand * 2^exponent by 1/pi, less what is an even number.

    Column FRACTION_DIGITS is that of the units. The significand is shifted until the table's digits fit it.
    """
    if exponent < LEAST_WINDOW_EXPONENT:
        return 0
    first = (exponent - 1) // DIGIT_BITS
    shift = exponent - DIGIT_BITS * first
    place = LEADING_ZEROS + first + FRACTION_DIGITS - 1 - column
    back = DIGIT_BITS - shift
    return (
        ((significand << shift) & DIGIT_MASK) * INVERSE_PI_DIGITS[place]
        + ((significand >> back) & DIGIT_MASK) * INVERSE_PI_DIGITS[place + 1]
        + ((significand >> DIGIT_BITS >> back) & DIGIT_MASK) * INVERSE_PI_DIGITS[place + 2]
        + (significand >> (2 * DIGIT_BITS) >> back) * INVERSE_PI_DIGITS[place + 3]
    )


@kernel
def _integer_and_exponent(x: float) -> tuple[int, int]:
    """m and e with |x| = m 2^e, for a finite x."""
    bits = bits_of(x)
    exponent = (bits >> 52) & 0x7FF
    fraction = bits & ((1 << 52) - 1)
    return (fraction, -1074) if exponent == 0 else (fraction | (1 << 52), exponent - 1075)


@kernel
def angle(hi: float, lo: float, quarters: int) -> tuple[float, float, int]:
    """r + rest and whether k is odd, for hi + lo + quarters pi/2 = k pi + r + rest, |r| <= pi/2.

    Digits are signed, so that their carry out of the fraction is the nearest number of half turns.
    """
    hi_significand, hi_exponent = _integer_and_exponent(hi)
    lo_significand, lo_exponent = _integer_and_exponent(lo)
    total = rest = np.float64(0.0)
    weight = np.float64(LEAST_WEIGHT)
    carry = 0
    for column in range(FRACTION_DIGITS):
        hi_part = _column(hi_significand, hi_exponent, column)
        lo_part = _column(lo_significand, lo_exponent, column)
        carry += (hi_part if hi > 0.0 else -hi_part) + (lo_part if lo > 0.0 else -lo_part)
        if column == FRACTION_DIGITS - 1:
            carry += quarters * HALF_DIGIT
        digit = ((carry + HALF_DIGIT) & DIGIT_MASK) - HALF_DIGIT
        carry = (carry - digit) >> DIGIT_BITS
        term = digit * weight
        grown = term + total
        rest += total - (grown - term)
        total = grown
        weight *= DIGIT_RADIX
    hi_part = _column(hi_significand, hi_exponent, FRACTION_DIGITS)
    lo_part = _column(lo_significand, lo_exponent, FRACTION_DIGITS)
    carry += (hi_part if hi > 0.0 else -hi_part) + (lo_part if lo > 0.0 else -lo_part)
    r = total * PI_HI
    return r, fma(total, PI_HI, -r) + (total * PI_LO + rest * PI_HI), carry & 1
