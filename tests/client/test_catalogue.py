"""What the catalogue's kinds of activations give, through the front door: gates, seeds, channels, presets, refusals."""

from __future__ import annotations

import math
from typing import Any

import mpmath as mp
import numpy as np
import oracle
import pytest
from actserve_client import Client, InvalidRequest, UnknownActivation
from actserve_server.activations.catalogue import CATALOGUE
from actserve_server.activations.spec import GatedActivation
from actserve_server.kernels import threads as threads_module
from actserve_server.kernels.threads import Team

GATED = [record for record in CATALOGUE if isinstance(record, GatedActivation)]
RNG_SEED = 11


def normal(*shape: int, dtype: Any = np.float64, scale: float = 3.0) -> np.ndarray[Any, Any]:
    return (np.random.default_rng(RNG_SEED).standard_normal(shape) * scale).astype(dtype)


# ---- gated units -----------------------------------------------------------------------------------------------------


def halves(x: np.ndarray[Any, Any], activated: str, layout: str) -> tuple[Any, Any]:
    """u and v, as views along the last axis."""
    n = x.shape[-1] // 2
    one, two = (x[..., :n], x[..., n:]) if layout == "split" else (x[..., ::2], x[..., 1::2])
    return (one, two) if activated == "first" else (two, one)


@pytest.mark.parametrize("layout", ["split", "interleaved"])
@pytest.mark.parametrize("activated", ["first", "second"])
@pytest.mark.parametrize("record", GATED, ids=lambda record: record.name)
def test_gated_units_are_their_formulas(record: GatedActivation, activated: str, layout: str, client: Client) -> None:
    x, g = normal(2, 6), normal(2, 3)
    how: dict[str, Any] = {"activated": activated, "layout": layout}
    params = oracle.parameters(record, how)
    y = client.forward(record.name, x, **how)
    partials = client.derivative(record.name, x, **how)
    product = client.derivative(record.name, x, upstream=g, **how)
    u, v = halves(x, activated, layout)
    du, dv = halves(partials, activated, layout)
    pu, pv = halves(product, activated, layout)
    assert y.shape == (2, 3)
    for at in np.ndindex(2, 3):
        for result, partial in ((y, ""), (du, "u"), (dv, "v")):
            exact = oracle.gate(record, float(u[at]), float(v[at]), params, partial=partial)
            assert abs(mp.mpf(float(result[at])) - exact) <= 2.0**-49 * max(1, abs(exact))
        assert pu[at] == pytest.approx(du[at] * g[at], rel=1e-14)
        assert pv[at] == pytest.approx(dv[at] * g[at], rel=1e-14)


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_gated_units_work_along_any_axis(axis: int, client: Client) -> None:
    x = normal(4, 6, 8, dtype=np.float32)
    moved = np.ascontiguousarray(np.moveaxis(x, axis, -1))
    expected = np.moveaxis(client.forward("swiglu", moved), -1, axis)
    np.testing.assert_array_equal(client.forward("swiglu", x, axis=axis), expected)
    g = normal(*expected.shape, dtype=np.float32)
    product = client.derivative("swiglu", moved, upstream=np.ascontiguousarray(np.moveaxis(g, axis, -1)))
    np.testing.assert_array_equal(client.derivative("swiglu", x, axis=axis, upstream=g), np.moveaxis(product, -1, axis))


def test_an_odd_axis_cannot_be_halved(client: Client) -> None:
    with pytest.raises(InvalidRequest, match=r"7.*even"):
        client.forward("glu", np.zeros((2, 7)))


# ---- axes that change their length -----------------------------------------------------------------------------------


def test_crelu_keeps_both_signs(client: Client) -> None:
    x = np.array([[1.0, -2.0, 0.0, math.nan]])
    np.testing.assert_array_equal(client.forward("crelu", x), [[1, 0, 0, math.nan, 0, 2, 0, math.nan]])
    g = np.arange(1.0, 9.0).reshape(1, 8)
    np.testing.assert_array_equal(client.derivative("crelu", x, upstream=g), [[1, -6, 0, math.nan]])
    with pytest.raises(InvalidRequest, match="upstream"):
        client.derivative("crelu", x)


def test_maxout_takes_the_greatest_of_each_group(client: Client) -> None:
    x = np.array([[1.0, 5.0, 5.0, -1.0, -3.0, -2.0]], np.float32)
    np.testing.assert_array_equal(client.forward("maxout", x, num_units=2), [[5, -1]])
    product = client.derivative("maxout", x, upstream=np.array([[10.0, 20.0]], np.float32), num_units=2)
    np.testing.assert_array_equal(product, [[0, 10, 0, 20, 0, 0]])
    for units, message in ((4, "divide"), (None, "needs num_units")):
        with pytest.raises(InvalidRequest, match=message):
            client.forward("maxout", x, num_units=units)


