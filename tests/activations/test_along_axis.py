"""Activations along an axis on blocks of slices: against their formulas at high precision, and at the edges."""

from __future__ import annotations

import math
from typing import Any

import mpmath as mp
import numpy as np
import oracle
import pytest
from actserve_server.activations.catalogue import CATALOGUE
from actserve_server.activations.entmax import ENTMAX
from actserve_server.activations.gumbel import GUMBEL_SOFTMAX
from actserve_server.activations.selection import HARDMAX, TOPK
from actserve_server.activations.softmax import LOG_SOFTMAX, SOFTMAX, SOFTMIN
from actserve_server.activations.sparse_maps import ENTMAX15, SPARSEMAX
from actserve_server.activations.spec import AxisActivation
from actserve_server.kernels.compiler import load

Array = np.ndarray[Any, Any]

EVERY = [record for record in CATALOGUE if isinstance(record, AxisActivation)]
SHARES = [SOFTMAX, SOFTMIN, SPARSEMAX, ENTMAX15, ENTMAX]
"""Records whose results are probabilities, without noise."""
MASKABLE = [SOFTMAX, LOG_SOFTMAX, SOFTMIN]
REQUIRED: dict[AxisActivation, dict[str, Any]] = {TOPK: {"k": 2}, GUMBEL_SOFTMAX: {"seed": 7}}


def _records(records: list[AxisActivation]) -> Any:
    return pytest.mark.parametrize("record", records, ids=lambda record: record.name)


def _cases(records: list[AxisActivation]) -> Any:
    return pytest.mark.parametrize(
        ("record", "given"),
        [
            pytest.param(record, given, id="-".join([record.name, *(f"{k}={v}" for k, v in given.items())]))
            for record in records
            for given in [REQUIRED.get(record, {}), *record.tried]
        ],
    )


DTYPES = pytest.mark.parametrize("dtype", [np.float32, np.float64])


def arguments(record: AxisActivation, given: dict[str, Any]) -> tuple[float, ...]:
    return oracle.parameters(record, REQUIRED.get(record, {}) | given)


def reduced(record: AxisActivation, x: Array, params: tuple[float, ...], accuracy: str = "exact") -> Array:
    state = np.full((record.state_size, x.shape[1]), math.nan)
    origin = (0,) if record.indexed else ()
    load(record, "reduce", x.dtype, accuracy)(x, *origin, state, params)
    return state


def forward(record: AxisActivation, x: Array, accuracy: str = "exact", **given: Any) -> Array:
    params = arguments(record, given)
    out = np.empty(x.size, x.dtype)
    state = reduced(record, x, params, accuracy)
    load(record, "forward", x.dtype, accuracy)(x, 0, out, state, 0, params)
    return out.reshape(x.shape)


def products(
    record: AxisActivation, x: Array, g: Array, operation: str = "vjp", accuracy: str = "exact", **given: Any
) -> Array:
    params = arguments(record, given)
    state = reduced(record, x, params, accuracy)
    vjp_state = np.full((record.vjp_state_size, x.shape[1]), math.nan)
    origin = (0,) if record.indexed else ()
    load(record, "vjp_reduce", x.dtype, accuracy)(x, g, *origin, state, vjp_state, params)
    out = np.empty(x.size, x.dtype if operation == "vjp" else np.float64)
    load(record, operation, x.dtype, accuracy)(x, g, 0, out, state, vjp_state, 0, params)
    return out.reshape(x.shape)


def vjp(record: AxisActivation, x: Array, g: Array, **given: Any) -> Array:
    return products(record, x, g, **given)


def jacobian(record: AxisActivation, x: Array, **given: Any) -> Array:
    params = arguments(record, given)
    n, inner = x.shape
    out = np.empty(n * inner * n, x.dtype)
    load(record, "jacobian", x.dtype)(x, 0, out, reduced(record, x, params), 0, params)
    return out.reshape(n, inner, n)


def jacobian_diagonal(record: AxisActivation, x: Array, **given: Any) -> Array:
    params = arguments(record, given)
    out = np.empty(x.size, x.dtype)
    load(record, "jacobian_diagonal", x.dtype)(x, 0, out, reduced(record, x, params), 0, params)
    return out.reshape(x.shape)


