"""Prints the constants of `actserve_server.elementary.*`: `python tools/fit_elementary.py [NAME]...`.

Each table is a polynomial, lowest power first, found by Remez's exchange at 60 digits and then rounded, to float64 or, for
the fast functions, to float32; or it is a quotient of two polynomials, printed as NAME_ABOVE and NAME_BELOW, the highest
coefficient below being 1, which saves a multiplication. The error printed above a table is that of the rounded
polynomials, measured at 60 digits. Constants that are one real number come in parts, each the rounding of what those
before it leave out. The modules quote the lines printed here; this program is run by hand when a table is to change, and
nothing else depends on it.
"""

from __future__ import annotations

import argparse
import dataclasses
import itertools
import math
from collections.abc import Callable
from typing import Any

import mpmath as mp
import numpy as np

mp.mp.dps = 60
Real = Any  # mpmath ships no types
Function = Callable[[Real], Real]
Rounding = Callable[[Real], float]

LN2 = mp.log(2)
FAST_TANH_LINE, FAST_ERF_LINE = 0.125, 0.25
"""What is taken from tanh(x)/x and erf(x)/x, so that the quotient of the rest, and its error, is smaller where they are."""


@dataclasses.dataclass(frozen=True)
class Table:
    """A polynomial to fit: `function` on [low, high]; what it is for weighs its error as `weight` (error * weight)."""

    function: Function
    low: Real
    high: Real
    degree: int
    weight: Function
    meaning: str
    rounding: Rounding = float
    lower_degree: int = 0
    """Of the polynomial that it is divided by; 0 where there is none."""


def to_float32(value: Real) -> float:
    """The nearest float32, for which a float64 stands."""
    return float(np.float32(float(value)))


def exp_remainder(r: Real) -> Real:
    """q in exp(r) = 1 + r + r^2 q."""
    return mp.taylor(mp.exp, 0, 20)[2] + r / 6 + r**2 / 24 if abs(r) < mp.mpf(10) ** -18 else (mp.expm1(r) - r) / r**2


def log_remainder(z: Real) -> Real:
    """p in log((1 + s)/(1 - s)) = 2s + s z p, where z = s^2."""
    s = mp.sqrt(z)
    return mp.mpf(2) / 3 + 2 * z / 5 if z < mp.mpf(10) ** -20 else (2 * mp.atanh(s) - 2 * s) / (s * z)


def log_tail(z: Real) -> Real:
    """p in atanh(s) = s + s z/3 + s z^2 p, where z = s^2."""
    if z < mp.mpf(10) ** -12:
        return mp.mpf(1) / 5 + z / 7 + z**2 / 9
    s = mp.sqrt(z)
    return (mp.atanh(s) / s - 1 - z / 3) / z**2


def direct_log_remainder(f: Real) -> Real:
    """p in log(1 + f) = f - f^2/2 + f^3 p."""
    return mp.mpf(1) / 3 - f / 4 if abs(f) < mp.mpf(10) ** -15 else (mp.log1p(f) - f + f * f / 2) / f**3


def odd_remainder(function: Function, first: Real) -> Function:
    """p of z = x^2 in function(x) = x + x z p, for an odd function whose Taylor series begins x + first x^3."""

    def remainder(z: Real) -> Real:
        x = mp.sqrt(z)
        return first if z < mp.mpf(10) ** -20 else (function(x) - x) / (x * z)

    return remainder


def odd_weight(function: Function) -> Function:
    """The weight that makes the error of such a p one relative to the function."""
    return lambda z: z * mp.sqrt(z) / function(mp.sqrt(z)) if z > 0 else mp.mpf(0)


def cos_remainder(z: Real) -> Real:
    """q in cos(r) = 1 - z/2 + z^2 q, where z = r^2."""
    return mp.mpf(1) / 24 - z / 720 if z < mp.mpf(10) ** -15 else (mp.cos(mp.sqrt(z)) - 1 + z / 2) / z**2


def erf_excess(z: Real) -> Real:
    """q in erf(x) = x + x q, z = x^2."""
    return 2 / mp.sqrt(mp.pi) - 1 if z == 0 else mp.erf(mp.sqrt(z)) / mp.sqrt(z) - 1


def log_erfc(x: Real) -> Real:
    return mp.log(mp.erfc(x))


