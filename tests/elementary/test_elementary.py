"""Holds every elementary function, in each of its precisions, to mpmath within a stated error."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import mpmath as mp
import numba
import numpy as np
import pytest
from actserve_server import elementary
from actserve_server.kernels import build
from actserve_server.kernels.binding import Bindings

Real = Any  # mpmath ships no types
Array = np.ndarray[Any, Any]

assert build.Unit  # imported before anything is compiled: it says for which processor


@dataclasses.dataclass(frozen=True)
class Precision:
    primitives: dict[str, Any]
    bindings: Bindings
    dtype: type[np.floating[Any]]
    """What the numbers are."""
    points: type[np.floating[Any]]
    """Of which type the points to test at are."""


WIDE = Precision(elementary.WIDE, Bindings(elementary.WIDE), np.float64, np.float64)
NARROW = Precision(elementary.NARROW, Bindings(elementary.NARROW), np.float64, np.float32)
FAST = Precision(elementary.FAST, Bindings(elementary.FAST, np.float32), np.float32, np.float32)
PRECISIONS = {"wide": WIDE, "narrow": NARROW, "fast": FAST}


def compiled(name: str, precision: Precision, results: int = 1) -> Callable[..., Any]:
    """A primitive as a function of arrays."""
    function = precision.bindings.inline(precision.primitives[name])
    count = precision.primitives[name].__code__.co_argcount

    if results == 2 and count == 1:

        def loop(out, rest, a):  # type: ignore[no-untyped-def]
            for p in range(out.size):
                out[p], rest[p] = function(a[p])

    elif results == 2:

        def loop(out, rest, a, b):  # type: ignore[no-untyped-def]
            for p in range(out.size):
                out[p], rest[p] = function(a[p], b[p])

    elif count == 1:

        def loop(out, a):  # type: ignore[no-untyped-def]
            for p in range(out.size):
                out[p] = function(a[p])

    elif count == 2:

        def loop(out, a, b):  # type: ignore[no-untyped-def]
            for p in range(out.size):
                out[p] = function(a[p], b[p])

    elif count == 5:

        def loop(out, a, b, c, d, e):  # type: ignore[no-untyped-def]
            for p in range(out.size):
                out[p] = function(a[p], b[p], c[p], d[p], e[p])

    elif name.endswith("_huge"):

        def loop(out, a, b, c):  # type: ignore[no-untyped-def]
            for p in range(out.size):
                out[p] = function(a[p], b[p], int(c[p]))

    else:

        def loop(out, a, b, c):  # type: ignore[no-untyped-def]
            for p in range(out.size):
                out[p] = function(a[p], b[p], c[p])

    machine = numba.njit(error_model="numpy")(loop)

    def call(*arguments: Array) -> Any:
        outputs = [np.empty(arguments[0].size, precision.dtype) for _ in range(results)]
        machine(*outputs, *arguments)
        return outputs if results == 2 else outputs[0]

    return call


def error(value: float, exact: Real, precision: Precision) -> float:
    """The error in units in the last place; for the narrow functions in units of 2^-40 of the result."""
    limits = np.finfo(precision.dtype)
    if np.isnan(value):
        return float("inf")
    if precision is NARROW:
        if abs(exact) < mp.mpf(2) ** -150:
            return 0.0 if abs(value) < 2.0**-149 else float("inf")
        if abs(exact) >= mp.mpf(2) ** 128:
            return 0.0 if abs(value) >= 2.0**127.999999 and (value > 0) == (exact > 0) else float("inf")
        return float(abs(mp.mpf(value) - exact) / abs(exact) * mp.mpf(2) ** 40)
    if np.isinf(value):
        beyond = mp.mpf(float(limits.max)) * (1 + mp.mpf(2) ** (-limits.nmant - 2))
        return 0.0 if abs(exact) >= beyond and (value > 0) == (exact > 0) else float("inf")
    unit = mp.mpf(float(limits.smallest_subnormal))
    if exact != 0:
        unit = max(unit, mp.mpf(2) ** (mp.frexp(abs(exact))[1] - 1 - limits.nmant))
    return float(abs(mp.mpf(float(value)) - exact) / unit)


Points = Callable[[Precision], tuple[Array, ...]]


def _random() -> np.random.Generator:
    """Afresh for every use, so that no test's points depend on which ran before it."""
    return np.random.default_rng(5)


