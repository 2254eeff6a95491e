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
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import llvmlite
import numba
import numpy as np
from numba.core import serialize
from numba.core import types as numba_types
from numba.core.compiler import CompileResult
from numba.core.registry import cpu_target

from actserve_server.activations.spec import AxisActivation, Record
from actserve_server.kernels import target, vectors
from actserve_server.kernels.binding import Bindings, digest
from actserve_server.kernels.forms import Form, form_of
from actserve_server.kernels.inner import inner
from actserve_server.kernels.loops import channelled, operations

__all__ = [
    "ARGUMENTS",
    "Unit",
    "baseline",
    "callable_of",
    "dump",
    "fingerprint",
    "revive",
    "translate",
    "unit_of",
    "variants",
]

Function = Callable[..., Any]

_TARGET = target.pin()
_OPTIONS = {"nogil": True, "error_model": "numpy", "no_cfunc_wrapper": True}
_VECTORS = 4
"""At how many vectors a loop works at once that adds nothing up. Their numbers do not fit the registers, but memory is read again sooner than
a result is waited for: a sixth less time than with two."""


def _received(dtype: numba_types.Type, dimensions: int) -> numba_types.Type:
    """Memory that came from elsewhere: read-only, and at any address, as received bytes are."""
    return numba_types.Array(dtype, dimensions, "C", readonly=True, aligned=False)


def _own(dtype: numba_types.Type, dimensions: int) -> numba_types.Type:
    return numba_types.Array(dtype, dimensions, "C")


ARGUMENTS: dict[str, Callable[[Form, int], numba_types.Type]] = {
    "input": lambda form, _: _received(form.source, 1),
    "block": lambda form, _: _received(form.source, 3),
    "output": lambda form, _: _own(form.result, 1),
    "result_block": lambda form, _: _own(form.result, 3),
    "wide_output": lambda *_: _own(numba_types.float64, 1),
    "state": lambda *_: _own(numba_types.float64, 3),
    "columns": lambda *_: _received(numba_types.float64, 2),
    "wide_input": lambda *_: _received(numba_types.float64, 1),
    "bits": lambda *_: _received(numba_types.uint16, 1),
    "float_output": lambda *_: _own(numba_types.float32, 1),
    "tally": lambda *_: _own(numba_types.int64, 1),
    "counts": lambda *_: _own(numba_types.int64, 2),
    "bins": lambda *_: _own(numba_types.int32, 1),
    "sums": lambda *_: _own(numba_types.float64, 2),
    "table": lambda *_: _own(numba_types.float64, 2),
    "index": lambda *_: numba_types.int64,
    "params": lambda _, parameters: numba_types.containers.UniTuple(numba_types.float64, parameters),
}
"""The words in which signatures are written, given the tensor's form and the number of parameters."""


@dataclasses.dataclass(frozen=True, slots=True)
class Unit:
    """One function to compile; raises ValueError for a data type without loops."""

    label: str
    """What it is called in logs and file names, such as `gelu-forward-float32`."""
    loop: Callable[..., Function] | None
    """The factory of the loop around the kernels; None for a kernel that is a loop already."""
    kernels: tuple[types.FunctionType, ...]
    arguments: tuple[str, ...]
    dtype: np.dtype[Any]
    parameters: int = 0
    accuracy: str = "exact"
    cancels: bool = False
    columns: int = 0
    helpers: tuple[types.FunctionType, ...] = ()
    of_any_width: bool = False
    """Whether its results are the same for vectors of every width, so that there is code for wide ones too."""
    branches: bool = False
    """Whether its loops go element by element."""
    wide: bool = False
    """Whether it is for processors with vectors of 512 bits."""

    def __post_init__(self) -> None:
        form_of(self.dtype)

    @property
    def form(self) -> Form:
        """The form in which tensors are computed."""
        form = form_of(self.dtype, self.accuracy, cancels=self.cancels)
        # What goes on as float64 is not rounded to the tensor's type in between.
        return form.wide() if "wide_output" in self.arguments else form

    def signature(self) -> tuple[numba_types.Type, ...]:
        """The types of the arguments."""
        form = self.form
        return tuple(ARGUMENTS[word](form, self.parameters) for word in self.arguments)

    def digest(self) -> str:
        """The name of the compiled code: equal for two units exactly when their code is interchangeable."""
        form = self.form
        sha = hashlib.sha256(fingerprint().encode())
        helpers = [helper.__qualname__ for helper in self.helpers]
        loop = self.loop and self.loop.__qualname__
        facts = (self.label, form.name, loop, self.signature(), self.columns, helpers, self.wide, self.branches)
        sha.update(repr(facts).encode())
        for kernel in self.kernels:
            sha.update(digest(kernel, form.primitives))
        return sha.hexdigest()


