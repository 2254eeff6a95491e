"""Added activations over time and between servers: seen at once, kept by what is under way, there again after a kill; and what is refused."""

from __future__ import annotations

import errno
import json
import logging
import os
import re
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from actserve import wire
from actserve.v1 import compute_pb2
from actserve_client import (
    ActivationExists,
    Client,
    InvalidRequest,
    PermissionDenied,
    ServerError,
    ServerUnavailable,
    UnknownActivation,
    _channel,
    _session,
    merge,
)
from actserve_client.cli import main
from actserve_server.app import Server
from actserve_server.config import Config, ConfigError, load
from actserve_server.custom.entry import Entry
from actserve_server.kernels import build, compiler

MakeServer = Callable[..., Server]

X = np.linspace(-6, 6, 24).reshape(4, 6)
DOCUMENT = (Path(__file__).resolve().parents[2] / "docs" / "custom.md").read_text()


@pytest.fixture
def pair(make_server: MakeServer, tmp_path: Path) -> Iterator[tuple[Client, Client]]:
    """Clients of two servers on one folder."""
    one, other = (make_server(activations_dir=str(tmp_path / "own")) for _ in range(2))
    with Client(one.addresses[0], timeout=300) as first, Client(other.addresses[0], timeout=300) as second:
        yield first, second


# ---- between servers -------------------------------------------------------------------------------------------------


def test_what_one_server_does_the_other_does_at_the_next_call(pair: tuple[Client, Client]) -> None:
    one, other = pair
    with pytest.raises(UnknownActivation):
        other.forward("team.shared", 3.0)
    made = one.create_activation("team.shared", "2 * x")
    assert other.forward("team.shared", 3.0) == 6.0
    assert other.describe("team.shared") == made
    with pytest.raises(ActivationExists):
        other.create_activation("team.shared", "x")
    other.create_activation("team.shared", "4 * x", replace=True)
    assert one.forward("team.shared", 3.0) == 12.0
    # The same again is the same: whoever began a result with it can go on.
    assert other.create_activation("team.shared", "2 * x", replace=True).revision == made.revision
    one.delete_activation("team.shared")
    with pytest.raises(UnknownActivation):
        other.forward("team.shared", 3.0)
    assert not [record.name for record in other.activations() if "." in record.name]