def slices(record: AxisActivation, dtype: Any) -> Array:
    """Columns that hurt: one winner, ties, wide spreads, tiny shares, masks, large offsets, edges of supports, mere noise."""
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
            [2.0**-20 - 1.0, 0.0, -1.0, 2.0**-14 - 2.0, -1.25, -0.999999],
            [3.0, 1.0 + 2.0**-12, 1.0, 2.0, 1.0 - 2.0**-12, -5.0],
        ]
    )
    x = np.ascontiguousarray(np.concatenate([columns.T, noise.T], axis=1).astype(dtype))
    if record is TOPK:
        # The formula of its derivative takes a 0 for one that is not kept.
        x = np.where(x == 0, dtype(0.125), x)
    return -x if record is SOFTMIN else x


def noise_of(record: AxisActivation, x: Array, j: int, params: tuple[float, ...]) -> dict[str, Any]:
    """What the formula of a record with noise names beside x: -log(-log(u)) for the u of every element of a column."""
    if record is not GUMBEL_SOFTMAX:
        return {}
    seed = int(params[-2]) << 32 | int(params[-1])
    with mp.workdps(60):
        return {"noise": [-mp.log(-mp.log(draw(i * x.shape[1] + j, seed))) for i in range(x.shape[0])]}


def draw(index: int, seed: int) -> Any:
    """The uniform number of an element, by Philox4x32-10 in plain integers."""
    words, key = [index & 0xFFFFFFFF, index >> 32, 0, 0], [seed & 0xFFFFFFFF, seed >> 32]
    for _ in range(10):
        first, second = words[0] * 0xD2511F53, words[2] * 0xCD9E8D57
        words = [
            second >> 32 ^ words[1] ^ key[0],
            second & 0xFFFFFFFF,
            first >> 32 ^ words[3] ^ key[1],
            first & 0xFFFFFFFF,
        ]
        key = [(key[0] + 0x9E3779B9) & 0xFFFFFFFF, (key[1] + 0xBB67AE85) & 0xFFFFFFFF]
    return (mp.mpf(words[0] << 20 | words[1] >> 12) + 0.5) / 2**52


def slope(record: AxisActivation, share: Any, params: tuple[float, ...]) -> Any:
    """What g - mean(g) is multiplied by in the product of a record whose results are probabilities."""
    alpha = {SPARSEMAX: 2, ENTMAX15: 1.5, ENTMAX: params[0] if params else 0}.get(record, 1)
    return share ** (2 - alpha) / (params[0] if record in (SOFTMAX, GUMBEL_SOFTMAX) else 1) if share > 0 else mp.mpf(0)


def assert_close(result: float, exact: Any, dtype: Any, wide_limit: float) -> None:
    limit = 0.501 if dtype is np.float32 else wide_limit
    if abs(exact) < float(np.finfo(dtype).tiny):
        limit = 1.0
    if mp.isinf(exact) or math.isinf(result):
        with np.errstate(over="ignore"):
            assert result == np.asarray(float(exact)).astype(dtype)
    else:
        assert math.isfinite(result)
        with mp.workdps(60):
            error = abs(mp.mpf(float(result)) - exact)
            assert error <= limit * oracle.ulp(exact, dtype), f"{result!r}, exactly {mp.nstr(exact, 20)}"


@DTYPES
@_cases(EVERY)
def test_forward_is_the_formula(record: AxisActivation, given: dict[str, Any], dtype: Any) -> None:
    x = slices(record, dtype)
    results = forward(record, x, **given)
    params = arguments(record, given)
    for j in range(x.shape[1]):
        exact = oracle.slice_values(record, x[:, j].tolist(), params, **noise_of(record, x, j, params))
        if given.get("hard"):
            exact = [mp.mpf(v == max(exact)) for v in exact]
        for i in range(x.shape[0]):
            assert_close(results[i, j], exact[i], dtype, 4.0)


@DTYPES
@_cases(EVERY)
def test_jacobian_is_the_formula(record: AxisActivation, given: dict[str, Any], dtype: Any) -> None:
    x = slices(record, dtype)
    results = jacobian(record, x, **given)
    params = arguments(record, given)
    for j in range(x.shape[1]):
        noise = noise_of(record, x, j, params)
        exact = oracle.slice_jacobian(record, x[:, j].tolist(), params, **noise)
        for i in range(x.shape[0]):
            for k in range(x.shape[0]):
                assert_close(results[i, j, k], exact[i][k], dtype, 6.0)
    np.testing.assert_array_equal(np.einsum("iji->ij", results), jacobian_diagonal(record, x, **given))


