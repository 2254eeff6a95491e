"""Every regularizer through the front door: the client against a real server, compared with its definition.

Definitions are written here anew, in NumPy, exact fractions and mpmath; gradients are held to their differences.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from fractions import Fraction
from typing import Any

import mpmath as mp
import numpy as np
import pytest
from actserve_client import AsyncClient, Client, InvalidRequest, LimitExceeded, NeuronStats, Regularization, merge
from actserve_server.activations.catalogue import CATALOGUE
from actserve_server.activations.spec import Activation
from actserve_server.regularizers.catalogue import REGULARIZERS
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

Array = np.ndarray[Any, Any]
SHARED = settings(deadline=None, max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])


def norms(a: Array, axis: int) -> Array:
    return np.asarray(np.sqrt((a * a).sum(axis=axis)))


def entropy_of(p: Array) -> float:
    return -float((p[p > 0] * np.log(p[p > 0])).sum())


def softmax(a: Array) -> Array:
    e = np.exp(a - a.max(axis=-1, keepdims=True))
    return np.asarray(e / e.sum(axis=-1, keepdims=True))


def hoyer(a: Array) -> float:
    root = math.sqrt(a.size)
    return float((root - np.abs(a).sum() / math.sqrt((a * a).sum())) / (root - 1))


def kl(a: Array, rho: float = 0.05) -> float:
    m = a.mean(axis=tuple(range(a.ndim - 1)))
    return float((rho * np.log(rho / m) + (1 - rho) * np.log((1 - rho) / (1 - m))).sum())


def orthogonal(a: Array) -> float:
    lengths = np.sqrt((a * a).sum(axis=1, keepdims=True))
    units = a / np.where(lengths == 0, 1, lengths)
    gram = np.abs(units @ units.T)
    n = len(a)
    return float(0.5 * (gram.sum() - np.trace(gram)) / (n * (n - 1) / 2))


def z_loss(a: Array, axis: int = -1) -> float:
    return float((np.log(np.exp(a).sum(axis=axis)) ** 2).sum())


# By name and options: the penalty of strength 1 on a matrix in (0, 1), and the number of terms of a mean over 6 x 5.
DEFINITIONS: dict[str, tuple[str, dict[str, Any], Callable[[Array], float], int]] = {
    "l1": ("l1", {}, lambda a: float(np.abs(a).sum()), 30),
    "l2": ("l2", {}, lambda a: float((a * a).sum()), 30),
    "l1l2": ("l1l2", {"l1": 0.3, "l2": 0.7}, lambda a: float(0.3 * np.abs(a).sum() + 0.7 * (a * a).sum()), 30),
    "l1l2 bare": ("l1l2", {}, lambda a: float(np.abs(a).sum() + (a * a).sum()), 30),
    "lp": ("lp", {"p": 1.3}, lambda a: float((np.abs(a) ** 1.3).sum()), 30),
    "lp 3": ("lp", {"p": 3}, lambda a: float((np.abs(a) ** 3).sum()), 30),
    "log_student": ("log_student", {"eps": 0.5}, lambda a: float(np.log1p(a * a / 0.5).sum()), 30),
    "hoyer": ("hoyer", {}, hoyer, 1),
    "hoyer_square": ("hoyer_square", {}, lambda a: float(np.abs(a).sum() ** 2 / (a * a).sum()), 1),
    "group_lasso": ("group_lasso", {}, lambda a: float(math.sqrt(5) * norms(a, 1).sum()), 6),
    "group_lasso rows": ("group_lasso", {"group_axis": 0}, lambda a: float(math.sqrt(6) * norms(a, 0).sum()), 5),
    "kl_sparsity": ("kl_sparsity", {}, kl, 5),
    "kl_sparsity rho": ("kl_sparsity", {"rho": 0.3, "neuron_axis": 0}, lambda a: kl(a.T, 0.3), 6),
    "entropy": ("entropy", {}, lambda a: sum(entropy_of(row) for row in softmax(a)), 6),
    "entropy rows": ("entropy", {"penalty_axis": 0}, lambda a: sum(entropy_of(c) for c in softmax(a.T)), 5),
    "entropy magnitudes": (
        "entropy",
        {"distribution": "magnitudes"},
        lambda a: sum(entropy_of(np.abs(row) / np.abs(row).sum()) for row in a),
        6,
    ),
    "z_loss": ("z_loss", {}, z_loss, 6),
    "z_loss rows": ("z_loss", {"axis": 0}, lambda a: z_loss(a, 0), 5),
    "temporal": ("temporal", {}, lambda a: float((np.diff(a, axis=0) ** 2).sum()), 25),
    "temporal lag": (
        "tar",
        {"lag": 2, "time_axis": -1},
        lambda a: float(((a[:, 2:] - a[:, :-2]) ** 2).sum()),
        18,
    ),
    "orthogonal": ("orthogonal", {}, orthogonal, 1),
    "orthogonal columns": ("orthogonal", {"mode": "columns"}, lambda a: orthogonal(a.T), 1),
}
EACH = pytest.mark.parametrize("definition", DEFINITIONS)
MERGEABLE = [
    key
    for key, (name, options, _, _) in DEFINITIONS.items()
    if name not in ("orthogonal", "temporal") and key not in ("entropy rows", "z_loss rows", "kl_sparsity rho")
]
KEPT_WHOLE = ["orthogonal", "orthogonal columns", "entropy rows", "z_loss rows", "temporal"]


def data(shape: tuple[int, ...] = (6, 5), dtype: Any = np.float64, seed: int = 3) -> Array:
    return np.random.default_rng(seed).uniform(0.02, 0.98, shape).astype(dtype)


def differences(function: Callable[[Array], float], a: Array, step: float = 1e-5) -> Array:
    """The gradient of a function by its values around a, to the fourth order."""
    found = np.zeros(a.shape)
    for place in np.ndindex(a.shape):
        at = np.zeros(a.shape)
        at[place] = step
        near, far = function(a + at) - function(a - at), function(a + 2 * at) - function(a - 2 * at)
        found[place] = (8 * near - far) / (12 * step)
    return found


# ---- definitions ---------------------------------------------------------------------------------------------------


@EACH
@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.float16])
def test_the_penalty_is_its_definition(client: Client, definition: str, dtype: Any) -> None:
    name, options, function, terms = DEFINITIONS[definition]
    a = data(dtype=dtype)
    value = function(a.astype(np.float64))
    for reduction, divisor in (("sum", 1), ("batch_mean", 6), ("mean", terms)):
        answer = client.regularization("identity", a, name, strength=1, reduction=reduction, **options)
        assert answer.penalty == pytest.approx(value / divisor, rel=1e-12)
    assert client.regularization("identity", a, name, strength=0.3, **options).penalty == pytest.approx(
        0.3 * value, rel=1e-12
    )


@EACH
def test_the_gradient_is_that_of_the_definition(client: Client, definition: str) -> None:
    name, options, function, terms = DEFINITIONS[definition]
    a = data()
    answer = client.regularization("identity", a, name, strength=2, gradient=True, **options)
    np.testing.assert_allclose(answer.gradient, 2 * differences(function, a), atol=2e-9)
    mean = client.regularization("identity", a, name, strength=2, reduction="mean", gradient=True, **options)
    np.testing.assert_allclose(mean.gradient, answer.gradient / terms, rtol=1e-14)


@EACH
def test_the_gradient_by_the_input_is_chained(client: Client, definition: str) -> None:
    name, options, _, _ = DEFINITIONS[definition]
    x = np.log(data() / (1 - data()))
    plain = client.regularization("sigmoid", x, name, strength=2, gradient=True, **options)
    chained = client.regularization("sigmoid", x, name, strength=2, gradient=True, gradient_wrt="input", **options)
    assert chained.penalty == plain.penalty
    np.testing.assert_allclose(chained.gradient, client.derivative("sigmoid", x, upstream=plain.gradient), rtol=1e-14)


@EACH
def test_of_input_penalises_x_itself(client: Client, definition: str) -> None:
    name, options, _, _ = DEFINITIONS[definition]
    x = data(seed=4)
    expected = client.regularization("identity", x, name, gradient=True, **options)
    for wrt in ("activation", "input"):
        answer = client.regularization("tanh", x, name, of="input", gradient=True, gradient_wrt=wrt, **options)
        assert answer.penalty == expected.penalty
        np.testing.assert_array_equal(answer.gradient, expected.gradient)


def test_sums_are_exact_and_rounded_once(client: Client) -> None:
    generator = np.random.default_rng(5)
    a = (generator.standard_normal(3000) * 10.0 ** generator.uniform(-30, 30, 3000)).astype(np.float64)
    one = sum((abs(Fraction(float(v))) for v in a), Fraction())
    two = sum((Fraction(float(v)) ** 2 for v in a), Fraction())
    assert client.regularization("identity", a, "l1", strength=1).penalty == math.fsum(np.abs(a)) == float(one)
    assert client.regularization("identity", a, "l1", strength=0.1).penalty == float(one * Fraction(0.1))
    mixed = client.regularization("identity", a, "l1l2", l1=0.1, l2=0.7, reduction="mean")
    assert mixed.penalty == float((Fraction(0.1) * one + Fraction(0.7) * two) / 3000)
    assert client.regularization("identity", a, "hoyer_square", strength=1).penalty == float(one**2 / two)


def test_terms_are_summed_exactly(client: Client) -> None:
    a = np.random.default_rng(6).standard_normal((50, 40))
    terms = [client.regularization("identity", v, "log_student", strength=1, eps=0.25).penalty for v in a[0]]
    assert client.regularization("identity", a[0], "log_student", strength=1, eps=0.25).penalty == math.fsum(terms)
    slices = [client.regularization("identity", row, "entropy", strength=1).penalty for row in a]
    assert client.regularization("identity", a, "entropy", strength=1).penalty == math.fsum(slices)
    differences = (a[1:] - a[:-1]).reshape(-1)
    exact = sum((Fraction(float(v)) ** 2 for v in differences), Fraction())
    assert client.regularization("identity", a, "tar", strength=1).penalty == float(exact)


@pytest.mark.parametrize("p", [0.0, 0.1, 0.5, 1.0, 1.5, 2.0, 2.75, 7.0, 64.0])
def test_powers_are_right_over_all_magnitudes(client: Client, p: float) -> None:
    a = np.array([0.0, -0.0, 5e-324, 1e-310, -1e-160, 0.7, 1 - 2**-53, 1.0, -1.5, 1e4, -3e150, 1e308])
    for v in a:
        with mp.workdps(40):
            exact = float(mp.fabs(mp.mpf(float(v))) ** p) if v else 0.0
            slope = float(p * mp.fabs(mp.mpf(float(v))) ** (mp.mpf(p) - 1) * mp.sign(float(v))) if v and p else 0.0
        answer = client.regularization("identity", v, "lp", strength=1, p=p, gradient=True)
        assert answer.penalty == pytest.approx(exact, rel=3e-16, abs=1e-323)
        assert float(answer.gradient) == pytest.approx(slope, rel=5e-16, abs=1e-323)  # type: ignore[arg-type]


@pytest.mark.parametrize("eps", [1e-280, 1e-6, 1.0, 9e279])
def test_log_student_is_right_where_squares_overflow(client: Client, eps: float) -> None:
    for v in (5e-324, 1e-170, 1e-3, -2.0, 1e120, -1e200, 1.7e308):
        with mp.workdps(60):
            exact = float(mp.log1p(mp.mpf(v) ** 2 / mp.mpf(eps)))
            slope = float(2 * mp.mpf(v) / (mp.mpf(eps) + mp.mpf(v) ** 2))
        answer = client.regularization("identity", v, "log_student", strength=1, eps=eps, gradient=True)
        assert answer.penalty == pytest.approx(exact, rel=3e-15, abs=1e-323)
        assert float(answer.gradient) == pytest.approx(slope, rel=3e-15, abs=1e-323)  # type: ignore[arg-type]


# ---- Keras ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "options", "function"),
    [
        ("l1", {"strength": 0.01}, lambda a: 0.01 * np.abs(a).sum()),
        ("l2", {"strength": 0.01}, lambda a: 0.01 * np.square(a).sum()),
        ("l1l2", {"l1": 0.02, "l2": 0.03}, lambda a: 0.02 * np.abs(a).sum() + 0.03 * np.square(a).sum()),
        ("l1l2", {"l1": 0.02}, lambda a: 0.02 * np.abs(a).sum()),
    ],
)
def test_batch_mean_is_keras_activity_regularizer(
    client: Client, name: str, options: Any, function: Callable[[Array], float]
) -> None:
    """Keras divides what a regularizer says of a layer's output by the length of axis 0, and says 0 of an empty batch."""
    x = np.random.default_rng(1).standard_normal((8, 3, 4))
    a = np.maximum(x, 0)
    answer = client.regularization("relu", x, name, reduction="batch_mean", **options)
    assert answer.penalty == pytest.approx(function(a) / 8, rel=1e-14)
    assert client.regularization("relu", x[:0], name, reduction="batch_mean", **options).penalty == 0