def spread(low: float, high: float, precision: Precision, count: int = 120) -> Array:
    """Magnitudes from low to high, evenly in their logarithms."""
    exponents = np.linspace(np.log(low), np.log(high), count) + _random().uniform(-1, 1, count) * 1e-3
    return np.clip(np.exp(exponents), low, high).astype(precision.points)


def signed(x: Array) -> Array:
    return np.concatenate([x, -x])


def reach(precision: Precision) -> tuple[float, float]:
    """About the least subnormal number, and about the largest."""
    return (1e-322, 1.7e308) if precision is WIDE else (2e-45, 3.3e38)


def whole_line(precision: Precision) -> tuple[Array, ...]:
    least, most = reach(precision)
    return (np.concatenate([signed(spread(least, most, precision)), signed(spread(1e-3, 30, precision))]),)


def short_of_one(precision: Precision) -> tuple[Array, ...]:
    """Where neither tanh nor erf is yet 1 in float32, if that is what the result will be."""
    x = whole_line(precision)[0]
    return (x[abs(x) <= 3.9] if precision is NARROW else x,)


def exponents(precision: Precision) -> Array:
    """Arguments of exp: both tails with the subnormal results, and the edges where the result overflows or vanishes."""
    low, high = (745.2, 709.79) if precision is WIDE else (104.0, 88.73)
    near_edges = np.concatenate([np.linspace(high - 0.02, high + 1, 20), np.linspace(-low - 2, -low * 0.93, 40)])
    far = np.array([0.0, -0.0, 1e5, -1e5, np.inf, -np.inf])
    return np.concatenate([whole_line(precision)[0], near_edges, far, -spread(1, low, precision)]).astype(
        precision.points
    )


def rests(hi: Array, precision: Precision) -> Array:
    """What rounding may have taken from a number."""
    finite = np.where(np.isfinite(hi), hi, 0)
    rounding = np.finfo(precision.dtype).eps / 2
    return (_random().uniform(-rounding, rounding, hi.size) * finite).astype(precision.dtype)


def exp_arguments(precision: Precision) -> tuple[Array, ...]:
    hi = exponents(precision)
    return hi, rests(hi, precision)


def decays(precision: Precision) -> tuple[Array, ...]:
    hi = exponents(precision)
    hi = hi[hi <= 0]
    return hi, rests(hi, precision)


def scaled_arguments(precision: Precision) -> tuple[Array, ...]:
    hi = -np.concatenate([spread(1e-5, 1400 if precision is WIDE else 190, precision, 200)] * 2)
    largest = 1e300 if precision is WIDE else 1e30
    y = np.exp(_random().uniform(-np.log(largest), np.log(largest), hi.size)).astype(precision.points)
    return np.where(np.arange(hi.size) % 2, y, -y), hi, rests(hi, precision)


def above_minus_one(precision: Precision) -> tuple[Array, ...]:
    least, most = reach(precision)
    if precision is not FAST:
        most = min(most, 1e300)
    near = 1 - np.finfo(precision.points).eps
    return (
        np.concatenate([spread(least, most, precision), spread(0.1, 10, precision), -spread(least, near, precision)]),
    )


def positive(precision: Precision) -> tuple[Array, ...]:
    least, most = reach(precision)
    return (np.concatenate([spread(least, most, precision), spread(0.5, 2, precision), [1.0, np.inf]]),)


def tail_arguments(precision: Precision) -> tuple[Array, ...]:
    end = {"wide": 40.0, "narrow": 16.0, "fast": 15.0}[prefix_of(precision)]
    return (np.concatenate([[0.0], spread(1e-4, end, precision), spread(0.5, 5, precision)]),)


def prefix_of(precision: Precision) -> str:
    return next(prefix for prefix, known in PRECISIONS.items() if known is precision)


def near_zero(precision: Precision) -> tuple[Array, ...]:
    return (signed(spread(1e-30, 0.25, precision)),)


