"""Turns a kernel, a plain function, into one that Numba compiles, by giving its global names other values.

A kernel says `exp(x)`; which exponential that is depends on the data type it is compiled for, so a copy of the
function is made whose globals hold the chosen primitive. This module knows neither loops nor records.
"""

from __future__ import annotations

import hashlib
import types
from collections.abc import Callable, Mapping
from typing import Any

import numba
import numpy as np

__all__ = ["Bindings", "digest"]

Function = Callable[..., Any]

# What Numba would freeze into the code while the program could still change it.
_MUTABLE = (np.ndarray, list, dict, set)


def _globals_used(function: types.FunctionType) -> dict[str, Any]:
    """The module-level names that a function reads, with their values; built-ins and attributes are left out."""
    code = function.__code__
    if code.co_freevars or any(isinstance(constant, types.CodeType) for constant in code.co_consts):
        raise TypeError(f"kernel {function.__qualname__} must hold no closure, nested function or comprehension")
    return {name: function.__globals__[name] for name in code.co_names if name in function.__globals__}


def _is_kernel(value: Any) -> bool:
    return isinstance(value, types.FunctionType) and getattr(value, "__actserve_kernel__", False)


class Bindings:
    """One set of primitives, and the functions bound to it so far.

    >>> double = Bindings({}, "").inline(kernel(lambda x: x + x))
    >>> double(2.0)
    4.0

    `suffix` goes into the symbol of everything compiled: Numba finds code by its symbol, and code that came from
    the disk must not answer to the name of another function compiled here.
    """

    def __init__(self, primitives: Mapping[str, Any], suffix: str) -> None:
        self._primitives = primitives
        self._suffix = suffix
        self._bound: dict[Function, Function | None] = {}

    def bind(self, function: types.FunctionType) -> types.FunctionType:
        """A copy of a function whose globals are compiled kernels, chosen primitives and constants."""
        names = {name: self._value(name, value, function) for name, value in _globals_used(function).items()}
        return self.named(types.FunctionType(function.__code__, {"__name__": __name__, **names}, function.__name__))

    def named(self, function: types.FunctionType) -> types.FunctionType:
        """The function itself, under a symbol of its own."""
        function.__qualname__ = function.__name__ = f"{function.__name__}_{self._suffix}"
        function.__module__ = __name__
        return function

    def inline(self, function: types.FunctionType) -> Function:
        """A function for other compiled functions to call; LLVM always inlines it, so that their loops vectorize."""
        if function not in self._bound:
            self._bound[function] = None
            self._bound[function] = numba.njit(forceinline=True, error_model="numpy")(self.bind(function))
        bound = self._bound[function]
        if bound is None:
            raise TypeError(f"kernel {function.__qualname__} calls itself")
        return bound

    def _value(self, name: str, value: Any, user: types.FunctionType) -> Any:
        value = self._primitives.get(name, value)
        if _is_kernel(value):
            return self.inline(value)
        if isinstance(value, (types.FunctionType, *_MUTABLE)):
            raise TypeError(f"kernel {user.__qualname__} uses {name}: neither a kernel, a primitive nor a constant")
        return value


def digest(function: types.FunctionType, primitives: Mapping[str, Any]) -> bytes:
    """What a kernel and the kernels that it calls compute, hashed; primitives count by name alone.

    It is taken from the bytecode, so that it also tells apart functions that have no source file.
    """
    code = function.__code__
    sha = hashlib.sha256(repr((code.co_code, code.co_consts, code.co_names, code.co_varnames)).encode())
    for name, value in sorted(_globals_used(function).items()):
        if name in primitives:
            continue
        sha.update(name.encode())
        if _is_kernel(value):
            sha.update(digest(value, primitives))
        elif not isinstance(value, types.ModuleType):
            sha.update(repr(value).encode())
    return sha.digest()