def ratio_of_odd(function: Function, first: Real) -> Function:
    """function(x)/x of z = x^2, for an odd function whose Taylor series begins first x."""
    return lambda z: function(mp.sqrt(z)) / mp.sqrt(z) if z else first


def scaled_normal_tail(a: Real) -> Real:
    return mp.exp(a * a / 2) * mp.erfc(a / mp.sqrt(2)) / 2


def tail_excess(rounding: Rounding) -> Function:
    """a -> 1/R - a sqrt(2 pi) - 3/2, where R is the scaled tail, and sqrt(2 pi) a number of the precision."""
    slope = mp.mpf(rounding(mp.sqrt(2 * mp.pi)))
    return lambda a: 1 / scaled_normal_tail(a) - a * slope - mp.mpf("1.5")


def gelu_slope_ratio(a: Real) -> Real:
    """S in gelu'(-a) = (r - a) S exp(-a^2/2), r being where gelu'(-r) = 0."""
    slope = quotient(lambda x: x / mp.sqrt(2 * mp.pi) - scaled_normal_tail(x), -GELU_ROOT)
    return slope(a + GELU_ROOT)


def less(function: Function, constant: Real) -> Function:
    """What a constant leaves of a function."""
    return lambda x: function(x) - mp.mpf(constant)


def silu_slope(t: Real) -> Real:
    sigmoid = 1 / (1 + mp.exp(-t))
    return sigmoid * (1 + t * (1 - sigmoid))


def gelu_slope(x: Real) -> Real:
    return mp.ncdf(x) + x * mp.npdf(x)


SILU_ROOT = mp.findroot(silu_slope, -1.278)
GELU_ROOT = mp.findroot(gelu_slope, -0.7518)


def gated_slope(gate: Function, gate_slope: Function) -> Function:
    """The derivative of x gate(x), given the gate and its derivative."""
    return lambda x: gate(x) + x * gate_slope(x)


def _gelu(x: Real) -> Real:
    return x * mp.ncdf(x)


def _sigmoid(x: Real) -> Real:
    return 1 / (1 + mp.exp(-x))


def _softplus(x: Real) -> Real:
    return mp.log1p(mp.exp(x))


# By name: the slope, and about where its zero is.
SLOPES: dict[str, tuple[Function, float]] = {
    "SMISH": (
        gated_slope(
            lambda x: mp.tanh(mp.log1p(_sigmoid(x))),
            lambda x: mp.sech(mp.log1p(_sigmoid(x))) ** 2 * _sigmoid(x) * _sigmoid(-x) / (1 + _sigmoid(x)),
        ),
        -1.2,
    ),
    "LOGISH": (
        gated_slope(lambda x: mp.log1p(_sigmoid(x)), lambda x: _sigmoid(x) * _sigmoid(-x) / (1 + _sigmoid(x))),
        -1.4,
    ),
    "SERF": (
        gated_slope(
            lambda x: mp.erf(_softplus(x)),
            lambda x: 2 / mp.sqrt(mp.pi) * mp.exp(-(_softplus(x) ** 2)) * _sigmoid(x),
        ),
        -1.0,
    ),
    "TANH_EXP": (
        gated_slope(lambda x: mp.tanh(mp.exp(x)), lambda x: mp.sech(mp.exp(x)) ** 2 * mp.exp(x)),
        -1.1,
    ),
    "PHISH": (
        gated_slope(lambda x: mp.tanh(_gelu(x)), lambda x: mp.sech(_gelu(x)) ** 2 * gelu_slope(x)),
        -1.2,
    ),
}
# Where the tables of slopes lie: around which x, and how far to both sides.
SLOPE_SPANS = {name: ("-1.5", "0.9376") if name == "PHISH" else ("-1.75", "1.1876") for name in SLOPES}
SLOPE_ROOTS = {name: mp.findroot(slope, near) for name, (slope, near) in SLOPES.items()}


def quotient(function: Function, root: Real) -> Function:
    """d -> f(root + d)/d, which has no zero of its own."""
    return lambda d: function(root + d) / d if abs(d) > mp.mpf(10) ** -25 else mp.diff(function, root)


def about(middle: Real, function: Function, root: Real) -> Function:
    """t -> f(middle + t)/(middle + t - root)."""
    ratio = quotient(function, root)
    return lambda t: ratio(middle + t - root)