def unit_of(record: Record, operation: str, dtype: np.dtype[Any], accuracy: str = "exact") -> Unit:
    """What to compile for an operation of a record, to be run on this processor.

    Raises ValueError for an operation that this record lacks, and for a data type without loops.
    """
    table = operations(record)
    if operation not in table:
        raise ValueError(f"{record.name} has no operation {operation!r}; it has {', '.join(table)}")
    chosen = table[operation]
    if chosen.single:
        # Of float32; the other types have no fast form.
        accuracy = "fast"
    form = form_of(dtype, accuracy, cancels=chosen.cancels)
    return Unit(
        label=f"{record.name}-{operation}-{form.name}",
        loop=chosen.loop,
        kernels=cast("tuple[types.FunctionType, ...]", chosen.kernels),
        arguments=chosen.arguments,
        dtype=dtype,
        parameters=sum(_WIDTHS.get(parameter.kind, 1) for parameter in record.parameters),
        accuracy=accuracy,
        cancels=chosen.cancels,
        columns=chosen.columns,
        helpers=cast("tuple[types.FunctionType, ...]", chosen.helpers),
        of_any_width=not chosen.sums,
        branches=isinstance(record, AxisActivation) and record.branches,
        wide=not chosen.sums and vectors.have_512_bits(),
    )


def variants(unit: Unit) -> tuple[Unit, ...]:
    """A unit for every kind of processor of this architecture, this one's first."""
    if unit.of_any_width and vectors.are_known():
        return unit, dataclasses.replace(unit, wide=not unit.wide)
    return (unit,)


def baseline(unit: Unit) -> Unit:
    """The same for every processor."""
    return dataclasses.replace(unit, wide=False)


_WIDTHS = {"axis": 0, "seed": 2}
"""How many numbers a kernel is given for a parameter, where that is not one."""


_ABOUT_CODE = ("cache", "cold", "compiler", "threads")
"""Modules of this package that say when code is compiled, where it is kept and who runs it, and nothing of what it is."""


@functools.cache
def fingerprint() -> str:
    """What all compiled code depends on beside its kernels: the loops' sources, versions and the target, hashed."""
    sha = hashlib.sha256(repr((numba.__version__, llvmlite.__version__, sys.version, _TARGET)).encode())
    package = Path(__file__).resolve().parent.parent
    loops = sorted(path for path in (package / "kernels").glob("*.py") if path.stem not in _ABOUT_CODE)
    for source in (*loops, package / "elementary" / "bits.py"):
        sha.update(f"{source.parent.name}/{source.name}\0".encode())
        sha.update(hashlib.sha256(source.read_bytes()).digest())
    return sha.hexdigest()


@functools.cache
def _bindings(form: Form) -> Bindings:
    """Kernels bound so far in this process, so that what many of them share is translated once."""
    return Bindings(form.primitives, form.scalar)


def _source(unit: Unit) -> types.FunctionType:
    bindings, symbol = _bindings(unit.form), f"loop_{unit.digest()[:20]}"
    if unit.loop is None:
        (kernel,) = unit.kernels
        return bindings.bind(kernel, symbol)
    bound = [bindings.inline(kernel) for kernel in unit.kernels]
    if unit.columns:
        bound = [channelled(inner, kernel, unit.columns) for kernel in bound]
    loop: Any = unit.loop(unit.form, *bound, *(inner(helper) for helper in unit.helpers))
    return bindings.named(loop, symbol)


def translate(unit: Unit) -> CompileResult:
    """Compile a unit: about 0.3 s of one core, under Numba's global lock."""
    dispatcher = numba.njit(**_OPTIONS)(_source(unit))
    many = (unit.of_any_width or unit.arguments[0] == "input") and not unit.branches
    with target.interleaving(_VECTORS if many else 0), vectors.compiled_for(wide=unit.wide):
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
    plain = unit.kernels[0] if unit.loop is None else unit.loop(unit.form, *unit.kernels, *unit.helpers)
    dispatcher = numba.njit(**_OPTIONS)(plain)
    dispatcher.add_overload(result)
    dispatcher.disable_compile()
    return _with_outer(dispatcher) if "block" in unit.arguments else dispatcher


def _with_outer(compiled: Function) -> Function:
    def call(*arguments: Any) -> None:
        compiled(*(a[np.newaxis] if isinstance(a, np.ndarray) and a.ndim == 2 else a for a in arguments))

    return call
