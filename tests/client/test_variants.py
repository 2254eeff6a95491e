"""What every computation may be told, and results that are not like their input: types, presets, channels, other shapes."""

from __future__ import annotations

import math
from typing import Any

import grpc
import ml_dtypes
import numpy as np
import pytest
from actserve.v1 import catalogue_pb2, compute_pb2, tensor_pb2
from actserve_client import (
    AsyncClient,
    Client,
    Gradients,
    InvalidRequest,
    Nonfinite,
    Summary,
    UnknownActivation,
    _channel,
)

Array = np.ndarray[Any, Any]
BFLOAT16 = np.dtype(ml_dtypes.bfloat16)
SIXTEEN_BITS = [np.dtype(np.float16), BFLOAT16]
HOLED = np.array([[1.0, math.nan, -math.inf], [math.inf, math.nan, -2.0]])
PARAMETERS = {"maxout": {"num_units": 2}}
"""Those that have no default."""


def noise(*shape: int) -> Array:
    return np.random.default_rng(5).standard_normal(shape) * 3


# ---- 16-bit types --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", SIXTEEN_BITS, ids=str)
@pytest.mark.parametrize("name", ["gelu", "relu", "softmax"])
def test_sixteen_bits_are_the_float64_result_rounded(client: Client, name: str, dtype: Any) -> None:
    x = noise(6, 4).astype(dtype)
    y = client.forward(name, x)
    assert (y.dtype, y.shape) == (dtype, x.shape)
    wide = client.forward(name, x.astype(np.float64)).astype(dtype)
    np.testing.assert_array_equal(y, wide)


@pytest.mark.parametrize("dtype", SIXTEEN_BITS, ids=str)
def test_sixteen_bits_in_every_layout_and_mode(client: Client, dtype: Any) -> None:
    x = noise(900, 1030).astype(dtype)
    expected = client.forward("silu", x)
    for other in (np.asfortranarray(x), x.astype(dtype.newbyteorder(">")), np.repeat(x, 2, axis=1)[:, ::2]):
        np.testing.assert_array_equal(client.forward("silu", other), expected)
    out = np.empty_like(x, order="F")
    assert client.forward("silu", x, out=out) is out
    np.testing.assert_array_equal(out, expected)
    np.testing.assert_array_equal(np.concatenate(list(client.stream("silu", np.split(x, 3)))), expected)
    assert client.derivative("silu", x[:2], upstream=x[:2]).dtype == dtype
    wide = x[:5].astype(np.float64)
    assert client.neuron_stats("relu", x[:5]).dead.tolist() == client.neuron_stats("relu", wide).dead.tolist()
    assert client.regularization("relu", x[:5]).penalty == client.regularization("relu", wide).penalty


def test_the_server_says_what_it_computes_with(client: Client) -> None:
    assert set(client.server_info().data_types) == {
        f"DATA_TYPE_{t}" for t in ("FLOAT", "DOUBLE", "FLOAT16", "BFLOAT16")
    }


# ---- accuracy, presets, what is not finite -------------------------------------------------------------------------


def test_fast_is_near_exact(client: Client) -> None:
    x = noise(50, 8).astype(np.float32)
    for call in (client.forward, client.derivative):
        fast = call("gelu", x, accuracy="fast")  # type: ignore[operator]
        np.testing.assert_allclose(fast, call("gelu", x), rtol=1e-4, atol=1e-6)  # type: ignore[operator]
    assert client.neuron_stats("relu", x, accuracy="fast").dead_fraction == client.neuron_stats("relu", x).dead_fraction