def relative(function: Function) -> Function:
    """The weight that makes an error relative to a function."""
    return lambda x: 1 / function(x)


def log_bound() -> Real:
    """The largest s^2 for s = f/(2 + f), where 1 + f lies between sqrt(1/2) and sqrt(2)."""
    return ((mp.sqrt(2) - 1) / (mp.sqrt(2) + 1)) ** 2


WIDE_SLOPE_DEGREES = {"SMISH": 23, "LOGISH": 23, "SERF": 27, "TANH_EXP": 27, "PHISH": 29}
FAST_SLOPE_DEGREES = {"SMISH": 12, "LOGISH": 10, "SERF": 11, "TANH_EXP": 12, "PHISH": 12}


def tables() -> dict[str, Table]:
    half_ln2 = LN2 / 2 * (1 + mp.mpf(2) ** -20)  # rounding to the nearest n may miss by a little
    near = mp.mpf("0.2501")
    eighth, quarter = ((mp.pi / part * (1 + mp.mpf(2) ** -18)) ** 2 for part in (4, 2))
    fold = mp.sqrt(2) - 1
    result: dict[str, Table] = {}
    for (
        kind,
        exp_degree,
        log_degree,
        slope_degree,
        sin_degree,
        atan_degree,
    ) in (
        ("WIDE", 10, 6, 13, 5, 20),
        ("NARROW", 6, 4, 9, 5, 13),
        ("FAST", 4, 7, 6, 2, 8),
    ):
        tables_of_kind: dict[str, Table] = {}
        tables_of_kind["EXP"] = Table(
            exp_remainder, -half_ln2, half_ln2, exp_degree, lambda r: r**2 / mp.exp(r), "q in exp(r) = 1 + r + r^2 q(r)"
        )
        if kind == "NARROW":
            tables_of_kind["CANCELLING_EXP"] = dataclasses.replace(tables_of_kind["EXP"], degree=exp_degree + 2)
        if kind == "FAST":
            tables_of_kind["LOG"] = Table(
                direct_log_remainder,
                mp.sqrt(mp.mpf("0.5")) - 1,
                fold,
                log_degree,
                lambda f: f**3 / mp.log1p(f) if f else mp.mpf(0),
                "p in log(1 + f) = f - f^2/2 + f^3 p(f)",
            )
            tables_of_kind["TANH"] = Table(
                odd_remainder(mp.tanh, -mp.mpf(1) / 3),
                mp.mpf(0),
                mp.mpf("0.36"),
                4,
                odd_weight(mp.tanh),
                "p in tanh(x) = x + x z p(z), z = x^2",
            )
        else:
            tables_of_kind["LOG"] = Table(
                log_remainder,
                mp.mpf(0),
                log_bound(),
                log_degree,
                lambda z: z / 2,
                "p in log(1 + f) = 2s + s z p(z), z = s^2",
            )
        if kind != "NARROW":
            tables_of_kind["LOG_TAIL"] = Table(
                log_tail,
                mp.mpf(0),
                log_bound(),
                {"WIDE": 8, "FAST": 2}[kind],
                lambda z: z**2 * mp.sqrt(z) / mp.atanh(mp.sqrt(z)) if z else mp.mpf(0),
                "p in log(1 + f) = 2s + 2 s z/3 + 2 s z^2 p(z), z = s^2",
            )
        tables_of_kind["LOG_OF_MORE"] = Table(
            odd_remainder(lambda t: 2 * mp.atanh(t / 2), mp.mpf(1) / 12),
            mp.mpf(0),
            mp.mpf(4) / 9 * (1 + mp.mpf(2) ** -20),
            {"WIDE": 9, "NARROW": 5, "FAST": 3}[kind],
            odd_weight(lambda t: 2 * mp.atanh(t / 2)),
            "p in log(1 + e) = t + t z p(z), t = 2e/(2 + e), z = t^2",
        )
        ratio = quotient(silu_slope, SILU_ROOT)
        tables_of_kind["SILU_SLOPE"] = Table(ratio, -near, near, slope_degree, relative(ratio), "silu'(root + d)/d")
        tables_of_kind["SIN"] = Table(
            odd_remainder(mp.sin, -mp.mpf(1) / 6),
            mp.mpf(0),
            quarter if kind == "NARROW" else eighth,
            sin_degree,
            odd_weight(mp.sin),
            "p in sin(r) = r + r z p(z), z = r^2",
        )
        if kind != "NARROW":
            tables_of_kind["COS"] = Table(
                cos_remainder,
                mp.mpf(0),
                eighth,
                sin_degree,
                lambda z: z**2 / mp.cos(mp.sqrt(z)),
                "q in cos(r) = 1 - z/2 + z^2 q(z), z = r^2",
            )
        tables_of_kind["ATAN"] = Table(
            odd_remainder(mp.atan, -mp.mpf(1) / 3),
            mp.mpf(0),
            mp.mpf(1),
            atan_degree,
            odd_weight(mp.atan),
            "p in atan(t) = t + t z p(z), z = t^2",
        )
        if kind != "NARROW":
            near_degree, far_degree, end = (12, 20, 6) if kind == "WIDE" else (6, 8, 4)
            tables_of_kind["ERF_NEAR"] = Table(
                erf_excess,
                mp.mpf(0),
                mp.mpf(1),
                near_degree,
                lambda z: 1 / (1 + erf_excess(z)),
                "q in erf(x) = x + x q(z), z = x^2",
            )
            tables_of_kind["ERF_FAR"] = Table(
                log_erfc, mp.mpf(1), mp.mpf(end), far_degree, lambda x: mp.erfc(x) / mp.erf(x), "log(1 - erf(x))"
            )
        for name, table in tables_of_kind.items():
            rounding = to_float32 if kind == "FAST" else float
            result[f"{kind}_{name}"] = dataclasses.replace(table, rounding=rounding)
    return result | slopes() | quotients() | curves()