# ---- contractive ---------------------------------------------------------------------------------------------------

ELEMENTWISE = [r for r in CATALOGUE if isinstance(r, Activation) and not r.indexed]


@pytest.mark.parametrize("record", ELEMENTWISE, ids=lambda record: record.name)
def test_contractive_is_the_square_of_the_derivative(client: Client, record: Activation) -> None:
    given = {p.name: 1.0 for p in record.parameters if p.default is None and p.kind != "axis" and not p.optional}
    generator = np.random.default_rng(8)
    x = np.concatenate([generator.standard_normal(8) * 3, generator.standard_normal(4) * 0.2])
    x = x[[all(abs(v - kink) > 0.05 for kink in record.kinks) for v in x]]
    # Near what else a formula has of corners nothing can be said from differences.
    slope = lambda v: client.derivative(record.name, v, parameters=given)
    answer = client.regularization(record.name, x, "contractive", strength=1, gradient=True, parameters=given)
    exact = sum((Fraction(float(v)) ** 2 for v in slope(x)), Fraction())
    assert answer.penalty == float(exact)
    h = 1e-3
    curve = (8 * (slope(x + h) - slope(x - h)) - (slope(x + 2 * h) - slope(x - 2 * h))) / (12 * h)
    np.testing.assert_allclose(answer.gradient, 2 * slope(x) * curve, rtol=1e-8, atol=1e-8)
    by_input = client.regularization(
        record.name, x, "contractive", strength=1, gradient=True, gradient_wrt="input", parameters=given
    )
    np.testing.assert_array_equal(by_input.gradient, answer.gradient)


