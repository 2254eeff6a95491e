"""Loops that serve no activation in particular: tables for 16-bit tensors, and counts of what is not finite.

A 16-bit tensor has 65,536 possible elements, so an elementwise activation of it is a table, computed in float64 and rounded
once: correctly rounded by construction. This module does not know who fills the tables.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from typing import Any

import numpy as np
from numba.core import types as numba_types

from actserve_server.kernels.forms import Form

__all__ = ["SERVICES", "Service"]

Function = Callable[..., Any]

_BLOCK = 4096


def widen(form: Form) -> Function:
    """(bits, out): 16-bit elements as float32, exactly."""
    widened = form.widen

    def widen(bits, out):  # type: ignore[no-untyped-def]
        if bits.size != out.size:
            raise ValueError("out must have as many elements as the input")
        for p in range(out.size):
            out[p] = widened(bits[p])

    return widen


def narrow(form: Form) -> Function:
    """(values, out): float64 rounded to 16 bits, once."""
    store = form.store

    def narrow(values, out):  # type: ignore[no-untyped-def]
        if values.size != out.size:
            raise ValueError("out must have as many elements as the input")
        for p in range(out.size):
            out[p] = store(values[p], values[p])

    return narrow


def look_up(form: Form) -> Function:
    """(bits, table, out): the table's entry for every element."""

    def look_up(bits, table, out):  # type: ignore[no-untyped-def]
        if bits.size != out.size or table.size != 65_536:
            raise ValueError("out must have as many elements as the input, and the table 65,536")
        for p in range(out.size):
            out[p] = table[bits[p]]

    return look_up


def look_up_times(form: Form) -> Function:
    """(bits, g, table, out): the float64 table's entry for every element times its gradient, rounded once."""
    store, widened = form.store, form.widen

    def look_up_times(bits, g, table, out):  # type: ignore[no-untyped-def]
        if bits.size != out.size or g.size != out.size or table.size != 65_536:
            raise ValueError("out must have as many elements as the inputs, and the table 65,536")
        for p in range(out.size):
            y = table[bits[p]] * np.float64(widened(g[p]))
            out[p] = store(y, y)

    return look_up_times


def count_nonfinite(form: Form) -> Function:
    """(x, counts): add how many elements are NaN, +inf and -inf to counts[0], counts[1] and counts[2].

    A block is first looked at as a whole, in which nearly always there are none: that takes a subtraction an element.
    """
    widened = form.widen

    def count_bits(bits, counts):  # type: ignore[no-untyped-def]
        for begin in range(0, bits.size, _BLOCK):
            block = bits[begin : begin + _BLOCK]
            found = False
            for p in range(block.size):
                v = widened(block[p])
                found = found | (v - v != 0.0)
            if found:
                for p in range(block.size):
                    v = widened(block[p])
                    counts[0] += np.isnan(v)
                    counts[1] += v == math.inf
                    counts[2] += v == -math.inf

    def count(x, counts):  # type: ignore[no-untyped-def]
        for begin in range(0, x.size, _BLOCK):
            block = x[begin : begin + _BLOCK]
            found = False
            for p in range(block.size):
                found = found | (block[p] - block[p] != 0.0)
            if found:
                for p in range(block.size):
                    counts[0] += np.isnan(block[p])
                    counts[1] += block[p] == math.inf
                    counts[2] += block[p] == -math.inf

    return count_bits if form.result == numba_types.uint16 else count


@dataclasses.dataclass(frozen=True, slots=True)
class Service:
    """A loop's factory, and its arguments in the words of `build.ARGUMENTS`, or "stored" for a tensor as it is."""

    loop: Callable[[Form], Function]
    arguments: tuple[str, ...]


SERVICES: dict[str, Service] = {
    "widen": Service(widen, ("bits", "float_output")),
    "narrow": Service(narrow, ("wide_input", "output")),
    "look_up": Service(look_up, ("bits", "bits", "output")),
    "look_up_times": Service(look_up_times, ("bits", "bits", "wide_input", "output")),
    "count_nonfinite": Service(count_nonfinite, ("stored", "tally")),
}
"""What `compiler.load_service` offers; all but the last for 16-bit types alone."""