def slopes() -> dict[str, Table]:
    """Derivatives around their zeros, divided by the distance: more to the left, where the closed forms cancel farther out."""
    result = {}
    for kind, degree, rounding in (("WIDE", WIDE_SLOPE_DEGREES, float), ("FAST", FAST_SLOPE_DEGREES, to_float32)):
        for name, (slope, _) in SLOPES.items():
            middle, reach = map(mp.mpf, SLOPE_SPANS[name])
            ratio = about(middle, slope, SLOPE_ROOTS[name])
            meaning = f"{name.lower()}'(x)/(x - root), t = x + {mp.nstr(-middle, 3)}"
            result[f"{kind}_{name}_SLOPE"] = Table(
                ratio, -reach, reach, degree[name], relative(ratio), meaning, rounding
            )
    return result


def quotients() -> dict[str, Table]:
    """Tables of two polynomials, one divided by the other."""
    erf = ratio_of_odd(mp.erf, 2 / mp.sqrt(mp.pi))
    tanh = ratio_of_odd(mp.tanh, mp.mpf(1))
    fast_erf, fast_tanh = (mp.mpf(end) ** 2 for end in ("3.92", "9.02"))
    zero = mp.mpf(0)
    result = {
        f"NARROW_{name}": Table(
            function,
            zero,
            mp.mpf(end) ** 2,
            upper,
            relative(function),
            f"{odd}(x) = x p(z)/q(z), z = x^2",
            float,
            lower,
        )
        for name, odd, function, end, upper, lower in (
            ("TANH", "tanh", tanh, "13.3", 7, 6),
            ("TANH_ALONE", "tanh", tanh, "9.1", 6, 5),
            ("ERF", "erf", erf, "5", 8, 8),
            ("ERF_ALONE", "erf", erf, "3.95", 7, 7),
        )
    } | {
        "FAST_TANH_ALONE": Table(
            less(tanh, FAST_TANH_LINE),
            zero,
            fast_tanh,
            4,
            relative(tanh),
            "tanh(x) = x/8 + x p(z)/q(z), z = x^2",
            to_float32,
            4,
        ),
        "FAST_ERF_ALONE": Table(
            less(erf, FAST_ERF_LINE),
            zero,
            fast_erf,
            5,
            relative(erf),
            "erf(x) = x/4 + x p(z)/q(z), z = x^2",
            to_float32,
            5,
        ),
        "NARROW_TAIL": Table(
            scaled_normal_tail,
            zero,
            mp.mpf(16),
            6,
            relative(scaled_normal_tail),
            "R = exp(a^2/2) Phi(-a) = p(a)/q(a)",
            float,
            7,
        ),
    }
    long_tail = "1/R = a sqrt(2 pi) + 3/2 + p(a)/q(a), where R = exp(a^2/2) Phi(-a)"
    slope = "S = 1/sqrt(2 pi) + p(a)/q(a) in gelu'(-a) = (r - a) S exp(-a^2/2)"
    for kind, end, tail_degree, slope_degree, rounding in (
        ("WIDE", 40, 10, 9, float),
        ("NARROW", 16, 0, 6, float),
        ("FAST", 15, 4, 4, to_float32),
    ):
        if tail_degree:
            result[f"{kind}_TAIL"] = Table(
                tail_excess(rounding),
                zero,
                mp.mpf(end),
                tail_degree,
                scaled_normal_tail,
                long_tail,
                rounding,
                tail_degree,
            )
        result[f"{kind}_GELU_RATIO"] = Table(
            less(gelu_slope_ratio, rounding(1 / mp.sqrt(2 * mp.pi))),
            zero,
            mp.mpf(end),
            slope_degree - 1,
            relative(gelu_slope_ratio),
            slope,
            rounding,
            slope_degree,
        )
    return result


