"""Activations of one's own, through the front door: added, computed with in every mode, kept, shared, replaced, removed."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from actserve_client import (
    ActivationExists,
    AsyncClient,
    Client,
    InvalidRequest,
    LimitExceeded,
    PermissionDenied,
    UnknownActivation,
    merge,
)
from actserve_client.cli import main
from actserve_server.custom.entry import Entry
from actserve_server.custom.store import Store
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

Array = np.ndarray[Any, Any]
SWISH = "x / (1 + exp(-beta * x))"
ELU = "x if x > 0 else alpha * (exp(x) - 1)"


@pytest.fixture(scope="module")
def own(client: Client) -> Iterator[str]:
    """An activation that is elu by another name."""
    name = "team.elu"
    client.create_activation(
        name, ELU, alpha=1.0, bounds={"alpha": (0, 100)}, description="The article's.", replace=True
    )
    yield name
    client.delete_activation(name)


def test_it_computes_as_the_catalogue_does_in_every_mode(client: Client, own: str) -> None:
    rng = np.random.default_rng(0)
    for dtype in (np.float16, np.float32, np.float64):
        x = rng.normal(0, 2, (50, 40)).astype(dtype)
        x[0, 0] = np.nan
        g = rng.normal(0, 1, x.shape).astype(dtype)
        for options in ({}, {"alpha": 0.5}):
            np.testing.assert_array_max_ulp(client.forward(own, x, **options), client.forward("elu", x, **options), 2)
            np.testing.assert_array_max_ulp(
                client.derivative(own, x, **options), client.derivative("elu", x, **options), 2
            )
            np.testing.assert_allclose(
                client.derivative(own, x, upstream=g, **options).astype(float),
                client.derivative("elu", x, upstream=g, **options).astype(float),
                rtol=2e-3 if dtype == np.float16 else 1e-6,
            )
    x = rng.normal(0, 2, (60, 10))
    fast = client.forward(own, x.astype(np.float32), accuracy="fast")
    np.testing.assert_allclose(fast, client.forward("elu", x.astype(np.float32)), rtol=2e-6)
    stats, wanted = client.neuron_stats(own, x), client.neuron_stats("elu", x)
    np.testing.assert_array_equal(stats.inactive_fraction, wanted.inactive_fraction)
    np.testing.assert_allclose(stats.mean, wanted.mean, rtol=1e-12)
    assert (
        merge([client.neuron_stats(own, x[:30]).state, client.neuron_stats(own, x[30:], first_sample=30).state])
        == stats
    )
    for regularizer, where in (("l2", "activation"), ("l1", "input"), ("contractive", "input")):
        options = {"gradient": True, "gradient_wrt": where}
        here, there = (client.regularization(name, x, regularizer, **options) for name in (own, "elu"))
        assert here.penalty == pytest.approx(there.penalty, rel=1e-12)
        np.testing.assert_allclose(here.gradient, there.gradient, rtol=1e-12)
    blocks = [x[:7], x[7:]]
    np.testing.assert_array_equal(np.concatenate(list(client.stream(own, blocks))), client.forward(own, x))
    with client.monitor(own, input="pre") as monitor:
        monitor.observe("layer", x)
        np.testing.assert_array_equal(monitor.report()["layer"].inactive_fraction, stats.inactive_fraction)


def test_it_is_described_and_listed(client: Client, own: str) -> None:
    found = client.describe(own)
    assert (found.name, found.formula, found.summary, found.kind) == (own, ELU, "The article's.", "elementwise")
    assert found.derivative_formula == "1 if x > 0 else alpha * exp(x)"
    (alpha,) = found.parameters
    assert (alpha.name, alpha.default, alpha.low, alpha.high) == ("alpha", 1.0, 0.0, 100.0)
    report = found.report
    assert report is not None
    assert (report.monotonic, report.monotonic_proof, report.saturates) == ("increasing", "proved", "left")
    assert [(r.before, r.after) for r in report.rewrites] == [("exp(x) - 1", "expm1(x)")]
    assert found.traits.monotonic and found.range == "[-1, inf)" and len(found.revision) == 16
    names = [activation.name for activation in client.activations()]
    assert names == sorted(names) and own in names and "elu" in names
    with pytest.raises(InvalidRequest, match=r"alpha.*\[0, 100\]"):
        client.forward(own, np.ones(2), alpha=-1.0)


def test_what_is_wrong_is_said_with_its_place(client: Client) -> None:
    before = [activation.name for activation in client.activations()]
    with pytest.raises(InvalidRequest, match="no function foo") as caught:
        client.create_activation("team.wrong", "x + foo(x)")
    assert caught.value.field == "formula" and caught.value.reason == "INVALID_FORMULA"
    assert str(caught.value).endswith("\nx + foo(x)\n    ^")
    for name, options, words in [
        ("relu", {}, "names without a dot are the catalogue's"),
        ("mine", {}, "names without a dot"),
        ("a.b.c.d.e", {}, "two to four words"),
        ("../etc.passwd", {}, "two to four words"),
        ("team." + "a" * 100, {}, "two to four words"),
        ("team.own", {"derivative_formula": "2 * x"}, "derivative_formula gives"),
        ("team.own", {"beta": 1.0, "bounds": {"gamma": (0, 1)}}, "no parameter"),
        ("team.own", {"beta": 1.0, "bounds": {"beta": 3}}, "pair of numbers"),
        ("team.own", {"beta": 5.0, "bounds": {"beta": (0, 1)}}, "the default of beta"),
        ("team.own", {"beta": "much"}, "beta is 'much', and must be a number"),
        ("team.own", {"description": "a" * 501}, "description has 501"),
        ("team.own", {"parameters": {"exp": 1.0}}, "meaning of its own"),
    ]:
        with pytest.raises(InvalidRequest, match=words):
            client.create_activation(name, "x", **options)
    assert [activation.name for activation in client.activations()] == before
    with pytest.raises(UnknownActivation, match="did you mean"):
        client.forward("team.el", np.ones(2)) if client.create_activation("team.elx", "x", replace=True) else None
    client.delete_activation("team.elx")


def test_replacing_deleting_and_only_looking(client: Client) -> None:
    looked = client.create_activation("team.once", "2 * x", validate_only=True)
    assert looked.report is not None and looked.report.lipschitz == pytest.approx(2)
    with pytest.raises(UnknownActivation):
        client.describe("team.once")
    first = client.create_activation("team.once", "2 * x")
    with pytest.raises(ActivationExists, match=r"replace=True"):
        client.create_activation("team.once", "3 * x")
    # A stream goes on with what it began with.
    stream = client.stream("team.once", (np.full(2, value) for value in (1.0, 2.0, 3.0)))
    results = [next(stream)]
    second = client.create_activation("team.once", "3 * x", replace=True)
    assert second.revision != first.revision
    np.testing.assert_array_equal(client.forward("team.once", np.ones(2)), [3, 3])
    results += list(stream)
    np.testing.assert_array_equal(results, [[2, 2], [4, 4], [6, 6]])
    client.delete_activation("team.once")
    for call in (client.describe, client.delete_activation):
        with pytest.raises(UnknownActivation):
            call("team.once")
    with pytest.raises(InvalidRequest, match="the catalogue's"):
        client.delete_activation("relu")
    with pytest.raises(UnknownActivation):
        client.delete_activation("nothing")


async def test_the_async_client_too(address: str) -> None:
    async with AsyncClient(address) as client:
        found = await client.create_activation("team.async", "x * 4", replace=True)
        assert found.formula == "x * 4"
        np.testing.assert_array_equal(await client.forward("team.async", np.ones(2)), [4, 4])
        await client.delete_activation("team.async")
        with pytest.raises(UnknownActivation):
            await client.delete_activation("team.async")


def test_servers_share_a_folder(make_server: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    folder = tmp_path / "activations"
    one, other = (make_server(activations_dir=str(folder)) for _ in range(2))
    with Client(one.addresses[0]) as first, Client(other.addresses[0]) as second:
        first.create_activation("team.shared", "x * 5", validate_only=True)
        assert list(folder.iterdir()) == []
        first.create_activation("team.shared", "x * 5")
        kept = json.loads((folder / "team.shared.json").read_text())
        assert (kept["formula"], kept["report"]["lipschitz"]) == ("x * 5", pytest.approx(5))
        eventually(lambda: second.forward("team.shared", np.ones(1))[0] == 5)
        with pytest.raises(ActivationExists):
            second.create_activation("team.shared", "x")
        second.create_activation("team.shared", "x * 6", replace=True)
        eventually(lambda: first.forward("team.shared", np.ones(1))[0] == 6)
        # By hand, too; and what is no activation is left out, and said once.
        (folder / "team.hand.json").write_text(kept_text("team.hand", "x * 7"))
        for name, text in (
            ("team.bad", "{"),
            ("team.other", kept_text("team.not", "x")),
            ("team.foo", kept_text("team.foo", "foo(x)")),
            ("team.list", "[1]"),
            ("relu", kept_text("relu", "x")),
        ):
            (folder / f"{name}.json").write_text(text)
        eventually(lambda: first.forward("team.hand", np.ones(1))[0] == 7)
        assert [a.name for a in first.activations() if "." in a.name] == ["team.hand", "team.shared"]
        assert [a.name for a in first.activations() if "." in a.name] == ["team.hand", "team.shared"]
        left_out = [record.getMessage() for record in caplog.records if "is left out" in record.getMessage()]
        assert sum("team.bad.json" in text for text in left_out) <= 2  # once by each server
        second.delete_activation("team.shared")
        eventually(lambda: "team.shared" not in [a.name for a in first.activations()])
    third = make_server(activations_dir=str(folder))
    with Client(third.addresses[0]) as later:
        assert later.forward("team.hand", np.ones(1))[0] == 7


def kept_text(name: str, formula: str) -> str:
    return Entry(name, formula).to_json()


def eventually(holds: Any) -> None:
    deadline = time.monotonic() + 10
    while True:
        try:
            if holds():
                return
        except UnknownActivation:
            pass
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_quotas_and_permission(make_server: Any, client: Client) -> None:
    server = make_server(max_activations=1, max_formula_length=20)
    with Client(server.addresses[0]) as small:
        small.create_activation("team.one", "x")
        with pytest.raises(LimitExceeded, match="max_activations"):
            small.create_activation("team.two", "x")
        small.create_activation("team.one", "x + 1", replace=True)
        with pytest.raises(InvalidRequest, match="may have 20"):
            small.create_activation("team.one", "x + 1 + 1 + 1 + 1 + 1", replace=True)
    server = make_server(allow_create=False)
    with Client(server.addresses[0]) as closed:
        for call in (lambda: closed.create_activation("team.one", "x"), lambda: closed.delete_activation("team.one")):
            with pytest.raises(PermissionDenied, match="--allow-create"):
                call()
    server = make_server(max_create_s=0.1)
    with Client(server.addresses[0]) as hurried:
        with pytest.raises(LimitExceeded, match="max_create_s"):
            hurried.create_activation("team.slow", "tanh(x) * 1.23456")
        # Nothing is left of it, and the server goes on.
        assert not [a.name for a in hurried.activations() if "." in a.name]
        np.testing.assert_array_equal(hurried.forward("relu", np.ones(2)), np.ones(2))


@settings(deadline=None, max_examples=60, suppress_health_check=list(HealthCheck))
@given(
    steps=st.lists(
        st.tuples(st.sampled_from(["put", "new", "remove", "look"]), st.integers(0, 1), st.sampled_from("abc"))
    ),
    on_disk=st.booleans(),
)
def test_two_stores_on_a_folder_agree(tmp_path_factory: Any, steps: list[tuple[str, int, str]], on_disk: bool) -> None:
    folder = tmp_path_factory.mktemp("store") if on_disk else None
    stores = (
        [Store(folder, lambda name, text: text) for _ in range(2)]
        if on_disk
        else [Store(None, lambda _, text: text)] * 2
    )
    model: dict[str, str] = {}
    for number, (what, which, name) in enumerate(steps):
        store = stores[which]
        match what:
            case "put":
                assert store.put(name, str(number), replace=True)
                model[name] = str(number)
            case "new":
                assert store.put(name, str(number), replace=False) == (name not in model)
                model.setdefault(name, str(number))
            case "remove":
                assert store.remove(name) == (model.pop(name, None) is not None)
            case _:
                assert dict(store.all(fresh=True)) == model
    for store in stores:
        assert dict(store.all(fresh=True)) == model


def test_a_kill_leaves_a_whole_file_or_none(tmp_path: Path) -> None:
    code = (
        "import itertools, sys; from pathlib import Path; from actserve_server.custom.store import Store\n"
        "store = Store(Path(sys.argv[1]), lambda name, text: text)\n"
        "print('ready', flush=True)\n"
        "for n in itertools.count(): store.put(f'a{n % 5}', str(n) * 5000, replace=True)\n"
    )
    for delay in (0.01, 0.03, 0.05):
        with subprocess.Popen([sys.executable, "-c", code, str(tmp_path)], stdout=subprocess.PIPE) as process:
            assert process.stdout is not None
            process.stdout.readline()
            time.sleep(delay)
            os.kill(process.pid, signal.SIGKILL)
        for text in Store(tmp_path, lambda name, text: text).all(fresh=True).values():
            number = text[: len(text) // 5000]
            assert text == number * 5000


def test_on_the_command_line(address: str, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    command = ["create", "team.cli", "--server", address, "--formula", SWISH, "--param", "beta=1:0:10", "--replace"]
    assert main([*command, "--output", str(tmp_path / "x.png")]) == 0
    out = capsys.readouterr()
    assert "team.cli" in out.out and "neither (proved)" in out.out and "silu(x, beta=beta)" in out.out and not out.err
    assert (tmp_path / "x.png").read_bytes().startswith(b"\x89PNG")
    np.save(tmp_path / "x.npy", np.linspace(-1, 1, 5))
    apply = ["apply", "team.cli", str(tmp_path / "x.npy"), str(tmp_path / "y.npy"), "--server", address]
    assert main([*apply, "--param", "beta=2"]) == 0
    x = np.linspace(-1, 1, 5)
    np.testing.assert_allclose(np.load(tmp_path / "y.npy"), x / (1 + np.exp(-2 * x)))
    assert main(["describe", "team.cli", "--server", address]) == 0
    assert "steepest slope" in capsys.readouterr().out
    assert main([*command, "--json", "--validate-only"]) == 0
    assert json.loads(capsys.readouterr().out)["report"]["saturates"] == "left"
    assert main(["create", "team.bad", "--server", address, "--formula", "x + )"]) == 1
    assert capsys.readouterr().err.endswith("\nx + )\n    ^\n")
    assert main(["create", "team.cli", "--server", address, "--formula", "x"]) == 1
    assert "exists" in capsys.readouterr().err
    for wrong in (["--param", "=1"], ["--param", "beta=1:2"], ["--param", "beta=one"]):
        with pytest.raises(SystemExit):
            main(["create", "team.own", "--formula", "x", *wrong])
    assert main(["delete", "team.cli", "--server", address]) == 0
    assert main(["delete", "team.cli", "--server", address]) == 1
