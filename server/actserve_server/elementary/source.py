"""The mark of a function that is source for the compiler, which everything written for it shares."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

Kernel = Callable[..., Any]
"""A function of scalars (or, where it says so, of arrays) in the compiler's part of Python; see `kernel`."""

_F = TypeVar("_F", bound=Kernel)


def kernel(function: _F) -> _F:
    """Mark a plain function as source for the compiler.

    A kernel may name only arithmetic, comparisons, conditional expressions, `min`, `max`, `abs`, literals, module-level
    float constants, the primitives of `actserve_server.elementary`, and other kernels. Which implementation of a
    primitive it gets (the float64 one, or the shorter one that suffices under a rounding to float32) is decided when it
    is compiled, so a kernel is written once for every data type.
    """
    function.__actserve_kernel__ = True  # type: ignore[attr-defined]
    return function
