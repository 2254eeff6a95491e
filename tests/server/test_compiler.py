"""Kernels become loops: what the loops compute and refuse, that they vectorize, and where their code is kept."""

from __future__ import annotations

import dataclasses
import functools
import itertools
import logging
import os
import pickle
import re
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import llvmlite.binding as llvm
import numba
import numpy as np
import pytest
from actserve_server.activations.catalogue import CATALOGUE, find
from actserve_server.activations.spec import Activation, AxisActivation, GatedActivation, Parameter, Record, Traits
from actserve_server.elementary.source import kernel
from actserve_server.errors import CompileLimit
from actserve_server.formulas import define
from actserve_server.kernels import build, cold, compiler, neurons, reductions, target, vectors
from actserve_server.kernels.binding import Bindings
from actserve_server.kernels.cache import Cache
from hypothesis import given, settings
from hypothesis import strategies as st
from numba.core.registry import cpu_target

Array = np.ndarray[Any, Any]
Loop = Callable[..., None]

F32, F64 = np.dtype(np.float32), np.dtype(np.float64)
TRAITS = Traits(monotonic=False, zero_centred=True, saturates="no", smooth=True)
PROSE = {
    "summary": "",
    "reference": "",
    "formula": "",
    "derivative_formula": "",
    "range": "",
    "advice": "",
    "traits": TRAITS,
}

NO_LIMITS = (np.nan, np.nan, np.nan, np.nan)


@kernel
def _line(x: float, slope: float, offset: float) -> float:
    return slope * x + offset if x > 0 else offset


@kernel
def _line_slope(x: float, slope: float, offset: float) -> float:
    return slope if x > 0 else 0.0


@kernel
def _negate(x: float) -> float:
    return -x


@kernel
def _minus_one(x: float) -> float:
    return _negate(1.0)


LINE = Activation(
    name="line",
    forward=_line,
    derivative=_line_slope,
    parameters=(Parameter(name="slope", meaning="", default=1.0), Parameter(name="offset", meaning="", default=0.0)),
    limits=NO_LIMITS,
    **PROSE,
)
NEGATE = Activation(name="negate", forward=_negate, derivative=_minus_one, limits=NO_LIMITS, **PROSE)


# Every result tells where it was computed and from what: small integers, so that float32 holds them exactly.
@kernel
def _sums(x: Any, state: Any, scale: float) -> None:
    n, inner = x.shape
    for j in range(inner):
        state[0, j] = scale
        state[1, j] = 0.0
        for i in range(n):
            state[1, j] += x[i, j]


@kernel
def _shifted(v: float, i: int, j: int, state: Any, scale: float) -> float:
    return v + state[0, j] * i + 7.0 * j + state[1, j]


@kernel
def _products(x: Any, g: Any, state: Any, vjp_state: Any, scale: float) -> None:
    n, inner = x.shape
    for j in range(inner):
        vjp_state[0, j] = state[1, j]
        for i in range(n):
            vjp_state[0, j] += x[i, j] * g[i, j]


@kernel
def _shifted_vjp(v: float, u: float, i: int, j: int, state: Any, vjp_state: Any, scale: float) -> float:
    return u + v * scale + i + 3.0 * j + vjp_state[0, j]


@kernel
def _shifted_jacobian(v: float, w: float, i: int, k: int, j: int, state: Any, scale: float) -> float:
    return v - 2.0 * w + 3.0 * i + 5.0 * k + 7.0 * j + state[1, j] + (scale if i == k else 0.0)


SHIFTED = AxisActivation(
    name="shifted",
    state_size=2,
    reduce=_sums,
    forward=_shifted,
    vjp_state_size=1,
    vjp_reduce=_products,
    vjp=_shifted_vjp,
    jacobian=_shifted_jacobian,
    parameters=(Parameter(name="scale", meaning="", default=1.0),),
    **PROSE,
)


@functools.cache
def compiled(record: Record, operation: str, dtype: np.dtype[Any]) -> Loop:
    """A loop compiled in this process, beside all caches."""
    unit = build.unit_of(record, operation, dtype)
    return build.callable_of(unit, build.translate(unit))


def unaligned(array: Array) -> Array:
    """The same elements as received bytes hold them: read-only, one byte off any boundary."""
    return np.frombuffer(b"\0" + array.tobytes(), array.dtype, array.size, 1).reshape(array.shape)


# ---- elementwise loops ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [F32, F64])
@pytest.mark.parametrize(("operation", "scalar"), [("forward", _line), ("derivative", _line_slope)])
def test_a_loop_is_its_kernel_in_float64_rounded_once(operation: str, scalar: Any, dtype: np.dtype[Any]) -> None:
    x = np.linspace(-3, 5, 1003).astype(dtype)
    out = np.empty_like(x)
    compiled(LINE, operation, dtype)(x, out, (0.3, 1e-9))
    assert out.tolist() == [float(dtype.type(scalar(float(v), 0.3, 1e-9))) for v in x]