@pytest.mark.parametrize("name", ["sigmoid", "tanh", "gelu_tanh", "tanh_exp", "mish", "softplus", "elish", "gaussian"])
def test_contractive_is_finite_in_the_tails(client: Client, name: str) -> None:
    x = np.array([-1e300, -5000.0, -800.0, -300.0, -100.0, 100.0, 300.0, 800.0, 5000.0, 1e300])
    answer = client.regularization(name, x, "contractive", gradient=True)
    assert np.isfinite(answer.gradient).all()  # type: ignore[arg-type]
    np.testing.assert_allclose(answer.gradient, 0, atol=1e-40)
    assert np.isnan(client.regularization(name, np.array([np.nan]), "contractive", gradient=True).gradient).all()  # type: ignore[arg-type]


def test_contractive_with_a_value_for_each_channel(client: Client) -> None:
    x = np.array([[-1.0, -1.0], [1.0, 2.0]])
    answer = client.regularization("prelu", x, "contractive", strength=1, slope=[0.5, 0.25], gradient=True)
    assert answer.penalty == 0.25 + 0.0625 + 2
    assert not np.any(answer.gradient)
    snake = client.regularization(
        "snake", x, "contractive", strength=1, alpha=[0.5, 2.0], channel_axis=1, gradient=True
    )
    alpha = np.array([0.5, 2.0])
    np.testing.assert_allclose(
        snake.gradient, 2 * (1 + np.sin(2 * alpha * x)) * 2 * alpha * np.cos(2 * alpha * x), rtol=1e-13
    )


