"""Loops in vectors of 512 bits, where the processor has them: their results do not depend on how wide a vector is.

All else is compiled for the baseline alone (`target`), whose order of summation is a part of its results. LLVM takes the processor of a
function from attributes of it; what it inlines may be for a lesser one. This module knows neither kernels nor loops.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Iterator
from typing import Any

import llvmlite.binding as llvm
from numba.core import types
from numba.extending import intrinsic

from actserve_server.kernels import target

__all__ = ["are_known", "compiled_for", "have_512_bits", "in_widest_vectors"]

# The psABI's level 4, and what came with the processors that do not slow down for it.
_FEATURES = ("avx512f", "avx512bw", "avx512cd", "avx512dq", "avx512vl", "avx512vbmi2")
_ATTRIBUTES = ('"target-cpu"="x86-64-v4"', '"target-features"="-prefer-256-bit"', '"prefer-vector-width"="512"')

_wide = False


def are_known() -> bool:
    """Whether this architecture has processors with such vectors, for which code may be compiled on any other."""
    return target.is_x86()


@functools.cache
def have_512_bits() -> bool:
    """Whether this processor has them."""
    features = llvm.get_host_cpu_features()
    return target.pin().startswith("x86-64-v3") and all(features.get(feature, False) for feature in _FEATURES)


@contextlib.contextmanager
def compiled_for(*, wide: bool) -> Iterator[None]:
    """Compile loops that say `in_widest_vectors` meanwhile for vectors of 512 bits. One compilation goes at a time (`target.interleaving`)."""
    global _wide
    _wide = wide
    try:
        yield
    finally:
        _wide = False


@intrinsic
def in_widest_vectors(typing_context: Any) -> Any:
    """Said by a loop whose results do not depend on their width."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        if _wide:
            # Of attributes with a value llvmlite knows none, and prints what is there.
            set.update(builder.function.attributes, _ATTRIBUTES)
        return context.get_dummy_value()

    return types.none(), generate
