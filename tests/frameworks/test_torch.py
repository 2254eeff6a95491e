"""`actserve_client.torch.watch` on real modules, against the outputs that they really gave."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from actserve_client import Client, InvalidRequest, ServerUnavailable
from actserve_client.torch import watch
from torch import nn

Recorded = dict[str, list[Any]]


def recorded(model: nn.Module, names: list[str]) -> Recorded:
    """What modules give, as a second pair of hooks sees it."""
    seen: Recorded = {name: [] for name in names}
    for name in names:
        module = model.get_submodule(name)
        module.register_forward_hook(lambda _m, _i, out, name=name: seen[name].append(out.detach().clone().numpy()))
    return seen


def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 12), nn.GELU(), nn.Linear(12, 3))


def train(model: nn.Module, steps: int, shape: tuple[int, ...] = (32, 8)) -> None:
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    for step in range(steps):
        x = torch.randn(shape, generator=torch.Generator().manual_seed(step))
        optimizer.zero_grad()
        model(x).square().mean().backward()
        optimizer.step()


def test_every_activation_is_watched_while_it_trains(client: Client) -> None:
    model = network()
    seen = recorded(model, ["1", "3"])
    with watch(model, client, queue=1000) as watched:
        assert watched.layers == ("1", "3")
        train(model, 20)
        report = watched.report()
    assert watched.dropped == 0
    relu = client.neuron_stats("relu", np.concatenate(seen["1"]), input="post")
    gelu = client.neuron_stats("gelu", np.concatenate(seen["3"]), input="post")
    assert report["1"].state == relu.state
    assert report["3"].columns["positive"].tolist() == gelu.columns["positive"].tolist()
    assert report["3"].activation == "gelu"
    model(torch.zeros(1, 8))  # the hooks are gone
    assert len(seen["1"]) == 21
    assert report["1"].samples[0] == 20 * 32


def test_training_is_not_changed(client: Client) -> None:
    plain, watched_model = network(), copy.deepcopy(network())
    train(plain, 5)
    with watch(watched_model, client):
        train(watched_model, 5)
    for one, other in zip(plain.parameters(), watched_model.parameters(), strict=True):
        assert torch.equal(one, other)


def test_an_output_that_is_overwritten_later_was_copied(client: Client) -> None:
    model = nn.Sequential(nn.ReLU())
    x = torch.randn(200, 50)
    with watch(model, client) as watched, torch.no_grad():
        out = model(x)
        expected = out.numpy().copy()
        out.fill_(7.0)
        report = watched.report()
    assert report["0"].state == client.neuron_stats("relu", expected, input="post").state


@pytest.mark.parametrize(
    "module",
    [
        nn.LeakyReLU(0.3),
        nn.ELU(0.7),
        nn.Hardtanh(-2.0, 0.5),
        nn.Softplus(2.0, 10.0),
        nn.Threshold(0.1, -3.0),
        nn.Softmax(dim=1),
        nn.PReLU(),
        nn.RReLU(),
        nn.GELU("tanh"),
        nn.Hardshrink(0.25),
        nn.Tanh(),
        nn.GLU(),
        nn.SiLU(inplace=True),
        nn.CELU(1.5),
        nn.SELU(),
        nn.LogSoftmax(-1),
    ],
    ids=lambda module: type(module).__name__,
)
def test_modules_with_their_parameters(client: Client, module: nn.Module) -> None:
    x = torch.randn(64, 6) * 5
    with torch.no_grad():
        expected = module(x.clone()).numpy().copy() if not isinstance(module, nn.RReLU) else None
        with watch(module, client, layers=None) as watched:
            module(x.clone())
            (stats,) = watched.report().values()
    assert stats.samples.tolist() == [64] * stats.neurons
    if expected is not None:
        np.testing.assert_array_equal(stats.max, expected.max(axis=0).astype(np.float64))
    if isinstance(module, nn.Hardtanh):
        saturated = ((x.numpy() <= -2) | (x.numpy() >= 0.5)).mean(axis=0)
        np.testing.assert_allclose(stats.saturated_fraction, saturated)


def test_channels_and_a_module_of_several_widths(client: Client) -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.second, self.act = nn.Conv2d(1, 4, 3), nn.Conv2d(4, 7, 3), nn.ReLU(inplace=True)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.act(self.second(self.act(self.first(x))))

    model = Net()
    with watch(model, client) as watched, torch.no_grad():
        model(torch.randn(2, 1, 9, 9))
        model(torch.randn(3, 1, 12, 9))
        report = watched.report()
    assert {name: (stats.shape, int(stats.samples[0])) for name, stats in report.items()} == {
        "act": ((4,), 2 * 7 * 7 + 3 * 10 * 7),
        "act[7 float32]": ((7,), 2 * 5 * 5 + 3 * 8 * 5),
    }


def test_modules_that_are_named(client: Client) -> None:
    class Block(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear = nn.Linear(4, 5)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.relu(self.linear(x))

    model = nn.Sequential(Block(), nn.Tanh())
    with watch(model, client, layers={"0": "relu"}) as watched, torch.no_grad():
        model(torch.randn(10, 4))
        report = watched.report()
    assert {name: stats.activation for name, stats in report.items()} == {"0": "relu"}
    with watch(model, client, layers=["0.linear"], neuron_axis=0) as watched, torch.no_grad():
        model(torch.randn(10, 4))
        report = watched.report()
    assert report["0.linear"].shape == (10,)
    with pytest.raises(InvalidRequest, match="no module 'nosuch'") as caught:
        watch(model, client, layers=["nosuch"])
    assert caught.value.field == "layers"
    with pytest.raises(InvalidRequest, match="no activation"):
        watch(nn.Linear(2, 2), client)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
def test_types(client: Client, dtype: torch.dtype) -> None:
    model = nn.ReLU()
    x = torch.randn(40, 3).to(dtype)
    with watch(model, client) as watched:
        model(x)
        model(torch.arange(6).reshape(2, 3))  # of whole numbers nothing is known, and nothing is counted
        report = watched.report()
    stats = report["ReLU"]
    np.testing.assert_array_equal(stats.max, x.double().clamp(min=0).max(0).values.numpy())
    assert stats.samples.tolist() == [40] * 3


def test_every_so_many_and_alerts(client: Client) -> None:
    model = nn.Sequential(nn.ReLU())
    with watch(model, client, every=4, alerts={"dead_fraction": 1.0}) as watched, torch.no_grad():
        for _ in range(9):
            model(-torch.ones(2, 3))
        assert watched.report()["0"].samples[0] == 6
        assert [alert.layer for alert in watched.alerts] == ["0"]


def test_a_failure_does_not_reach_the_training(make_server: Callable[..., Any]) -> None:
    server = make_server()
    model = nn.Sequential(nn.ReLU())
    with Client(server.addresses[0]) as client:
        watched = watch(model, client, reconnect_s=0, max_unacknowledged_bytes=1)
        with torch.no_grad():
            model(torch.ones(2, 3))
            assert watched.report()["0"].samples[0] == 2
            server.stop()
            with pytest.raises(ServerUnavailable):
                watched.report()
            for _ in range(200):
                model(torch.ones(2, 3))
        with pytest.raises(ServerUnavailable):
            watched.close()
    model(torch.ones(2, 3))
    assert len(model[0]._forward_hooks) == 0


def test_somebody_elses_module_of_the_same_name_is_not_taken_for_torchs(client: Client) -> None:
    class GELU(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x * 2

    model = nn.Sequential(nn.Linear(8, 4), GELU(), nn.ReLU())
    with watch(model, client) as watched:
        assert watched.layers == ("2",)
    with watch(model, client, layers=["1"]) as watched:
        model(torch.ones(3, 8))
        assert watched.report()["1"].activation == "identity"