def sums(precision: Precision) -> tuple[Array, ...]:
    b, c = spread(1e-10, 1e10, precision), spread(1e-3, 1e3, precision)
    return signed(spread(1e-5, 1e5, precision, b.size // 2)), b, c


def angles(precision: Precision) -> tuple[Array, ...]:
    """Small and large ones, and what lies nearest to multiples of pi/2."""
    limit = precision.primitives["TRIG_LIMIT"]
    quarters = np.concatenate([np.arange(1, 40), np.geomspace(50, limit / 2, 60).astype(int)]) * (np.pi / 2)
    hi = np.concatenate(
        [signed(spread(reach(precision)[0], limit, precision)), signed(spread(0.1, 20, precision)), quarters, [limit]]
    )
    hi = hi.astype(precision.points)
    return hi, np.zeros_like(hi)


def angle_sums(precision: Precision) -> tuple[Array, ...]:
    hi = signed(spread(0.1, precision.primitives["TRIG_LIMIT"], precision))
    return hi, rests(hi, precision)


def huge_angles(precision: Precision) -> tuple[Array, ...]:
    known = (
        [1e22, 2.0**1000, 6381956970095103 * 2.0**797, 1.7976931348623157e308]
        if precision is WIDE
        else [2.0**100, 1e22]
    )
    hi = np.concatenate([signed(spread(1e-30, reach(precision)[1], precision, 40)), known]).astype(precision.points)
    return np.concatenate([hi, hi]), np.concatenate([rests(hi, precision), np.zeros_like(hi)]), np.zeros(2 * hi.size)


def scaled_angles(precision: Precision) -> tuple[Array, ...]:
    """Beyond what a number holds."""
    hi = signed(spread(1e-5, reach(precision)[1], precision, 60))
    return hi, rests(hi, precision), np.tile([1024.0, 700.0], hi.size // 2)


def of_scaled(function: Callable[[Real], Real]) -> Callable[..., Real]:
    return lambda hi, lo, scale: function((hi + lo) * mp.mpf(2) ** int(scale))


@dataclasses.dataclass(frozen=True)
class Case:
    name: str
    exact: Callable[..., Real]
    points: Points
    wide: float = 1.1
    fast: float = 1.2
    narrow: float = 1.3
    absolute: bool = False
    """Whether errors count beside 1 instead of beside the result, as do those of a rest that is itself rounded."""
    digits: int = 60


def tail(a: Real) -> Real:
    return mp.exp(a * a / 2) * mp.erfc(a / mp.sqrt(2)) / 2


@functools.cache
def gelu_root() -> Real:
    with mp.workdps(60):
        return mp.findroot(gelu_slope, -0.7518)


def gelu_slope_ratio(a: Real) -> Real:
    return (a / mp.sqrt(2 * mp.pi) - tail(a)) / (a + gelu_root())


def slope_quotient(function: Callable[[Real], Real], start: float) -> Callable[[Real], Real]:
    with mp.workdps(60):
        root = mp.findroot(function, start)
    return lambda d: function(root + d) / d


def silu_slope(x: Real) -> Real:
    share = 1 / (1 + mp.exp(-x))
    return share * (1 + x * (1 - share))


def gelu_slope(x: Real) -> Real:
    return mp.ncdf(x) + x * mp.npdf(x)


def ordinary(precision: Precision) -> tuple[Array, ...]:
    """hi and lo up to EXP_LIMIT."""
    limit = 350.0 if precision is WIDE else 87.0
    hi = np.concatenate([signed(spread(1e-6, limit, precision)), signed(spread(0.1, 5, precision))])
    lo = _random().uniform(-0.5, 0.5, hi.size) * np.spacing(np.abs(hi))
    return hi, (lo * 2.0**-29 if precision is NARROW else lo).astype(precision.points)


def up_to_one(precision: Precision) -> tuple[Array, ...]:
    return (np.concatenate([spread(1e-30, 1.0, precision), np.array([0.0, 1.0], precision.points)]),)


def gate_slope(y: Real, growth: Real, rest: Real, hi: Real, lo: Real) -> Real:
    share = 1 / (1 + mp.exp(-(hi + lo)))
    return y * (share + (growth + rest) * share * (1 - share))


def gates(precision: Precision) -> tuple[Array, ...]:
    y, hi = weighted(precision)
    lo = ordinary(precision)[1]
    return y, (2 * hi).astype(precision.points), lo, hi, lo


def weighted(precision: Precision) -> tuple[Array, ...]:
    hi, _ = ordinary(precision)
    return _random().uniform(0.5, 2, hi.size).astype(precision.points), hi


def powers(precision: Precision) -> tuple[Array, ...]:
    """Results of all magnitudes, subnormal and just short of the largest, of bases of all magnitudes and near 1."""
    low, high = (745.1, 709.78) if precision is WIDE else (103.9, 88.72)
    chance = _random()
    logarithms = np.concatenate(
        [chance.uniform(-low, high, 150), chance.normal(0, 1, 200), chance.normal(0, 1e-3, 100), [1e-6, 0.3, -low, 2.0]]
    )
    u = np.exp(logarithms).astype(precision.points)
    wanted = np.concatenate([chance.uniform(-low, high, u.size - 100), chance.normal(0, 2, 100)])
    with np.errstate(all="ignore"):
        v = (wanted / np.log(u.astype(float))).astype(precision.points)
    usable = np.isfinite(v) & (u > 0)
    return u[usable], v[usable]


CASES = (
    # Of 16,000 points the worst were 0.96, 0.96 and, where NARROW's results are not yet too large for a float32, 40.
    Case("power", mp.power, powers, wide=1.0, fast=1.0, narrow=60),
    Case("lower_power", lambda u, v: mp.power(u, v - 1), powers, wide=1.0, fast=1.0, narrow=60),
    Case("quick_exp", lambda hi, lo: mp.exp(hi + lo), ordinary, fast=1.2),
    Case("square_of_more", lambda e: (1 + e) ** 2, up_to_one, wide=1.6, fast=0.54),
    Case("log_of_more", mp.log1p, up_to_one, fast=1.5, narrow=3.2),
    # Where they cancel, errors count beside 1.
    Case("swish_slope", lambda hi, lo: silu_slope(hi + lo), ordinary, wide=4.5, fast=4.0, absolute=True),
    Case("scaled_swish_slope", lambda y, x: y * silu_slope(x), weighted, wide=4.5, fast=4.0, absolute=True),
    Case("gate_slope", gate_slope, gates, wide=3.5, fast=3.0, absolute=True),
    Case("exp", mp.exp, lambda precision: (exponents(precision),), fast=1.0),
    Case("exp_sum", lambda hi, lo: mp.exp(hi + lo), exp_arguments, fast=1.0),
    Case("decay_sum", lambda hi, lo: mp.exp(hi + lo), decays),
    Case("scaled_exp", lambda y, hi, lo: y * mp.exp(hi + lo), scaled_arguments, fast=1.5),
    Case("decayed", lambda y, hi, lo: y * mp.exp(hi + lo), scaled_arguments, fast=1.5),
    Case("expm1", mp.expm1, lambda precision: (exponents(precision),), wide=1.5, fast=1.5, narrow=12),
    Case("log1p", mp.log1p, above_minus_one, fast=1.3),
    Case("log", mp.log, positive),
    Case("tanh", mp.tanh, whole_line, wide=1.6, narrow=12),
    Case("erf", mp.erf, whole_line, narrow=8),
    # The fast functions' bounds, here and of the next three, are near the worst of all float32: 3.40, 2.89, 2.71, 1.56.
    Case("tanh_alone", mp.tanh, short_of_one, wide=1.6, fast=3.5, narrow=3),
    Case("erf_alone", mp.erf, short_of_one, fast=3.0, narrow=8),
    Case("atan", mp.atan, whole_line),
    Case("over_sum", lambda a, b, c: a / (b + c), sums, fast=1.5),
    # Of 4,500 points the worst wide ones were 1.9 and 1.8.
    Case("scaled_normal_tail", tail, tail_arguments, wide=2.1, fast=2.8, narrow=1.8),
    Case("gelu_slope_ratio", gelu_slope_ratio, tail_arguments, wide=1.9, fast=1.6, narrow=5),
    Case("sin_sum", lambda hi, lo: mp.sin(hi + lo), angles, wide=0.8, fast=0.8),
    Case("cos_sum", lambda hi, lo: mp.cos(hi + lo), angles, wide=0.8, fast=0.8),
    Case("sin_sum", lambda hi, lo: mp.sin(hi + lo), angle_sums, wide=0.8, fast=0.8, absolute=True),
    Case("cos_sum", lambda hi, lo: mp.cos(hi + lo), angle_sums, wide=0.8, fast=0.8, absolute=True),
    Case("sin_huge", of_scaled(mp.sin), huge_angles, wide=0.8, fast=0.8, absolute=True, digits=700),
    Case("cos_huge", of_scaled(mp.cos), huge_angles, wide=0.8, fast=0.8, absolute=True, digits=700),
    Case("sin_huge", of_scaled(mp.sin), scaled_angles, wide=0.8, fast=0.8, absolute=True, digits=1000),
    Case("cos_huge", of_scaled(mp.cos), scaled_angles, wide=0.8, fast=0.8, absolute=True, digits=1000),
    Case("silu_slope_quotient", slope_quotient(silu_slope, -1.278), near_zero, wide=2.0, fast=1.7, digits=80),
)


@pytest.mark.parametrize("prefix", PRECISIONS)
@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case.name}-{case.points.__name__.strip('<>')}")
def test_errors_stay_within_their_bounds(case: Case, prefix: str) -> None:
    precision = PRECISIONS[prefix]
    arguments = tuple(argument.astype(precision.dtype) for argument in case.points(precision))
    values = compiled(case.name, precision)(*arguments)
    worst, where = 0.0, ""
    with mp.workdps(case.digits):
        for value, *point in zip(values, *arguments, strict=True):
            exact = case.exact(*(mp.mpf(float(x)) for x in point))
            found = error(float(value), exact, precision)
            if case.absolute and abs(exact) < 0.5:
                found *= abs(float(exact))
            if found > worst:
                worst, where = found, f"{case.name}{tuple(map(float, point))} = {value!r}, not {mp.nstr(exact, 20)}"
    assert worst <= getattr(case, prefix), where


@pytest.mark.parametrize("prefix", PRECISIONS)
@pytest.mark.parametrize("name", ["expm1", "log1p", "tanh", "tanh_alone", "erf", "erf_alone", "atan"])
def test_odd_functions_keep_the_sign_of_zero(name: str, prefix: str) -> None:
    precision = PRECISIONS[prefix]
    values = compiled(name, precision)(np.array([0.0, -0.0], precision.dtype))
    assert list(values) == [0, 0]
    assert list(np.signbit(values)) == [False, True]


@pytest.mark.parametrize("prefix", PRECISIONS)
def test_limits_at_infinity(prefix: str) -> None:
    precision = PRECISIONS[prefix]
    infinities = np.array([np.inf, -np.inf], precision.dtype)
    assert list(compiled("tanh", precision)(infinities).astype(np.float32)) == [1, -1]
    assert list(compiled("erf_alone", precision)(infinities).astype(np.float32)) == [1, -1]
    assert list(compiled("tanh_alone", precision)(infinities).astype(np.float32)) == [1, -1]
    assert list(compiled("erf", precision)(infinities).astype(np.float32)) == [1, -1]
    assert list(compiled("atan", precision)(infinities)) == pytest.approx([np.pi / 2, -np.pi / 2], rel=1e-7)
    assert compiled("log", precision)(np.array([0.0], precision.dtype)) == [-np.inf]


@pytest.mark.parametrize("prefix", PRECISIONS)
def test_powers_are_those_of_c(prefix: str) -> None:
    """Signs, zeros, infinities, NaN, whole numbers that are odd, even, and too large to be odd."""
    precision = PRECISIONS[prefix]
    digits = np.finfo(precision.points).nmant
    whole = [1.0, 2.0, 3.0, 7.0, 64.0, 2.0**digits + 1, 2.0**digits, 2.0 ** (digits + 1) - 1, 2.0 ** (digits + 1), 1e30]
    parts = [0.5, 2.5, 1e-30, 2.0 ** (digits - 1) + 0.5]
    known = signed(np.array([0.0, *whole, *parts, np.inf, np.finfo(precision.points).smallest_subnormal]))
    known = np.append(known, np.nan).astype(precision.points).astype(precision.dtype)
    u, v = (side.ravel() for side in np.meshgrid(known, known))
    with np.errstate(all="ignore"):
        values = compiled("power", precision)(u, v).astype(precision.points)
        wanted = np.power(u, v).astype(precision.points)
    np.testing.assert_array_equal(np.isnan(values), np.isnan(wanted))
    np.testing.assert_array_equal(np.signbit(values)[~np.isnan(wanted)], np.signbit(wanted)[~np.isnan(wanted)])
    np.testing.assert_array_max_ulp(np.nan_to_num(values), np.nan_to_num(wanted), 2, dtype=precision.points)


@pytest.mark.parametrize(("name", "end"), [("tanh_alone", 9.09), ("erf_alone", 3.935)])
def test_fast_quotients_stay_within_one(name: str, end: float) -> None:
    """At every float32 near the end of what is not 1, where their error is as large as what is missing from 1."""
    first, last = np.array([0.8 * end, 1.01 * end], np.float32).view(np.int32)
    x = np.arange(first, last, dtype=np.int32).view(np.float32)
    values = compiled(name, FAST)(x)
    assert values.max() == 1
    assert (values[x >= np.float32(end)] == 1).all()


@pytest.mark.parametrize(("name", "exact"), [("tanh_alone", mp.tanh), ("erf_alone", mp.erf)])
def test_narrow_functions_alone_are_rounded_well(name: str, exact: Callable[[Real], Real]) -> None:
    x = np.concatenate([np.linspace(3.5, 9.5, 4000), spread(10, 1e38, NARROW)]).astype(np.float32).astype(np.float64)
    results = compiled(name, NARROW)(x).astype(np.float32)
    for result, point in zip(results.tolist(), x.tolist(), strict=True):
        assert abs(mp.mpf(result) - exact(mp.mpf(point))) <= mp.mpf(2) ** -24 * 0.5003, point


@pytest.mark.parametrize("prefix", PRECISIONS)
def test_the_normal_tail_comes_in_parts(prefix: str) -> None:
    precision = PRECISIONS[prefix]
    a = tail_arguments(precision)[0].astype(precision.dtype)
    above, below = compiled("normal_tail_parts", precision, results=2)(a)
    assert np.array_equal(above / below, compiled("scaled_normal_tail", precision)(a))


@pytest.mark.parametrize(("prefix", "bits"), [("wide", 53.9), ("fast", 23), ("narrow", 38)])
def test_a_logarithm_of_more_than_one_comes_in_parts(prefix: str, bits: float) -> None:
    precision = PRECISIONS[prefix]
    (e,) = up_to_one(precision)
    e = e.astype(precision.dtype)
    hi, lo = compiled("log_of_more_in_parts", precision, results=2)(e)
    if precision is not WIDE:
        assert not lo.any()
    for value, rest, point in zip(hi.tolist(), lo.tolist(), e.tolist(), strict=True):
        exact = mp.log1p(mp.mpf(point))
        assert abs(mp.mpf(value) + mp.mpf(rest) - exact) <= exact * mp.mpf(2) ** -bits


@pytest.mark.parametrize("prefix", PRECISIONS)
def test_what_a_quotient_lost_is_told(prefix: str) -> None:
    precision = PRECISIONS[prefix]
    x = _random().uniform(-300, 300, 2000).astype(precision.points).astype(precision.dtype)
    hi = (x / precision.dtype(7)).astype(precision.dtype)
    rest = compiled("quotient_rest", precision)(x, np.full_like(x, 7), hi)
    if precision is not WIDE:
        assert not rest.any()
        return
    with mp.workdps(60):
        for point, value, lost in zip(x.tolist(), hi.tolist(), rest.tolist(), strict=True):
            exact = mp.mpf(point) / 7 - mp.mpf(value)
            assert abs(mp.mpf(lost) - exact) <= abs(exact) * mp.mpf(2) ** -50


@pytest.mark.parametrize(("prefix", "bits"), [("wide", 54), ("fast", 25), ("narrow", 40)])
def test_a_sine_comes_in_parts(prefix: str, bits: int) -> None:
    precision = PRECISIONS[prefix]
    x = _random().uniform(-300, 300, 2000).astype(precision.points).astype(precision.dtype)
    hi, lo = compiled("sin_in_parts", precision, results=2)(x, np.zeros_like(x))
    if precision is not NARROW:
        assert np.array_equal(hi, compiled("sin_sum", precision)(x, np.zeros_like(x)))
    with mp.workdps(60):
        for value, rest, point in zip(hi.tolist(), lo.tolist(), x.tolist(), strict=True):
            exact = mp.sin(mp.mpf(point))
            assert abs(mp.mpf(value) + mp.mpf(rest) - exact) <= abs(exact) * mp.mpf(2) ** -bits


@pytest.mark.parametrize("prefix", ["wide", "fast"])
def test_sines_stay_within_one(prefix: str) -> None:
    precision = PRECISIONS[prefix]
    x = (np.arange(20_000) * (np.pi / 2) * (1 + np.finfo(precision.dtype).eps * np.arange(20_000) % 3)).astype(
        precision.dtype
    )
    for name in ("sin_sum", "cos_sum"):
        assert np.abs(compiled(name, precision)(x, np.zeros_like(x))).max() <= 1


@pytest.mark.parametrize("prefix", PRECISIONS)
def test_products_and_quotients_come_with_their_rests(prefix: str) -> None:
    precision = PRECISIONS[prefix]
    x = signed(spread(1e-3, 1e3, precision)).astype(precision.dtype)
    a = _random().uniform(0.1, 10, x.size)  # a parameter, a float64 in every precision
    tolerance = 2.0**-45 if precision is FAST else 2.0**-100
    for name, arguments, exact in (
        ("two_product", (a, x), lambda a, x: a * x),
        ("quotient", (x, a), lambda x, a: x / a),
    ):
        hi, lo = compiled(name, precision, results=2)(*arguments)
        with mp.workdps(60):
            for h, rest, *point in zip(hi, lo, *arguments, strict=True):
                true = exact(*(mp.mpf(float(value)) for value in point))
                assert abs(mp.mpf(float(h)) + mp.mpf(float(rest)) - true) <= abs(true) * tolerance
                assert abs(rest) <= 1.5 * np.spacing(abs(h))


def test_a_square_of_float32_is_exact() -> None:
    x = signed(spread(1e-3, 1e3, FAST))
    hi, lo = compiled("two_product", FAST, results=2)(x, x)
    assert np.array_equal(hi.astype(np.float64) + lo, x.astype(np.float64) ** 2)


@pytest.mark.parametrize("prefix", PRECISIONS)
def test_rests_of_infinite_products_are_zero(prefix: str) -> None:
    precision = PRECISIONS[prefix]
    x = np.array([np.inf, -np.inf, float(np.finfo(precision.dtype).max)], precision.dtype)
    hi, lo = compiled("two_product", precision, results=2)(np.full(3, 4.0), x)
    assert list(hi) == [np.inf, -np.inf, np.inf]
    assert list(lo) == [0, 0, 0]


@pytest.mark.parametrize("prefix", PRECISIONS)
def test_offsets_keep_their_digits_near_zero(prefix: str) -> None:
    precision = PRECISIONS[prefix]
    root_hi, root_lo = -1.2784645427610737, -1.0946994183093437e-16
    x = (root_hi + signed(spread(1e-7, 1, precision))).astype(precision.dtype)
    ones = np.ones_like(x, np.float64)
    values = compiled("offset", precision)(x, root_hi * ones, root_lo * ones)
    with mp.workdps(60):
        for value, point in zip(values, x, strict=True):
            exact = mp.mpf(float(point)) - mp.mpf(root_hi) - mp.mpf(root_lo)
            assert abs(mp.mpf(float(value)) - exact) <= abs(exact) * mp.mpf(2) ** (-23 if precision is FAST else -40)


@pytest.mark.parametrize("prefix", PRECISIONS)
def test_lines_keep_their_digits_near_zero(prefix: str) -> None:
    precision = PRECISIONS[prefix]
    slope, intercept = 1 / 6, 0.1
    x = (-intercept / slope + signed(spread(1e-4, 1, precision))).astype(precision.dtype)
    ones = np.ones_like(x, np.float64)
    values = compiled("line", precision)(slope * ones, x, intercept * ones)
    with mp.workdps(60):
        for value, point in zip(values, x, strict=True):
            exact = mp.mpf(slope) * mp.mpf(float(point)) + mp.mpf(intercept)
            assert abs(mp.mpf(float(value)) - exact) <= abs(exact) * mp.mpf(2) ** (-23 if precision is FAST else -52)


@pytest.mark.parametrize("prefix", PRECISIONS)
def test_lines_are_zero_where_they_should_be_and_infinite_at_infinity(prefix: str) -> None:
    precision = PRECISIONS[prefix]
    x = np.array([-2.0, np.inf, -np.inf], precision.dtype)
    values = compiled("line", precision)(np.full(3, 0.1), x, np.full(3, 0.2))
    assert list(values) == [0.0, np.inf, -np.inf]


def test_every_precision_has_every_name() -> None:
    assert elementary.WIDE.keys() == elementary.NARROW.keys() == elementary.FAST.keys()
    assert elementary.WIDE.keys() <= set(elementary.__all__)
