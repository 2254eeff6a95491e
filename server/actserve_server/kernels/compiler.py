"""Compiled kernels by record, operation and data type: from memory, from disk, or compiled while others go on.

    configure(Path("/var/cache/actserve"))
    gelu = load(GELU, "forward", np.float32)
    gelu(x, out, ())

What a loaded function takes, by operation (`params` are the parameters as `spec.Parameter` says, as float64):

=====================  ===================================================================
elementwise
forward, derivative    (x, out, params), one-dimensional
vjp                    (x, g, out, params)
gradient_NAME          (x, g, out, params): the terms g df/dNAME, as float64
..._channels           (x, [g,] start, out, columns, inner): parameters as columns[parameter, channel]
                       of an indexed record, `start`, the global index of x[0], comes before out
along an axis          x and g: (outer, n, inner); states: (outer, state_size, inner)
reduce                 (x, state, params)
forward                (x, start, out, state, origin, params); out[0] is element `start` of x
vjp_reduce             (x, g, state, vjp_state, params)
vjp                    (x, g, start, out, state, vjp_state, origin, params)
jacobian               (x, start, out, state, origin, params); out[0] is element `start` of (outer, n, inner, n)
jacobian_diagonal      (x, start, out, state, origin, params); the entries with k = i, of x's shape
whole_forward          (x, out, params) for inner = 1, where a record has a shorter way; whole_vjp (x, g, out, params)
                       `origin` is the global index of x[0, 0, 0]; reductions of an indexed record take it after x, g
gated, resizing        x: (outer, n, inner); out and g of the result's shape, derivatives of x's
forward                (x, out, params)
derivative             (x, out, params): both partial derivatives; gated only
vjp                    (x, g, out, params)
=====================  ===================================================================

A single block may be given as (n, inner), and its states then as (state_size, inner).

Inputs may be read-only and at any address; a call never compiles, and releases the interpreter's lock. This module
knows neither messages nor what the kernels compute.
"""

from __future__ import annotations

import atexit
import concurrent.futures
import logging
import os
import queue
import threading
import types
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np
import numpy.typing as npt

from actserve_server.activations.spec import Activation, AxisActivation, Record, ResizingActivation
from actserve_server.errors import CompileLimit
from actserve_server.kernels.build import (
    Unit,
    baseline,
    callable_of,
    dump,
    fingerprint,
    revive,
    translate,
    unit_of,
    variants,
)
from actserve_server.kernels.cache import Cache
from actserve_server.kernels.cold import Child, ChildFailed, ChildTooSlow
from actserve_server.kernels.forms import ACCURACIES, DTYPES, SIXTEEN_BITS
from actserve_server.kernels.loops import operations as operations_of
from actserve_server.kernels.neurons import NEURON_REDUCTIONS
from actserve_server.kernels.penalties import penalty_unit, penalty_units
from actserve_server.kernels.reductions import REDUCTIONS
from actserve_server.kernels.services import SERVICES

__all__ = [
    "close",
    "configure",
    "directory",
    "forget",
    "has_fast",
    "load",
    "load_penalty",
    "load_reduction",
    "load_service",
    "units",
    "warm",
]

_log = logging.getLogger(__name__)

_REDUCTIONS = REDUCTIONS | NEURON_REDUCTIONS

Compiled = Callable[..., None]
_Key = tuple[Any, ...]

_DEFAULT_DIRECTORY = Path("~/.cache/actserve")
"""Where a server keeps them too, unless it is told otherwise."""

_guard = threading.Lock()
_loaded: dict[_Key, Compiled] = {}
_pending: dict[_Key, concurrent.futures.Future[Compiled]] = {}
_child = Child()
_LONGEST_FORMULA_S = 30.0
_formula_child = Child(_LONGEST_FORMULA_S)
"""For formulas that came from outside: one that takes long holds up only those who use such."""
_cache: Cache | None = None
_said: tuple[Path | None, ...] | None = None


def configure(cache_dir: Path | None, baked: Sequence[Path] = ()) -> None:
    """Say where compiled code is kept; before the first `load`, or it is kept in the user's cache directory.

    None, or a directory that cannot be written to, means a private one that goes with the process. The `baked`
    directories are read first and never written to: they are what an image brings along. What is loaded stays loaded where the
    directories are those that were said before.
    """
    global _cache, _said
    with _guard:
        if _said != (cache_dir, *baked):
            _said, _cache = (cache_dir, *baked), Cache(cache_dir, fingerprint(), baked)
            _loaded.clear()


def directory() -> Path:
    """Where compiled code is kept."""
    return _configured().directory


