"""The marks of what is source for the compiler: functions, and constants that keep their digits."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

Kernel = Callable[..., Any]
"""A function of scalars (or, where it says so, of arrays) in the compiler's part of Python; see `kernel`."""

_F = TypeVar("_F", bound=Kernel)


class Exact(float):
    """A constant that stays a float64 in every precision, for primitives that need all its digits.

    >>> SHARPNESS = Exact(1.702)

    In the fast kernels for float32 every other constant is rounded to float32. Where an error of a constant would be
    amplified, as in exp(1.702 x), it is declared so and given to `two_product` or `offset`.
    """


def kernel(function: _F) -> _F:
    """Mark a plain function as source for the compiler.

    It is compiled in up to three precisions (see `actserve_server.elementary`), so it says 1.0 and not 1, gives `working`
    every parameter that it computes with, and gives parameters to `two_product` as they are.

    A kernel may name only arithmetic, comparisons, conditional expressions, `min`, `max`, `abs`, literals, module-level
    float constants, the primitives of `actserve_server.elementary`, and other kernels. Which implementation of a
    primitive it gets (the float64 one, or the shorter one that suffices under a rounding to float32) is decided when it
    is compiled, so a kernel is written once for every data type.
    """
    function.__actserve_kernel__ = True  # type: ignore[attr-defined]
    return function


def apart(function: _F) -> _F:
    """Mark a kernel that works on arrays as one to be called and not inlined, which takes less time to compile."""
    function.__actserve_apart__ = True  # type: ignore[attr-defined]
    return kernel(function)