def tanh_shortfall(z: Real) -> Real:
    """p of z = x^2 in tanh(x) = x - x z p."""
    x = mp.sqrt(z)
    return mp.mpf(1) / 3 - 2 * z / 15 if z < mp.mpf(10) ** -15 else (x - mp.tanh(x)) / (x * z)


def curves() -> dict[str, Table]:
    """Tables that activations bring along, the same in every precision."""
    return {
        "SHRINK": Table(
            tanh_shortfall, mp.mpf(0), mp.mpf(1), 15, relative(tanh_shortfall), "p in tanh(x) = x - x z p(z), z = x^2"
        ),
        "EXP_REST": Table(
            exp_remainder, mp.mpf(-1), mp.mpf(0), 11, relative(exp_remainder), "p in exp(x) = 1 + x + x^2 p(x)"
        ),
    }


Fit = tuple[list[Real], list[Real]]
"""A numerator and a denominator, lowest power first; the denominator of a polynomial is 1."""


def minimax_fit(table: Table, exchanges: int = 6, points: int = 600) -> Fit:
    """Remez's exchange: rounded coefficients.

    It begins at Chebyshev's points, or, for a quotient, where the error of the one of least squares is largest.

    >>> minimax_fit(Table(lambda x: 1 + 2 * x, mp.mpf(-1), mp.mpf(1), 1, lambda x: mp.mpf(1), "a line"))
    ([1.0, 2.0], [1.0])
    """
    count = table.degree + table.lower_degree + 2
    middle, half = (table.high + table.low) / 2, (table.high - table.low) / 2
    grid = [middle - half * mp.cos(mp.pi * k / points) for k in range(points + 1)]
    targets, weights = [table.function(x) for x in grid], [table.weight(x) for x in grid]
    reference = [round(points * (k + 0.5) / count) for k in range(count)]
    fit: Fit = ([], [mp.mpf(1)])
    if table.lower_degree:
        fit = least_squares(table, grid[::3], targets[::3], weights[::3])
        reference = alternation(errors_of(fit, grid, targets, weights), count) or reference
    for _ in range(exchanges):
        fit = levelled(table, fit, *([series[place] for place in reference] for series in (grid, targets, weights)))
        reference = alternation(errors_of(fit, grid, targets, weights), count) or reference
    above, below = ([table.rounding(value / fit[1][-1]) for value in part] for part in fit)
    if table.rounding is to_float32 and table.lower_degree:
        return improved((above, below), grid, targets, weights)
    return above, below


def improved(fit: Fit, places: list[Real], targets: list[Real], weights: list[Real]) -> Fit:
    """A quotient of float32 whose error no change of one or two coefficients by up to two units in the last place lessens.

    To round each by itself can cost two bits. In float64 arithmetic, which is exact enough beside such an error.
    """
    x, target, weight = (np.array([float(value) for value in series]) for series in (places, targets, weights))
    split, last = len(fit[0]), len(fit[0]) + len(fit[1]) - 1
    best = np.array([float(value) for value in fit[0] + fit[1]])
    units = np.spacing(best.astype(np.float32)).astype(np.float64)

    def error(values: Any) -> float:
        polyval = np.polynomial.polynomial.polyval
        return float(np.abs((polyval(x, values[:split]) / polyval(x, values[split:]) - target) * weight).max())

    least, before = error(best), math.inf
    while least < before:
        before = least
        for first, second in itertools.combinations(range(last), 2):
            for steps in itertools.product(range(-2, 3), repeat=2):
                trial = best.copy()
                trial[[first, second]] += units[[first, second]] * steps
                found = error(trial)
                if found < least:
                    best, least = trial, found
    return best[:split].tolist(), best[split:].tolist()