def test_a_preset_means_a_librarys_names_and_defaults(client: Client) -> None:
    x = np.array([-1.0, 2.0])
    keras = [-0.2, 2.0]
    np.testing.assert_array_equal(client.forward("leaky_relu", x, preset="keras"), keras)
    np.testing.assert_array_equal(client.forward("keras:leaky_relu", x), keras)
    np.testing.assert_array_equal(client.derivative("LeakyReLU", x, preset="torch"), [0.01, 1.0])
    np.testing.assert_array_equal(next(client.stream("leaky_relu", [x], preset="keras")), keras)
    assert client.regularization("leaky_relu", x, strength=1, preset="keras").penalty == 0.2**2 + 4
    assert client.neuron_stats("leaky_relu", x, preset="keras").neurons == 2
    np.testing.assert_array_equal(client.forward("PReLU", x[None], preset="keras", alpha=0.5), [[-0.5, 2.0]])
    assert client.describe("keras:leaky_relu") == client.describe("leaky_relu")
    with pytest.raises(InvalidRequest, match="torch, jax") as caught:
        client.forward("relu", x, preset="caffe")
    assert caught.value.field == "preset"
    for call in (lambda: client.forward("relux", x, preset="keras"), lambda: client.describe("keras:relux")):
        with pytest.raises(UnknownActivation, match="in keras"):
            call()


def test_words_of_options_are_checked(client: Client) -> None:
    for option in ({"accuracy": "best"}, {"nonfinite": "ignore"}, {"preset": 3}):
        (name,) = option
        with pytest.raises(InvalidRequest) as caught:
            client.forward("relu", HOLED, **option)  # type: ignore[arg-type]
        assert caught.value.field == name


def test_what_is_not_finite_is_counted(client: Client) -> None:
    seen: list[Summary] = []
    inputs = Nonfinite(nan=2, positive_infinity=1, negative_infinity=1)
    activations = Nonfinite(nan=2, positive_infinity=1)
    client.forward("relu", HOLED, on_summary=seen.append)
    client.regularization("relu", HOLED, on_summary=seen.append)
    client.neuron_stats("relu", iter([HOLED[:1], HOLED[1:]]), on_summary=seen.append)
    list(client.stream("relu", [HOLED[:1], HOLED[1:]], on_summary=seen.append))
    # Blocks that differ in shape are jobs of their own; a call has one summary all the same.
    list(client.stream("relu", [HOLED[0], HOLED[1:], np.float32(1)], on_summary=seen.append))
    assert [(s.nonfinite_in, s.nonfinite_out) for s in seen] == [(inputs, activations)] * 5
    assert all(s.compute_time_s > 0 for s in seen)
    assert inputs.total == 4
    client.derivative("relu", np.ones(3), on_summary=seen.append)
    assert seen[-1].nonfinite_in == seen[-1].nonfinite_out == Nonfinite()
    list(client.stream("relu", [], on_summary=seen.append))
    assert seen[-1] == Summary()


def test_what_is_not_finite_can_be_refused(client: Client) -> None:
    for call in (
        lambda: client.forward("relu", HOLED, nonfinite="reject"),
        lambda: client.derivative("relu", HOLED, nonfinite="reject"),
        lambda: client.regularization("relu", HOLED, nonfinite="reject"),
        lambda: client.neuron_stats("relu", HOLED, nonfinite="reject"),
        lambda: list(client.stream("relu", [HOLED[:1], HOLED[1:]], nonfinite="reject")),
    ):
        with pytest.raises(InvalidRequest, match="element 1 of x is nan") as caught:
            call()
        assert caught.value.field == "x"
    with pytest.raises(InvalidRequest, match="the result is inf"):
        client.forward("relu_squared", np.array([1.0, 1e200]), nonfinite="reject")
    np.testing.assert_array_equal(client.forward("relu", np.ones(2), nonfinite="reject"), [1, 1])