def forget(record: Record) -> None:
    """Let go of what is loaded of a record that nobody will ask for again."""
    with _guard:
        for key in [key for key in _loaded if key[0] is record]:
            del _loaded[key]


def load(record: Record, operation: str, dtype: npt.DTypeLike, accuracy: str = "exact") -> Compiled:
    """The compiled loop for an operation of a record, as the head of this module says.

    >>> out = np.empty(2, np.float32)
    >>> load(RELU, "forward", np.float32)(np.array([-1, 2], np.float32), out, ())
    >>> out
    array([0., 2.], dtype=float32)

    A kernel met for the first time takes a second or so, during which calls for other kernels go on; two calls for the
    same one compile it once. Raises ValueError for an operation or a data type that there is none for, and errors.CompileLimit
    for an added activation that takes too long.
    """
    dtype = np.dtype(dtype)
    key = (record, operation, dtype, accuracy)
    return _loaded.get(key) or _load(key, lambda: unit_of(record, operation, dtype, accuracy))


def load_reduction(name: str, dtype: npt.DTypeLike) -> Compiled:
    """A compiled reduction, by its name in `reductions.REDUCTIONS`; see there for what it takes."""
    dtype = np.dtype(dtype)
    key = (name, dtype)
    return _loaded.get(key) or _load(key, lambda: _reduction(name, dtype))


def load_service(name: str, dtype: npt.DTypeLike) -> Compiled:
    """A compiled loop of `services`, by its name there; 16-bit elements are given as uint16."""
    dtype = np.dtype(dtype)
    key = (name, dtype)
    return _loaded.get(key) or _load(key, lambda: _service(name, dtype))


def load_penalty(name: str, part: str) -> Compiled:
    """A compiled loop of a regularizer, or between vectors, as `penalties.penalty_unit` says."""
    key = ("penalty", name, part)
    return _loaded.get(key) or _load(key, lambda: penalty_unit(name, part))


def units(records: Iterable[Record], kinds: Iterable[npt.DTypeLike] = DTYPES) -> Iterator[tuple[_Key, Unit]]:
    """All that the engine ever loads for some records and data types, with the reductions, regularizers and services;
    but no second derivatives, which few ever ask for.

    Plain elementwise activations of 16 bits are tables, made of the float64 kernels.
    """
    dtypes = [np.dtype(kind) for kind in kinds]
    for record in records:
        for operation, chosen in operations_of(record).items():
            for dtype in dtypes:
                if dtype in SIXTEEN_BITS and not _has_sixteen_bits(record, operation):
                    continue
                for accuracy in ACCURACIES:
                    # What is as good in single precision is the same code in both accuracies.
                    fast = has_fast(record, operation) and dtype == np.float32 and not chosen.single
                    if accuracy == "exact" or fast:
                        yield (record, operation, dtype, accuracy), unit_of(record, operation, dtype, accuracy)
    wide = [dtype for dtype in dtypes if dtype not in SIXTEEN_BITS]
    yield from (((name, dtype), _reduction(name, dtype)) for name in _REDUCTIONS for dtype in wide)
    if np.dtype(np.float64) in dtypes:
        yield from penalty_units()
    for name in SERVICES:
        for dtype in dtypes:
            if dtype in SIXTEEN_BITS or name == "count_nonfinite":
                yield (name, dtype), _service(name, dtype)


def has_fast(record: Record, operation: str) -> bool:
    """Whether an operation has a loop in single precision of its own."""
    if isinstance(record, AxisActivation):
        return record.fast
    return not operation.startswith("gradient") and not isinstance(record, ResizingActivation)


def _has_sixteen_bits(record: Record, operation: str) -> bool:
    if isinstance(record, Activation):
        return record.indexed or operation.endswith("_channels")
    # What looks at slices reads them as float32, and is the float32 loop.
    return not operation.startswith(("reduce", "vjp_reduce"))


