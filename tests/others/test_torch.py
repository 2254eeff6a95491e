"""The gradients of all regularizers against PyTorch's automatic differentiation of their formulas."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from actserve_client import Client

F = torch.nn.functional
Tensor = torch.Tensor


def _hoyer(a: Tensor) -> Tensor:
    root = a.numel() ** 0.5
    return (root - a.abs().sum() / a.norm()) / (root - 1)


def _kl(a: Tensor, rho: float = 0.05) -> Tensor:
    m = a.mean(dim=0)
    target = torch.full_like(m, rho)
    return (target * (target / m).log() + (1 - target) * ((1 - target) / (1 - m)).log()).sum()


def _orthogonal(a: Tensor) -> Tensor:
    units = F.normalize(a, dim=1)
    gram = (units @ units.T).abs()
    n = len(a)
    return (gram.sum() - gram.diagonal().sum()) / 2 / (n * (n - 1) / 2)


def _entropy(a: Tensor) -> Tensor:
    return torch.distributions.Categorical(logits=a).entropy().sum()


def _magnitudes(a: Tensor) -> Tensor:
    return torch.distributions.Categorical(probs=a.abs() / a.abs().sum(-1, keepdim=True)).entropy().sum()


PENALTIES: list[tuple[str, dict[str, Any], Callable[[Tensor], Tensor]]] = [
    ("l1", {}, lambda a: a.abs().sum()),
    ("l2", {}, lambda a: (a * a).sum()),
    ("l1l2", {"l1": 0.3, "l2": 0.7}, lambda a: 0.3 * a.abs().sum() + 0.7 * (a * a).sum()),
    ("lp", {"p": 1.25}, lambda a: (a.abs() ** 1.25).sum()),
    ("lp", {"p": 3}, lambda a: (a.abs() ** 3).sum()),
    ("log_student", {"eps": 0.1}, lambda a: torch.log1p(a * a / 0.1).sum()),
    ("hoyer", {}, _hoyer),
    ("hoyer_square", {}, lambda a: a.abs().sum() ** 2 / (a * a).sum()),
    ("group_lasso", {}, lambda a: a.shape[1] ** 0.5 * a.norm(dim=1).sum()),
    ("group_lasso", {"penalty_axis": 0}, lambda a: a.shape[0] ** 0.5 * a.norm(dim=0).sum()),
    ("kl_sparsity", {}, _kl),
    ("entropy", {}, _entropy),
    ("entropy", {"distribution": "magnitudes"}, _magnitudes),
    ("z_loss", {}, lambda a: (torch.logsumexp(a, -1) ** 2).sum()),
    ("temporal", {}, lambda a: (a.diff(dim=0) ** 2).sum()),
    ("temporal", {"lag": 3, "penalty_axis": 1}, lambda a: ((a[:, 3:] - a[:, :-3]) ** 2).sum()),
    ("orthogonal", {}, _orthogonal),
    ("orthogonal", {"mode": "columns"}, lambda a: _orthogonal(a.T)),
]
ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "sigmoid": torch.sigmoid,
    "softmax": lambda x: torch.softmax(x, -1),
    "tanh": torch.tanh,
    "identity": lambda x: x,
}


def _x(shape: tuple[int, ...] = (7, 6)) -> np.ndarray[Any, Any]:
    return np.random.default_rng(12).standard_normal(shape)


@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize(("name", "options", "penalty"), PENALTIES, ids=[f"{n}-{o}" for n, o, _ in PENALTIES])
def test_gradients(
    client: Client, activation: str, name: str, options: dict[str, Any], penalty: Callable[[Tensor], Tensor]
) -> None:
    if name == "kl_sparsity" and activation in ("tanh", "identity"):
        pytest.skip("kl_sparsity is undefined there")
    x = torch.tensor(_x(), requires_grad=True)
    a = ACTIVATIONS[activation](x)
    a.retain_grad()
    value = 0.3 * penalty(a)
    value.backward()
    for wrt, expected in (("activation", a.grad), ("input", x.grad)):
        answer = client.regularization(activation, _x(), name, strength=0.3, gradient=True, gradient_wrt=wrt, **options)
        assert answer.penalty == pytest.approx(float(value.detach()), rel=1e-12)
        assert expected is not None
        np.testing.assert_allclose(answer.gradient, expected.numpy(), rtol=1e-9, atol=1e-13)


@pytest.mark.parametrize(
    ("name", "function"),
    [
        ("sigmoid", torch.sigmoid),
        ("tanh", torch.tanh),
        ("silu", F.silu),
        ("gelu", F.gelu),
        ("mish", F.mish),
        ("softplus", F.softplus),
        ("elu", F.elu),
        ("relu", F.relu),
        ("softsign", F.softsign),
    ],
)
def test_contractive(client: Client, name: str, function: Callable[[Tensor], Tensor]) -> None:
    x = torch.tensor(_x(), requires_grad=True)
    (slope,) = torch.autograd.grad(function(x).sum(), x, create_graph=True)
    value = (slope**2).sum()
    answer = client.regularization(name, _x(), "contractive", strength=1, gradient=True)
    assert answer.penalty == pytest.approx(float(value.detach()), rel=1e-12)
    expected = torch.autograd.grad(value, x)[0].numpy() if value.requires_grad else np.zeros_like(_x())
    np.testing.assert_allclose(answer.gradient, expected, rtol=1e-9, atol=1e-13)
