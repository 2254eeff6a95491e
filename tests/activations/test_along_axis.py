"""Softmax and log-softmax on blocks of slices: against their formulas at high precision, and at the edges."""

from __future__ import annotations

import math
from typing import Any

import mpmath as mp
import numpy as np
import oracle
import pytest
from actserve_server.activations.softmax import LOG_SOFTMAX, SOFTMAX
from actserve_server.activations.spec import AxisActivation
from actserve_server.kernels.compiler import load

RECORDS = pytest.mark.parametrize("record", [SOFTMAX, LOG_SOFTMAX], ids=lambda record: record.name)
DTYPES = pytest.mark.parametrize("dtype", [np.float32, np.float64])
Array = np.ndarray[Any, Any]


def reduced(record: AxisActivation, x: Array, params: tuple[float, ...]) -> Array:
    state = np.full((record.state_size, x.shape[1]), math.nan)
    load(record, "reduce", x.dtype)(x, state, params)
    return state


def forward(record: AxisActivation, x: Array, **given: float | str) -> Array:
    params = oracle.parameters(record, given)
    out = np.empty(x.size, x.dtype)
    load(record, "forward", x.dtype)(x, 0, out, reduced(record, x, params), params)
    return out.reshape(x.shape)


def vjp(record: AxisActivation, x: Array, g: Array, **given: float | str) -> Array:
    params = oracle.parameters(record, given)
    state = reduced(record, x, params)
    vjp_state = np.full((record.vjp_state_size, x.shape[1]), math.nan)
    load(record, "vjp_reduce", x.dtype)(x, g, state, vjp_state, params)
    out = np.empty(x.size, x.dtype)
    load(record, "vjp", x.dtype)(x, g, 0, out, state, vjp_state, params)
    return out.reshape(x.shape)


def jacobian(record: AxisActivation, x: Array, **given: float | str) -> Array:
    params = oracle.parameters(record, given)
    n, inner = x.shape
    out = np.empty(n * inner * n, x.dtype)
    load(record, "jacobian", x.dtype)(x, 0, out, reduced(record, x, params), params)
    return out.reshape(n, inner, n)


def jacobian_diagonal(record: AxisActivation, x: Array, **given: float | str) -> Array:
    params = oracle.parameters(record, given)
    out = np.empty(x.size, x.dtype)
    load(record, "jacobian_diagonal", x.dtype)(x, 0, out, reduced(record, x, params), params)
    return out.reshape(x.shape)


def slices(dtype: Any) -> Array:
    """Columns that hurt: one winner, ties, wide spreads, subnormal shares, masks, large offsets, mere noise."""
    generator = np.random.default_rng(8)
    noise = generator.standard_normal((6, 6)) * 10.0 ** generator.uniform(-3, 2, 6)
    columns = np.array(
        [
            [50.0, 0.0, 0.0, -1.0, 3.0, 2.0],
            [1.0, 1.0, 1.0, 1.0, 1.0, 1.0],
            [2.5, 2.5, -3.0, 0.1, 2.5, -40.0],
            [-700.0, 0.0, -745.0, -100.0, -90.0, -103.0],
            [-math.inf, 0.25, -1.0, -math.inf, 2.0, 0.0],
            [1e6, 1e6 + 0.125, 1e6 - 3, 1e6, 1e6 - 7.5, 1e6],
            [3e38, -3e38, 0.0, 1.0, 2e38, 3e38],
            [0.1, 0.2, 0.3, 0.4, 0.5, 0.7],
        ]
    )
    return np.ascontiguousarray(np.concatenate([columns.T, noise.T], axis=1).astype(dtype))


def assert_close(result: float, exact: Any, dtype: Any, wide_limit: float) -> None:
    limit = 0.501 if dtype is np.float32 else wide_limit
    if abs(exact) < float(np.finfo(dtype).tiny):
        limit = 1.0
    if mp.isinf(exact):
        assert result == float(exact)
    else:
        assert oracle.error_in_ulp(float(result), exact, dtype) <= limit, f"{result!r}, exactly {mp.nstr(exact, 20)}"


CASES = pytest.mark.parametrize(
    ("record", "given"),
    [(SOFTMAX, {}), (SOFTMAX, {"temperature": 0.7}), (SOFTMAX, {"temperature": 30.0}), (LOG_SOFTMAX, {})],
    ids=["softmax", "softmax-0.7", "softmax-30", "log_softmax"],
)


