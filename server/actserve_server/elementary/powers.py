"""u**v for any two numbers, in the three precisions: as C99's `pow`, within about one unit in the last place.

A power is exp(v log u), and an error of the logarithm comes out v log u times as large, up to 745 times. So the logarithm is taken in
two parts, with 2^-62 of it lost at most (2^-33 for float32 arithmetic), and so is its product with v. With u = 2^n (1 + f) and
s = f/(2 + f) it is n log 2 + 2 s + 2 s^3/3 + 2 s^5 p(s^2); the last term alone is small enough to be a single number.

As in `wide`, there are no branches for a vectorized loop to take, and what NaN gives need not be asked: it is C99's too.
The constants are printed by `tools/fit_elementary.py` under the names they have here.
"""

from __future__ import annotations

import math

import numpy as np

from actserve_server.elementary import fast
from actserve_server.elementary.bits import bits_of, copysign, float_of, fma, polynomial
from actserve_server.elementary.fast import fast_scaled_exp
from actserve_server.elementary.narrow import narrow_exp, narrow_log
from actserve_server.elementary.pairs import sum_pair
from actserve_server.elementary.source import kernel
from actserve_server.elementary.wide import LN2_HI, LN2_LO, SMALLEST_NORMAL, _log_parts, wide_log, wide_scaled_exp

# p in log(1 + f) = 2s + 2 s z/3 + 2 s z^2 p(z), z = s^2, on [0.0, 0.029437]: error 2^-66.67
WIDE_LOG_TAIL = (
    0.2,
    0.14285714285714188,
    0.11111111111145211,
    0.09090909084638026,
    0.0769230837561202,
    0.0666662026944556,
    0.05884335314307801,
    0.052114786948386116,
    0.05506467029556389,
)

# p in log(1 + f) = 2s + 2 s z/3 + 2 s z^2 p(z), z = s^2, on [0.0, 0.029437]: error 2^-36.43
FAST_LOG_TAIL = (
    0.20000076293945312,
    0.1427357941865921,
    0.11709029972553253,
)

THIRD_HI = 0.3333333333333333
THIRD_LO = 1.850371707708594e-17
FAST_THIRD_HI = 0.3333333432674408
FAST_THIRD_LO = -9.934107758624577e-09

WHOLE = 2.0**52
"""From here on every float64 is a whole number; added to a smaller one and subtracted again, it leaves the nearest whole number."""
FAST_WHOLE = 2.0**23

INFINITY = math.inf
NAN = math.nan
FAST_SQRT_HALF_BITS = fast.SQRT_HALF_BITS
FAST_MANTISSA_BITS = fast.MANTISSA_BITS
FAST_SMALLEST_NORMAL = fast.SMALLEST_NORMAL
FAST_LN2_HI = fast.FAST_LN2_HI
FAST_LN2_LO = fast.FAST_LN2_LO


@kernel
def _halved(f: float) -> tuple[float, float, float]:
    """s = f/(2 + f) in two parts, and the rounded s^2."""
    whole = 2.0 + f
    lost = f - (whole - 2.0)
    inverse = 1.0 / whole
    s = f * inverse
    return s, (fma(-s, whole, f) - s * lost) * inverse, s * s


@kernel
def _cube_third(s: float, s_lo: float, z: float, third: float, third_lo: float) -> tuple[float, float]:
    """s^3/3 in two parts, given z = s^2 rounded."""
    z_lo = fma(s, s, -z) + 2.0 * s * s_lo
    cube = s * z
    cube_lo = fma(s, z, -cube) + (s * z_lo + s_lo * z)
    hi = cube * third
    return hi, fma(cube, third, -hi) + (cube * third_lo + cube_lo * third)


@kernel
def _wide_log(a: float) -> tuple[float, float]:
    """log(a) in two parts for 0 < a < inf."""
    tiny = a < SMALLEST_NORMAL
    n, f = _log_parts(a * 2.0**54 if tiny else a)
    n = n - (54.0 if tiny else 0.0)
    s, s_lo, z = _halved(f)
    term, term_lo = _cube_third(s, s_lo, z, THIRD_HI, THIRD_LO)
    tail = s * (z * z) * polynomial(z, WIDE_LOG_TAIL)
    # n LN2_HI is exact.
    large, rest = sum_pair(n * LN2_HI, 2.0 * s)
    total, lost = sum_pair(large, 2.0 * term)
    return sum_pair(total, lost + (rest + fma(n, LN2_LO, 2.0 * (s_lo + (term_lo + tail)))))