# ---- any cut, any order, any number of workers ---------------------------------------------------------------------

CUTS = st.lists(st.integers(0, 12), max_size=4)


def wide(shape: tuple[int, ...], seed: int, *, within: bool) -> Array:
    """Data of many magnitudes, NaN aside; within (0, 1) on request."""
    generator = np.random.default_rng(seed)
    a = generator.uniform(0.01, 0.99, shape) * 10.0 ** -generator.uniform(0, 12, shape)
    return a if within else a * generator.choice([-1e6, -1.0, 1.0, 1e6], shape)


@SHARED
@given(
    definition=st.sampled_from(list(DEFINITIONS)),
    seed=st.integers(0, 999),
    cuts=CUTS,
    dtype=st.sampled_from([np.float32, np.float64]),
)
def test_no_cut_leaves_a_trace(client: Client, definition: str, seed: int, cuts: list[int], dtype: Any) -> None:
    name, options, _, _ = DEFINITIONS[definition]
    if definition == "kl_sparsity rho":  # its neurons are the rows
        options = {"rho": 0.3}
    x = wide((12, 4, 3) if name != "orthogonal" else (12, 4), seed, within=name == "kl_sparsity").astype(dtype)
    x = np.minimum(x, 500)
    blocks = [block for block in np.split(x, sorted(cuts)) if len(block)]
    for reduction in ("sum", "mean"):
        how: dict[str, Any] = {"reduction": reduction, "gradient": True, **options}
        whole = client.regularization("identity", x, name, **how)
        parts = client.regularization("identity", iter(blocks), name, **how)
        assert parts.penalty == whole.penalty
        assert parts.state == whole.state
        np.testing.assert_array_equal(parts.gradient, whole.gradient)


@SHARED
@given(definition=st.sampled_from(MERGEABLE), seed=st.integers(0, 999), cuts=CUTS, order=st.randoms())
def test_states_merge_to_that_of_one_pass(
    client: Client, definition: str, seed: int, cuts: list[int], order: Any
) -> None:
    name, options, _, _ = DEFINITIONS[definition]
    x = np.minimum(wide((12, 5), seed, within=name == "kl_sparsity"), 500)
    blocks = np.split(x, sorted(cuts))
    whole = client.regularization("identity", x, name, reduction="mean", gradient=True, **options)
    answers = [client.regularization("identity", b, name, reduction="mean", **options) for b in blocks]
    order.shuffle(answers)
    while len(answers) > 1:
        left = answers.pop(order.randrange(len(answers)))
        right = answers.pop(order.randrange(len(answers)))
        answers.append(merge([left.state, right.state]))
    assert answers[0].state == whole.state
    assert answers[0].penalty == whole.penalty
    # And each worker has the gradient of all the data for its part.
    parts = [
        client.regularization(
            "identity", b, name, reduction="mean", gradient=True, state=answers[0], **options
        ).gradient
        for b in blocks
    ]
    np.testing.assert_array_equal(np.concatenate(parts), whole.gradient)  # type: ignore[arg-type]


@pytest.mark.parametrize("definition", KEPT_WHOLE)
def test_what_does_not_merge_says_so(client: Client, definition: str) -> None:
    name, options, _, _ = DEFINITIONS[definition]
    part = client.regularization("identity", data(), name, **options)
    with pytest.raises(InvalidRequest, match=f"states of {name}.* cannot be merged"):
        merge([part.state, part.state])
    assert merge([part]).penalty == part.penalty
    empty = client.regularization("identity", data((0, 5)), name, **options)
    assert empty.penalty == 0
    assert merge([empty, part, empty]).state == part.state


def test_sums_over_time_merge_across_the_batch(client: Client) -> None:
    x = np.random.default_rng(2).standard_normal((6, 7, 3))
    whole = client.regularization("tanh", x, "temporal", lag=2)
    parts = [client.regularization("tanh", x[i : i + 2], "temporal", lag=2) for i in (4, 0, 2)]
    assert merge(parts).penalty == whole.penalty
    assert whole.penalty == pytest.approx(0.01 * ((np.tanh(x)[:, 2:] - np.tanh(x)[:, :-2]) ** 2).sum(), rel=1e-13)