@DTYPES
@CASES
def test_forward_is_the_formula(record: AxisActivation, given: dict[str, float], dtype: Any) -> None:
    x = slices(dtype)
    results = forward(record, x, **given)
    for j in range(x.shape[1]):
        exact = oracle.slice_values(record, x[:, j].tolist(), oracle.parameters(record, given))
        for i in range(x.shape[0]):
            assert_close(results[i, j], exact[i], dtype, 4.0)


@DTYPES
@CASES
def test_jacobian_is_the_formula(record: AxisActivation, given: dict[str, float], dtype: Any) -> None:
    x = slices(dtype)
    results = jacobian(record, x, **given)
    for j in range(x.shape[1]):
        exact = oracle.slice_jacobian(record, x[:, j].tolist(), oracle.parameters(record, given))
        for i in range(x.shape[0]):
            for k in range(x.shape[0]):
                assert_close(results[i, j, k], exact[i][k], dtype, 6.0)
    np.testing.assert_array_equal(np.einsum("iji->ij", results), jacobian_diagonal(record, x, **given))


@DTYPES
@CASES
def test_vjp_is_the_transposed_jacobian(record: AxisActivation, given: dict[str, float], dtype: Any) -> None:
    x = slices(dtype)
    g = np.asarray(np.random.default_rng(3).standard_normal(x.shape), dtype)
    results = vjp(record, x, g, **given)
    params = oracle.parameters(record, given)
    softmax_params = params if record is SOFTMAX else (1.0, 0.0)
    for j in range(x.shape[1]):
        exact = oracle.slice_jacobian(record, x[:, j].tolist(), params)
        shares = oracle.slice_values(SOFTMAX, x[:, j].tolist(), softmax_params)
        upstream = [mp.mpf(float(v)) for v in g[:, j]]
        for i in range(x.shape[0]):
            product = mp.fsum(exact[k][i] * upstream[k] for k in range(x.shape[0]))
            if record is SOFTMAX:
                mean = mp.fsum(abs(share * u) for share, u in zip(shares, upstream, strict=True))
                size = (mean + abs(upstream[i])) * shares[i] / params[0]
            else:
                size = abs(upstream[i]) + shares[i] * mp.fsum(map(abs, upstream))
            units = 8 * oracle.ulp(size, dtype)
            assert abs(mp.mpf(float(results[i, j])) - product) <= units


@DTYPES
def test_a_long_slice_keeps_its_digits(dtype: Any) -> None:
    """Against a correctly rounded sum: a plain one is off by 100 units in float32 at this length."""
    x = np.random.default_rng(2).standard_normal((100_003, 1)).astype(dtype)
    terms = np.exp(x.astype(np.longdouble) - x.max())
    exact = (terms / terms.sum()).ravel()
    for record, reference in ((SOFTMAX, exact), (LOG_SOFTMAX, np.log(exact))):
        result = forward(record, x).ravel()
        units = np.abs(result - reference) / np.spacing(np.abs(result).astype(dtype))
        assert units.max() <= (0.502 if dtype is np.float32 else 4.0)