def levelled(table: Table, fit: Fit, places: list[Real], targets: list[Real], weights: list[Real]) -> Fit:
    """The fit whose errors at some places are equally large, with alternating signs.

    A quotient p/q is found by steps: p - f q = +-e q/weight is linear in p, q and e but for the product of e and q,
    which is taken along the tangent at the last e and q.
    """
    upper, count = table.degree + 1, len(places)
    level = mp.mpf(0)
    for _ in range(10 if table.lower_degree else 1):
        matrix, right = mp.matrix(count, count), mp.matrix(count, 1)
        for row, (x, target, weight) in enumerate(zip(places, targets, weights, strict=True)):
            sign = (-1) ** row / weight
            for power in range(upper):
                matrix[row, power] = x**power
            for power in range(1, table.lower_degree + 1):
                matrix[row, upper + power - 1] = -(target + sign * level) * x**power
            below = value_at(fit[1], x)
            matrix[row, count - 1] = -sign * below
            right[row] = target + sign * level * (1 - below)
        solution = mp.lu_solve(matrix, right)
        level = solution[count - 1]
        fit = list(solution[:upper]), [mp.mpf(1), *solution[upper : count - 1]]
    return fit


def least_squares(table: Table, places: list[Real], targets: list[Real], weights: list[Real], rounds: int = 6) -> Fit:
    """A quotient p/q with a small sum of squares: that of weight (p - f q), each divided by the last q, again and again."""
    upper, count = table.degree + 1, table.degree + table.lower_degree + 1
    below = [mp.mpf(1)] * len(places)
    fit: Fit = ([], [])
    for _ in range(rounds):
        matrix, right = mp.matrix(len(places), count), mp.matrix(len(places), 1)
        for row, (x, target, weight) in enumerate(zip(places, targets, weights, strict=True)):
            scale, reduced = weight / below[row], x / table.high
            for power in range(upper):
                matrix[row, power] = scale * reduced**power
            for power in range(1, table.lower_degree + 1):
                matrix[row, upper + power - 1] = -scale * target * reduced**power
            right[row] = scale * target
        with mp.workdps(90):
            solution = mp.lu_solve(matrix, right)
        reduced_fit = list(solution[:upper]), [mp.mpf(1), *solution[upper:]]
        below = [abs(value_at(reduced_fit[1], x / table.high)) for x in places]
        fit = tuple([value / table.high**power for power, value in enumerate(part)] for part in reduced_fit)  # type: ignore[assignment]
    return fit


def value_at(coefficients: list[Real], x: Real) -> Real:
    return mp.polyval([mp.mpf(value) for value in reversed(coefficients)], x)


def errors_of(fit: Fit, places: list[Real], targets: list[Real], weights: list[Real]) -> list[Real]:
    return [
        (value_at(fit[0], x) / value_at(fit[1], x) - target) * weight
        for x, target, weight in zip(places, targets, weights, strict=True)
    ]


def alternation(errors: list[Real], count: int) -> list[int]:
    """Where the error is extreme between its changes of sign; `count` of them, or nothing if there are fewer."""
    extremes: list[int] = []
    for place, error in enumerate(errors):
        if extremes and mp.sign(errors[extremes[-1]]) == mp.sign(error):
            if abs(error) > abs(errors[extremes[-1]]):
                extremes[-1] = place
        elif error != 0:
            extremes.append(place)
    while len(extremes) > count:
        extremes.pop(0 if abs(errors[extremes[0]]) < abs(errors[extremes[-1]]) else -1)
    return extremes if len(extremes) == count else []


def error_of(table: Table, fit: Fit, points: int = 400) -> Real:
    step = (table.high - table.low) / points
    places = [table.low + step * k for k in range(points + 1)]
    return max(map(abs, errors_of(fit, places, [table.function(x) for x in places], [table.weight(x) for x in places])))