# ---- parameters ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [list, tuple, np.float64, np.float32, np.float16, BFLOAT16])
def test_a_value_for_each_channel(client: Client, kind: Any) -> None:
    x = noise(5, 3, 2)
    slopes = kind([0.5, 0.25, -2.0]) if kind in (list, tuple) else np.array([0.5, 0.25, -2.0], kind)
    expected = np.where(x > 0, x, np.array([0.5, 0.25, -2.0])[:, None] * x)
    np.testing.assert_array_equal(client.forward("prelu", x, slope=slopes, channel_axis=1), expected)
    np.testing.assert_array_equal(
        np.concatenate(list(client.stream("prelu", np.split(x, 5), parameters={"slope": slopes, "channel_axis": 1}))),
        expected,
    )
    np.testing.assert_array_equal(
        client.forward("prelu", np.moveaxis(x, 1, -1), parameters={"slope": slopes}, channel_axis=-1),
        np.moveaxis(expected, 1, -1),
    )


def test_values_of_channels_are_sent_without_rounding(client: Client) -> None:
    tenth = np.array([0.1])
    assert client.forward("prelu", np.array([[-1.0]]), slope=tenth)[0, 0] == -0.1
    assert client.forward("prelu", np.array([[-1.0]]), slope=[3])[0, 0] == -3
    with pytest.raises(InvalidRequest, match="no float64 equals") as caught:
        client.forward("prelu", np.array([[-1.0]]), slope=[2**53 + 1])
    assert caught.value.field == "slope"


@pytest.mark.parametrize("value", [["a"], [1, [2]], [True], np.ones(3), np.ones((2, 2)), [], [math.nan, 1], object()])
def test_wrong_values_of_channels(client: Client, value: Any) -> None:
    with pytest.raises(InvalidRequest) as caught:
        client.forward("prelu", np.ones((1, 2)), slope=value)
    assert caught.value.field == "slope"


def test_an_array_where_one_number_is_wanted(client: Client) -> None:
    with pytest.raises(InvalidRequest, match="is an array, and must be a number"):
        client.forward("leaky_relu", np.ones(2), negative_slope=[0.1, 0.2])
    np.testing.assert_array_equal(client.forward("leaky_relu", np.array([-1.0]), negative_slope=np.array(0.5)), [-0.5])
    half = BFLOAT16.type(0.5)
    np.testing.assert_array_equal(client.forward("leaky_relu", np.array([-1.0]), negative_slope=half), [-0.5])


@pytest.mark.parametrize(
    "tensor",
    [
        {"data_type": tensor_pb2.DATA_TYPE_DOUBLE, "shape": [2], "data": bytes(15)},
        {"data_type": tensor_pb2.DATA_TYPE_FLOAT, "shape": [2], "data": bytes(16)},
        {"data_type": tensor_pb2.DATA_TYPE_INT64, "shape": [2], "data": bytes(16)},
        {"data_type": tensor_pb2.DATA_TYPE_DOUBLE, "shape": [-2, -1], "data": bytes(16)},
        {"data_type": tensor_pb2.DATA_TYPE_DOUBLE, "shape": [2**62, 2**62], "data": bytes(16)},
        {"data_type": tensor_pb2.DATA_TYPE_DOUBLE, "shape": [1] * 65, "data": bytes(8)},
        {"data_type": tensor_pb2.DATA_TYPE_DOUBLE, "shape": [0], "data": b""},
        {},
    ],
)
def test_a_malformed_value_of_channels(client: Client, tensor: Any) -> None:
    spec = {"data_type": tensor_pb2.DATA_TYPE_DOUBLE, "shape": [1, 2]}
    header = compute_pb2.JobHeader(activation="prelu", mode=compute_pb2.MODE_FORWARD, inputs=[spec])
    header.parameters["slope"].CopyFrom(catalogue_pb2.ParameterValue(tensor=tensor_pb2.TensorValue(**tensor)))
    call: Any = client._pool.pick().channel.unary_stream(_channel.COMPUTE)
    with pytest.raises(grpc.RpcError) as caught:
        list(call(compute_pb2.ComputeRequest(header=header, data=bytes(16)).SerializeToString()))
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert "slope" in caught.value.details()