def test_an_empty_batch_is_neutral(client: Client) -> None:
    for key in MERGEABLE:
        name, options, _, _ = DEFINITIONS[key]
        part = client.regularization("identity", data(), name, **options)
        for shape in ((0, 5), (0, 5)):
            empty = client.regularization("identity", np.zeros(shape), name, gradient=True, **options)
            assert empty.penalty == 0
            assert empty.gradient is not None
            assert empty.gradient.shape == shape
            assert merge([empty, part]).state == part.state
    for shape in ((3, 0), (0, 0)):
        for name in ("l1", "hoyer", "kl_sparsity", "entropy", "z_loss", "group_lasso", "temporal", "contractive"):
            assert client.regularization("identity", np.zeros(shape), name, gradient=True).penalty == 0


# ---- axes and activations of all kinds -----------------------------------------------------------------------------


@pytest.mark.parametrize("axis", [0, 1, 2, -1, -2])
def test_slices_lie_along_any_axis(client: Client, axis: int) -> None:
    a = data((3, 4, 5))
    moved = np.moveaxis(a, axis, -1)
    for name, value in (
        ("z_loss", z_loss(moved)),
        ("entropy", sum(entropy_of(p) for p in softmax(moved).reshape(-1, moved.shape[-1]))),
        ("group_lasso", math.sqrt(moved.shape[-1]) * norms(moved, -1).sum()),
    ):
        for options in ({"axis": axis}, {"penalty_axis": axis}):
            answer = client.regularization("identity", a, name, strength=1, gradient=True, **options)
            assert answer.penalty == pytest.approx(value, rel=1e-13)
        last = client.regularization("identity", np.ascontiguousarray(moved), name, strength=1, gradient=True)
        np.testing.assert_allclose(np.moveaxis(answer.gradient, axis, -1), last.gradient, rtol=1e-13)  # type: ignore[arg-type]
    kl_answer = client.regularization("identity", a, "kl_sparsity", strength=1, neuron_axis=axis)
    assert kl_answer.penalty == pytest.approx(kl(moved), rel=1e-13)


@pytest.mark.parametrize("penalty_axis", [0, 1, 2])
@pytest.mark.parametrize("axis", [0, 1, 2])
@pytest.mark.parametrize("name", ["entropy", "group_lasso", "temporal"])
def test_the_penalty_of_softmax_along_another_axis(client: Client, name: str, axis: int, penalty_axis: int) -> None:
    x = np.random.default_rng(3).standard_normal((3, 4, 5))
    a = client.forward("softmax", x, axis=axis)
    options: dict[str, Any] = {"penalty_axis": penalty_axis, "gradient": True}
    answer = client.regularization("softmax", x, name, axis=axis, **options)
    plain = client.regularization("identity", a, name, **options)
    assert answer.penalty == plain.penalty
    np.testing.assert_array_equal(answer.gradient, plain.gradient)
    chained = client.regularization("softmax", x, name, axis=axis, gradient_wrt="input", **options)
    np.testing.assert_allclose(
        chained.gradient, client.derivative("softmax", x, upstream=plain.gradient, axis=axis), atol=1e-17
    )


@pytest.mark.parametrize("name", ["l1", "hoyer_square", "entropy", "group_lasso", "kl_sparsity", "temporal"])
def test_the_penalty_of_gated_units(client: Client, name: str) -> None:
    """Their result is half as long as the input, and the gradient by the input as long as that."""
    x = np.random.default_rng(9).uniform(0.1, 0.9, (4, 6, 8))
    for axis in (1, -1):
        a = client.forward("glu", x, axis=axis)
        answer = client.regularization("glu", x, name, axis=axis, gradient=True)
        plain = client.regularization("identity", a, name, gradient=True, **_axis_of(name, axis))
        assert answer.penalty == plain.penalty
        np.testing.assert_array_equal(answer.gradient, plain.gradient)
        chained = client.regularization("glu", x, name, axis=axis, gradient=True, gradient_wrt="input")
        assert chained.gradient is not None
        assert chained.gradient.shape == x.shape
        expected = client.derivative("glu", x, upstream=plain.gradient, axis=axis)
        np.testing.assert_allclose(chained.gradient, expected, rtol=1e-13)


def _axis_of(name: str, axis: int) -> dict[str, Any]:
    return {"penalty_axis": axis} if name in ("entropy", "group_lasso") else {}


def test_scalars(client: Client) -> None:
    for name, value in (("l1", 0.5), ("z_loss", 0.25), ("group_lasso", 0.5), ("entropy", 0.0), ("temporal", 0.0)):
        answer = client.regularization("identity", 0.5, name, strength=1, reduction="batch_mean", gradient=True)
        assert answer.penalty == value
        assert answer.gradient is not None
        assert answer.gradient.shape == ()


# ---- rounding, NaN and infinities ----------------------------------------------------------------------------------