@DTYPES
@RECORDS
@pytest.mark.parametrize(
    "shape", [(1, 1), (2, 1), (127, 1), (128, 1), (1000, 1), (77, 3), (5, 300), (200, 2), (1, 129)]
)
def test_layout_makes_no_difference(record: AxisActivation, shape: tuple[int, int], dtype: Any) -> None:
    """Each column alone, or the whole block: a slice has the same result, to a rounding of its sum."""
    generator = np.random.default_rng(shape[0])
    x, g = (generator.standard_normal(shape).astype(dtype) * 3 for _ in range(2))
    together, together_vjp = forward(record, x), vjp(record, x, g)
    for j in {0, shape[1] // 2, shape[1] - 1}:
        column, upstream = np.ascontiguousarray(x[:, j : j + 1]), np.ascontiguousarray(g[:, j : j + 1])
        tolerance = 8 * np.finfo(dtype).eps
        np.testing.assert_allclose(forward(record, column)[:, 0], together[:, j], rtol=tolerance)
        np.testing.assert_allclose(
            vjp(record, column, upstream)[:, 0], together_vjp[:, j], rtol=1e-3, atol=64 * tolerance
        )


@RECORDS
def test_a_piece_has_the_bits_of_the_whole(record: AxisActivation) -> None:
    x = np.random.default_rng(1).standard_normal((23, 7))
    params = oracle.parameters(record)
    state = reduced(record, x, params)
    whole = forward(record, x).ravel()
    for start in (1, 6, 7, 50, 160):
        piece = np.empty(x.size - start)
        load(record, "forward", x.dtype)(x, start, piece, state, params)
        assert piece.tobytes() == whole[start:].tobytes()


@pytest.mark.parametrize(("x", "exact"), [([50.0, 0.0], -1.9287498479639178e-22), ([700.0, 0.0], -math.exp(-700))])
def test_the_winner_keeps_its_log_probability(x: list[float], exact: float) -> None:
    column = np.array(x)[:, None]
    assert forward(LOG_SOFTMAX, column)[0, 0] == pytest.approx(exact, rel=1e-15)
    folded = np.concatenate([column, np.full((300, 1), -math.inf)])
    assert forward(LOG_SOFTMAX, folded)[0, 0] == pytest.approx(exact, rel=1e-15)


def block_with(column: list[float], n: int, dtype: Any) -> Array:
    """Three columns of zeros, the middle one replaced; n long, so that both the plain and the folded sum are met."""
    x = np.zeros((n, 3), dtype)
    x[:, 1] = -math.inf
    x[: len(column), 1] = column
    return x


@DTYPES
@RECORDS
@pytest.mark.parametrize("n", [4, 400])
@pytest.mark.parametrize(
    "bad", [[1.0, math.nan], [math.inf, 0.0], [math.inf, math.inf], [math.nan], [math.nan, math.inf]]
)
@pytest.mark.parametrize("all_masked", ["nan", "zero"])
def test_nan_and_infinity_spoil_their_slice_alone(
    record: AxisActivation, bad: list[float], n: int, all_masked: str, dtype: Any
) -> None:
    x = block_with(bad, n, dtype)
    g = np.ones_like(x)
    for result in (
        forward(record, x, all_masked=all_masked),
        vjp(record, x, g, all_masked=all_masked),
        jacobian_diagonal(record, x, all_masked=all_masked),
    ):
        assert np.isnan(result[:, 1]).all()
        assert np.isfinite(result[:, [0, 2]]).all()


@DTYPES
@RECORDS
@pytest.mark.parametrize("n", [1, 4, 400])
def test_a_slice_masked_throughout(record: AxisActivation, n: int, dtype: Any) -> None:
    x = block_with([], n, dtype)
    g = np.ones_like(x)
    assert np.isnan(forward(record, x)[:, 1]).all()
    assert np.isnan(vjp(record, x, g)[:, 1]).all()
    assert np.isnan(jacobian(record, x)[:, 1]).all()
    masked = forward(record, x, all_masked="zero")
    assert (masked[:, 1] == (0.0 if record is SOFTMAX else -math.inf)).all()
    assert np.isfinite(masked[:, [0, 2]]).all()
    assert (vjp(record, x, g, all_masked="zero")[:, 1] == 0).all()
    assert (jacobian(record, x, all_masked="zero")[:, 1] == 0).all()


@RECORDS
@pytest.mark.parametrize("shape", [(0, 1), (0, 5), (3, 0), (0, 0)])
def test_nothing_gives_nothing(record: AxisActivation, shape: tuple[int, int]) -> None:
    x = np.empty(shape)
    assert forward(record, x).shape == shape
    assert vjp(record, x, x).shape == shape


def test_one_element_is_certain() -> None:
    assert forward(SOFTMAX, np.array([[3.0]])) == [[1.0]]
    assert forward(LOG_SOFTMAX, np.array([[3.0]])) == [[0.0]]


@DTYPES
def test_shares_sum_to_one(dtype: Any) -> None:
    x = np.random.default_rng(9).standard_normal((1000, 4)).astype(dtype) * 5
    sums = forward(SOFTMAX, x).astype(np.float64).sum(axis=0)
    assert np.abs(sums - 1).max() <= x.shape[0] * np.finfo(dtype).eps / 2
