"""From a kernel to machine code, and from machine code to bytes and back.

A `Unit` says completely what is to be compiled, for one signature: arguments are converted to it or refused, and a
call never compiles. This module knows neither the disk nor other processes.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import pickle
import sys
import types
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import llvmlite
import numba
import numpy as np
from numba.core import serialize
from numba.core import types as numba_types
from numba.core.compiler import CompileResult
from numba.core.registry import cpu_target

from actserve_server import elementary
from actserve_server.activations.spec import Record
from actserve_server.kernels import target
from actserve_server.kernels.binding import Bindings, digest
from actserve_server.kernels.loops import OPERATIONS

__all__ = ["ARGUMENTS", "DTYPES", "Unit", "callable_of", "dump", "fingerprint", "revive", "translate", "unit_of"]

Function = Callable[..., Any]

_TARGET = target.pin()
_OPTIONS = {"nogil": True, "error_model": "numpy"}

DTYPES: dict[np.dtype[Any], tuple[numba_types.Type, Mapping[str, Function]]] = {
    np.dtype(np.float32): (numba_types.float32, elementary.NARROW),
    np.dtype(np.float64): (numba_types.float64, elementary.WIDE),
}
"""The data types of tensors that have loops, each with the primitives that suffice for it."""


def _received(dtype: numba_types.Type, dimensions: int) -> numba_types.Type:
    """Memory that came from elsewhere: read-only, and at any address, as received bytes are."""
    return numba_types.Array(dtype, dimensions, "C", readonly=True, aligned=False)


ARGUMENTS: dict[str, Callable[[numba_types.Type, int], numba_types.Type]] = {
    "input": lambda dtype, _: _received(dtype, 1),
    "block": lambda dtype, _: _received(dtype, 3),
    "output": lambda dtype, _: numba_types.Array(dtype, 1, "C"),
    "state": lambda *_: numba_types.Array(numba_types.float64, 3, "C"),
    "tally": lambda *_: numba_types.Array(numba_types.int64, 1, "C"),
    "counts": lambda *_: numba_types.Array(numba_types.int64, 2, "C"),
    "index": lambda *_: numba_types.int64,
    "params": lambda _, parameters: numba_types.containers.UniTuple(numba_types.float64, parameters),
}
"""The words in which signatures are written, given the tensor's type and the number of parameters."""


@dataclasses.dataclass(frozen=True, slots=True)
class Unit:
    """One function to compile; raises ValueError for a data type without loops."""

    label: str
    """What it is called in logs and file names, such as `gelu-forward-float32`."""
    loop: Callable[[Function], Any] | None
    """The factory of the loop around the kernel; None for a kernel that is a loop already."""
    kernel: types.FunctionType
    arguments: tuple[str, ...]
    dtype: np.dtype[Any]
    parameters: int = 0

    def __post_init__(self) -> None:
        if self.dtype not in DTYPES:
            raise ValueError(f"no loops are compiled for {self.dtype}, only for {', '.join(map(str, DTYPES))}")

    def signature(self) -> tuple[numba_types.Type, ...]:
        """The types of the arguments."""
        dtype, _ = DTYPES[self.dtype]
        return tuple(ARGUMENTS[word](dtype, self.parameters) for word in self.arguments)

    def digest(self) -> str:
        """The name of the compiled code: equal for two units exactly when their code is interchangeable."""
        _, primitives = DTYPES[self.dtype]
        sha = hashlib.sha256(fingerprint().encode())
        sha.update(repr((self.label, self.loop and self.loop.__qualname__, self.signature())).encode())
        sha.update(digest(self.kernel, primitives))
        return sha.hexdigest()


def unit_of(record: Record, operation: str, dtype: np.dtype[Any]) -> Unit:
    """What to compile for an operation of a record.

    Raises ValueError for an operation that this kind of record lacks, and for a data type without loops.
    """
    operations = OPERATIONS[type(record)]
    if operation not in operations:
        raise ValueError(f"{record.name} has no operation {operation!r}; it has {', '.join(operations)}")
    chosen = operations[operation]
    kernel = getattr(record, chosen.kernel)
    label = f"{record.name}-{operation}-{dtype}"
    return Unit(label, chosen.loop, kernel, chosen.arguments, dtype, len(record.parameters))


@functools.cache
def fingerprint() -> str:
    """Everything but the kernel itself that compiled code depends on: sources, versions and the target, hashed."""
    sha = hashlib.sha256(repr((numba.__version__, llvmlite.__version__, sys.version, _TARGET)).encode())
    package = Path(__file__).resolve().parent.parent
    for folder in ("activations", "elementary", "kernels"):
        for source in sorted((package / folder).glob("*.py")):
            sha.update(f"{folder}/{source.name}\0".encode())
            sha.update(hashlib.sha256(source.read_bytes()).digest())
    return sha.hexdigest()


def _source(unit: Unit) -> types.FunctionType:
    _, primitives = DTYPES[unit.dtype]
    bindings = Bindings(primitives, unit.digest()[:20])
    if unit.loop is None:
        return bindings.bind(unit.kernel)
    loop: Any = unit.loop(bindings.inline(unit.kernel))
    return bindings.named(loop)


def translate(unit: Unit) -> CompileResult:
    """Compile a unit: about 0.3 s of one core, under Numba's global lock."""
    dispatcher = numba.njit(**_OPTIONS)(_source(unit))
    dispatcher.compile(unit.signature())
    (result,) = dispatcher.overloads.values()
    if result.library.has_dynamic_globals:
        raise TypeError(f"{unit.label} holds an address, so its code would be wrong in another process")
    return result


def dump(result: CompileResult) -> bytes:
    """Compiled code as bytes, for `revive` in any process with the same fingerprint."""
    return serialize.dumps(result._reduce())


def revive(unit: Unit, code: bytes) -> Function:
    """The callable that `dump` was given, without compiling anything: about 5 ms.

    The code is executed, so it must come from a place that only we can write to.
    """
    context = cpu_target.target_context
    context.refresh()
    return callable_of(unit, CompileResult._rebuild(context, *pickle.loads(code)))


def callable_of(unit: Unit, result: CompileResult) -> Function:
    """Compiled code behind a check of the arguments' types; a call with other types raises TypeError.

    A single block of slices may come without its outer dimension, and its states then without theirs.
    """
    plain = unit.kernel if unit.loop is None else unit.loop(unit.kernel)
    dispatcher = numba.njit(**_OPTIONS)(plain)
    dispatcher.add_overload(result)
    dispatcher.disable_compile()
    return _with_outer(dispatcher) if "block" in unit.arguments else dispatcher


def _with_outer(compiled: Function) -> Function:
    def call(*arguments: Any) -> None:
        compiled(*(a[np.newaxis] if isinstance(a, np.ndarray) and a.ndim == 2 else a for a in arguments))

    return call
