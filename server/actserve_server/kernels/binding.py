"""Turns a kernel, a plain function, into one that Numba compiles, by giving its global names other values.

A kernel says `exp(x)`; which exponential that is depends on the precision it is compiled in, so a copy of the function is
made whose globals hold the chosen primitive, and whose constants have the precision's type. This module knows neither loops
nor records.
"""

from __future__ import annotations

import functools
import hashlib
import types
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from actserve_server.elementary.source import Exact
from actserve_server.kernels.inner import inner

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
    """One set of primitives, the type of numbers, and the functions bound to them so far.

    >>> double = Bindings({}).inline(kernel(lambda x: x + x))
    >>> numba.njit(lambda x: double(x))(2.0)
    4.0

    What a function computes goes into its symbol: Numba finds code by its symbol, and code that came from the disk must not
    answer to the name of another function compiled here.
    """

    def __init__(self, primitives: Mapping[str, Any], scalar: type[np.floating[Any]] = np.float64) -> None:
        self._primitives = primitives
        self._scalar = scalar
        self._bound: dict[Function, Function | None] = {}

    def bind(self, function: types.FunctionType, name: str) -> types.FunctionType:
        """A copy of a function, under a symbol of its own, whose globals are compiled kernels, primitives and constants."""
        return self._copy(function, self._names(function), name)

    def _names(self, function: types.FunctionType) -> dict[str, Any]:
        return {name: self._value(name, value, function) for name, value in _globals_used(function).items()}

    def _copy(self, function: types.FunctionType, names: dict[str, Any], name: str) -> types.FunctionType:
        code = function.__code__
        code = code.replace(co_consts=tuple(self._constant(constant) for constant in code.co_consts))
        return self.named(types.FunctionType(code, {"__name__": __name__, **names}), name)

    @staticmethod
    def named(function: types.FunctionType, name: str) -> types.FunctionType:
        """The function itself, under a symbol."""
        function.__qualname__ = function.__name__ = name
        function.__module__ = __name__
        return function

    def inline(self, function: types.FunctionType) -> Function:
        """A function for other compiled functions to call; LLVM always inlines it, so that their loops vectorize, unless it is
        marked `apart`."""
        if function not in self._bound:
            self._bound[function] = None
            names = self._names(function)
            content = digest(function, self._primitives).hex()[:20]
            copy = self._copy(function, names, f"{function.__name__}_{self._scalar.__name__}_{content}")
            inlined = not getattr(function, "__actserve_apart__", False)
            self._bound[function] = inner(copy, inlined=inlined)
        bound = self._bound[function]
        if bound is None:
            raise TypeError(f"kernel {function.__qualname__} calls itself")
        return bound

    def _constant(self, value: Any) -> Any:
        if isinstance(value, Exact):
            return float(value)
        if isinstance(value, float):
            return self._scalar(value) if self._scalar is not np.float64 else value
        if isinstance(value, tuple):
            return tuple(self._constant(item) for item in value)
        return value

    def _value(self, name: str, value: Any, user: types.FunctionType) -> Any:
        value = self._primitives.get(name, value)
        if _is_kernel(value):
            return self.inline(value)
        if isinstance(value, (types.FunctionType, *_MUTABLE)):
            raise TypeError(f"kernel {user.__qualname__} uses {name}: neither a kernel, a primitive nor a constant")
        return self._constant(value)


def digest(function: types.FunctionType, primitives: Mapping[str, Any]) -> bytes:
    """What a kernel computes, with the kernels and primitives that it calls, hashed.

    It is taken from the bytecode, so that it also tells apart functions that have no source file. What is no kernel,
    an instruction of the machine or a compiled function, counts by its name alone.
    """
    return _digest(function, _Primitives(primitives))


class _Primitives:
    """Primitives as a key of the cache: there are few sets, and each lives as long as the program."""

    def __init__(self, primitives: Mapping[str, Any]) -> None:
        self.table = primitives

    def __hash__(self) -> int:
        return id(self.table)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Primitives) and self.table is other.table


@functools.cache
def _digest(function: types.FunctionType, primitives: _Primitives) -> bytes:
    code = function.__code__
    sha = hashlib.sha256(repr((code.co_code, code.co_consts, code.co_names, code.co_varnames)).encode())
    for name, value in sorted(_globals_used(function).items()):
        value = primitives.table.get(name, value)
        sha.update(name.encode())
        if _is_kernel(value):
            sha.update(_digest(value, primitives))
        elif isinstance(value, Exact):
            sha.update(f"exact {value!r}".encode())
        elif isinstance(value, (float, int, str, tuple)):
            sha.update(repr(value).encode())
        elif not isinstance(value, types.ModuleType):
            sha.update(getattr(value, "__name__", type(value).__name__).encode())
    return sha.digest()
