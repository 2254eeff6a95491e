"""Compiled kernels by record, operation and data type: from memory, from disk, or compiled while others go on.

    configure(Path("/var/cache/actserve"))
    gelu = load(GELU, "forward", np.float32)
    gelu(x, out, ())

What a loaded function takes, by operation (`params` are the parameters as float64, in the record's order):

=====================  ===================================================================
elementwise
forward, derivative    (x, out, params), one-dimensional
vjp                    (x, g, out, params)
along an axis          x and g: (outer, n, inner); states: (outer, state_size, inner)
reduce                 (x, state, params)
forward                (x, start, out, state, params); out[0] is element `start` of x
vjp_reduce             (x, g, state, vjp_state, params)
vjp                    (x, g, start, out, state, vjp_state, params)
jacobian               (x, start, out, state, params); out[0] is element `start` of (outer, n, inner, n)
jacobian_diagonal      (x, start, out, state, params); the entries with k = i, of x's shape
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
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np
import numpy.typing as npt

from actserve_server.activations.spec import Record
from actserve_server.kernels.build import DTYPES, Unit, callable_of, dump, fingerprint, revive, translate, unit_of
from actserve_server.kernels.cache import Cache
from actserve_server.kernels.cold import Child, ChildFailed
from actserve_server.kernels.loops import OPERATIONS
from actserve_server.kernels.reductions import REDUCTIONS

__all__ = ["close", "configure", "load", "load_reduction", "warm"]

_log = logging.getLogger(__name__)

Compiled = Callable[..., None]
_Key = tuple[Any, ...]

_DEFAULT_DIRECTORY = Path("~/.cache/actserve/kernels")

_guard = threading.Lock()
_loaded: dict[_Key, Compiled] = {}
_pending: dict[_Key, concurrent.futures.Future[Compiled]] = {}
_child = Child()
_cache: Cache | None = None


def configure(cache_dir: Path | None, baked: Sequence[Path] = ()) -> None:
    """Say where compiled code is kept; before the first `load`, or it is kept in the user's cache directory.

    None, or a directory that cannot be written to, means a private one that goes with the process. The `baked`
    directories are read first and never written to: they are what an image brings along.
    """
    global _cache
    with _guard:
        _cache = Cache(cache_dir, fingerprint(), baked)
        _loaded.clear()


def load(record: Record, operation: str, dtype: npt.DTypeLike) -> Compiled:
    """The compiled loop for an operation of a record, as the head of this module says.

    >>> out = np.empty(2, np.float32)
    >>> load(RELU, "forward", np.float32)(np.array([-1, 2], np.float32), out, ())
    >>> out
    array([0., 2.], dtype=float32)

    A kernel met for the first time takes a second or so, during which calls for other kernels go on; two calls for the
    same one compile it once. Raises ValueError for an operation or a data type that there is none for.
    """
    dtype = np.dtype(dtype)
    key = (record, operation, dtype)
    return _loaded.get(key) or _load(key, lambda: unit_of(record, operation, dtype))


def load_reduction(name: str, dtype: npt.DTypeLike) -> Compiled:
    """A compiled reduction, by its name in `reductions.REDUCTIONS`; see there for what it takes."""
    dtype = np.dtype(dtype)
    key = (name, dtype)
    return _loaded.get(key) or _load(key, lambda: _reduction(name, dtype))


def warm(
    records: Iterable[Record],
    operations: Iterable[str] | None = None,
    dtypes: Iterable[npt.DTypeLike] | None = None,
    progress: Callable[[int, int, str], None] | None = None,
) -> None:
    """Compile everything that records and reductions need and load it, in as many processes as there are cores.

    `operations` and `dtypes` restrict what is compiled; `progress` is told how many are done, of how many, and the
    label of the last. It is called in the thread that called `warm`.
    """
    chosen = None if operations is None else set(operations)
    kinds: list[np.dtype[Any]] = list(DTYPES) if dtypes is None else [np.dtype(dtype) for dtype in dtypes]
    tasks: list[tuple[_Key, Unit]] = [
        ((record, operation, dtype), unit_of(record, operation, dtype))
        for record in records
        for operation in OPERATIONS[type(record)]
        if chosen is None or operation in chosen
        for dtype in kinds
    ]
    tasks += [((name, dtype), _reduction(name, dtype)) for name in REDUCTIONS for dtype in kinds]
    children: queue.SimpleQueue[Child] = queue.SimpleQueue()
    count = os.cpu_count() or 1
    for _ in range(count):
        children.put(Child())

    def compile_one(key: _Key, unit: Unit) -> str:
        child = children.get()
        try:
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
    """End the process that compiles; a later cold kernel starts another."""
    _child.close()


def _reduction(name: str, dtype: np.dtype[Any]) -> Unit:
    reduction = REDUCTIONS[name]
    function = cast(types.FunctionType, reduction.function)
    return Unit(f"{name}-{dtype}", None, function, reduction.arguments, dtype)


def _load(key: _Key, describe: Callable[[], Unit], child: Child = _child) -> Compiled:
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
        compiled = _obtain(describe(), child)
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


def _obtain(unit: Unit, child: Child) -> Compiled:
    cache = _configured()
    compiled = _from_disk(unit, cache)
    if compiled is None:
        try:
            child.build(unit, cache.directory)
        except ChildFailed as failure:
            _log.warning("%s is compiled in the serving process, since its child failed: %s", unit.label, failure)
        else:
            compiled = _from_disk(unit, cache)
    return _here(unit, cache) if compiled is None else compiled


def _configured() -> Cache:
    global _cache
    with _guard:
        if _cache is None:
            _cache = Cache(_DEFAULT_DIRECTORY.expanduser(), fingerprint())
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