def test_a_product_with_the_upstream_gradient_is_rounded_once() -> None:
    x, g = np.full(9, 2.0, F32), np.linspace(0.1, 0.9, 9).astype(F32)
    out = np.empty_like(x)
    compiled(LINE, "vjp", F32)(x, g, out, (1 / 3, 0.0))
    assert out.tolist() == [float(F32.type(1 / 3 * float(u))) for u in g]


@pytest.mark.parametrize("dtype", [F32, F64])
def test_nan_goes_through_every_loop_as_the_canonical_one(dtype: np.dtype[Any]) -> None:
    bits = np.dtype(f"i{dtype.itemsize}")
    x = np.array([np.nan, 1.0, -np.nan] * 11, dtype)
    x.view(bits)[3] |= 12345
    canonical = np.array(np.nan, dtype).view(bits)
    for operation in ("forward", "derivative", "vjp"):
        out = np.empty_like(x)
        inputs = (x, np.ones_like(x)) if operation == "vjp" else (x,)
        compiled(LINE, operation, dtype)(*inputs, out, (2.0, 1.0))
        assert (out.view(bits)[x != x] == canonical).all()
        assert (out[x == x] == (3.0 if operation == "forward" else 2.0)).all()


def test_the_upstream_gradient_is_multiplied_not_masked() -> None:
    x, g = np.array([-1.0, -1.0, 1.0, 1.0]), np.array([np.inf, np.nan, np.inf, np.nan])
    out = np.empty(4)
    compiled(LINE, "vjp", F64)(x, g, out, (1.0, 0.0))
    np.testing.assert_array_equal(out, [np.nan, np.nan, np.inf, np.nan])


@pytest.mark.parametrize("name", ["gelu", "silu"])
def test_bits_depend_neither_on_the_address_nor_on_the_split(name: str) -> None:
    record = find(name)
    assert record is not None
    loop = compiled(record, "forward", F32)
    params = tuple(float(parameter.default) for parameter in record.parameters)
    x = np.random.default_rng(5).normal(0, 4, 301).astype(F32)
    whole, pieces = np.empty_like(x), np.empty_like(x)
    loop(unaligned(x), whole, params)
    for begin, end in itertools.pairwise([0, 1, 3, 10, 17, 64, 100, 301]):
        loop(x[begin:end], pieces[begin:end], params)
    assert whole.tobytes() == pieces.tobytes()


def test_an_empty_array_has_an_empty_result() -> None:
    compiled(NEGATE, "forward", F32)(np.empty(0, F32), np.empty(0, F32), ())


@pytest.mark.parametrize(
    "arguments",
    [
        (np.zeros(4, F64), np.zeros(4, F32), ()),
        (np.zeros(4, F32), np.zeros(4, F64), ()),
        (np.zeros(8, F32)[::2], np.zeros(4, F32), ()),
        (np.zeros((2, 2), F32), np.zeros(4, F32), ()),
        (np.zeros(4, F32), unaligned(np.zeros(4, F32)), ()),
        (np.zeros(4, F32), np.zeros(4, F32), (1.0,)),
    ],
    ids=["input type", "output type", "strided", "two-dimensional", "read-only output", "parameters"],
)
def test_a_call_with_other_types_is_refused_and_never_compiles(arguments: tuple[Any, ...]) -> None:
    with pytest.raises(TypeError):
        compiled(NEGATE, "forward", F32)(*arguments)


def test_sizes_that_differ_are_refused() -> None:
    with pytest.raises(ValueError, match="as many elements"):
        compiled(NEGATE, "forward", F32)(np.zeros(3, F32), np.zeros(4, F32), ())


# ---- loops along an axis -------------------------------------------------------------------------------------------


def _axis_case(shape: tuple[int, int, int]) -> tuple[Array, Array, Array, Array]:
    outer, _, inner = shape
    generator = np.random.default_rng(1)
    x = generator.integers(-9, 9, shape).astype(F32)
    g = generator.integers(-9, 9, shape).astype(F32)
    state, vjp_state = np.full((outer, 2, inner), np.nan), np.full((outer, 1, inner), np.nan)
    compiled(SHIFTED, "reduce", F32)(unaligned(x), state, (2.0,))
    compiled(SHIFTED, "vjp_reduce", F32)(unaligned(x), unaligned(g), state, vjp_state, (2.0,))
    return x, g, state, vjp_state


def _expected(operation: str, x: Array, g: Array, state: Array, vjp_state: Array) -> Array:
    outer, n, inner = x.shape
    if operation == "jacobian":
        result = np.empty((outer, n, inner, n), F32)
        for o, i, j, k in np.ndindex(result.shape):
            result[o, i, j, k] = _shifted_jacobian(x[o, i, j], x[o, k, j], i, k, j, state[o], 2.0)
        return result
    result = np.empty(x.shape, F32)
    for o, i, j in np.ndindex(x.shape):
        v, u = x[o, i, j], g[o, i, j]
        if operation == "forward":
            result[o, i, j] = _shifted(v, i, j, state[o], 2.0)
        elif operation == "vjp":
            result[o, i, j] = _shifted_vjp(v, u, i, j, state[o], vjp_state[o], 2.0)
        else:
            result[o, i, j] = _shifted_jacobian(v, v, i, i, j, state[o], 2.0)
    return result