def warm(
    records: Iterable[Record],
    dtypes: Iterable[npt.DTypeLike] = DTYPES,
    progress: Callable[[int, int, str], None] | None = None,
) -> None:
    """Compile everything that records need and load it, in as many processes as there are cores.

    It is compiled for every kind of processor of this architecture: a cache may be filled where an image is built, and used anywhere.
    `dtypes` restricts what is compiled; `progress` is told how many are done, of how many, and the label of the last. It is
    called in the thread that called `warm`.
    """
    tasks = list(units(records, dtypes))
    children: queue.SimpleQueue[Child] = queue.SimpleQueue()
    count = os.cpu_count() or 1
    for _ in range(count):
        children.put(Child())

    def compile_one(key: _Key, unit: Unit) -> str:
        child = children.get()
        try:
            for variant in variants(unit):
                if variant != unit or unit.wide:
                    _keep(variant, child)
            _load(key, lambda: unit, child)
        finally:
            children.put(child)
        return unit.label

    try:
        with concurrent.futures.ThreadPoolExecutor(count) as pool:
            try:
                futures = [pool.submit(compile_one, key, unit) for key, unit in tasks]
                for done, future in enumerate(concurrent.futures.as_completed(futures), 1):
                    label = future.result()
                    if progress is not None:
                        progress(done, len(tasks), label)
            finally:
                # After an error or an interrupt the rest is not wanted.
                pool.shutdown(wait=False, cancel_futures=True)
    finally:
        for _ in range(count):
            children.get().close()


@atexit.register
def close() -> None:
    """End the processes that compile; a later cold kernel starts another."""
    _child.close()
    _formula_child.close()


def _reduction(name: str, dtype: np.dtype[Any]) -> Unit:
    reduction = _REDUCTIONS[name]
    function = cast(types.FunctionType, reduction.function)
    return Unit(f"{name}-{dtype}", None, (function,), reduction.arguments, dtype)


def _service(name: str, dtype: np.dtype[Any]) -> Unit:
    service = SERVICES[name]
    arguments = service.arguments
    if dtype in SIXTEEN_BITS:
        arguments = tuple("bits" if word == "stored" else word for word in arguments)
    else:
        arguments = tuple("input" if word == "stored" else word for word in arguments)
    return Unit(f"{name}-{dtype}", service.loop, (), arguments, dtype)


def _load(key: _Key, describe: Callable[[], Unit], child: Child | None = None) -> Compiled:
    """Load what is not in memory, once however many ask."""
    with _guard:
        if key in _loaded:
            return _loaded[key]
        future = _pending.get(key)
        mine = future is None
        if future is None:
            future = _pending[key] = concurrent.futures.Future()
    if not mine:
        return future.result()
    try:
        added = getattr(key[0], "truth", None) is not None
        compiled = _obtain(describe(), child or (_formula_child if added else _child), here=not added)
    except BaseException as error:
        future.set_exception(error)
        raise
    else:
        _loaded[key] = compiled
        future.set_result(compiled)
        return compiled
    finally:
        with _guard:
            del _pending[key]


def _obtain(unit: Unit, child: Child, *, here: bool) -> Compiled:
    """From the disk, or from a child; failing that from this process (`here`), but not of a formula that came from outside, as nobody
    knows how long that takes."""
    cache = _configured()
    compiled = _from_disk(unit, cache)
    if compiled is None and unit.wide:
        # Of a cache that was filled for other processors what is there is better than to wait.
        compiled = _from_disk(baseline(unit), cache)
    if compiled is None:
        try:
            child.build(unit, cache.directory)
        except ChildFailed as failure:
            if not here and isinstance(failure, ChildTooSlow):
                raise CompileLimit(unit.label, _LONGEST_FORMULA_S) from None
            if not here:
                raise
            _log.warning("%s is compiled in the serving process, since its child failed: %s", unit.label, failure)
        else:
            compiled = _from_disk(unit, cache)
    if compiled is None and not here:
        raise OSError(f"the code of {unit.label} could not be kept in {cache.directory}")
    return _here(unit, cache) if compiled is None else compiled


def _keep(unit: Unit, child: Child) -> None:
    """See to it that a unit is on the disk, whether or not this processor can run it."""
    cache = _configured()
    if cache.get(unit.digest()) is None:
        try:
            child.build(unit, cache.directory)
        except ChildFailed as failure:
            _log.warning("%s is not kept for %s vectors: %s", unit.label, "wide" if unit.wide else "other", failure)


def _configured() -> Cache:
    global _cache, _said
    with _guard:
        if _cache is None:
            directory = _DEFAULT_DIRECTORY.expanduser()
            _said, _cache = (directory,), Cache(directory, fingerprint())
        return _cache


def _from_disk(unit: Unit, cache: Cache) -> Compiled | None:
    code = cache.get(unit.digest())
    if code is None:
        return None
    try:
        return revive(unit, code)
    except Exception:
        _log.warning("the cached code of %s cannot be used", unit.label, exc_info=True)
        return None


def _here(unit: Unit, cache: Cache) -> Compiled:
    result = translate(unit)
    try:
        cache.put(unit.digest(), dump(result))
    except OSError as error:
        _log.warning("the code of %s could not be kept: %s", unit.label, error)
    return callable_of(unit, result)