@pytest.mark.parametrize("alpha", [1 + 1e-12, 1 + 1e-8, 1.001, 1.1, 1.3, 1.7, 1.95, 1.999, 2.2, 5.0, 10.0])
def test_entmax_at_the_edge_of_its_support(alpha: float) -> None:
    """The last element with a share has one however small it is, and no other is taken in for it."""
    edges = [
        [0.0, -0.5, -1.0 + 2.0**-40, -1.0, -1.1, -0.99, -1.0 + 2.0**-52, -3.0],
        [0.0, -1.0 + 2.0**-52, *[-2.0] * 6],
        [0.0, 0.0, -1e-300, -1e-17, -1e-16, -1.0, -1.0, -1.0],
        [0.0, *[-0.99] * 7],
        [0.0, -0.5, -0.998, -1.0, *[-2.0] * 4],
        np.random.default_rng(3).standard_normal(8).tolist(),
        (np.random.default_rng(4).standard_normal(8) / 8).tolist(),
    ]
    x = np.ascontiguousarray(np.array(edges).T / (alpha - 1))
    results = forward(ENTMAX, x, alpha=alpha)
    slopes = jacobian(ENTMAX, x, alpha=alpha)
    for j in range(x.shape[1]):
        column = x[:, j].tolist()
        exact = oracle.slice_values(ENTMAX, column, (alpha,))
        for i in range(x.shape[0]):
            assert_close(results[i, j], exact[i], np.float64, 4.0)
        for i, row in enumerate(oracle.slice_jacobian(ENTMAX, column, (alpha,))):
            for k, value in enumerate(row):
                assert_close(slopes[i, j, k], value, np.float64, 6.0)


@DTYPES
@_cases([*SHARES, LOG_SOFTMAX, GUMBEL_SOFTMAX])
def test_vjp_is_the_transposed_jacobian(record: AxisActivation, given: dict[str, Any], dtype: Any) -> None:
    x = slices(record, dtype)
    g = np.asarray(np.random.default_rng(3).standard_normal(x.shape), dtype)
    results = vjp(record, x, g, **given)
    params = arguments(record, given)
    for j in range(x.shape[1]):
        noise = noise_of(record, x, j, params)
        exact = oracle.slice_jacobian(record, x[:, j].tolist(), params, **noise)
        shares = oracle.slice_values(record, x[:, j].tolist(), params, **noise)
        upstream = [mp.mpf(float(v)) for v in g[:, j]]
        if record is LOG_SOFTMAX:
            sizes = [
                abs(u) + mp.exp(share) * mp.fsum(map(abs, upstream)) for share, u in zip(shares, upstream, strict=True)
            ]
        else:
            slopes = [slope(record, share, params) for share in shares]
            mean = mp.fsum(abs(s * u) for s, u in zip(slopes, upstream, strict=True)) / mp.fsum(slopes)
            sizes = [s * (abs(u) + mean) for s, u in zip(slopes, upstream, strict=True)]
        for i in range(x.shape[0]):
            product = mp.fsum(exact[k][i] * upstream[k] for k in range(x.shape[0]))
            assert abs(mp.mpf(float(results[i, j])) - product) <= 8 * oracle.ulp(sizes[i], dtype)


@pytest.mark.parametrize("alpha", [1.001, 1.2, 1.9, 2.0, 2.5, 12.0, 40.0])
def test_vjp_of_steep_slopes(alpha: float) -> None:
    """A small share has a large slope where alpha is more than 2, and its product is a sum of what cancels."""
    generator = np.random.default_rng(5)
    x = np.concatenate(
        [generator.standard_normal((5, 8)) / (alpha - 1) * scale for scale in (0.1, 1.0)]
        + [np.array([[0.0, -0.0814 * 11 / (alpha - 1), -1.0, -1.0, -1.0]]).T],
        axis=1,
    )
    g = generator.standard_normal(x.shape)
    results = vjp(ENTMAX, x, g, alpha=alpha)
    for j in range(x.shape[1]):
        exact = oracle.slice_jacobian(ENTMAX, x[:, j].tolist(), (alpha,))
        for i in range(x.shape[0]):
            terms = [exact[k][i] * mp.mpf(float(g[k, j])) for k in range(x.shape[0])]
            size = mp.fsum(map(abs, terms))
            assert abs(mp.mpf(float(results[i, j])) - mp.fsum(terms)) <= 16 * oracle.ulp(size, np.float64)