def test_flags_words_and_seeds(client: Client) -> None:
    x = -np.ones(100)
    fixed = client.forward("rrelu", x)
    assert len(set(fixed.tolist())) == 1
    drawn = client.forward("rrelu", x, training=True, seed=2**63 - 1)
    assert len(set(drawn.tolist())) > 50
    np.testing.assert_array_equal(client.forward("rrelu", x, training=True, seed=np.int64(2**63 - 1)), drawn)
    assert not np.array_equal(client.forward("rrelu", x, training=True, seed=2**63 - 2), drawn)
    with pytest.raises(InvalidRequest, match="seed"):
        client.forward("rrelu", x, training=True)
    assert client.derivative("step", np.zeros(2), ste="rectangle").shape == (2,)


# ---- gradients of parameters ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("slope", [0.25, [0.5, 0.25, -2.0]])
def test_gradients_of_parameters(client: Client, slope: Any) -> None:
    x, g = noise(7, 3), noise(7, 3)[::-1]
    answer = client.derivative("prelu", x, upstream=g, parameter_gradients=True, slope=slope)
    assert isinstance(answer, Gradients)
    np.testing.assert_array_equal(answer.input, client.derivative("prelu", x, upstream=g, slope=slope))
    terms = g * np.minimum(x, 0)
    gradient = answer.parameters["slope"]
    assert (gradient.dtype, gradient.shape) == (np.float64, np.shape(slope))
    np.testing.assert_allclose(gradient, terms.sum(axis=0) if np.ndim(slope) else terms.sum(), rtol=1e-13)
    out = np.empty_like(x)
    again = client.derivative("prelu", x, upstream=g, parameter_gradients=True, slope=slope, out=out)
    assert again.input is out
    assert "slope" in client.describe("prelu").parameter_gradients


@pytest.mark.parametrize(("name", "upstream"), [("relu", True), ("prelu", False)])
def test_gradients_of_parameters_that_can_not_be(client: Client, name: str, upstream: bool) -> None:
    x = np.ones((2, 3))
    with pytest.raises(InvalidRequest) as caught:
        client.derivative(name, x, upstream=x if upstream else None, parameter_gradients=True)
    assert caught.value.field == "parameter_gradients"


# ---- results of another shape --------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["gated", "resizing"])
def test_results_of_another_length(client: Client, kind: str) -> None:
    for record in client.activations():
        if record.kind != kind:
            continue
        name, parameters = record.name, PARAMETERS.get(record.name, {})
        x = noise(6, 4, 8)
        for axis in (0, 1, -1):
            y = client.forward(name, x, axis=axis, **parameters)
            assert y.ndim == x.ndim
            assert np.delete(y.shape, axis).tolist() == np.delete(x.shape, axis).tolist()
            g = np.arange(1.0, y.size + 1).reshape(y.shape)
            d = client.derivative(name, x, upstream=g, axis=axis, **parameters)
            assert d.shape == x.shape
            out = np.empty_like(y)
            assert client.forward(name, x, axis=axis, out=out, **parameters) is out
            np.testing.assert_array_equal(out, y)
            if axis == 0:
                with pytest.raises(InvalidRequest, match="axis 0"):
                    list(client.stream(name, [x], axis=0, **parameters))
                continue
            cuts = [1, 1, 4]
            blocks = list(client.stream(name, np.split(x, cuts), axis=axis, **parameters))
            assert [len(block) for block in blocks] == [1, 0, 3, 2]
            np.testing.assert_array_equal(np.concatenate(blocks), y)
            slopes = client.stream(
                name,
                np.split(x, cuts),
                mode="derivative",
                upstream=np.split(g, cuts),
                axis=axis,
                **parameters,  # type: ignore[arg-type]
            )
            np.testing.assert_array_equal(np.concatenate(list(slopes)), d)
        with pytest.raises(InvalidRequest) as caught:
            client.derivative(name, x, upstream=x[..., :1], **parameters)  # type: ignore[arg-type]
        assert caught.value.field == "upstream"
        with pytest.raises(InvalidRequest) as caught:
            client.forward(name, x, out=np.empty((1, 1, 1)), **parameters)
        assert caught.value.field == "out"