@EACH
@pytest.mark.parametrize("dtype", [np.float32, np.float16, "bfloat16"])
def test_gradients_are_rounded_once(client: Client, definition: str, dtype: Any) -> None:
    ml_dtypes = pytest.importorskip("ml_dtypes")
    kind = np.dtype(ml_dtypes.bfloat16 if dtype == "bfloat16" else dtype)
    name, options, _, _ = DEFINITIONS[definition]
    a = data().astype(kind)
    answer = client.regularization("identity", a, name, gradient=True, **options)
    double = client.regularization("identity", a.astype(np.float64), name, gradient=True, **options)
    assert answer.penalty == double.penalty
    assert answer.gradient is not None
    assert answer.gradient.dtype == kind
    np.testing.assert_array_equal(answer.gradient, double.gradient.astype(kind))  # type: ignore[union-attr]


@pytest.mark.parametrize("record", REGULARIZERS, ids=lambda record: record.name)
def test_nan_in_is_nan_out(client: Client, record: Any) -> None:
    a = data()
    a[2, 3] = np.nan
    answer = client.regularization("identity", a, record.name, gradient=True)
    assert math.isnan(answer.penalty)
    if record.name != "contractive":  # of whose identity f' is NaN there, too
        assert np.isnan(answer.gradient[2, 3])  # type: ignore[index]
    fresh = client.regularization("identity", data(), record.name)
    assert math.isfinite(fresh.penalty)


@pytest.mark.parametrize(
    ("name", "penalty"),
    [
        ("l1", math.inf),
        ("l1l2", math.inf),
        ("lp", math.inf),
        ("log_student", math.inf),
        ("hoyer_square", math.nan),
        ("hoyer", math.nan),
        ("group_lasso", math.inf),
        ("z_loss", math.inf),
        ("entropy", math.nan),
        ("temporal", math.inf),
    ],
)
def test_infinities(client: Client, name: str, penalty: float) -> None:
    a = data()
    a[1, 1] = math.inf
    np.testing.assert_equal(client.regularization("identity", a, name).penalty, penalty)
    merged = merge(
        [client.regularization("identity", a, name)]
        if name == "temporal"
        else [client.regularization("identity", b, name) for b in (a[:2], a[2:])]
    )
    np.testing.assert_equal(merged.penalty, penalty)


@pytest.mark.parametrize("name", ["l1", "hoyer", "hoyer_square", "group_lasso", "lp", "orthogonal", "temporal"])
def test_zeros_have_a_gradient_of_zero(client: Client, name: str) -> None:
    answer = client.regularization("identity", np.zeros((4, 3)), name, gradient=True)
    assert answer.penalty == 0
    np.testing.assert_array_equal(answer.gradient, np.zeros((4, 3)))


def test_a_row_of_zeros_is_orthogonal_to_all(client: Client) -> None:
    a = data((4, 3))
    a[2] = 0
    answer = client.regularization("identity", a, "orthogonal", strength=1, gradient=True)
    assert answer.penalty == pytest.approx(orthogonal(a), rel=1e-14)
    np.testing.assert_array_equal(answer.gradient[2], 0)  # type: ignore[index]


# ---- bad input -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "x", "options", "field", "text"),
    [
        ("kl_sparsity", [[0.5, 1.5]], {}, "x", r"element 1 .* is 1\.5, .* \[0, 1\]"),
        ("kl_sparsity", [[-0.25, 0.5]], {}, "x", r"element 0 .* is -0\.25"),
        ("kl_sparsity", [[0.0, 0.5]], {}, "x", "neuron 0 is 0.0"),
        ("kl_sparsity", [[0.5, 1.0]], {}, "x", "neuron 1 is 1.0"),
        ("kl_sparsity", [[0.5, np.inf]], {}, "x", "element 1"),
        ("kl_sparsity", [[0.5]], {"rho": 0.0}, "rho", r"rho of kl_sparsity is 0.*\(0, 1\)"),
        ("kl_sparsity", [[0.5]], {"rho": 1.5}, "rho", r"1\.5"),
        ("kl_sparsity", [[0.5]], {"neuron_axis": 2}, "neuron_axis", "neuron_axis"),
        ("orthogonal", [0.5, 0.25], {}, "x", r"a matrix, and the shape is \[2\]"),
        ("orthogonal", [[[0.5]]], {}, "x", r"\[1, 1, 1\]"),
        ("orthogonal", [[0.5, 0.25]], {}, "x", "at least 2; there is 1"),
        ("orthogonal", [[0.5], [0.5]], {"mode": "columns"}, "x", "columns .* at least 2"),
        ("orthogonal", [[0.5], [0.5]], {"mode": "diagonals"}, "mode", '"rows", "columns"'),
        ("entropy", [[0.5, 0.5], [0.0, 0.0]], {"distribution": "magnitudes"}, "x", "slice 1"),
        ("entropy", [[0.5]], {"distribution": "gumbel"}, "distribution", "gumbel"),
        ("entropy", [[0.5]], {"penalty_axis": 2}, "penalty_axis", r"\[-2, 1\]"),
        ("entropy", [[0.5]], {"axis": 2}, "axis", r"\[-2, 1\]"),
        ("hoyer", [0.5], {}, "x", "at least 2"),
        ("lp", [0.5], {"p": -1}, "p", r"p of lp is -1"),
        ("lp", [0.5], {"p": math.nan}, "p", "p of lp is nan"),
        ("lp", [0.5], {"p": "two"}, "p", "two"),
        ("log_student", [0.5], {"eps": 0}, "eps", "eps of log_student is 0"),
        ("l1l2", [0.5], {"l1": -1}, "l1", "l1 of l1l2 is -1"),
        ("l1l2", [0.5], {"l2": math.inf}, "l2", "l2 of l1l2 is inf"),
        ("temporal", [0.5], {"lag": 0}, "lag", "lag of temporal is 0"),
        ("temporal", [0.5], {"lag": 1.5}, "lag", "a whole number"),
        ("l1", [0.5], {"axis": 0}, "axis", "takes no axis"),
        ("l1", [0.5], {"of": "middle"}, "of", "'output', 'input'"),
        ("l1", [0.5], {"reduction": "median"}, "reduction", "median"),
        ("l1", [0.5], {"strength": -1.0}, "strength", "finite and not negative"),
        ("l1", [0.5], {"p": 2}, "p", "no parameter 'p'"),
        ("contractive", [0.5], {"of": "input"}, "of", "not of the input"),
        ("l3", [0.5], {}, "regularizer", "'hoyer_square'"),
    ],
)
def test_what_has_no_meaning_is_refused_by_name(
    client: Client, name: str, x: Any, options: Any, field: str, text: str
) -> None:
    with pytest.raises(InvalidRequest, match=text) as caught:
        client.regularization("identity", np.array(x), name, **options)
    assert caught.value.field == field
    if isinstance(x[0], list) and field == "x":
        with pytest.raises(InvalidRequest):
            client.regularization("identity", iter([np.array(x)]), name, **options)
    assert client.regularization("identity", np.array([1.0, 2.0]), "l1", strength=1).penalty == 3