def test_a_slope_beyond_all_numbers_spoils_nothing() -> None:
    x = np.array([[0.0, -0.02564102564102563]]).T
    slopes = jacobian(ENTMAX, x, alpha=40.0)[:, 0]
    assert 0 < forward(ENTMAX, x, alpha=40.0)[1, 0] < 1e-15
    np.testing.assert_allclose(slopes, [[1.0, -1.0], [-1.0, 1.0]], rtol=1e-12)
    np.testing.assert_allclose(vjp(ENTMAX, x, np.array([[1.0], [0.25]]), alpha=40.0), [[0.75], [-0.75]], rtol=1e-12)


def test_a_share_next_to_the_smallest_numbers_is_no_zero() -> None:
    for alpha, below in ((1.001, -500.0), (1.01, -99.8)):
        share = forward(ENTMAX, np.array([[0.0, below]]).T, alpha=alpha)[1, 0]
        (_, exact) = oracle.slice_values(ENTMAX, [0.0, below], (alpha,))
        assert oracle.error_in_ulp(float(share), exact, np.float64) <= 4
    assert forward(ENTMAX, np.array([[0.5, 1e-18]]).T, alpha=3.0)[1, 0] == pytest.approx(1e-18, rel=1e-9)


@DTYPES
@_cases([HARDMAX, TOPK])
def test_vjp_of_a_selection(record: AxisActivation, given: dict[str, Any], dtype: Any) -> None:
    x = slices(record, dtype)
    g = np.asarray(np.random.default_rng(3).standard_normal(x.shape), dtype)
    np.testing.assert_array_equal(vjp(record, x, g, **given), jacobian_diagonal(record, x, **given) * g)


@DTYPES
@pytest.mark.parametrize("alpha", [1.0, 1.2, 1.5, 2.0, 3.5])
def test_gradient_of_alpha(alpha: float, dtype: Any) -> None:
    """The formula, and a difference of forward results."""
    x = np.random.default_rng(2).standard_normal((5, 8)).astype(dtype)
    g = np.random.default_rng(3).standard_normal(x.shape).astype(dtype)
    results = products(ENTMAX, x, g, "gradient_alpha", alpha=alpha)
    (gradient,) = ENTMAX.gradients
    for j in range(x.shape[1]):
        exact = oracle.slice_gradient(ENTMAX, gradient, x[:, j].tolist(), (alpha,))
        for i in range(x.shape[0]):
            assert results[i, j] == pytest.approx(float(exact[i]) * float(g[i, j]), rel=1e-9, abs=1e-11)
    if dtype is np.float64 and alpha > 1:
        step = 1e-6
        change = forward(ENTMAX, x, alpha=alpha + step) - forward(ENTMAX, x, alpha=alpha - step)
        np.testing.assert_allclose(results, g * change / (2 * step), rtol=1e-5, atol=1e-5)


@_cases([SOFTMAX, LOG_SOFTMAX, SOFTMIN])
def test_single_precision_is_close(record: AxisActivation, given: dict[str, Any]) -> None:
    x = slices(record, np.float32)
    x = np.concatenate([x, np.random.default_rng(1).standard_normal((6, 40)).astype(np.float32) * 8], axis=1)
    results = forward(record, x, "fast", **given)
    params = arguments(record, given)
    for j in range(x.shape[1]):
        exact = oracle.slice_values(record, x[:, j].tolist(), params)
        for i in range(x.shape[0]):
            if mp.isinf(exact[i]) or math.isinf(results[i, j]):
                with np.errstate(over="ignore"):
                    assert results[i, j] == np.float32(float(exact[i]))
            else:
                subnormal = abs(exact[i]) < float(np.finfo(np.float32).tiny)
                error = oracle.error_in_ulp(float(results[i, j]), exact[i], np.float32)
                assert error <= (1.0 if subnormal else 4.0), f"at {i, j}: {results[i, j]!r}, {mp.nstr(exact[i], 12)}"