# ---- channels, gradients of parameters -------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.float16])
@pytest.mark.parametrize(("shape", "axis"), [((3, 4, 5), 1), ((6, 7), -1), ((5, 2, 3, 2), 0)])
def test_prelu_has_a_slope_for_each_channel(shape: tuple[int, ...], axis: int, dtype: Any, client: Client) -> None:
    x = normal(*shape, dtype=dtype)
    slope = np.linspace(0.125, 0.5, shape[axis])
    laid = slope.reshape([-1 if d == axis % len(shape) else 1 for d in range(len(shape))])
    expected = np.where(x > 0, x, (laid * x.astype(np.float64)).astype(dtype))
    np.testing.assert_array_equal(client.forward("prelu", x, slope=slope, channel_axis=axis), expected)
    np.testing.assert_array_equal(client.forward("prelu", x, slope=laid), expected)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_gradients_of_channels_are_exact_sums(dtype: Any, client: Client) -> None:
    x, g = normal(50, 3, 7, dtype=dtype), normal(50, 3, 7, dtype=dtype, scale=1e3)
    slope = np.array([0.1, 0.2, 0.3])
    found = client.derivative("prelu", x, upstream=g, slope=slope, channel_axis=1, parameter_gradients=True)
    terms = np.minimum(x, 0).astype(np.float64) * g.astype(np.float64)
    assert found.parameters["slope"].tolist() == [math.fsum(terms[:, c].ravel()) for c in range(3)]
    whole = client.derivative("prelu", x, upstream=g, parameter_gradients=True)
    assert whole.parameters["slope"].shape == ()
    assert float(whole.parameters["slope"]) == math.fsum(terms.ravel())


def test_fast_answers_exactly_where_single_precision_cannot_hold_a_channel(client: Client) -> None:
    x, slope = -np.ones((1, 2), np.float32), np.array([1e-40, 1e38])
    fast = client.forward("prelu", x, slope=slope, accuracy="fast")
    np.testing.assert_array_equal(fast, client.forward("prelu", x, slope=slope))
    assert (fast != 0).all()


def test_gradients_are_refused_where_there_are_none(client: Client) -> None:
    x = normal(3)
    with pytest.raises(InvalidRequest, match="no parameter"):
        client.derivative("relu", x, upstream=x, parameter_gradients=True)
    with pytest.raises(InvalidRequest, match="upstream"):
        client.derivative("prelu", x, parameter_gradients=True)


def test_an_array_that_does_not_broadcast_is_refused(client: Client) -> None:
    with pytest.raises(InvalidRequest, match=r"\[5\].*\[2, 4\]") as caught:
        client.forward("prelu", normal(2, 4), slope=np.ones(5))
    assert "slope" in caught.value.field
    with pytest.raises(InvalidRequest, match="is an array"):
        client.forward("elu", normal(2, 4), alpha=np.ones(4))


# ---- seeds -----------------------------------------------------------------------------------------------------------


def test_random_slopes_depend_on_seed_and_place_alone(client: Client) -> None:
    x = -np.ones((300_000, 2), np.float32)
    whole = client.forward("rrelu", x, training=True, seed=7)
    assert ((whole <= -1 / 8) & (whole >= -1 / 3 - 1e-6)).all()
    assert len(np.unique(whole)) > 100_000
    blocks = list(client.stream("rrelu", np.array_split(x, 7), parameters={"training": True, "seed": 7}))
    np.testing.assert_array_equal(np.concatenate(blocks), whole)
    np.testing.assert_array_equal(client.derivative("rrelu", x, training=True, seed=7), -whole)
    assert (client.forward("rrelu", x, training=True, seed=8) != whole).mean() > 0.99
    with pytest.raises(InvalidRequest, match="seed"):
        client.forward("rrelu", x, training=True)


# ---- names and defaults of other libraries ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("preset", "name", "ours", "parameters"),
    [
        ("keras", "leaky_relu", "leaky_relu", {"negative_slope": 0.2}),
        ("torch", "LeakyReLU", "leaky_relu", {"negative_slope": 0.01}),
        ("jax", "gelu", "gelu_tanh", {}),
        ("torch", "GELU", "gelu", {}),
        ("onnx", "HardSigmoid", "hard_sigmoid", {"alpha": 0.2}),
        ("torch", "softplus", "softplus", {"threshold": 20.0}),
    ],
)
def test_a_preset_means_a_librarys_name_and_defaults(
    preset: str, name: str, ours: str, parameters: dict[str, float], client: Client
) -> None:
    x = normal(100, scale=15.0)
    expected = client.forward(ours, x, **parameters)
    np.testing.assert_array_equal(client.forward(name, x, preset=preset), expected)
    np.testing.assert_array_equal(client.forward(f"{preset}:{name}", x), expected)


def test_our_name_is_meant_where_a_library_has_none(client: Client) -> None:
    x = normal(100)
    np.testing.assert_array_equal(client.forward("gelu_tanh", x, preset="keras"), client.forward("gelu_tanh", x))


def test_what_a_library_lacks_is_said(client: Client) -> None:
    with pytest.raises(UnknownActivation, match="in keras"):
        client.forward("leaky_rellu", normal(3), preset="keras")
    with pytest.raises(InvalidRequest, match=r"caffe.*torch"):
        client.forward("relu", normal(3), preset="caffe")