def test_they_are_there_again_after_a_kill_and_beside_files_that_are_none(
    make_server: MakeServer, socket_folder: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder, socket = tmp_path / "own", f"unix:{socket_folder}/killed"
    command = [sys.executable, "-m", "actserve_server", "serve", "--address", socket, "--log-level", "error"]
    killed = subprocess.Popen([*command, "--activations-dir", str(folder)])
    try:
        with Client(socket, timeout=300) as client:
            while not client.healthy():
                assert killed.poll() is None
            made = client.create_activation("team.kept", "2 * x")
    finally:
        killed.kill()
        killed.wait()
    (folder / "team.broken.json").write_text(Entry("team.broken", "2 * (x").to_json())
    (folder / "team.cut.json").write_text(Entry("team.cut", "x").to_json()[:40])
    with caplog.at_level(logging.WARNING), Client(make_server(activations_dir=str(folder)).addresses[0]) as client:
        assert client.describe("team.kept", timeout=300) == made
        assert client.forward("team.kept", 2.0, timeout=300) == 4.0
        assert [record.name for record in client.activations() if "." in record.name] == ["team.kept"]
        for name in ("team.broken", "team.cut"):
            with pytest.raises(UnknownActivation):
                client.forward(name, 2.0)
            assert sum(f"{name}.json" in record.getMessage() for record in caplog.records) == 1


def test_a_folder_that_cannot_be_used_is_told_in_a_line(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "file").write_text("")
    command = [sys.executable, "-m", "actserve_server", "serve", "--address", "127.0.0.1:0"]
    done = subprocess.run([*command, "--activations-dir", tmp_path / "file"], check=False, timeout=300)
    assert done.returncode == 2
    assert re.fullmatch(r"actserve: --activations-dir: '.*/file' can't be used: .*\n", capfd.readouterr().err)
    with pytest.raises(ConfigError, match="--allow-create: 'perhaps' is not true or false"):
        load(["--allow-create", "perhaps"])


# ---- under way -------------------------------------------------------------------------------------------------------


def test_a_stream_keeps_what_a_name_meant_when_it_was_first_used(make_server: MakeServer) -> None:
    with Client(make_server().addresses[0], timeout=300) as client:
        client.create_activation("team.act", "2 * x")
        answered = threading.Event()

        def tensors() -> Iterator[Any]:
            yield np.ones(3)
            assert answered.wait(300)
            client.create_activation("team.act", "5 * x", replace=True)
            yield np.ones((2, 2))
            client.delete_activation("team.act")
            yield np.ones((3, 2))
            yield np.ones(1)

        sums = []
        for result in client.map("team.act", tensors()):
            sums.append(float(result.sum()))
            answered.set()
        assert sums == [6, 8, 12, 2]
        with pytest.raises(UnknownActivation):
            client.forward("team.act", np.ones(3))


def test_a_layer_keeps_what_its_activation_was(make_server: MakeServer) -> None:
    with Client(make_server().addresses[0], timeout=300) as client:
        client.create_activation("team.act", "x")
        with client.monitor("team.act", input="pre") as monitor:
            monitor.observe("layer", np.ones((2, 3)))
            monitor.report()
            client.create_activation("team.act", "-x", replace=True)
            # Of another shape, so that it is planned anew.
            monitor.observe("layer", np.ones((5, 3)))
            assert monitor.report()["layer"].mean.tolist() == [1.0, 1.0, 1.0]


def test_a_parameter_without_a_default_must_be_given(pair: tuple[Client, Client]) -> None:
    one, other = pair
    found = one.create_activation("team.steep", "tanh(steepness * x)", steepness=None, bounds={"steepness": (2, 4)})
    (parameter,) = other.describe("team.steep").parameters
    assert (parameter.default, parameter.required, parameter.low, parameter.high) == (None, True, 2.0, 4.0)
    assert found.report is not None and found.report.lipschitz == pytest.approx(3.0)
    np.testing.assert_allclose(other.forward("team.steep", X, steepness=2.5), np.tanh(2.5 * X), rtol=1e-15)
    for call in (other.forward, other.derivative, other.neuron_stats):
        with pytest.raises(InvalidRequest, match=r"needs steepness.*\[2, 4\]") as caught:
            call("team.steep", X)
        assert caught.value.field == "steepness"
    with pytest.raises(InvalidRequest, match="there is none"):
        one.create_activation("team.never", "a * x", a=None, bounds={"a": (4, 2)})


@pytest.mark.parametrize(("given", "value"), [("a", 2.0), ("a=:0:10", 2.0), ("a=3:0:10", None), ("a=3", None)])
def test_parameters_with_and_without_defaults_on_the_command_line(
    given: str, value: float | None, address: str, client: Client, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    command = ["create", "team.cli_param", "--server", address, "--formula", "a * x", "--param", given, "--replace"]
    assert main(command) == 0
    assert ("must be given" in capsys.readouterr().out) == (value is not None)
    assert client.forward("team.cli_param", 2.0, **({} if value is None else {"a": value})) == 2.0 * (value or 3.0)
    assert main([*command, "--output", str(tmp_path / "x.png")]) == (0 if value is None else 2)
    client.delete_activation("team.cli_param")


def test_states_of_two_revisions_do_not_merge(make_server: MakeServer) -> None:
    with Client(make_server().addresses[0], timeout=300) as client:
        client.create_activation("team.again", "2 * x")
        stats = [client.neuron_stats("team.again", X), client.neuron_stats("team.again", X, first_sample=len(X))]
        penalties = [client.regularization("team.again", x, "l2") for x in (X, X)]
        assert merge(part.state for part in stats).samples.tolist() == [2 * len(X)] * X.shape[1]
        assert merge(part.state for part in penalties).penalty == pytest.approx(2 * penalties[0].penalty)
        assert stats[0].parameters["formula.revision"] == client.describe("team.again").revision
        client.create_activation("team.again", "3 * x", replace=True)
        for one, other in (
            (stats[0], client.neuron_stats("team.again", X)),
            (penalties[0], client.regularization("team.again", X, "l2")),
        ):
            with pytest.raises(InvalidRequest, match=r"formula\.revision"):
                merge([one.state, other.state])

        # A layer does not go on from the state of another function.
        def go_on() -> None:
            with client.monitor("team.again", input="pre", resume={"layer": stats[0].state}) as monitor:
                monitor.observe("layer", X)

        with pytest.raises(InvalidRequest, match=r"formula\.revision"):
            go_on()
        # The catalogue's states are what they were.
        assert not client.neuron_stats("relu", X).parameters


def test_a_part_is_only_computed_of_the_formula_that_the_result_was_begun_with(client: Client) -> None:
    how = _session.How(axis=None, accuracy="exact", preset=None, nonfinite="propagate", parameters=None, keywords={})

    def ask(bits: str) -> str:
        header = _session.forward("test.parts", how).header([(X.dtype, X.shape)])
        header.part.bits = bits
        call: Any = client._pool.pick().channel.unary_stream(_channel.COMPUTE)
        answers = list(call(wire.frame(compute_pb2.ComputeRequest(header=header), X.tobytes())))
        found: str = compute_pb2.ComputeResponse.FromString(answers[0]).header.bits
        return found

    client.create_activation("test.parts", "2 * x", replace=True)
    try:
        old = ask("")
        assert ask(old) == old
        client.create_activation("test.parts", "3 * x", replace=True)
        with pytest.raises(Exception, match="computes other bits"):
            ask(old)
        client.create_activation("test.parts", "2 * x", replace=True)
        assert ask(old) == old
    finally:
        client.delete_activation("test.parts")


@pytest.mark.parametrize("dtype", [np.float16, ml_dtypes.bfloat16])
def test_16_bit_results_are_correctly_rounded(dtype: Any, client: Client) -> None:
    """As those of the catalogue are, which tests hold to mpmath."""
    client.create_activation("test.gate", "x * where(x > -1, tanh(x), x / (1 + exp(-x)))", replace=True)
    x = np.concatenate([X.ravel(), [0.0, -20.0, 1e-4, 300.0, -1e-7]]).astype(dtype)
    try:
        with np.errstate(over="ignore"):
            wide = x.astype(np.float64)
            exact = wide * np.where(wide > -1, np.tanh(wide), wide / (1 + np.exp(-wide)))
        np.testing.assert_array_equal(client.forward("test.gate", x), exact.astype(dtype))
    finally:
        client.delete_activation("test.gate")


# ---- refused ---------------------------------------------------------------------------------------------------------


def test_creation_switched_off_leaves_what_there_is(make_server: MakeServer, tmp_path: Path) -> None:
    with Client(make_server(activations_dir=str(tmp_path), max_activations=7).addresses[0], timeout=300) as client:
        client.create_activation("team.kept", "2 * x")
        info = client.server_info()
        assert (info.allows_create, info.max_activations, info.max_formula_length) == (True, 7, 1000)
    with Client(make_server(activations_dir=str(tmp_path), allow_create=False).addresses[0], timeout=300) as client:
        assert not client.server_info().allows_create
        for call in (
            lambda: client.create_activation("team.new", "x"),
            lambda: client.create_activation("team.new", "x", validate_only=True),
            lambda: client.delete_activation("team.kept"),
        ):
            with pytest.raises(PermissionDenied):
                call()
        assert client.forward("team.kept", 2.0) == 4.0


def test_of_names_that_differ_only_by_case_there_is_one(pair: tuple[Client, Client]) -> None:
    one, other = pair
    one.create_activation("Team.Case", "2 * x")
    for replace in (False, True):
        with pytest.raises(ActivationExists, match=r"Team\.Case exists.*by case"):
            other.create_activation("team.case", "3 * x", replace=replace)
    with pytest.raises(UnknownActivation, match=r"Team\.Case"):
        other.delete_activation("team.case")
    assert one.forward("Team.Case", 3.0) == 6.0


@pytest.mark.parametrize("number", [errno.EROFS, errno.ENOSPC])
def test_a_folder_that_takes_nothing_is_told_and_what_there_is_served(
    number: int,
    make_server: MakeServer,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise OSError(number, os.strerror(number))

    with Client(make_server(activations_dir=str(tmp_path)).addresses[0], timeout=300) as client:
        client.create_activation("team.kept", "2 * x")
        with monkeypatch.context() as patched:
            patched.setattr(os, "unlink" if number == errno.EROFS else "fsync", refuse)
            patched.setattr(tempfile, "mkstemp", refuse)
            calls = [lambda: client.create_activation("team.new", "2 * x")]
            calls += [lambda: client.delete_activation("team.kept")] * (number == errno.EROFS)
            for call in calls:
                with pytest.raises(ServerError, match=r"--activations-dir.*can't be written to") as caught:
                    call()
                assert caught.value.reason == "CANNOT_KEEP"
                assert os.strerror(number).lower() in str(caught.value).lower()
            assert client.create_activation("team.new", "2 * x", validate_only=True).name == "team.new"
        assert [path.name for path in tmp_path.iterdir()] == ["team.kept.json"]
        assert client.forward("team.kept", 2.0) == 4.0
    assert "Traceback" not in caplog.text


def test_a_cache_that_takes_nothing_is_told(make_server: MakeServer, tmp_path: Path) -> None:
    # Where the folder of this program's version would be there is a file.
    cache = tmp_path / "cache"
    server = make_server(cache_dir=str(cache))
    kernels = compiler.directory()
    try:
        kernels.mkdir(parents=True, exist_ok=True)
        (kernels / f"kernels-{build.fingerprint()[:16]}").write_text("in the way")
        with Client(server.addresses[0], timeout=300) as client:
            with pytest.raises(ServerError, match=r"--cache-dir.*can't be written to") as caught:
                client.create_activation("team.new", "2 * x + 0.123")
            assert caught.value.reason == "CANNOT_KEEP"
    finally:
        compiler.configure(Config().kernel_cache())


@pytest.mark.parametrize(
    "formula",
    [
        "",
        "x.real",
        "().__class__",
        "__import__('os')",
        "x(1)",
        "x if",
        "(" * 900,
        "-" * 900 + "x",
        "9 ** 9 ** 9 ** 9",
        "lambda: x",
        "x; y",
        "(x := 1)",
        "[x for x in x]",
        "ｘ + 1",
        "\0",
        "'x'",
        "x\ud7ff",
        "x * " * 240 + "x",
        "+".join(f"gelu(silu(mish(x*{n})))" for n in range(40)),
        "1e400 * x",
    ],
)  # fmt: skip
def test_hostile_formulas_earn_nothing_but_invalid_argument(formula: str, client: Client) -> None:
    with pytest.raises(InvalidRequest) as caught:
        client.create_activation("test.hostile", formula)
    assert caught.value.field == "formula" and caught.value.reason == "INVALID_FORMULA"
    assert len(str(caught.value).encode()) <= 700
    with pytest.raises(InvalidRequest):
        client.create_activation("test.hostile", "x", derivative_formula=formula or "0")


@pytest.mark.parametrize(
    "name",
    ["", ".", "team.", ".swish", "team..swish", "team.1", "team.sw ish", "team.swish\n", "tеam.swish", "a/b.c", "torch:a.b"],
)  # fmt: skip
def test_names_that_may_not_be(name: str, client: Client) -> None:
    with pytest.raises(InvalidRequest) as caught:
        client.create_activation(name, "x")
    assert caught.value.field == "name"
    with pytest.raises((InvalidRequest, UnknownActivation)):
        client.delete_activation(name)


def test_what_a_parameter_means_is_not_cut(client: Client) -> None:
    request = _session_creation("test.long", meaning="m" * 201)
    with pytest.raises(InvalidRequest, match="201 characters, and may have 200"):
        client._unary(_channel.CREATE_ACTIVATION, request, type(request), 300)


def _session_creation(name: str, meaning: str) -> Any:
    from actserve_client._formulas import creation

    request = creation(
        name,
        "k * x",
        parameters={"k": 1.0},
        keywords={},
        bounds=None,
        description="",
        derivative_formula=None,
        replace=False,
        validate_only=False,
    )
    request.parameters[0].meaning = meaning
    return request


def test_a_creation_is_not_asked_for_twice_where_its_answer_was_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []
    with Client("127.0.0.1:1", timeout=10) as client:
        using = client._pool.using
        monkeypatch.setattr(client._pool, "using", lambda: asked.append(1) or using())
        with pytest.raises(ServerUnavailable):
            client.create_activation("team.lost", "x")
        assert len(asked) == 1
        with pytest.raises(ServerUnavailable):
            client.describe("team.lost")
        assert len(asked) > 2


def test_a_private_server_forgets_and_create_says_so(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["create", "team.private", "--formula", "2 * x", "--json"]) == 0
    captured = capsys.readouterr()
    assert json.loads(captured.out)["name"] == "team.private"
    assert "private" in captured.err and "--server" in captured.err
    assert main(["create", "team.private", "--formula", "2 * x", "--validate-only"]) == 0
    assert not capsys.readouterr().err


# ---- the document ----------------------------------------------------------------------------------------------------


def test_the_document_lists_functions_that_there_are(client: Client) -> None:
    (row,) = (line for line in DOCUMENT.splitlines() if line.startswith("| functions |"))
    names = re.findall(r"[a-z]+[a-z0-9]*", " ".join(re.findall(r"`([^`]*)`", row.replace("clip(a, low, high)", ""))))
    assert {"abs", "arctan", "erfc", "log1p", "max"} <= set(names)
    calls = [f"{name}(x, 2)" if name in ("min", "max") else f"{name}(x)" for name in names]
    for formula in (
        # Each is compiled, so several at a time.
        *(" + ".join(calls[first : first + 4]) for first in range(0, len(calls), 4)),
        "clip(x, -1, 1)",
        "pow(x, 2)",
        "x if -1 < x < 1 else pi",
        "where(not x > 0 and x != e or x == 3, x, 0)",
    ):
        assert client.create_activation("test.listed", formula, validate_only=True).name == "test.listed"


def test_the_documents_file_is_one(make_server: MakeServer, tmp_path: Path) -> None:
    (text,) = re.findall(r"```json\n(.*?)```", DOCUMENT, re.DOTALL)
    assert json.loads(Entry.from_json(text).to_json()) == json.loads(text) | {"report": None, "rewrites": []}
    (tmp_path / "team.swish.json").write_text(text)
    with Client(make_server(activations_dir=str(tmp_path)).addresses[0], timeout=300) as client:
        np.testing.assert_allclose(
            client.forward("team.swish", X, beta=2), client.forward("silu", X, beta=2), rtol=1e-14
        )
        assert client.describe("team.swish").report is None
        with pytest.raises(InvalidRequest, match=r"\[0, 10\]"):
            client.forward("team.swish", X, beta=11)