def test_contractive_needs_an_elementwise_activation(client: Client) -> None:
    for name in ("softmax", "glu", "crelu"):
        with pytest.raises(InvalidRequest, match="a matrix of them for each slice"):
            client.regularization(name, data((4, 4)), "contractive")


def test_neurons_across_blocks_are_refused(client: Client) -> None:
    with pytest.raises(InvalidRequest, match="axis 0 is the batch"):
        client.regularization("sigmoid", [data()], "kl_sparsity", neuron_axis=0)


def test_states_of_other_things_are_refused(client: Client) -> None:
    x = data()
    state = client.regularization("sigmoid", x, "hoyer").state
    for changed, text in (
        ({"name": "tanh"}, "another activation: 'sigmoid'.*'tanh'"),
        ({"regularizer": "l1"}, "another regularizer: 'hoyer'.*'l1'"),
        ({"strength": 0.5}, r"another strength: 0\.01.*0\.5"),
        ({"reduction": "mean"}, "another reduction"),
        ({"of": "input"}, "another of"),
        ({"state": state[:-1]}, "the state cannot be read"),
        ({"state": b"nonsense"}, "the state cannot be read"),
    ):
        call: dict[str, Any] = {"name": "sigmoid", "regularizer": "hoyer", "gradient": True, "state": state, **changed}
        with pytest.raises(InvalidRequest, match=text) as caught:
            client.regularization(x=x, **call)
        assert caught.value.field == "state"
    wider = client.regularization("sigmoid", x, "kl_sparsity").state
    with pytest.raises(InvalidRequest, match=r"another width: 5.*4"):
        client.regularization("sigmoid", x[:, :4], "kl_sparsity", gradient=True, state=wider)
    rows = client.regularization("sigmoid", x, "orthogonal").state
    with pytest.raises(InvalidRequest, match="no use"):
        client.regularization("sigmoid", x, "orthogonal", gradient=True, state=rows)
    with pytest.raises(InvalidRequest, match="must be bytes"):
        client.regularization("sigmoid", x, "hoyer", state=3)  # type: ignore[arg-type]


def test_merging_what_does_not_go_together_names_both_sides(client: Client) -> None:
    x = data()
    one = client.regularization("sigmoid", x, "lp", p=1.5)
    for other, text in (
        (client.regularization("sigmoid", x, "lp", p=1.25), r"regularizer parameters.*1\.5.*1\.25"),
        (client.regularization("tanh", x, "lp", p=1.5), "activation.*'sigmoid' and 'tanh'"),
        (client.regularization("sigmoid", x, "l1"), "regularizer .*'lp' and 'l1'"),
        (client.regularization("sigmoid", x, "lp", p=1.5, strength=1), r"strength.*0\.01 and 1\.0"),
    ):
        with pytest.raises(InvalidRequest, match=text):
            merge([one.state, other.state])
    with pytest.raises(InvalidRequest, match="penalties and of neuron statistics"):
        merge([one.state, client.neuron_stats("sigmoid", x).state])
    with pytest.raises(InvalidRequest, match="no states"):
        merge([])
    for wrong in (b"", one.state[:-1], one.state + b"\0", one.state[:40]):
        with pytest.raises(InvalidRequest):
            merge([wrong])
    assert isinstance(merge([client.neuron_stats("sigmoid", x).state]), NeuronStats)
    assert isinstance(merge([one.state]), Regularization)


# ---- what must be held ---------------------------------------------------------------------------------------------