@pytest.mark.parametrize("operation", ["forward", "vjp", "jacobian", "jacobian_diagonal"])
@settings(max_examples=60, deadline=None)
@given(shape=st.tuples(st.integers(1, 4), st.integers(1, 6), st.integers(1, 5)), data=st.data())
def test_any_piece_of_an_axis_result_is_that_piece_of_the_whole(
    operation: str, shape: tuple[int, int, int], data: st.DataObject
) -> None:
    x, g, state, vjp_state = _axis_case(shape)
    whole = _expected(operation, x, g, state, vjp_state).ravel()
    start = data.draw(st.integers(0, whole.size))
    out = np.full(data.draw(st.integers(0, whole.size - start)), np.nan, F32)
    if operation == "vjp":
        compiled(SHIFTED, operation, F32)(x, g, start, out, state, vjp_state, 0, (2.0,))
    else:
        compiled(SHIFTED, operation, F32)(unaligned(x), start, out, state, 0, (2.0,))
    assert out.tolist() == whole[start : start + out.size].tolist()


def test_a_single_block_may_come_without_its_outer_dimension() -> None:
    x, g, state, vjp_state = _axis_case((1, 4, 3))
    out = np.empty(12, F32)
    compiled(SHIFTED, "forward", F32)(x[0], 0, out, state[0], 0, (2.0,))
    assert out.tolist() == _expected("forward", x, g, state, vjp_state).ravel().tolist()


@pytest.mark.parametrize("shape", [(0, 3, 2), (2, 0, 3), (2, 3, 0)])
@pytest.mark.parametrize("operation", ["forward", "jacobian", "jacobian_diagonal"])
def test_nothing_is_computed_of_nothing(shape: tuple[int, int, int], operation: str) -> None:
    x, _, state, _ = _axis_case(shape)
    compiled(SHIFTED, operation, F32)(x, 0, np.empty(0, F32), state, 0, (2.0,))


@pytest.mark.parametrize(("start", "size"), [(-1, 2), (11, 2), (0, 13)])
def test_a_piece_outside_the_block_is_refused(start: int, size: int) -> None:
    x, _, state, _ = _axis_case((1, 4, 3))
    with pytest.raises(ValueError, match="does not fit"):
        compiled(SHIFTED, "forward", F32)(x, start, np.empty(size, F32), state, 0, (2.0,))


def test_a_state_of_another_width_is_refused() -> None:
    x, g, state, vjp_state = _axis_case((1, 4, 3))
    narrow = np.zeros((1, 2, 2))
    out = np.empty(12, F32)
    for call in (
        lambda: compiled(SHIFTED, "reduce", F32)(x, narrow, (2.0,)),
        lambda: compiled(SHIFTED, "vjp_reduce", F32)(x, g, state, narrow, (2.0,)),
        lambda: compiled(SHIFTED, "vjp_reduce", F32)(x, g[:, 1:].copy(), state, vjp_state, (2.0,)),
        lambda: compiled(SHIFTED, "forward", F32)(x, 0, out, narrow, 0, (2.0,)),
        lambda: compiled(SHIFTED, "vjp", F32)(x, g, 0, out, state, narrow, 0, (2.0,)),
        lambda: compiled(SHIFTED, "jacobian", F32)(x, 0, out, narrow, 0, (2.0,)),
        lambda: compiled(SHIFTED, "jacobian_diagonal", F32)(x, 0, out, narrow, 0, (2.0,)),
    ):
        with pytest.raises(ValueError):
            call()


# ---- machine code --------------------------------------------------------------------------------------------------


def machine_code(code: bytes) -> str:
    """The assembly of a loop that was dumped, without what unpacks its arguments."""
    (_, kind, (_, bitcode)), described, *_ = pickle.loads(code)
    assert kind == "object"
    text = str(cpu_target.target_context.codegen()._tm.emit_assembly(llvm.parse_bitcode(bitcode)))
    begin = text.index(f"\n{described.llvm_func_name}:")
    return text[begin : text.index(".Lfunc_end", begin)]


def kept(record: Record, operation: str, dtype: np.dtype[Any], accuracy: str = "exact") -> bytes:
    """A loop as it lies on the disk, compiled if it is not there."""
    compiler.load(record, operation, dtype, accuracy)
    code = compiler._configured().get(build.unit_of(record, operation, dtype, accuracy).digest())
    assert code is not None
    return code


def vector_blocks(code: str) -> list[str]:
    """The pieces of a loop, between labels, that compute with whole vectors."""
    return [block for block in re.split(r"\n\.LBB\d+_\d+:", code) if re.search(r"\bv(?!mov)\w+p[sd]\s.*%[yz]mm", block)]


