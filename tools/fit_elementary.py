"""Prints the constants of `actserve_server.elementary.*`: `python tools/fit_elementary.py [NAME]...`.

Each table is a polynomial, lowest power first, found by Remez's exchange at 60 digits and then rounded to float64;
the error printed above it is that of the rounded polynomial, measured at 60 digits. Constants that are one real number
come as a float64 and the float64 of what it leaves out. The modules quote the lines printed here; this program is run
by hand when a table is to change, and nothing else depends on it.
"""

from __future__ import annotations

import argparse
import dataclasses
from collections.abc import Callable
from typing import Any

import mpmath as mp

mp.mp.dps = 60
Real = Any  # mpmath ships no types
Function = Callable[[Real], Real]

LN2 = mp.log(2)
TAIL_CENTRE = mp.mpf(4)
"""c in t = (a - c)/(a + c) = 1 - 2c/(a + c): among powers of two, whose products are exact, the best of 2, 4 and 8."""


@dataclasses.dataclass(frozen=True)
class Table:
    """A polynomial to fit: `function` on [low, high]; what it is for weighs its error as `weight` (error * weight)."""

    function: Function
    low: Real
    high: Real
    degree: int
    weight: Function
    meaning: str


def exp_remainder(r: Real) -> Real:
    """q in exp(r) = 1 + r + r^2 q."""
    return mp.taylor(mp.exp, 0, 20)[2] + r / 6 + r**2 / 24 if abs(r) < mp.mpf(10) ** -18 else (mp.expm1(r) - r) / r**2


def log_remainder(z: Real) -> Real:
    """p in log((1 + s)/(1 - s)) = 2s + s z p, where z = s^2."""
    s = mp.sqrt(z)
    return mp.mpf(2) / 3 + 2 * z / 5 if z < mp.mpf(10) ** -20 else (2 * mp.atanh(s) - 2 * s) / (s * z)


def scaled_normal_tail(t: Real) -> Real:
    """(a + c) exp(a^2/2) Phi(-a), where a = c (1 + t)/(1 - t)."""
    a = TAIL_CENTRE * (1 + t) / (1 - t)
    return (a + TAIL_CENTRE) * mp.exp(a * a / 2) * mp.erfc(a / mp.sqrt(2)) / 2


def silu_slope(t: Real) -> Real:
    sigmoid = 1 / (1 + mp.exp(-t))
    return sigmoid * (1 + t * (1 - sigmoid))


def gelu_slope(x: Real) -> Real:
    return mp.ncdf(x) + x * mp.npdf(x)


SILU_ROOT = mp.findroot(silu_slope, -1.278)
GELU_ROOT = mp.findroot(gelu_slope, -0.7518)


def quotient(function: Function, root: Real) -> Function:
    """d -> f(root + d)/d, which has no zero of its own."""
    return lambda d: function(root + d) / d if abs(d) > mp.mpf(10) ** -25 else mp.diff(function, root)


def relative(function: Function) -> Function:
    """The weight that makes an error relative to a function."""
    return lambda x: 1 / function(x)


def log_bound() -> Real:
    """The largest s^2 for s = f/(2 + f), where 1 + f lies between sqrt(1/2) and sqrt(2)."""
    return ((mp.sqrt(2) - 1) / (mp.sqrt(2) + 1)) ** 2


def tables() -> dict[str, Table]:
    half_ln2 = LN2 / 2 * (1 + mp.mpf(2) ** -20)  # rounding to the nearest n may miss by a little
    near = mp.mpf("0.2501")
    result: dict[str, Table] = {}
    for kind, exp_degree, log_degree, tail_degree, tail_end, slope_degree in (
        ("WIDE", 10, 6, 23, 40, 13),
        ("NARROW", 6, 4, 14, 16, 9),
    ):
        result[f"{kind}_EXP"] = Table(
            exp_remainder, -half_ln2, half_ln2, exp_degree, lambda r: r**2 / mp.exp(r), "q in exp(r) = 1 + r + r^2 q(r)"
        )
        result[f"{kind}_LOG"] = Table(
            log_remainder,
            mp.mpf(0),
            log_bound(),
            log_degree,
            lambda z: z / 2,
            "p in log(1 + f) = 2s + s z p(z), z = s^2",
        )
        result[f"{kind}_TAIL"] = Table(
            scaled_normal_tail,
            mp.mpf(-1),
            (tail_end - TAIL_CENTRE) / (tail_end + TAIL_CENTRE),
            tail_degree,
            relative(scaled_normal_tail),
            f"(a + 4) exp(a^2/2) Phi(-a) of t = (a - 4)/(a + 4), a up to {tail_end}",
        )
        for name, function, root in (("SILU", silu_slope, SILU_ROOT), ("GELU", gelu_slope, GELU_ROOT)):
            ratio = quotient(function, root)
            result[f"{kind}_{name}_SLOPE"] = Table(
                ratio, -near, near, slope_degree, relative(ratio), f"{name.lower()}'(root + d)/d"
            )
    return result


