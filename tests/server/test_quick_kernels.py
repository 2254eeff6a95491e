"""Quick kernels: which elements they are for, that others go by the record's own, and that bits depend on nothing else."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from actserve_server.activations.catalogue import find
from actserve_server.activations.spec import Activation, Parameter, Quick, Record, Traits
from actserve_server.elementary import working
from actserve_server.elementary.source import kernel
from actserve_server.kernels import build
from hypothesis import example, given, settings
from hypothesis import strategies as st

Array = np.ndarray[Any, Any]
Loop = Callable[..., None]

F32, F64 = np.dtype(np.float32), np.dtype(np.float64)


@kernel
def _reach(reach: float) -> float:
    return working(reach)


@kernel
def _by_quick(x: float, reach: float) -> float:
    return working(1.0)


@kernel
def _by_own(x: float, reach: float) -> float:
    return working(2.0) if x == x else x


TOLD_APART = Activation(
    name="told_apart",
    summary="",
    reference="",
    formula="",
    derivative_formula="",
    range="",
    advice="",
    traits=Traits(monotonic=False, zero_centred=True, saturates="no", smooth=True),
    limits=(np.nan, np.nan, np.nan, np.nan),
    forward=_by_own,
    derivative=_by_own,
    parameters=(Parameter(name="reach", meaning="How far its quick kernels reach.", default=1.0),),
    quick=Quick(_reach, _by_quick, _by_quick),
)
"""Results tell which kernel gave them."""


@functools.cache
def compiled(record: Record, operation: str, dtype: np.dtype[Any], accuracy: str = "exact") -> Loop:
    """A loop compiled in this process, beside all caches."""
    unit = build.unit_of(record, operation, dtype, accuracy)
    return build.callable_of(unit, build.translate(unit))


def around(reach: float, dtype: np.dtype[Any]) -> Array:
    """Elements near a reach, both of its signs, and those that no reach holds."""
    with np.errstate(over="ignore"):
        edge = np.abs(np.asarray(reach)).astype(dtype)
        near = [edge, np.nextafter(edge, dtype.type(0)), np.nextafter(edge, dtype.type(np.inf))]
    rest = [0.0, 1.0, 1e30, np.finfo(dtype).max, np.finfo(dtype).smallest_subnormal, np.inf, np.nan]
    magnitudes = np.array([*near, *rest], dtype)
    return np.concatenate([magnitudes, -magnitudes])


REACHES = st.floats(0, 1e37) | st.floats(0, 1e-300) | st.sampled_from([-1.0, 0.0, 1e-40, 5e-324])


@settings(max_examples=60, deadline=None)
@given(
    reach=REACHES,
    form=st.sampled_from([(F32, "exact"), (F32, "fast"), (F64, "exact")]),
    operation=st.sampled_from(["forward", "derivative", "vjp"]),
)
@example(reach=350.0, form=(F32, "exact"), operation="forward")
@example(reach=1e300, form=(F32, "exact"), operation="forward")
@example(reach=float(np.finfo(F64).max), form=(F64, "exact"), operation="vjp")
@example(reach=float(np.nextafter(16777216.0, 0)), form=(F32, "exact"), operation="forward")
def test_elements_up_to_the_reach_go_the_quick_way_and_no_others(
    reach: float, form: tuple[np.dtype[Any], str], operation: str
) -> None:
    dtype, accuracy = form
    x = around(reach, dtype)
    out = np.empty_like(x)
    inputs = (x, np.ones_like(x)) if operation == "vjp" else (x,)
    compiled(TOLD_APART, operation, dtype, accuracy)(*inputs, out, (reach,))
    # In the fast form a parameter is a float32 before it is anything else.
    limit = float(np.float32(reach)) if accuracy == "fast" else reach
    quick = (np.abs(x.astype(F64)) <= limit) & (limit > 0)
    np.testing.assert_array_equal(out, np.where(np.isnan(x), np.nan, np.where(quick, 1.0, 2.0)))


# Where blocks of the loop begin and end, and pieces that are mended.
EDGES = (0, 63, 64, 2047, 2048, 2111, 4095, 4096, 4100)


@pytest.mark.parametrize("operation", ["forward", "vjp"])
@pytest.mark.parametrize("far", [(), *((place,) for place in EDGES), EDGES, tuple(range(4101))])
def test_an_element_beyond_the_reach_is_mended_wherever_it_lies(far: tuple[int, ...], operation: str) -> None:
    x = np.full(4101, 0.5, F32)
    x[list(far)] = [(3.0, -np.inf)[place % 2] for place in far]
    out = np.zeros_like(x)
    inputs = (x, np.ones_like(x)) if operation == "vjp" else (x,)
    compiled(TOLD_APART, operation, F32)(*inputs, out, (1.0,))
    expected = np.ones_like(x)
    expected[list(far)] = 2.0
    np.testing.assert_array_equal(out, expected)


# What the quick kernels are not for: beyond their limit, infinite, not a number.
UNUSUAL = st.sampled_from([0.0, -0.0, 1.5, -7.0, 300.0, -300.0, 1e30, -1e30, np.inf, -np.inf, np.nan, 1e-40])


@settings(max_examples=30, deadline=None)
@given(values=st.lists(UNUSUAL, min_size=1, max_size=70), name=st.sampled_from(["sigmoid", "silu", "gelu", "sin"]))
def test_bits_do_not_depend_on_the_neighbours(values: list[float], name: str) -> None:
    record = find(name)
    assert isinstance(record, Activation)
    assert record.quick is not None
    params = tuple(float(parameter.default) for parameter in record.parameters)
    x, g = np.array(values, F32), np.full(len(values), 0.3, F32)
    for operation in ("forward", "derivative", "vjp"):
        loop = compiled(record, operation, F32)
        inputs = (x, g) if operation == "vjp" else (x,)
        together, alone = np.empty_like(x), np.empty_like(x)
        loop(*inputs, together, params)
        for p in range(x.size):
            loop(*(array[p : p + 1] for array in inputs), alone[p : p + 1], params)
        assert together.tobytes() == alone.tobytes()


@pytest.mark.parametrize("name", ["sigmoid", "sin"])
def test_quick_kernels_refuse_to_overwrite_their_input(name: str) -> None:
    record = find(name)
    assert record is not None
    params = tuple(float(parameter.default) for parameter in record.parameters)
    memory = np.ones(20, F32)
    for operation, inputs in (("forward", 1), ("derivative", 1), ("vjp", 2)):
        with pytest.raises(ValueError, match="apart"):
            compiled(record, operation, F32)(*[memory[:10]] * inputs, memory[5:15], params)
        compiled(record, operation, F32)(*[memory[:10]] * inputs, memory[10:], params)