def calls(code: str) -> list[str]:
    """The functions that code calls, but for those that count references to its arguments, once for a whole array."""
    held: dict[str, str] = {}
    found = []
    for line in code.splitlines():
        if match := re.match(r"\s*movabsq\s+\$(\w+), (%\w+)", line):
            held[match[2]] = match[1]
        elif match := re.match(r"\s*callq?\s+\*?(\S+)", line):
            found.append(held.get(match[1], match[1]))
    return [name for name in found if name not in ("NRT_incref", "NRT_decref")]


ANGLES = ("sin", "cos", "snake_beta", "snake", "gcu")
"""Their own kernels reduce huge angles, one element at a time."""
VECTORIZED = [record for record in CATALOGUE if isinstance(record, Activation) and not record.indexed]


@pytest.mark.skipif("x86-64-v3" not in target.pin(), reason="reads x86-64-v3 assembly")
@pytest.mark.parametrize("operation", ["forward", "derivative"])
@pytest.mark.parametrize("record", VECTORIZED, ids=lambda record: record.name)
def test_an_elementwise_loop_is_vectorized_and_calls_nothing(record: Record, operation: str) -> None:
    assert isinstance(record, Activation)
    code = machine_code(kept(record, operation, F32))
    assert re.search(r"\bv(?!mov)\w+p[sd]\s.*%[yz]mm", code)
    assert not any(re.search(r"\bcallq?\s", block) for block in vector_blocks(code))
    # What is beyond the quick kernel is mended by a loop of its own, which may call.
    assert record.name in ANGLES or not calls(code)


DOUBLE_IN_FAST = {
    ("affine", "forward"),
    ("hard_sigmoid", "derivative"),
}
"""Straight lines through a parameter, which is a float64: taken as it is, so that they are rounded once."""


@pytest.mark.skipif("x86-64-v3" not in target.pin(), reason="reads x86-64-v3 assembly")
@pytest.mark.parametrize("operation", ["forward", "derivative"])
@pytest.mark.parametrize("record", VECTORIZED, ids=lambda record: record.name)
def test_a_fast_loop_computes_in_single_precision_alone(record: Record, operation: str) -> None:
    code = machine_code(kept(record, operation, F32, "fast"))
    assert re.search(r"\bv(?!mov)\w+ps\s.*%[yz]mm", code)
    double = re.search(r"\bv(add|sub|mul|div|fn?m(add|sub)\w*|cvtps2)pd\s.*%[yz]mm", code)
    assert bool(double) == ((record.name, operation) in DOUBLE_IN_FAST)


@pytest.mark.skipif("x86-64-v3" not in target.pin(), reason="reads x86-64-v3 assembly")
@pytest.mark.parametrize(("name", "operation"), [("relu", "forward"), ("gelu", "derivative"), ("sigmoid", "vjp")])
def test_loops_of_float64_and_of_products_are_vectorized_too(name: str, operation: str) -> None:
    record = find(name)
    assert record is not None
    code = machine_code(kept(record, operation, F64))
    assert re.search(r"\bv(?!mov)\w+pd\s.*%[yz]mm", code)
    assert not calls(code)


@pytest.mark.skipif("x86-64-v3" not in target.pin(), reason="reads x86-64-v3 assembly")
@pytest.mark.parametrize(("dtype", "accuracy"), [(F64, "exact"), (F32, "exact"), (F32, "fast")])
@pytest.mark.parametrize("formula", ["2**x", "abs(x)**a", "x**x"])
def test_powers_are_vectorized_in_every_precision(formula: str, dtype: np.dtype[Any], accuracy: str) -> None:
    record = define("team.own", formula, (Parameter("a", "", 0.3),)).record
    code = machine_code(build.dump(build.translate(build.unit_of(record, "forward", dtype, accuracy))))
    kind = "ps" if accuracy == "fast" else "pd"
    assert re.search(rf"\bvfn?m(add|sub)\w*{kind}\s.*%[yz]mm", code)
    assert not calls(code)


@pytest.mark.skipif("x86-64-v3" not in target.pin(), reason="reads x86-64-v3 assembly")
def test_both_loops_along_an_axis_are_vectorized() -> None:
    code = machine_code(build.dump(build.translate(build.baseline(build.unit_of(SHIFTED, "forward", F32)))))
    blocks = re.split(r"\n\.LBB\d+_\d+:", code)
    vectorized = [block for block in blocks if re.search(r"vcvtpd2ps\s+%ymm", block) and re.search(r"\bj\w+\s", block)]
    assert len(vectorized) >= 2
    assert not any(re.search(r"\bcallq?\s", block) for block in vectorized)


needs_wide_vectors = pytest.mark.skipif(not vectors.have_512_bits(), reason="needs vectors of 512 bits")