def test_a_large_result_of_another_length(client: Client) -> None:
    x = noise(3000, 500).astype(np.float32)
    y = client.forward("crelu", x)
    np.testing.assert_array_equal(y, np.concatenate([np.maximum(x, 0), np.maximum(-x, 0)], axis=1))
    g = noise(3000, 1000).astype(np.float32)
    whole = client.derivative("crelu", x, upstream=g)
    parts = [client.derivative("crelu", x[at : at + 100], upstream=g[at : at + 100]) for at in range(0, 3000, 100)]
    np.testing.assert_array_equal(whole, np.concatenate(parts))
    penalty = client.regularization("crelu", x, strength=1).penalty
    np.testing.assert_allclose(penalty, (y.astype(np.float64) ** 2).sum(), rtol=1e-12)


def test_out_may_be_made_when_the_shape_is_known(client: Client) -> None:
    made: list[Array] = []

    def make(shape: tuple[int, ...], dtype: np.dtype[Any]) -> Array:
        made.append(np.empty(shape, dtype))
        return made[-1]

    y = client.forward("crelu", np.array([[-1.0, 2.0]]), out=make)
    assert y is made[0]
    np.testing.assert_array_equal(y, [[0, 2, 1, 0]])


# ---- the catalogue -------------------------------------------------------------------------------------------------


def test_records_tell_what_is_new(client: Client) -> None:
    by_name = {record.name: record for record in client.activations()}
    (slope, axis) = by_name["prelu"].parameters
    assert (slope.kind, slope.per_channel, slope.required, slope.default) == ("number", True, False, 0.25)
    assert (axis.kind, axis.default) == ("axis", None)
    (units,) = by_name["maxout"].parameters
    assert (units.kind, units.default, units.required) == ("integer", None, True)
    rrelu = {parameter.name: parameter for parameter in by_name["rrelu"].parameters}
    assert (rrelu["training"].kind, rrelu["training"].default) == ("flag", False)
    assert (rrelu["seed"].kind, rrelu["seed"].default, rrelu["seed"].required) == ("seed", None, False)
    assert any("seed" in constraint for constraint in by_name["rrelu"].constraints)
    keras = {library.library: library for library in by_name["leaky_relu"].libraries}["keras"]
    assert keras.defaults == {"negative_slope": 0.2}
    assert by_name["crelu"].kind == "resizing"
    assert len({hash(record) for record in by_name.values()}) == len(by_name)


async def test_the_async_client_takes_the_same_options(address: str, client: Client) -> None:
    seen: list[Summary] = []
    x = noise(4, 3)
    options: dict[str, Any] = {"slope": [0.5, 0.25, -2.0], "accuracy": "fast", "preset": "torch"}
    async with AsyncClient(address) as other:
        y = await other.forward("prelu", x, **options, on_summary=seen.append)
        np.testing.assert_array_equal(y, client.forward("prelu", x, **options))
        mine = await other.derivative("prelu", x, upstream=x, parameter_gradients=True, **options)
        theirs = client.derivative("prelu", x, upstream=x, parameter_gradients=True, **options)
        np.testing.assert_array_equal(mine.input, theirs.input)
        np.testing.assert_array_equal(mine.parameters["slope"], theirs.parameters["slope"])
        got = [block async for block in other.stream("crelu", [x, x], on_summary=seen.append)]
        np.testing.assert_array_equal(got[1], client.forward("crelu", x))
        await other.neuron_stats("relu", HOLED, on_summary=seen.append)
        await other.regularization("relu", HOLED, on_summary=seen.append)
        assert [summary.nonfinite_in.nan for summary in seen] == [0, 0, 2, 2]
        with pytest.raises(InvalidRequest) as caught:
            await other.forward("relu", HOLED, nonfinite="reject")
        assert caught.value.field == "x"