@DTYPES
def test_a_long_slice_keeps_its_digits(dtype: Any) -> None:
    """Against a correctly rounded sum: a plain one is off by 100 units in float32 at this length."""
    x = np.random.default_rng(2).standard_normal((100_003, 1)).astype(dtype)
    terms = np.exp(x.astype(np.longdouble) - x.max())
    exact = (terms / terms.sum()).ravel()
    for record, reference, accuracy in (
        (SOFTMAX, exact, "exact"),
        (LOG_SOFTMAX, np.log(exact), "exact"),
        (SOFTMAX, exact, "fast"),
    ):
        result = forward(record, x, accuracy).ravel()
        units = np.abs(result - reference) / np.spacing(np.abs(result).astype(dtype))
        assert units.max() <= (0.502 if dtype is np.float32 and accuracy == "exact" else 4.0)


@DTYPES
@_records([record for record in EVERY if not record.indexed])
@pytest.mark.parametrize(
    "shape", [(1, 1), (2, 1), (127, 1), (128, 1), (1000, 1), (77, 3), (5, 300), (200, 2), (1, 129)]
)
def test_layout_makes_no_difference(record: AxisActivation, shape: tuple[int, int], dtype: Any) -> None:
    """Each column alone, or the whole block: a slice has the same result, to a rounding of its sum."""
    generator = np.random.default_rng(shape[0])
    x, g = (generator.standard_normal(shape).astype(dtype) * 3 for _ in range(2))
    given = {"k": shape[0] // 2 + 1} if record is TOPK else {}
    together, together_vjp = forward(record, x, **given), vjp(record, x, g, **given)
    for j in {0, shape[1] // 2, shape[1] - 1}:
        column, upstream = np.ascontiguousarray(x[:, j : j + 1]), np.ascontiguousarray(g[:, j : j + 1])
        tolerance = 8 * np.finfo(dtype).eps
        np.testing.assert_allclose(forward(record, column, **given)[:, 0], together[:, j], rtol=tolerance)
        np.testing.assert_allclose(
            vjp(record, column, upstream, **given)[:, 0], together_vjp[:, j], rtol=1e-3, atol=64 * tolerance
        )


@_records(EVERY)
def test_a_piece_has_the_bits_of_the_whole(record: AxisActivation) -> None:
    x = np.random.default_rng(1).standard_normal((23, 7))
    params = arguments(record, {})
    state = reduced(record, x, params)
    whole = forward(record, x).ravel()
    for start in (1, 6, 7, 50, 160):
        piece = np.empty(x.size - start)
        load(record, "forward", x.dtype)(x, start, piece, state, 0, params)
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
@_records([SOFTMAX, LOG_SOFTMAX, SPARSEMAX, ENTMAX15, ENTMAX, GUMBEL_SOFTMAX])
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
    given = {"all_masked": all_masked} if record in MASKABLE else {}
    for result in (forward(record, x, **given), vjp(record, x, g, **given), jacobian_diagonal(record, x, **given)):
        assert np.isnan(result[:, 1]).all()
        assert np.isfinite(result[:, [0, 2]]).all()


@DTYPES
@_records([HARDMAX, TOPK])
def test_selections_take_infinities_for_numbers(record: AxisActivation, dtype: Any) -> None:
    x = block_with([1.0, math.inf, math.inf], 4, dtype)
    kept = forward(record, x)[:, 1].tolist()
    assert kept == ([0.0, 1.0, 0.0, 0.0] if record is HARDMAX else [0.0, math.inf, math.inf, 0.0])
    x[3, 1] = math.nan
    for result in (forward(record, x), vjp(record, x, np.ones_like(x)), jacobian_diagonal(record, x)):
        assert np.isnan(result[:, 1]).all()
        assert np.isfinite(result[:, [0, 2]]).all()


@DTYPES
@_records([SPARSEMAX, ENTMAX15, ENTMAX, GUMBEL_SOFTMAX])
def test_a_slice_masked_throughout_has_no_shares(record: AxisActivation, dtype: Any) -> None:
    x = block_with([], 5, dtype)
    assert np.isnan(forward(record, x)[:, 1]).all()
    assert np.isnan(vjp(record, x, np.ones_like(x))[:, 1]).all()


@DTYPES
@_records(MASKABLE)
@pytest.mark.parametrize("n", [1, 4, 400])
def test_a_slice_masked_throughout(record: AxisActivation, n: int, dtype: Any) -> None:
    x = block_with([], n, dtype)
    x = -x if record is SOFTMIN else x
    g = np.ones_like(x)
    assert np.isnan(forward(record, x)[:, 1]).all()
    assert np.isnan(vjp(record, x, g)[:, 1]).all()
    assert np.isnan(jacobian(record, x)[:, 1]).all()
    masked = forward(record, x, all_masked="zero")
    assert (masked[:, 1] == (-math.inf if record is LOG_SOFTMAX else 0.0)).all()
    assert np.isfinite(masked[:, [0, 2]]).all()
    assert (vjp(record, x, g, all_masked="zero")[:, 1] == 0).all()
    assert (jacobian(record, x, all_masked="zero")[:, 1] == 0).all()


@_records(EVERY)
@pytest.mark.parametrize("shape", [(0, 1), (0, 5), (3, 0), (0, 0)])
def test_nothing_gives_nothing(record: AxisActivation, shape: tuple[int, int]) -> None:
    x = np.empty(shape)
    assert forward(record, x).shape == shape
    assert vjp(record, x, x).shape == shape


@_cases([*SHARES, HARDMAX, GUMBEL_SOFTMAX])
def test_one_element_is_certain(record: AxisActivation, given: dict[str, Any]) -> None:
    assert forward(record, np.array([[3.0]]), **given) == [[1.0]]


def test_one_element_is_certain_of_its_logarithm() -> None:
    assert forward(LOG_SOFTMAX, np.array([[3.0]])) == [[0.0]]


@DTYPES
@_cases([record for record in EVERY if not record.indexed])
def test_a_permutation_permutes(record: AxisActivation, given: dict[str, Any], dtype: Any) -> None:
    generator = np.random.default_rng(4)
    x = generator.standard_normal((30, 3)).astype(dtype)
    order = generator.permutation(30)
    tolerance = 8 * np.finfo(dtype).eps
    shuffled = np.ascontiguousarray(x[order])
    np.testing.assert_allclose(
        forward(record, shuffled, **given), forward(record, x, **given)[order], rtol=1e3 * tolerance, atol=tolerance
    )


@DTYPES
def test_ties_go_to_the_first(dtype: Any) -> None:
    x = np.array([[1.0, 3.0, 2.0, 3.0, 3.0, -3.0]], dtype).T
    assert forward(HARDMAX, x).ravel().tolist() == [0, 1, 0, 0, 0, 0]
    assert forward(TOPK, x, k=2).ravel().tolist() == [0, 3, 0, 3, 0, 0]
    assert forward(TOPK, x, k=4, by="magnitude", relu=False).ravel().tolist() == [0, 3, 0, 3, 3, -3]
    assert forward(TOPK, x, k=6, relu=False).ravel().tolist() == x.ravel().tolist()


@DTYPES
@pytest.mark.parametrize("k", [1, 7, 500, 999, 1000])
def test_topk_is_a_sort(k: int, dtype: Any) -> None:
    x = np.random.default_rng(k).integers(-200, 200, (1000, 2)).astype(dtype)
    for by in ("value", "magnitude"):
        keys = np.abs(x) if by == "magnitude" else x
        kept = np.zeros(x.shape, bool)
        np.put_along_axis(kept, np.argsort(-keys, axis=0, kind="stable")[:k], True, axis=0)
        np.testing.assert_array_equal(forward(TOPK, x, k=k, by=by, relu=False), np.where(kept, x, 0))


def test_noise_draws_with_the_probabilities_of_softmax() -> None:
    """The place of the greatest element with its noise has the distribution that softmax gives."""
    x = np.tile(np.array([[0.0], [1.0], [-1.0]]), (1, 20_000))
    frequencies = forward(GUMBEL_SOFTMAX, x, hard=True, seed=11).mean(axis=1)
    expected = forward(SOFTMAX, np.ascontiguousarray(x[:, :1])).ravel()
    assert np.abs(frequencies - expected).max() < 0.015
    assert not np.array_equal(forward(GUMBEL_SOFTMAX, x, seed=1), forward(GUMBEL_SOFTMAX, x, seed=2))


def test_columns_and_rows_of_many_short_slices_agree() -> None:
    """Short slices are turned on their side, many at a time: each has what it has alone."""
    x = np.random.default_rng(0).standard_normal((150, 7, 1))
    params = arguments(SOFTMAX, {})
    state, out = np.empty((150, SOFTMAX.state_size, 1)), np.empty(x.size)
    load(SOFTMAX, "reduce", x.dtype)(x, state, params)
    load(SOFTMAX, "forward", x.dtype)(x, 0, out, state, 0, params)
    for row, alone in zip(out.reshape(150, 7), x, strict=True):
        np.testing.assert_allclose(row, forward(SOFTMAX, alone).ravel(), rtol=1e-15)


@DTYPES
@_cases([*SHARES, GUMBEL_SOFTMAX])
def test_shares_sum_to_one(record: AxisActivation, given: dict[str, Any], dtype: Any) -> None:
    x = np.random.default_rng(9).standard_normal((1000, 4)).astype(dtype) * 5
    sums = forward(record, x, **given).astype(np.float64).sum(axis=0)
    assert np.abs(sums - 1).max() <= x.shape[0] * np.finfo(dtype).eps / 2


def whole(record: AxisActivation, x: Array, *g: Array, accuracy: str = "exact", **given: Any) -> Array:
    """Slices in rows, each in one look."""
    out = np.empty(x.size, x.dtype)
    operation = load(record, "whole_vjp" if g else "whole_forward", x.dtype, accuracy)
    operation(x[:, :, None], *(a[:, :, None] for a in g), out, arguments(record, given))
    return out.reshape(x.shape)


WHOLE = _cases([record for record in EVERY if record.whole is not None])


@DTYPES
@WHOLE
@pytest.mark.parametrize("accuracy", ["exact", "fast"])
def test_one_look_gives_what_two_do(record: AxisActivation, given: dict[str, Any], accuracy: str, dtype: Any) -> None:
    generator = np.random.default_rng(6)
    columns = slices(record, dtype)
    long = generator.standard_normal((5000, columns.shape[1])).astype(dtype)
    long[2] = long[3] = math.inf if record is SOFTMIN else -math.inf
    long[17, 3] = math.nan
    long[:, 4] = -math.inf
    long[:, 5] = math.inf
    for x in (columns, long, columns[:1], columns[:0]):
        g = generator.standard_normal(x.shape).astype(dtype)
        rows, row_gradients = np.ascontiguousarray(x.T), np.ascontiguousarray(g.T)
        tolerance = (8 if accuracy == "exact" else 32) * float(np.finfo(dtype).eps)
        tiny = float(np.finfo(dtype).smallest_subnormal)
        together = forward(record, x, accuracy, **given)
        np.testing.assert_allclose(
            whole(record, rows, accuracy=accuracy, **given).T, together, rtol=tolerance, atol=2 * tiny
        )
        # A term of the mean may be as large as 4 times the greatest result.
        mean = np.abs(products(record, x, g, accuracy=accuracy, **given)).max(initial=0.0, where=~np.isnan(together))
        np.testing.assert_allclose(
            whole(record, rows, row_gradients, accuracy=accuracy, **given).T,
            products(record, x, g, accuracy=accuracy, **given),
            rtol=1e-4 if dtype is np.float32 else 1e-10,
            atol=16 * tolerance * mean,
        )


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("n", [1, 2, 5, 33, 64, 65])
@_cases([record for record in EVERY if not record.indexed])
def test_a_slice_has_the_bits_that_it_has_among_others(
    record: AxisActivation, given: dict[str, Any], n: int, dtype: Any
) -> None:
    generator = np.random.default_rng(8)
    x, g = ((generator.standard_normal((150, n, 1)) * 5).astype(dtype) for _ in range(2))
    params = arguments(record, given)

    def states(x: Array, g: Array) -> tuple[bytes, ...]:
        # Not every row is asked for at every parameter.
        state = np.zeros((len(x), record.state_size, 1))
        product = np.zeros((len(x), record.vjp_state_size, 1))
        load(record, "reduce", dtype)(x, state, params)
        load(record, "vjp_reduce", dtype)(x, g, state, product, params)
        return tuple(row.tobytes() for row in np.concatenate((state, product), axis=1))

    together = states(x, g)
    for size in (1, 7, 64, 65, 129):
        parts = [states(x[at : at + size], g[at : at + size]) for at in range(0, len(x), size)]
        assert tuple(row for part in parts for row in part) == together