@needs_wide_vectors
@pytest.mark.parametrize("accuracy", ["exact", "fast"])
@pytest.mark.parametrize("dtype", [F32, F64])
@pytest.mark.parametrize(
    ("name", "operation"), [("gelu", "forward"), ("mish", "derivative"), ("sin", "forward"), ("elu", "vjp")]
)
def test_wide_vectors_give_the_same_bits(name: str, operation: str, dtype: np.dtype[Any], accuracy: str) -> None:
    record = find(name)
    assert record is not None
    unit = build.unit_of(record, operation, dtype, accuracy)
    assert unit.wide
    generator = np.random.default_rng(3)
    bits = generator.integers(0, 2**63, 5003, np.int64).view(dtype)
    x = np.concatenate([bits, generator.normal(0, 6, 5001).astype(dtype)])
    inputs = (x, x[::-1].copy()) if operation == "vjp" else (x,)
    found = []
    for variant in (unit, build.baseline(unit)):
        out = np.empty_like(x)
        result = build.translate(variant)
        code = machine_code(build.dump(result))
        assert ("%zmm" in code) == variant.wide
        build.callable_of(variant, result)(*inputs, out, (1.0,) * unit.parameters)
        found.append(out.tobytes())
    assert found[0] == found[1]


@needs_wide_vectors
@pytest.mark.parametrize(("n", "inner"), [(514, 1), (6, 37)])
@pytest.mark.parametrize(
    ("name", "operation"),
    [
        ("softmax", "forward"),
        ("log_softmax", "vjp"),
        ("entmax", "jacobian"),
        ("sparsemax", "jacobian_diagonal"),
        ("swiglu", "forward"),
        ("geglu", "derivative"),
        ("reglu", "vjp"),
        ("crelu", "vjp"),
        ("maxout", "forward"),
    ],
)
def test_wide_vectors_give_the_same_bits_along_an_axis(name: str, operation: str, n: int, inner: int) -> None:
    record = find(name)
    assert record is not None
    unit = build.unit_of(record, operation, F32)
    assert unit.wide
    params = tuple(2.0 if p.default is None else float(p.default) for p in record.parameters if p.kind != "word")
    params = (0.0,) * (unit.parameters - len(params)) + params
    generator = np.random.default_rng(4)
    x = generator.normal(0, 3, (3, n, inner)).astype(F32)
    x[0, 1] = -0.0
    x[1, 2, -1] = np.nan
    length = {"maxout": 2, "crelu": 2 * n}.get(name, n // 2 if isinstance(record, GatedActivation) else n)
    g = generator.normal(0, 1, (3, length, inner)).astype(F32)
    shape = x.shape if operation in ("derivative", "vjp") else g.shape
    found = []
    for variant in (unit, build.baseline(unit)):
        out = np.empty(x.size * (n if operation == "jacobian" else 1), F32)
        results = np.empty(shape, F32)
        given: dict[str, Any] = {
            "block": iter((x, g)),
            "state": iter((np.full((3, 8, inner), 0.25), np.full((3, 8, inner), 0.5))),
            "index": itertools.repeat(0),
            "output": iter((out,)),
            "result_block": iter((results,)),
        }
        arguments = [next(given[word]) for word in unit.arguments[:-1]]
        build.callable_of(variant, build.translate(variant))(*arguments, params)
        found.append((out if "output" in unit.arguments else results).tobytes())
    assert found[0] == found[1]


# ---- binding -------------------------------------------------------------------------------------------------------


@kernel
def _primitive_a(x: float) -> float:
    return x + 1.0


@kernel
def _primitive_b(x: float) -> float:
    return x + 2.0


def primitive(x: float) -> float:
    """Stands for whichever implementation the data type gets."""
    raise AssertionError("a primitive must be bound")


@kernel
def _uses_primitive(x: float) -> float:
    return primitive(x) * 10.0


@kernel
def _uses_user(x: float) -> float:
    return _uses_primitive(x) + SHIFT


SHIFT = 0.5
TABLE = [1.0, 2.0]


def test_a_name_means_the_primitive_it_is_bound_to_also_in_the_kernels_that_a_kernel_calls() -> None:
    a = Bindings({"primitive": _primitive_a}).inline(_uses_user)
    b = Bindings({"primitive": _primitive_b}).inline(_uses_user)
    assert numba.njit(lambda x: (a(x), b(x)))(1.0) == (20.5, 30.5)
    with pytest.raises(TypeError, match=r"_uses_user.* can't be called from Python"):
        a(1.0)


@kernel
def _calls_itself(x: float) -> float:
    return _calls_itself(x)


@kernel
def _calls_unmarked(x: float) -> float:
    return float(machine_code is None)


@kernel
def _reads_a_list(x: float) -> float:
    return TABLE[0] * x


def _closure(y: float) -> Any:
    return kernel(lambda x: x + y)


@pytest.mark.parametrize("function", [_calls_itself, _calls_unmarked, _reads_a_list, _closure(1.0)])
def test_what_a_kernel_may_not_be_is_refused(function: Any) -> None:
    with pytest.raises(TypeError, match="kernel"):
        Bindings({}).inline(function)


@pytest.mark.parametrize(("operation", "dtype"), [("backward", F32), ("forward", np.dtype(np.int32))])
def test_unknown_operations_and_types_are_refused_by_name(operation: str, dtype: np.dtype[Any]) -> None:
    with pytest.raises(ValueError, match=f"'{operation}'" if operation == "backward" else str(dtype)):
        compiler.load(NEGATE, operation, dtype)


def _scaled_by(factor: str) -> Activation:
    names: dict[str, Any] = {"factor": float(factor)}
    exec("def scaled(x):\n    return x * factor", names)
    scaled = kernel(names["scaled"])
    return dataclasses.replace(NEGATE, name="scaled", forward=scaled, derivative=scaled)


def test_the_digest_tells_kernels_apart_and_equal_ones_together() -> None:
    def digest(record: Record, operation: str = "forward", dtype: np.dtype[Any] = F32) -> str:
        return build.unit_of(record, operation, dtype).digest()

    assert digest(_scaled_by("2.0")) == digest(_scaled_by("2.0"))
    different = [
        digest(_scaled_by("2.0")),
        digest(_scaled_by("2.5")),
        digest(_scaled_by("2.0"), "vjp"),
        digest(_scaled_by("2.0"), dtype=F64),
        digest(dataclasses.replace(_scaled_by("2.0"), forward=_negate)),
    ]
    assert len(set(different)) == len(different)


# ---- the cache on disk ---------------------------------------------------------------------------------------------

PRINT = "ab" * 32


def test_what_was_put_is_found_by_another_cache_of_the_same_fingerprint_only(tmp_path: Path) -> None:
    Cache(tmp_path, PRINT).put("name", b"code")
    assert Cache(tmp_path, PRINT).get("name") == b"code"
    assert Cache(tmp_path, "cd" * 32).get("name") is None
    assert Cache(tmp_path, PRINT).get("other") is None


@pytest.mark.parametrize("damage", [lambda b: b[:-1], lambda b: b[:10], lambda b: b"", lambda b: b[:-1] + b"X"])
def test_a_damaged_file_is_a_miss_and_can_be_replaced(tmp_path: Path, damage: Callable[[bytes], bytes]) -> None:
    cache = Cache(tmp_path, PRINT)
    cache.put("name", b"code")
    (file,) = tmp_path.glob("*/name")
    file.write_bytes(damage(file.read_bytes()))
    assert cache.get("name") is None
    cache.put("name", b"code")
    assert cache.get("name") == b"code"


def test_a_baked_directory_is_read_and_never_written(tmp_path: Path) -> None:
    baked, own = tmp_path / "baked", tmp_path / "own"
    Cache(baked, PRINT).put("name", b"baked")
    before = sorted(baked.rglob("*"))
    cache = Cache(own, PRINT, baked=[baked])
    cache.put("new", b"own")
    assert (cache.get("name"), cache.get("new")) == (b"baked", b"own")
    assert sorted(baked.rglob("*")) == before


def test_a_directory_that_cannot_be_written_to_gives_way_to_a_private_one(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").touch()
    with caplog.at_level(logging.INFO):
        cache = Cache(tmp_path / "file" / "kernels", PRINT)
    cache.put("name", b"code")
    assert cache.get("name") == b"code"
    assert "cannot be written to" in caplog.text
    assert not cache.directory.is_relative_to(tmp_path)


def test_only_what_other_versions_left_long_ago_is_removed(tmp_path: Path) -> None:
    old, recent, foreign = tmp_path / f"kernels-{'0' * 16}", tmp_path / f"kernels-{'1' * 16}", tmp_path / "photos"
    for folder in (old, recent, foreign):
        folder.mkdir()
        (folder / "file").touch()
    long_ago = time.time() - 31 * 24 * 3600
    for folder in (old, foreign):
        os.utime(folder, (long_ago, long_ago))
    Cache(tmp_path, PRINT).put("name", b"code")
    assert [folder.exists() for folder in (old, recent, foreign)] == [False, True, True]


def test_no_half_written_file_is_ever_seen(tmp_path: Path) -> None:
    contents = [bytes([letter]) * 100_000 for letter in b"abc"]
    Cache(tmp_path, PRINT).put("name", contents[0])
    stop = threading.Event()

    def write() -> None:
        for content in itertools.cycle(contents):
            if stop.is_set():
                return
            Cache(tmp_path, PRINT).put("name", content)

    threads = [threading.Thread(target=write) for _ in range(2)]
    for thread in threads:
        thread.start()
    try:
        for _ in range(200):
            assert Cache(tmp_path, PRINT).get("name") in contents
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    assert [file.name for file in tmp_path.glob("*/*")] == ["name"]


# ---- loading -------------------------------------------------------------------------------------------------------


@pytest.fixture
def directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache for one test; what the process had loaded comes back afterwards."""
    monkeypatch.setattr(compiler, "_cache", Cache(tmp_path, build.fingerprint()))
    monkeypatch.setattr(compiler, "_loaded", {})
    return tmp_path


@pytest.fixture
def child() -> Iterator[cold.Child]:
    """A real child process, ended with the test."""
    child = cold.Child()
    yield child
    child.close()


class _Builder:
    """Takes the place of the child process: compiles here, when it is let."""

    def __init__(self) -> None:
        self.units: list[str] = []
        self.begun = threading.Event()
        self.may_go_on = threading.Event()
        self.failure: Exception | None = None

    def build(self, unit: build.Unit, directory: Path) -> None:
        self.units.append(unit.label)
        self.begun.set()
        assert self.may_go_on.wait(60)
        if self.failure is not None:
            raise self.failure
        Cache(directory, build.fingerprint()).put(unit.digest(), build.dump(build.translate(unit)))


@pytest.fixture
def builder(directory: Path, monkeypatch: pytest.MonkeyPatch) -> _Builder:
    """Stands for the child in all that `load` compiles."""
    builder = _Builder()
    builder.may_go_on.set()
    load = compiler._load
    monkeypatch.setattr(compiler, "_load", lambda key, describe: load(key, describe, builder))
    return builder


def negated(loop: Loop) -> list[float]:
    """What a loop of NEGATE makes of 1 and 2."""
    out = np.empty(2, F32)
    loop(np.array([1.0, 2.0], F32), out, ())
    return out.tolist()


def test_a_kernel_is_compiled_once_and_then_found_in_memory_and_on_disk(
    builder: _Builder, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = compiler.load(NEGATE, "forward", F32)
    assert compiler.load(NEGATE, "forward", np.float32) is first
    monkeypatch.setattr(compiler, "_loaded", {})
    monkeypatch.setattr(build, "translate", lambda unit: pytest.fail("compiled again"))
    again = compiler.load(NEGATE, "forward", F32)
    assert again is not first
    assert negated(first) == negated(again) == [-1.0, -2.0]
    assert builder.units == ["negate-forward-float32"]


def test_what_is_loaded_stays_where_the_directory_does(
    directory: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(compiler, "_said", None)
    compiler.configure(tmp_path)
    loop = compiler.load(find("relu"), "forward", F32)
    compiler.configure(tmp_path)
    assert compiler.load(find("relu"), "forward", F32) is loop
    compiler.configure(tmp_path / "other")
    assert compiler.load(find("relu"), "forward", F32) is not loop
    assert list((tmp_path / "other").glob("*/*"))


def test_a_record_that_was_replaced_under_its_name_gets_its_own_code(builder: _Builder) -> None:
    out = np.empty(1, F32)
    for factor in ("2.0", "3.0"):
        compiler.load(_scaled_by(factor), "forward", F32)(np.ones(1, F32), out, ())
        assert out.tolist() == [float(factor)]


def test_threads_that_ask_for_one_cold_kernel_compile_it_once_and_others_go_on(builder: _Builder) -> None:
    compiler.load(NEGATE, "derivative", F32)
    builder.units.clear()
    builder.begun.clear()
    builder.may_go_on.clear()
    found: list[Loop] = []
    threads = [threading.Thread(target=lambda: found.append(compiler.load(NEGATE, "forward", F32))) for _ in range(4)]
    for thread in threads:
        thread.start()
    assert builder.begun.wait(60)
    # The cold one is stuck for as long as we like; a warm one does not notice.
    out = np.empty(1, F32)
    compiler.load(NEGATE, "derivative", F32)(np.ones(1, F32), out, ())
    assert out.tolist() == [-1.0]
    assert not found
    builder.may_go_on.set()
    for thread in threads:
        thread.join(60)
    assert len(found) == 4
    assert len(set(map(id, found))) == 1
    assert builder.units == ["negate-forward-float32"]


def test_when_the_child_fails_the_process_compiles_and_says_so(
    builder: _Builder, caplog: pytest.LogCaptureFixture
) -> None:
    builder.failure = cold.ChildFailed("it ended")
    with caplog.at_level(logging.WARNING):
        assert negated(compiler.load(NEGATE, "forward", F32)) == [-1.0, -2.0]
    assert "negate-forward-float32" in caplog.text
    assert "it ended" in caplog.text


@pytest.mark.parametrize(
    ("failure", "raised"),
    [(cold.ChildTooSlow("no answer in 30 s"), CompileLimit), (cold.ChildFailed("it ended"), cold.ChildFailed)],
)
def test_a_formula_from_outside_is_never_compiled_in_the_process(
    failure: Exception, raised: type[Exception], directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    builder = _Builder()
    builder.may_go_on.set()
    builder.failure = failure
    monkeypatch.setattr(compiler, "_formula_child", builder)
    monkeypatch.setattr(compiler, "_here", lambda *_: pytest.fail("compiled in the process"))
    record = dataclasses.replace(NEGATE, truth=lambda x, values, slopes: 1 if slopes else -x)
    with pytest.raises(raised):
        compiler.load(record, "forward", F32)
    builder.failure = None
    loop = compiler.load(record, "forward", F32)
    assert negated(loop) == [-1.0, -2.0]
    assert compiler.load(record, "forward", F32) is loop
    compiler.forget(record)
    assert compiler.load(record, "forward", F32) is not loop
    assert builder.units == ["negate-forward-float32"] * 2
    monkeypatch.setattr(Cache, "get", lambda *_: None)
    compiler.forget(record)
    with pytest.raises(OSError, match="could not be kept"):
        compiler.load(record, "forward", F32)


def test_a_child_that_takes_too_long_is_ended_and_replaced(directory: Path) -> None:
    child = cold.Child(limit_s=0.001)
    try:
        with pytest.raises(cold.ChildTooSlow, match=r"0\.001 s"):
            child.build(build.unit_of(NEGATE, "forward", F32), directory)
        assert child.companion.pid is None
        child._limit_s = 120
        child.build(build.unit_of(NEGATE, "forward", F32), directory)
    finally:
        child.close()


def test_an_error_reaches_everyone_who_waits_and_the_next_try_starts_afresh(builder: _Builder) -> None:
    builder.failure = RuntimeError("no luck")
    with pytest.raises(RuntimeError, match="no luck"):
        compiler.load(NEGATE, "forward", F32)
    builder.failure = None
    assert negated(compiler.load(NEGATE, "forward", F32)) == [-1.0, -2.0]


def test_code_that_cannot_be_revived_is_compiled_again(
    builder: _Builder, directory: Path, caplog: pytest.LogCaptureFixture
) -> None:
    unit = build.unit_of(NEGATE, "forward", F32)
    Cache(directory, build.fingerprint()).put(unit.digest(), b"no pickle")
    with caplog.at_level(logging.WARNING):
        assert negated(compiler.load(NEGATE, "forward", F32)) == [-1.0, -2.0]
    assert builder.units == ["negate-forward-float32"]
    assert "cannot be used" in caplog.text


def test_code_for_lesser_processors_serves_where_there_is_no_other(
    builder: _Builder, directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = build.baseline(build.unit_of(NEGATE, "forward", F32))
    Cache(directory, build.fingerprint()).put(plain.digest(), build.dump(build.translate(plain)))
    monkeypatch.setattr(vectors, "have_512_bits", lambda: True)
    assert build.unit_of(NEGATE, "forward", F32).digest() != plain.digest()
    assert negated(compiler.load(NEGATE, "forward", F32)) == [-1.0, -2.0]
    assert not builder.units


# ---- the child process ---------------------------------------------------------------------------------------------


def test_the_child_compiles_what_this_process_then_runs(child: cold.Child, directory: Path) -> None:
    # The second has no source file and no module: it travels by value.
    for record, expected in ((find("relu"), [0.0, 2.0]), (_scaled_by("4.0"), [-4.0, 8.0])):
        assert record is not None
        unit = build.unit_of(record, "forward", F32)
        child.build(unit, directory)
        code = Cache(directory, build.fingerprint()).get(unit.digest())
        assert code is not None
        out = np.empty(2, F32)
        build.revive(unit, code)(np.array([-1.0, 2.0], F32), out, ())
        assert out.tolist() == expected


def test_what_the_child_cannot_compile_fails_with_its_reason_and_the_child_goes_on(
    child: cold.Child, directory: Path
) -> None:
    names: dict[str, Any] = {}
    exec("def broken(x):\n    return unheard_of(x)", names)
    broken = dataclasses.replace(NEGATE, name="broken", forward=kernel(names["broken"]))
    with pytest.raises(cold.ChildFailed, match="unheard_of"):
        child.build(build.unit_of(broken, "forward", F32), directory)
    child.build(build.unit_of(_scaled_by("5.0"), "forward", F32), directory)


def test_a_child_that_was_killed_is_replaced(child: cold.Child, directory: Path) -> None:
    child.build(build.unit_of(_scaled_by("6.0"), "forward", F32), directory)
    killed = child.companion.pid
    assert killed is not None
    os.kill(killed, signal.SIGKILL)
    child.build(build.unit_of(_scaled_by("7.0"), "forward", F32), directory)
    assert child.companion.pid not in (None, killed)


def test_warm_compiles_all_that_is_missing_and_nothing_twice(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[tuple[int, int, str]] = []
    record = find("relu")
    assert record is not None
    compiler.warm([record], [np.float64], progress=lambda *step: told.append(step))
    labels = {f"relu-{operation}-float64" for operation in ("forward", "derivative", "vjp")}
    labels |= {f"{name}-float64" for name in (*reductions.REDUCTIONS, *neurons.NEURON_REDUCTIONS, "count_nonfinite")}
    labels |= {f"penalty-{name}" for name in ("products", "norms", "cosines", "lp-term", "lp-slope", "l1-slope")}
    labels |= {f"penalty-{name}-{part}" for name in ("entropy", "group_lasso", "z_loss") for part in ("term", "slope")}
    labels |= {f"penalty-log_student-{part}" for part in ("term", "slope")}
    labels |= {f"penalty-{name}-slope" for name in ("l2", "l1l2", "hoyer", "hoyer_square")}
    assert {label for _, _, label in told} == labels
    assert [(done, total) for done, total, _ in told] == [(done, len(labels)) for done in range(1, len(labels) + 1)]
    monkeypatch.setattr(compiler, "_loaded", {})
    monkeypatch.setattr(subprocess, "Popen", lambda *_, **__: pytest.fail("a child was started"))
    compiler.warm([record], [np.float64])
    cache = Cache(directory, build.fingerprint())
    for variant in build.variants(build.unit_of(record, "vjp", F64)):
        assert cache.get(variant.digest()) is not None
