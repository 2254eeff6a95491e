"""Numbers in two parts, a number and its rest, for what one number would lose. Knows no functions."""

from __future__ import annotations

from actserve_server.elementary.source import kernel

__all__ = ["sum_pair"]


@kernel
def sum_pair(a: float, b: float) -> tuple[float, float]:
    """a + b as a number and its rest (Knuth's two-sum)."""
    total = a + b
    part = total - a
    return total, (a - (total - part)) + (b - part)