def minimax_fit(table: Table, exchanges: int = 6, points: int = 600) -> list[float]:
    """Remez's exchange, begun at Chebyshev's points: float64 coefficients, lowest power first.

    >>> minimax_fit(Table(lambda x: 1 + 2 * x, mp.mpf(-1), mp.mpf(1), 1, lambda x: mp.mpf(1), "a line"))
    [1.0, 2.0]
    """
    count = table.degree + 2
    middle, half = (table.high + table.low) / 2, (table.high - table.low) / 2
    grid = [middle - half * mp.cos(mp.pi * k / points) for k in range(points + 1)]
    targets, weights = [table.function(x) for x in grid], [table.weight(x) for x in grid]
    reference = [round(points * (k + 0.5) / count) for k in range(count)]
    solution: Real = None
    for _ in range(exchanges):
        matrix, right = mp.matrix(count, count), mp.matrix(count, 1)
        for row, place in enumerate(reference):
            for power in range(count - 1):
                matrix[row, power] = weights[place] * grid[place] ** power
            matrix[row, count - 1] = (-1) ** row
            right[row] = weights[place] * targets[place]
        solution = mp.lu_solve(matrix, right)[: count - 1]
        high_first = list(reversed(solution))
        errors = [
            weight * (mp.polyval(high_first, x) - target)
            for x, target, weight in zip(grid, targets, weights, strict=True)
        ]
        reference = alternation(errors, count) or reference
    return [float(value) for value in solution]


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


def error_of(table: Table, coefficients: list[float], points: int = 400) -> Real:
    step = (table.high - table.low) / points
    high_first = [mp.mpf(value) for value in reversed(coefficients)]
    return max(
        abs((mp.polyval(high_first, x) - table.function(x)) * table.weight(x))
        for x in (table.low + step * k for k in range(points + 1))
    )


def pair(value: Real) -> tuple[float, float]:
    """A real number as a float64 and the float64 of the rest."""
    return float(value), float(value - mp.mpf(float(value)))


def ln2_pair() -> tuple[float, float]:
    """ln 2 in two parts, the first with 32 bits, so that its product with any exponent is exact."""
    high = float(mp.floor(LN2 * 2**32) / mp.mpf(2) ** 32)
    return high, float(LN2 - mp.mpf(high))


def constants() -> dict[str, tuple[float, float]]:
    return {
        "LN2": ln2_pair(),
        "LOG2_E": pair(1 / LN2),
        "INVERSE_SQRT_2PI": pair(1 / mp.sqrt(2 * mp.pi)),
        "SILU_ROOT": pair(SILU_ROOT),
        "GELU_ROOT": pair(GELU_ROOT),
    }


def main() -> None:
    known_tables, known_constants = tables(), constants()
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help="what to print; everything unless told")
    for name in parser.parse_args().names or [*known_constants, *known_tables]:
        if name in known_constants:
            high, low = known_constants[name]
            print(f"{name}_HI = {high!r}\n{name}_LO = {low!r}\n")
            continue
        table = known_tables[name]
        coefficients = minimax_fit(table)
        error = mp.nstr(mp.log(error_of(table, coefficients), 2), 4)
        print(f"# {table.meaning}, on [{mp.nstr(table.low, 5)}, {mp.nstr(table.high, 5)}]: error 2^{error}")
        print(f"{name} = (")
        for value in coefficients:
            print(f"    {value!r},")
        print(")\n")


if __name__ == "__main__":
    main()
