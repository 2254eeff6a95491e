"""Numbers in two parts, a number and its rest, for what one number would lose. Knows no functions."""

from __future__ import annotations

from actserve_server.elementary.bits import fma
from actserve_server.elementary.source import kernel

__all__ = ["add_pair", "product_pair", "quotient_pair", "sum_pair"]


@kernel
def sum_pair(a: float, b: float) -> tuple[float, float]:
    """a + b as a number and its rest (Knuth's two-sum)."""
    total = a + b
    part = total - a
    return total, (a - (total - part)) + (b - part)


@kernel
def add_pair(total: float, rest: float, hi: float, lo: float) -> tuple[float, float]:
    """total + rest + hi + lo likewise."""
    grown, lost = sum_pair(total, hi)
    return grown, rest + (lost + lo)


@kernel
def product_pair(a: float, a_rest: float, b: float, b_rest: float) -> tuple[float, float]:
    """(a + a_rest)(b + b_rest) likewise, but for the product of the rests."""
    product = a * b
    return product, fma(a, b, -product) + (a * b_rest + a_rest * b)


@kernel
def quotient_pair(a: float, b: float) -> tuple[float, float]:
    """a/b likewise."""
    quotient = a / b
    return quotient, -fma(quotient, b, -a) / b