def parts(value: Real, rounding: Rounding = float, count: int = 2) -> list[float]:
    """A real number as its rounding, the rounding of the rest, and so on."""
    result: list[float] = []
    for _ in range(count):
        result.append(rounding(value))
        value = value - mp.mpf(result[-1])
    return result


def ln2_parts() -> list[float]:
    """ln 2 in two parts, the first with 32 bits, so that its product with any exponent is exact."""
    high = float(mp.floor(LN2 * 2**32) / mp.mpf(2) ** 32)
    return [high, float(LN2 - mp.mpf(high))]


def constants() -> dict[str, list[float]]:
    return {
        "LN2": ln2_parts(),
        "LOG2_E": parts(1 / LN2),
        "THIRD": parts(mp.mpf(1) / 3),
        "FAST_THIRD": parts(mp.mpf(1) / 3, to_float32),
        "SQRT_2PI": parts(mp.sqrt(2 * mp.pi)),
        "INVERSE_SQRT_2PI": parts(1 / mp.sqrt(2 * mp.pi)),
        "INVERSE_PI": parts(1 / mp.pi),
        "PI": parts(mp.pi),
        "INVERSE_HALF_PI": parts(2 / mp.pi),
        "HALF_PI": parts(mp.pi / 2, count=3),
        "FAST_LN2": parts(LN2, to_float32),
        "FAST_LOG2_E": parts(1 / LN2, to_float32),
        "FAST_SQRT_2PI": parts(mp.sqrt(2 * mp.pi), to_float32),
        "FAST_INVERSE_SQRT_2PI": parts(1 / mp.sqrt(2 * mp.pi), to_float32),
        "FAST_INVERSE_HALF_PI": parts(2 / mp.pi, to_float32),
        "FAST_HALF_PI": parts(mp.pi / 2, to_float32, 3),
        "SILU_ROOT": parts(SILU_ROOT),
        "FAST_SILU_ROOT": parts(SILU_ROOT, to_float32),
        "GELU_ROOT": parts(GELU_ROOT),
        **{f"{name}_ROOT": parts(root) for name, root in SLOPE_ROOTS.items()},
        "ELISH_ROOT": parts(mp.log(mp.sqrt(2) - 1)),
        "HARD_ELISH_ROOT": parts(mp.findroot(lambda x: mp.exp(x) * (x + 2) - 1, -0.44)),
    }


LEADING_ZEROS = 7
"""Digits of 1/pi before its point, so that the window of a small number begins in the table too."""


def inverse_half_pi_digits(count: int = 104) -> list[int]:
    """2/pi in digits of 24 bits, as `elementary.huge` reads them: LEADING_ZEROS zeros, then the fraction's digits."""
    with mp.workdps(800):
        digits = int(mp.floor(mp.ldexp(2 / mp.pi, 24 * (count - LEADING_ZEROS))))
    return [(digits >> 24 * place) & 0xFFFFFF for place in reversed(range(count))]


def main() -> None:
    known_tables, known_constants = tables(), constants()
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help="what to print; everything unless told")
    for name in parser.parse_args().names or [*known_constants, "INVERSE_HALF_PI_DIGITS", *known_tables]:
        if name in known_constants:
            suffixes = ("HI", "LO") if len(known_constants[name]) == 2 else ("HI", "MIDDLE", "LO")
            for suffix, part in zip(suffixes, known_constants[name], strict=True):
                print(f"{name}_{suffix} = {part!r}")
            print()
            continue
        if name == "INVERSE_HALF_PI_DIGITS":
            print(f"{name} = (")
            for digit in inverse_half_pi_digits():
                print(f"    0x{digit:06X},")
            print(")\n")
            continue
        table = known_tables[name]
        fit = minimax_fit(table)
        error = mp.nstr(mp.log(error_of(table, fit), 2), 4)
        print(f"# {table.meaning}, on [{mp.nstr(table.low, 5)}, {mp.nstr(table.high, 5)}]: error 2^{error}")
        for suffix, coefficients in zip(("_ABOVE", "_BELOW") if table.lower_degree else ("",), fit, strict=False):
            print(f"{name}{suffix} = (")
            for value in coefficients:
                print(f"    {value!r},")
            print(")\n")


if __name__ == "__main__":
    main()