def test_every_preset_of_every_record_computes(client: Client) -> None:
    x = normal(4, 6)
    for record in CATALOGUE:
        if any(p.default is None and not p.optional for p in record.parameters):
            continue
        for library in record.libraries:
            for name in library.names:
                assert client.forward(name, x, preset=library.library).size


# ---- refusals --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "parameters", "message"),
    [
        ("hard_tanh", {"min_val": 2.0, "max_val": 1.0}, "min_val"),
        ("rrelu", {"lower": 0.5, "upper": 0.1}, "lower"),
        ("celu", {"alpha": 0.0}, r"\(0, inf"),
        ("hard_shrink", {"lambd": -1.0}, r"\[0, inf"),
        ("rrelu", {"training": 1.0}, "true or false"),
        ("glu", {"layout": "striped"}, "split"),
        ("maxout", {"num_units": 1.5}, "whole number"),
        ("topk", {"k": 7}, "the axis has 6 elements"),
    ],
)
def test_parameters_out_of_bounds_are_refused(
    name: str, parameters: dict[str, Any], message: str, client: Client
) -> None:
    with pytest.raises(InvalidRequest, match=message):
        client.forward(name, normal(2, 6), parameters=parameters)


def test_rejecting_names_the_place(client: Client) -> None:
    x = np.ones(500_000, np.float32)
    x[412_345] = math.nan
    with pytest.raises(InvalidRequest, match="412345 of x is nan"):
        client.forward("relu", x, nonfinite="reject")
    with pytest.raises(InvalidRequest, match="2 of the result is inf"):
        client.forward("exponential", np.array([0.0, 1.0, 1000.0]), nonfinite="reject")
    assert np.isnan(client.forward("relu", x)).sum() == 1


# ---- cores -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.float16])
@pytest.mark.parametrize("name", ["gelu", "sin", "softmax", "swiglu", "rrelu"])
def test_bits_do_not_depend_on_the_number_of_cores(
    name: str, dtype: Any, make_server: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    # However quick the kernel is, all cores have a part.
    monkeypatch.setattr(threads_module, "_WORTH_S", 1e-9)
    cuts: list[int] = []
    share = Team.share

    def counted(self: Team, size: int, unit: int, work: Any, *, grain: int) -> None:
        cuts.append(min(self.threads, size // grain))
        share(self, size, unit, work, grain=grain)

    monkeypatch.setattr(Team, "share", counted)
    x = normal(2000, 256, dtype=dtype)
    parameters = {"training": True, "seed": 3} if name == "rrelu" else {}
    results = []
    for threads in (1, 4):
        with Client(make_server(threads=threads).addresses[0]) as client:
            forward = client.forward(name, x, parameters=parameters)
            product = client.derivative(name, x, upstream=np.ones_like(forward), parameters=parameters)
            # Of what was never computed before nobody knows how long it takes.
            again = client.forward(name, x, parameters=parameters)
            assert again.tobytes() == forward.tobytes()
            results.append((forward.tobytes(), product.tobytes()))
    assert results[0] == results[1]
    assert max(cuts) == 4


@pytest.mark.parametrize(("alpha", "name"), [(1.0, "softmax"), (1.5, "entmax15"), (2.0, "sparsemax")])
@pytest.mark.parametrize("shape", [(3, 500), (7, 5, 2)])
def test_entmax_is_the_member_of_its_family(client: Client, alpha: float, name: str, shape: tuple[int, ...]) -> None:
    x, g = normal(*shape), np.random.default_rng(1).standard_normal(shape)
    assert client.forward("entmax", x, alpha=alpha).tobytes() == client.forward(name, x).tobytes()
    for accuracy in ("exact", "fast"):
        single = x.astype(np.float32)
        found = client.forward("entmax", single, alpha=alpha, accuracy=accuracy)
        assert found.tobytes() == client.forward(name, single).tobytes()
    ours, theirs = client.derivative("entmax", x, upstream=g, alpha=alpha), client.derivative(name, x, upstream=g)
    np.testing.assert_allclose(ours, theirs, rtol=1e-12, atol=1e-14)
    full = client.derivative("entmax", x, jacobian="full", alpha=alpha)
    assert full.tobytes() == client.derivative(name, x, jacobian="full").tobytes()
    gradient = client.derivative("entmax", x, upstream=g, parameter_gradients=True, alpha=alpha)
    np.testing.assert_array_equal(gradient.input, ours)
    assert np.isfinite(gradient.parameters["alpha"])


@pytest.mark.parametrize("alpha", [1.0, 1.3, 1.5, 2.0, 3.0])
def test_entmax_bears_gradients_as_large_as_numbers_are(client: Client, alpha: float) -> None:
    found = client.derivative("entmax", np.zeros((2, 100)), upstream=np.full((2, 100), 1.7e308), alpha=alpha)
    np.testing.assert_array_equal(found, 0.0)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_softplus_has_limits_where_beta_is_next_to_nothing(client: Client, dtype: Any) -> None:
    x = np.array([np.inf, -np.inf], dtype)
    np.testing.assert_array_equal(client.forward("softplus", x, beta=1e-310), np.array([np.inf, 0.0], dtype))