@kernel
def _fast_log(a: float) -> tuple[float, float]:
    tiny = a < FAST_SMALLEST_NORMAL
    bits = bits_of(a * 16777216.0 if tiny else a)
    shift = (bits - FAST_SQRT_HALF_BITS) >> FAST_MANTISSA_BITS
    f = float_of(np.int32(bits - (shift << FAST_MANTISSA_BITS))) - 1.0
    n: float = np.float32(np.int32(shift)) - (24.0 if tiny else 0.0)  # type: ignore[assignment]
    s, s_lo, z = _halved(f)
    term, term_lo = _cube_third(s, s_lo, z, FAST_THIRD_HI, FAST_THIRD_LO)
    tail = s * (z * z) * polynomial(z, FAST_LOG_TAIL)
    scaled = n * FAST_LN2_HI
    scaled_lo = fma(n, FAST_LN2_LO, fma(n, FAST_LN2_HI, -scaled))
    large, rest = sum_pair(scaled, 2.0 * s)
    total, lost = sum_pair(large, 2.0 * term)
    return sum_pair(total, lost + (rest + (scaled_lo + 2.0 * (s_lo + (term_lo + tail)))))


@kernel
def wide_log_in_parts(hi: float, lo: float) -> tuple[float, float]:
    log, rest = _wide_log(hi)
    return log, rest + lo / hi


@kernel
def narrow_log_in_parts(hi: float, lo: float) -> tuple[float, float]:
    return wide_log(hi), 0.0


@kernel
def fast_log_in_parts(hi: float, lo: float) -> tuple[float, float]:
    log, rest = _fast_log(hi)
    return log, rest + lo / hi


@kernel
def _as_c99(u: float, v: float, v_lo: float, grown: float, whole: float) -> float:
    """u**(v + v_lo), given |u|**(v + v_lo) where all are ordinary numbers; v_lo is the rest of v, and `whole` as WHOLE."""
    a, b = abs(u), abs(v)
    half = 0.5 * b
    is_whole = v_lo == 0.0 and (b >= whole or (b + whole) - whole == b)
    is_odd = is_whole and half < whole and (half + whole) - whole != half
    upward = v > 0.0
    magnitude = (0.0 if upward else INFINITY) if a == 0.0 else grown
    magnitude = (INFINITY if upward else 0.0) if a == INFINITY else magnitude
    magnitude = 1.0 if a == 1.0 else magnitude
    value = copysign(magnitude, u) if is_odd else magnitude
    value = NAN if u < 0.0 and a < INFINITY and not is_whole else value
    value = u + v if u != u or v != v else value
    return 1.0 if v == 0.0 or u == 1.0 else value


@kernel
def _wide_power(u: float, v: float, v_lo: float) -> float:
    log, log_lo = _wide_log(abs(u))
    hi = v * log
    return _as_c99(u, v, v_lo, wide_scaled_exp(1.0, hi, fma(v, log, -hi) + fma(v, log_lo, v_lo * log)), WHOLE)


@kernel
def wide_power(u: float, v: float) -> float:
    return _wide_power(u, v, 0.0)


@kernel
def wide_lower_power(u: float, v: float) -> float:
    """u**(v - 1), where v - 1 is not rounded."""
    less, rest = _less_one(v)
    return _wide_power(u, less, rest)


@kernel
def _less_one(v: float) -> tuple[float, float]:
    """v - 1 as a number and its rest, which an infinity has not."""
    less, rest = sum_pair(v, -1.0)
    return less, rest if abs(v) < INFINITY else 0.0


@kernel
def narrow_power(u: float, v: float) -> float:
    """The logarithm's error, 2^-40 of it, comes out up to 150 times as large: of a float32 that is a part in a hundred of its last place."""
    return _as_c99(u, v, 0.0, narrow_exp(v * narrow_log(abs(u))), WHOLE)


@kernel
def narrow_lower_power(u: float, v: float) -> float:
    return narrow_power(u, v - 1.0)


@kernel
def _fast_power(u: float, v: float, v_lo: float) -> float:
    log, log_lo = _fast_log(abs(u))
    hi = v * log
    return _as_c99(u, v, v_lo, fast_scaled_exp(1.0, hi, fma(v, log, -hi) + fma(v, log_lo, v_lo * log)), FAST_WHOLE)


@kernel
def fast_power(u: float, v: float) -> float:
    return _fast_power(u, v, 0.0)


@kernel
def fast_lower_power(u: float, v: float) -> float:
    less, rest = _less_one(v)
    return _fast_power(u, less, rest)
