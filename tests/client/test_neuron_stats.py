"""Neuron statistics through the front door: against NumPy, against others' definitions, and against themselves when cut."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from fractions import Fraction
from typing import Any

import grpc
import ml_dtypes
import numpy as np
import pytest
from actserve.stats import NeuronStats
from actserve.v1 import compute_pb2, errors_pb2, service_pb2, service_pb2_grpc
from actserve_client import AsyncClient, Client, InvalidRequest, LimitExceeded, merge
from actserve_server.kernels.compiler import load_reduction
from actserve_server.kernels.neurons import NEURON_REDUCTIONS
from google.rpc import error_details_pb2, status_pb2
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

MakeServer = Callable[..., Any]

Array = np.ndarray[Any, Any]
SHARED = settings(deadline=None, max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])

SPECIAL = [math.nan, math.inf, -math.inf, 0.0, -0.0, 5e-324, -1e-310, 1e-45, -1.2e-38, 3.4e38, -1.0, 1.0]


@pytest.fixture(scope="module", autouse=True)
def compiled() -> None:
    """What takes longest to compile is compiled before any deadline runs."""
    for dtype in (np.float32, np.float64):
        for name in NEURON_REDUCTIONS:
            load_reduction(name, dtype)


def wild(dtype: Any, shape: Any, seed: int, decades: float = 15.0) -> Array:
    """Numbers over twice as many decades, and among them all that is special."""
    random = np.random.default_rng(seed)
    x = random.standard_normal(shape) * 10.0 ** random.uniform(-decades, decades, shape)
    special = random.random(shape) < 0.1
    x[special] = random.choice(SPECIAL, shape)[special]
    with np.errstate(over="ignore"):
        return x.astype(dtype)


def by_neuron(a: Array, axes: tuple[int, ...]) -> Array:
    """[samples, neurons] in float64."""
    axes = tuple(sorted(axis % a.ndim for axis in axes))
    rest = tuple(axis for axis in range(a.ndim) if axis not in axes)
    width = math.prod(a.shape[axis] for axis in axes)
    return a.transpose(*rest, *axes).reshape(-1, width).astype(np.float64)


def exact(values: Array) -> Fraction:
    return sum((Fraction(float(v)) for v in values if math.isfinite(v)), Fraction())


def rounded(value: Fraction) -> float:
    try:
        return float(value)
    except OverflowError:
        return math.inf if value > 0 else -math.inf


# ---- what is counted and summed --------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.float16, ml_dtypes.bfloat16])
@pytest.mark.parametrize(
    ("shape", "axes"),
    [
        ((40, 7), (1,)),
        ((40, 7), (0,)),
        ((33, 300), (-1,)),
        ((3000, 2), (-1,)),
        ((2500,), (0,)),
        ((3, 5, 4), (1,)),
        ((2, 140, 9), (1,)),
        ((2, 3, 1500), (1,)),
        ((4, 3, 5, 2), (1, 3)),
        ((4, 3, 5, 2), (-1, 1, 2)),
        ((2, 3, 4, 5, 3), (1, 3)),
    ],
)
def test_every_figure_is_that_of_numpy(
    client: Client, dtype: Any, shape: tuple[int, ...], axes: tuple[int, ...]
) -> None:
    x = wild(dtype, shape, seed=len(shape) + shape[0], decades=2 if dtype == np.float16 else 15)
    options: dict[str, Any] = {"neuron_axis": axes, "zero_tolerance": 1e-3, "fired": "abs>0.5", "first_sample": 100}
    stats = client.neuron_stats("identity", x, input="post", **options)
    a = by_neuron(x, axes)
    shape = tuple(x.shape[axis] for axis in sorted(axis % x.ndim for axis in axes))
    numbers = np.where(np.isnan(a), 0, a)

    def same(name: str, expected: Any) -> None:
        np.testing.assert_array_equal(getattr(stats, name, stats.columns.get(name)), np.reshape(expected, shape), name)

    same("samples", np.full(a.shape[1], len(a)))
    same("positive", (a > 0).sum(0))
    same("negative", (a < 0).sum(0))
    same("nan", np.isnan(a).sum(0))
    same("positive_infinity", (a == np.inf).sum(0))
    same("negative_infinity", (a == -np.inf).sum(0))
    same("zero_fraction", (np.abs(a) <= 1e-3).mean(0))
    same("inactive_fraction", (np.abs(a) <= 0.5).mean(0))
    same("last_fired", [100 + max(np.flatnonzero(np.abs(column) > 0.5), default=-101) for column in a.T])
    same("min", np.fmin.reduce(a, axis=0))
    same("max", np.fmax.reduce(a, axis=0))
    assert (stats.begin, stats.end) == (100, 100 + len(a))
    finite = np.isfinite(numbers).all(axis=0)
    mean = np.array([rounded(exact(column) / len(a)) for column in a.T])
    squares = [sum((Fraction(float(v)) ** 2 for v in column if math.isfinite(v)), Fraction()) for column in a.T]
    variance = [rounded(s / len(a) - (exact(column) / len(a)) ** 2) for s, column in zip(squares, a.T, strict=True)]
    np.testing.assert_array_equal(stats.mean.reshape(-1)[finite], mean[finite])
    np.testing.assert_array_equal(stats.variance.reshape(-1)[finite], np.array(variance)[finite])
    np.testing.assert_array_equal(np.isfinite(stats.mean.reshape(-1)) | np.isinf(mean), finite | np.isinf(mean))


def test_sums_are_those_of_fsum(client: Client) -> None:
    x = wild(np.float32, (4000, 3), seed=5)
    x[~np.isfinite(x)] = 0
    stats = client.neuron_stats("identity", x)
    wide = x.astype(np.float64)
    assert stats.mean.tolist() == [rounded(exact(column) / 4000) for column in wide.T]
    one = client.neuron_stats("identity", x[:1024, :1], neuron_axis=0)  # by powers of two, so that dividing is exact
    assert one.mean.tolist() == wide[:1024, 0].tolist()
    thousand = client.neuron_stats("identity", x[:1024])
    assert (thousand.mean * 1024).tolist() == [math.fsum(column) for column in wide[:1024].T]
    assert (thousand.mean_magnitude * 1024).tolist() == [math.fsum(abs(column)) for column in wide[:1024].T]
    assert (thousand.mean_square * 1024).tolist() == [math.fsum(column**2) for column in wide[:1024].T]


@pytest.mark.parametrize("jump", [1e-3, 1e3, 1e30, 1e-30])
def test_sums_follow_numbers_that_change_their_size(client: Client, jump: float) -> None:
    random = np.random.default_rng(1)
    parts = [random.standard_normal((700, 150)) * scale for scale in (1.0, jump, 1.0, 0.0, jump * 1e-7, 1.0)]
    x = np.concatenate(parts).astype(np.float32)
    stats = client.neuron_stats("identity", x)
    assert stats.mean.tolist() == [rounded(exact(column) / len(x)) for column in x.astype(np.float64).T]


# ---- any cut, any order, any tree ------------------------------------------------------------------------------------


@SHARED
@given(data=st.data())
def test_any_split_order_and_tree_gives_the_same_bytes(client: Client, data: st.DataObject) -> None:
    dtype = data.draw(st.sampled_from([np.float32, np.float64]))
    shape = data.draw(st.sampled_from([(24, 3), (12, 2, 3), (300, 1), (9, 130)]))
    x = wild(dtype, shape, data.draw(st.integers(0, 10**6)))
    drawn = data.draw(hnp.arrays(dtype, (4, *shape[1:])))
    x[: len(drawn)] = drawn
    options: dict[str, Any] = {
        "neuron_axis": data.draw(st.sampled_from([-1, 1] if len(shape) > 2 else [-1])),
        "histogram": data.draw(st.sampled_from([None, "layer", "neuron"])),
        "fired": data.draw(st.sampled_from(["positive", "nonzero", "abs>1e-3"])),
        "sums": data.draw(st.booleans()),
    }
    name = data.draw(st.sampled_from(["relu", "tanh", "identity"]))
    whole = client.neuron_stats(name, x, **options)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(x)), max_size=4)))
    blocks = np.split(x, cuts)
    assert client.neuron_stats(name, iter(blocks), **options).state == whole.state
    each = whole.samples.max(initial=0) // len(x)
    starts = [start * int(each) for start in [0, *cuts]]
    parts = [
        client.neuron_stats(name, block, first_sample=s, **options) for s, block in zip(starts, blocks, strict=True)
    ]
    pile = list(data.draw(st.permutations(parts)))
    while len(pile) > 1:
        left, right = (pile.pop(data.draw(st.integers(0, len(pile) - 1))) for _ in range(2))
        pile.append(merge([left.state, right.state]))
    assert pile[0].state == whole.state
    assert pile[0] == whole
    assert NeuronStats.from_bytes(whole.state).state == whole.state


@SHARED
@given(seed=st.integers(0, 10**6), rows=st.permutations(range(20)))
def test_the_order_of_samples_changes_no_sum_and_no_count(client: Client, seed: int, rows: list[int]) -> None:
    x = wild(np.float32, (20, 5), seed)
    one, other = (client.neuron_stats("identity", part, histogram="neuron") for part in (x, x[rows]))
    assert other.sums is not None
    assert one.sums is not None
    assert [part.to_bytes() for part in one.sums] == [part.to_bytes() for part in other.sums]
    np.testing.assert_array_equal(one.quantile([0.1, 0.5]), other.quantile([0.1, 0.5]))
    for name in one.columns:
        if name != "last_fired":
            assert one.columns[name].tolist() == other.columns[name].tolist()


def test_an_empty_batch_is_neutral(client: Client) -> None:
    x = wild(np.float32, (10, 4), seed=2)
    some, none = client.neuron_stats("relu", x, first_sample=7), client.neuron_stats("relu", x[:0], first_sample=99)
    assert merge([none, some, none]).state == some.state
    assert (none.begin, none.end, none.layer.dead_fraction) == (0, 0, 0.0)
    assert not none.never_fired.any()


async def test_the_async_twin_gives_the_same(client: Client, address: str) -> None:
    x = wild(np.float32, (50, 6), seed=3)
    options: dict[str, Any] = {
        "fired": "abs>eps",
        "eps": 0.1,
        "tau": 0.1,
        "histogram": "layer",
        "dead_after_samples": 5,
    }
    async with AsyncClient(address) as other:
        assert (await other.neuron_stats("tanh", x, **options)).state == client.neuron_stats("tanh", x, **options).state


def test_a_state_of_4096_neurons_is_small_and_travels_in_chunks(client: Client) -> None:
    x = wild(np.float32, (30, 4096), seed=4)
    stats = client.neuron_stats("identity", x)
    assert len(stats.state) < 4_000_000
    assert len(client.neuron_stats("gelu", np.abs(x)).state) < 4_000_000
    assert NeuronStats.from_bytes(stats.state) == stats


# ---- definitions of others, computed by their own formulas -----------------------------------------------------------


@pytest.mark.parametrize("tau", [0.0, 0.025, 0.1, 0.5])
def test_dormancy_is_dopamines(client: Client, tau: float) -> None:
    random = np.random.default_rng(6)
    x = (random.standard_normal((64, 5, 30)) * 2.0 ** -np.arange(30)).astype(np.float32)
    x[..., 7] = -1
    a = np.maximum(x, 0)
    # google/dopamine, labs/redo/tfagents/sac_train_eval and weight_recyclers.estimate_neuron_score.
    score = np.mean(np.abs(a), axis=(0, 1))
    score /= np.mean(score) + 1e-9
    stats = client.neuron_stats("relu", x, tau=tau)
    np.testing.assert_array_equal(stats.dormant, score <= tau)
    np.testing.assert_allclose(stats.dormancy, score, rtol=1e-5)
    assert stats.dormant_fraction == np.mean(score <= tau)


def test_a_layer_that_is_all_zero_is_all_dormant(client: Client) -> None:
    stats = client.neuron_stats("relu", np.full((3, 4), -1.0))
    assert stats.dormant.all()
    assert stats.layer.dormant == 4


@pytest.mark.parametrize("window", [1, 10, 59, 60, 1000])
def test_dead_features_are_those_of_sae_trainers(client: Client, window: int) -> None:
    random = np.random.default_rng(7)
    acts = np.where(random.random((60, 40)) < 10.0 ** -np.linspace(0, 3, 40), random.random((60, 40)), 0)
    # SAELens, training/sae_trainer: the counter of a feature is set to 0 when it fires, and it is dead beyond the window.
    since = np.zeros(40, np.int64)
    for row in acts:
        since += 1
        since[row > 0] = 0
    blocks = np.split(acts, [7, 30])
    starts = (0, 7, 30)
    options: dict[str, Any] = {"input": "post", "dead_after_samples": window + 1}
    parts = [client.neuron_stats("relu", b, first_sample=s, **options) for s, b in zip(starts, blocks, strict=True)]
    stats = merge(parts)
    np.testing.assert_array_equal(stats.not_fired_recently, since > window)
    np.testing.assert_array_equal(stats.not_fired_within(window), since >= window)
    # and its feature density, l0 and sparsity
    np.testing.assert_array_equal(1 - stats.inactive_fraction, 1 - (acts <= 0).mean(0))
    assert stats.l0 == pytest.approx((acts != 0).sum(1).mean(), rel=1e-12)
    assert stats.sparsity == (acts == 0).mean()
    assert merge(parts).layer.not_fired_recently == (since > window).sum()


def test_rules_of_firing(client: Client) -> None:
    x = np.array([[-1.0, 0.0, 0.05, 2.0], [-2.0, -0.0, -0.05, math.nan]])
    fractions = {
        rule: client.neuron_stats("identity", x, fired=rule).inactive_fraction.tolist()
        for rule in ("positive", "nonzero", "abs>0.05", "abs > 0.01")
    }
    assert fractions == {
        "positive": [1.0, 1.0, 0.5, 0.0],
        "nonzero": [0.0, 1.0, 0.0, 0.0],
        "abs>0.05": [0.0, 1.0, 1.0, 0.0],
        "abs > 0.01": [0.0, 1.0, 0.0, 0.0],
    }


# ---- slopes ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.float16])
@pytest.mark.parametrize(
    "name",
    ["relu", "relu6", "hard_tanh", "hard_sigmoid", "hard_shrink", "hard_swish", "sigmoid", "tanh", "gelu", "elu", "sin",
     "square", "step", "identity", "softplus", "relu_squared", "snake", "shrink", "gcu", "threshold", "mish", "cos"],
)  # fmt: skip
def test_zero_gradients_are_where_the_derivative_is_zero(client: Client, name: str, dtype: Any) -> None:
    random = np.random.default_rng(8)
    parts = [random.standard_normal(500) * scale for scale in (1, 10, 100)]
    # Halves and eighths, where the corners of piecewise functions are, with their neighbours.
    x = np.concatenate([*parts, np.arange(-100, 101) / 8, [-1e4, 1e4, 0.0, -0.0, -1.5, math.nan]]).astype(dtype)
    x = np.concatenate([x, np.nextafter(x, dtype(np.inf)), np.nextafter(x, dtype(-np.inf))])[:, np.newaxis]
    stats = client.neuron_stats(name, x)
    d = client.derivative(name, x)
    assert stats.columns["zero_gradient"].tolist() == (d == 0).sum(0).tolist()
    assert stats.vanishing_fraction.tolist() == (d == 0).mean(0).tolist()


SATURATED = {
    "relu": (0.0, math.inf),
    "hard_tanh": (-1.0, 1.0),
    "identity": (-math.inf, math.inf),
    "sin": (-math.inf, math.inf),
    "hard_shrink": (-math.inf, math.inf),
    "sigmoid": (-math.log(4000 - 2), math.log(4000 - 2)),  # 4 s (1 - s) < 1e-3
    "tanh": (-math.acosh(1000**0.5), math.acosh(1000**0.5)),
    "elu": (math.log(1e-3), math.inf),
    "exponential": (math.log(1e-3), math.inf),
    "softplus": (math.log(1e-3 / (1 - 1e-3)), math.inf),
    "relu_squared": (0.0, math.inf),
}


@pytest.mark.parametrize("kind", ["pre", "post"])
@pytest.mark.parametrize("name", SATURATED)
def test_saturated_is_a_tail_of_small_slopes(client: Client, name: str, kind: str) -> None:
    low, high = SATURATED[name]
    x = np.random.default_rng(9).uniform(-12, 12, (4000, 1)).astype(np.float32)
    a = x if kind == "pre" else client.forward(name, x)
    stats = client.neuron_stats(name, a, input=kind)
    if kind == "post" and name == "sin":
        assert np.isnan(stats.saturated_fraction).all()
        return
    assert stats.saturated_low_fraction.tolist() == [(x <= low).mean()]
    assert stats.saturated_high_fraction.tolist() == [(x >= high).mean()]
    assert stats.layer.saturated_fraction == pytest.approx(((x <= low) | (x >= high)).mean())


@pytest.mark.parametrize("dtype", [np.float16, ml_dtypes.bfloat16, np.float32, np.float64])
@pytest.mark.parametrize("kind", ["pre", "post"])
def test_relu_is_saturated_where_it_is_not_positive(client: Client, kind: str, dtype: Any) -> None:
    """After the fact too, where nothing need be counted for that: but NaN are neither, and a layer may give what relu never does."""
    values = [-math.inf, -1.5, -0.0, 0.0, 5e-324, 1e-45, 6e-8, 2.0, math.inf, math.nan]
    x = np.array([values, values[::-1], [math.nan] * 10, [-0.0] * 10]).astype(dtype)
    stats = client.neuron_stats("relu", x, input=kind)
    wide = x.astype(np.float64)
    assert stats.columns["saturated_low"].tolist() == (wide <= 0).sum(0).tolist()
    assert stats.columns["zero_gradient"].tolist() == (wide <= 0).sum(0).tolist()
    assert not stats.columns["saturated_high"].any()


def test_the_saturation_epsilon_is_an_option(client: Client) -> None:
    x = np.linspace(-10, 10, 2001)[:, np.newaxis]
    d = client.derivative("sigmoid", x)
    for eps in (0.0, 1e-4, 0.1, 0.5):
        stats = client.neuron_stats("sigmoid", x, saturation_eps=eps)
        assert stats.saturated_fraction.tolist() == [(d < eps * 0.25).mean()]


@pytest.mark.parametrize("name", ["relu", "sigmoid", "hard_tanh", "softplus"])
def test_statistics_of_activations_are_those_of_what_they_were_made_of(client: Client, name: str) -> None:
    x = np.random.default_rng(10).normal(0, 4, (500, 6)).astype(np.float32)
    before, after = client.neuron_stats(name, x), client.neuron_stats(name, client.forward(name, x), input="post")
    for column in before.columns:
        np.testing.assert_array_equal(before.columns[column], after.columns[column], column)
    np.testing.assert_array_equal(before.mean, after.mean)


def test_slopes_that_are_unknown_are_nan(client: Client) -> None:
    x = np.random.default_rng(11).standard_normal((20, 6))
    assert np.isnan(client.neuron_stats("softmax", x).saturated_fraction).all()
    assert np.isnan(client.neuron_stats("gelu", x, input="post").vanishing_fraction).all()
    slopes = client.neuron_stats("prelu", x, slope=np.array([0.0, 0.1, 0.2, 0.0, 1.0, 0.5]))
    assert np.isnan(slopes.saturated_fraction).all()
    np.testing.assert_array_equal(slopes.vanishing_fraction, np.where([1, 0, 0, 1, 0, 0], (x <= 0).mean(0), 0))


def test_activations_after_the_fact_may_have_any_shape(client: Client) -> None:
    assert client.neuron_stats("glu", np.ones((3, 5)), input="post").shape == (5,)
    assert client.neuron_stats("glu", np.ones((3, 4))).shape == (2,)


# ---- histograms ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_quantiles_are_within_four_per_mille(client: Client, dtype: Any) -> None:
    random = np.random.default_rng(12)
    x = (random.standard_normal((900, 5)) * 10.0 ** random.uniform(-20, 20, (900, 5))).astype(dtype)
    x[::7] = 0
    x[3] = math.inf
    shares = [0, 0.001, 0.25, 0.5, 0.9, 0.999, 1]
    expected = np.quantile(x, shares, axis=0, method="inverted_cdf")
    found = client.neuron_stats("identity", x, histogram="neuron").quantile(shares)
    np.testing.assert_allclose(found, expected.T, rtol=4e-3)
    layer = client.neuron_stats("identity", x, histogram="layer")
    np.testing.assert_allclose(layer.quantile(shares), np.quantile(x, shares, method="inverted_cdf"), rtol=4e-3)
    assert layer.quantile(0.5) == layer.quantile([0.5])[0]
    assert layer.histogram is not None
    assert layer.histogram.total == x.size


def test_histograms_leave_nan_out_and_keep_infinities(client: Client) -> None:
    x = np.array([math.nan, -math.nan, math.inf, -math.inf, 1.5, -0.0], np.float32)
    x[:1].view(np.uint32)[:] = 0x7F800001  # a NaN that shares its upper half with infinity
    for kind in ("layer", "neuron"):
        stats = client.neuron_stats("identity", x[:, np.newaxis], input="post", histogram=kind)
        assert stats.histogram is not None
        assert stats.histogram.total == 4
        assert np.ravel(stats.quantile([0, 0.5, 0.75, 1])).tolist() == [-math.inf, 0, 1.50390625, math.inf]


def test_without_a_histogram_there_are_no_quantiles(client: Client) -> None:
    with pytest.raises(ValueError, match='histogram="layer"'):
        client.neuron_stats("relu", np.ones((2, 2))).quantile(0.5)


# ---- bad input -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "field", "words"),
    [
        ({"threshold": -0.1}, "threshold", r"-0.1.*\[0, 1\]"),
        ({"threshold": math.nan}, "threshold", "NaN"),
        ({"fired": "often"}, "fired", "'often'.*'positive'"),
        ({"fired": "abs>much"}, "fired", "abs>eps"),
        ({"fired": "abs>eps"}, "eps", "needs eps"),
        ({"fired": "abs>-1"}, "eps", r"-1.*\[0, inf\)"),
        ({"eps": 0.1}, "eps", "abs>eps"),
        ({"zero_tolerance": -1}, "zero_tolerance", "-1"),
        ({"zero_tolerance": math.inf}, "zero_tolerance", "inf"),
        ({"tau": math.nan}, "tau", "NaN"),
        ({"tau": -1e-9}, "tau", "-1e-09"),
        ({"tau": 0.1, "sums": False}, "tau", "needs sums"),
        ({"saturation_eps": 2}, "saturation_eps", r"2.*\[0, 1\]"),
        ({"dead_after_samples": 0}, "dead_after_samples", "at least 1"),
        ({"dead_after_samples": 1.5}, "dead_after_samples", "integer"),
        ({"first_sample": -1}, "first_sample", "-1"),
        ({"first_sample": 2**63 - 1}, "first_sample", "2\\^62"),
        ({"input": "middle"}, "input", "'pre', 'post'"),
        ({"histogram": "all"}, "histogram", "'layer', 'neuron'"),
        ({"neuron_axis": 2}, "neuron_axis", "2"),
        ({"neuron_axis": (0, 2)}, "neuron_axis", "2"),
        ({"neuron_axis": (1, -1)}, "neuron_axis", "twice"),
        ({"neuron_axis": ()}, "neuron_axis", "at least one"),
        ({"neuron_axis": "last"}, "neuron_axis", "'last'"),
    ],
)
def test_bad_options_name_the_field_and_what_is_allowed(
    client: Client, options: dict[str, Any], field: str, words: str
) -> None:
    with pytest.raises(InvalidRequest, match=words) as caught:
        client.neuron_stats("relu", np.ones((3, 2)), **options)
    assert caught.value.field == field
    assert client.neuron_stats("relu", np.ones((3, 2))).neurons == 2


def test_axis_0_can_not_be_the_neurons_of_an_iterable(client: Client) -> None:
    with pytest.raises(InvalidRequest, match="axis 0 is the batch"):
        client.neuron_stats("relu", iter([np.ones((3, 2))]), neuron_axis=(0, 1))


def test_more_neurons_than_a_server_holds_are_refused(make_server: MakeServer) -> None:
    server = make_server(max_slice_bytes=1 << 20)
    with Client(server.addresses[0], timeout=300) as client:
        with pytest.raises(LimitExceeded, match="max_slice_bytes") as caught:
            client.neuron_stats("relu", np.ones((2, 100_000), np.float32))
        assert caught.value.field == "neuron_axis"
        x = np.random.default_rng(0).standard_normal((900, 300)).astype(np.float32)
        with pytest.raises(LimitExceeded, match="max_slice_bytes"):
            client.neuron_stats("relu", x, histogram="neuron")
        assert client.neuron_stats("relu", x, histogram="layer").neurons == 300


@pytest.mark.parametrize(
    ("option", "left", "right"),
    [
        ("threshold", {"threshold": 0.1}, {"threshold": 0.2}),
        ("fired", {}, {"fired": "nonzero"}),
        ("eps", {"fired": "abs>1"}, {"fired": "abs>2"}),
        ("zero_tolerance", {}, {"zero_tolerance": 0.5}),
        ("tau", {}, {"tau": 0.5}),
        ("saturation_eps", {}, {"saturation_eps": 0.5}),
        ("dead_after_samples", {}, {"dead_after_samples": 3}),
        ("histogram", {}, {"histogram": "layer"}),
        ("sums", {}, {"sums": False}),
        ("input", {}, {"input": "post"}),
        ("neuron_axis", {"neuron_axis": -1}, {"neuron_axis": 0}),
        ("parameters", {"alpha": 1.0}, {"alpha": 0.5}),
        ("accuracy", {}, {"accuracy": "fast"}),
    ],
)
def test_states_of_different_options_do_not_merge(
    client: Client, option: str, left: dict[str, Any], right: dict[str, Any]
) -> None:
    name = "elu" if option == "parameters" else "relu"
    states = [client.neuron_stats(name, np.ones((3, 3)), **options).state for options in (left, right)]
    with pytest.raises(InvalidRequest, match=f"states of different {option} cannot be merged: .+ and .+"):
        merge(states)


def test_states_of_other_widths_and_other_activations_do_not_merge(client: Client) -> None:
    one = client.neuron_stats("relu", np.ones((3, 3)))
    with pytest.raises(InvalidRequest, match="neuron count cannot be merged: 3 and 4"):
        merge([one, client.neuron_stats("relu", np.ones((3, 4)))])
    with pytest.raises(InvalidRequest, match="activation cannot be merged: 'relu' and 'tanh'"):
        merge([one, client.neuron_stats("tanh", np.ones((3, 3)))])
    with pytest.raises(InvalidRequest, match="no states"):
        merge([])


# ---- MergeStats, as generated code in any language calls it ------------------------------------------------------------


@pytest.fixture
def stub(address: str) -> Iterator[service_pb2_grpc.ActivationServiceStub]:
    with grpc.insecure_channel(address) as channel:
        yield service_pb2_grpc.ActivationServiceStub(channel)


def in_chunks(states: list[bytes], size: int) -> Iterator[service_pb2.MergeStatsRequest]:
    for number, state in enumerate(states):
        for at in range(0, len(state), size):
            yield service_pb2.MergeStatsRequest(state=number, data=state[at : at + size])


@pytest.mark.parametrize("size", [100, 1000, 1 << 20])
def test_merge_stats_gives_what_one_pass_gives(client: Client, stub: Any, size: int) -> None:
    x = wild(np.float32, (60, 9), seed=13)
    options: dict[str, Any] = {"histogram": "neuron", "tau": 0.1}
    whole = client.neuron_stats("tanh", x, **options)
    parts = [client.neuron_stats("tanh", x[s : s + 20], first_sample=s, **options).state for s in (40, 0, 20)]
    header, *chunks, last = stub.MergeStats(in_chunks(parts, size), timeout=120)
    names = [tensor.name for tensor in header.header.tensors]
    received = dict.fromkeys(names, b"")
    for message in chunks:
        received[names[message.chunk.tensor]] += message.data
    assert received["state"] == whole.state
    assert received["mean"] == whole.mean.tobytes()
    assert received["dormant"] == whole.dormant.tobytes()
    assert received["last_fired"] == whole.last_fired.tobytes()
    assert header.header.activation == "tanh"
    assert last.summary.neuron_stats.sample_count == 60
    assert last.summary.neuron_stats.nan_count == whole.layer.nan
    assert last.summary.tensors == header.header.tensors


def requests(*pairs: tuple[int, bytes]) -> Iterator[service_pb2.MergeStatsRequest]:
    return (service_pb2.MergeStatsRequest(state=number, data=data) for number, data in pairs)


def failure(stub: Any, *pairs: tuple[int, bytes]) -> tuple[grpc.StatusCode, str, str]:
    with pytest.raises(grpc.RpcError) as caught:
        list(stub.MergeStats(requests(*pairs), timeout=120))
    trailing = dict(caught.value.trailing_metadata())
    status = status_pb2.Status.FromString(trailing["grpc-status-details-bin"])
    info = error_details_pb2.ErrorInfo()
    status.details[0].Unpack(info)
    return caught.value.code(), info.reason, caught.value.details()


def test_merge_stats_refuses_what_does_not_go_together(client: Client, stub: Any) -> None:
    one = client.neuron_stats("relu", np.ones((3, 3))).state
    other = client.neuron_stats("relu", np.ones((3, 3)), tau=0.5).state
    code, reason, text = failure(stub, (0, one), (1, other))
    assert (code, reason) == (grpc.StatusCode.INVALID_ARGUMENT, "INVALID_STATE")
    assert "state 1: states of different tau cannot be merged: 0.0 and 0.5" in text
    assert failure(stub, (0, one[:-1]))[1] == "INVALID_STATE"
    assert failure(stub, (0, b""))[1] == "INVALID_STATE"
    assert failure(stub, (0, b"nonsense"))[1] == "INVALID_STATE"
    assert failure(stub, (1, one), (0, one))[1] == "UNEXPECTED_FRAME"
    assert failure(stub)[1] == "STREAM_ENDED_EARLY"
    old = one.replace(b'"version":2', b'"version":1')
    assert "version 1 is not understood, only 2" in failure(stub, (0, old))[2]
    *_, last = stub.MergeStats(requests((0, one)), timeout=120)
    assert last.summary.neuron_stats.neuron_count == 3


def test_merge_stats_bounds_a_state(make_server: MakeServer, client: Client) -> None:
    server = make_server(max_slice_bytes=1 << 16)
    with grpc.insecure_channel(server.addresses[0]) as channel:
        stub = service_pb2_grpc.ActivationServiceStub(channel)
        state = client.neuron_stats("relu", np.ones((3, 1000))).state
        assert failure(stub, (0, state))[:2] == (grpc.StatusCode.RESOURCE_EXHAUSTED, "LIMIT_EXCEEDED")


def test_options_of_another_language_are_checked_too(stub: Any) -> None:
    def ask(**options: Any) -> compute_pb2.ComputeResponse:
        header = compute_pb2.JobHeader(
            activation="relu",
            mode=compute_pb2.MODE_NEURON_STATS,
            inputs=[{"data_type": 1, "shape": [1, 1]}],
            neuron_stats=compute_pb2.NeuronStatsOptions(**options),
        )
        *_, last = stub.Compute(compute_pb2.ComputeRequest(header=header, data=bytes(4)), timeout=120)
        answer: compute_pb2.ComputeResponse = last
        return answer

    assert ask().summary.neuron_stats.never_fired_count == 1
    for wrong in ({"fired": 9}, {"input": 7}, {"histogram": 5}, {"neuron_axis": 0, "neuron_axes": [0]}):
        with pytest.raises(grpc.RpcError) as caught:
            ask(**wrong)
        assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert errors_pb2.ERROR_REASON_INVALID_STATE == 18