def test_more_than_may_be_held(make_server: Any) -> None:
    server = make_server(max_slice_bytes=8192)
    x = np.random.default_rng(4).uniform(0.1, 0.9, (300, 4))
    with Client(server.addresses[0], timeout=300) as small:
        for name, options in (("hoyer", {}), ("kl_sparsity", {}), ("group_lasso", {"penalty_axis": 0})):
            with pytest.raises(LimitExceeded, match="max_slice_bytes") as caught:
                small.regularization(
                    "sigmoid", (x[i : i + 50] for i in range(0, 300, 50)), name, gradient=True, **options
                )
            assert caught.value.field == "gradient"
            # An array goes twice, and a stream with the state of a pass before.
            array = small.regularization("sigmoid", x, name, gradient=True, **options)
            first = small.regularization("sigmoid", (x[i : i + 50] for i in range(0, 300, 50)), name, **options)
            assert first.penalty == array.penalty
            blocks = (x[i : i + 50] for i in range(0, 300, 50))
            second = small.regularization("sigmoid", blocks, name, gradient=True, state=first, **options)
            np.testing.assert_array_equal(second.gradient, array.gradient)
        flat = x.reshape(10, 120)
        for name, options in (("orthogonal", {}), ("entropy", {"penalty_axis": 0})):
            for whole in (flat, iter(np.split(flat, 5))):
                with pytest.raises(LimitExceeded, match="compares all rows"):
                    small.regularization("sigmoid", whole, name, **options)
        with pytest.raises(LimitExceeded, match="hold"):
            small.regularization("sigmoid", np.zeros((2, 600)), "kl_sparsity")
        with pytest.raises(LimitExceeded, match="hold"):
            small.regularization("sigmoid", np.zeros((100, 1)), "orthogonal")
        with pytest.raises(LimitExceeded, match="needs all of x first"):
            small.regularization("sigmoid", x, "temporal", gradient=True)
        mean = small.regularization("sigmoid", iter([x[:20], x[20:40]]), "l1", reduction="mean", gradient=True)
        assert mean.penalty == small.regularization("sigmoid", x[:40], "l1", reduction="mean").penalty


def test_a_large_gradient_comes_in_pieces(client: Client) -> None:
    x = np.random.default_rng(4).uniform(0.1, 0.9, (3000, 200)).astype(np.float32)
    for name in ("hoyer_square", "kl_sparsity"):
        answer = client.regularization("sigmoid", x, name, gradient=True, gradient_wrt="input")
        blocks = client.regularization("sigmoid", np.array_split(x, 7), name, gradient=True, gradient_wrt="input")
        assert answer.penalty == blocks.penalty
        np.testing.assert_array_equal(answer.gradient, blocks.gradient)


# ---- the rest of the surface ---------------------------------------------------------------------------------------


def test_the_server_lists_its_regularizers(client: Client) -> None:
    assert set(client.server_info().regularizers) == {record.name for record in REGULARIZERS}


def test_keywords_that_collide_go_through_parameters(client: Client) -> None:
    """xielu has an eps of its own."""
    x = np.array([-1e-8, 0.5])
    mine = client.regularization("xielu", x, "log_student", eps=0.5, parameters={"eps": -1e-6})
    a = client.forward("xielu", x, eps=-1e-6)
    assert mine.penalty == pytest.approx(0.01 * np.log1p(a * a / 0.5).sum(), rel=1e-14)
    assert client.regularization("xielu", x, "l1", eps=-1e-6).penalty == pytest.approx(0.01 * np.abs(a).sum())


async def test_the_async_client_says_the_same(client: Client, address: str) -> None:
    x = data()
    async with AsyncClient(address) as other:
        for definition, (name, options, _, _) in DEFINITIONS.items():
            theirs = await other.regularization("sigmoid", x, name, gradient=True, **options)
            ours = client.regularization("sigmoid", x, name, gradient=True, **options)
            assert (theirs.penalty, theirs.state) == (ours.penalty, ours.state), definition
            np.testing.assert_array_equal(theirs.gradient, ours.gradient)


async def test_the_async_client_sends_twice_what_cannot_be_held(make_server: Any) -> None:
    server = make_server(max_slice_bytes=8192)
    x = data((300, 4))
    async with AsyncClient(server.addresses[0]) as small:
        answer = await small.regularization("identity", x, "hoyer_square", strength=1, gradient=True)
        assert answer.penalty == pytest.approx(x.sum() ** 2 / (x * x).sum(), rel=1e-14)
        assert answer.gradient is not None
        assert answer.gradient.shape == x.shape


def test_states_of_other_axes_and_accuracies_are_not_merged(client: Client) -> None:
    x = np.linspace(-3, 3, 16, dtype=np.float32).reshape(4, 4)
    rows, columns = (client.regularization("softmax", x, "l1", axis=axis).state for axis in (-1, 0))
    exact, fast = (client.regularization("gelu", x, "l2", accuracy=accuracy).state for accuracy in ("exact", "fast"))
    for pair in ([rows, columns], [exact, fast]):
        with pytest.raises(InvalidRequest, match="parameters"):
            merge(pair)
        assert merge([pair[1], pair[1]]).penalty > 0
