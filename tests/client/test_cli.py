"""The command line, through `main`, against the shared server."""

from __future__ import annotations

import errno
import io
import json
import os
import re
import shlex
import socket
import subprocess
import sys
from concurrent import futures
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import psutil
import pytest
from actserve.v1 import compute_pb2
from actserve_client import Client, merge
from actserve_client.cli import main
from google.protobuf import json_format

X = np.linspace(-3, 3, 12, dtype=np.float32).reshape(3, 4)


@pytest.fixture
def x_file(tmp_path: Path) -> str:
    np.save(tmp_path / "x.npy", X)
    return str(tmp_path / "x.npy")


@pytest.fixture
def run(address: str, capsys: pytest.CaptureFixture[str]) -> Any:
    def call(*arguments: str, status: int = 0) -> str:
        assert main([*arguments, "--server", address]) == status
        captured = capsys.readouterr()
        return captured.err if status else captured.out

    return call


@pytest.mark.parametrize("order", ["C", "F"])
def test_apply(run: Any, client: Client, tmp_path: Path, order: Any) -> None:
    np.save(tmp_path / "x.npy", np.asarray(X, order=order))
    x, out = str(tmp_path / "x.npy"), str(tmp_path / "y.npy")
    run("apply", "leaky_relu", x, out, "--param", "alpha=0.5")
    np.testing.assert_array_equal(np.load(out), client.forward("leaky_relu", X, alpha=0.5))
    run("apply", "softmax", x, out, "--axis", "0")
    np.testing.assert_array_equal(np.load(out), client.forward("softmax", X, axis=0))
    run("apply", "tanh", x, out, "--mode", "derivative", "--upstream", x)
    np.testing.assert_array_equal(np.load(out), client.derivative("tanh", X, upstream=X))
    run("apply", "softmax", x, out, "--mode", "derivative", "--jacobian", "full")
    np.testing.assert_array_equal(np.load(out), client.derivative("softmax", X, jacobian="full"))


def test_apply_takes_parameters_of_every_kind(run: Any, client: Client, x_file: str, tmp_path: Path) -> None:
    slopes, out = np.array([0.1, 0.2, 0.3, 0.4]), tmp_path / "y.npy"
    np.save(tmp_path / "slope.npy", slopes)
    run("apply", "prelu", x_file, str(out), "--param", f"slope=@{tmp_path / 'slope.npy'}")
    np.testing.assert_array_equal(np.load(out), client.forward("prelu", X, slope=slopes))
    run("apply", "rrelu", x_file, str(out), "--param", "training=true", "--param", f"seed={2**63 - 1}")
    np.testing.assert_array_equal(np.load(out), client.forward("rrelu", X, training=True, seed=2**63 - 1))
    run("apply", "softmax", x_file, str(out), "--param", "all_masked=nan", "--param", "temperature=2")
    np.testing.assert_array_equal(np.load(out), client.forward("softmax", X, temperature=2.0))
    run("apply", "softplus", x_file, str(out), "--param", "threshold=inf")
    np.testing.assert_array_equal(np.load(out), client.forward("softplus", X))
    assert "No such file" in run("apply", "prelu", x_file, str(out), "--param", "slope=@none.npy", status=1)


def test_apply_takes_options_and_other_shapes(run: Any, client: Client, x_file: str, tmp_path: Path) -> None:
    out = str(tmp_path / "y.npy")
    run("apply", "leaky_relu", x_file, out, "--preset", "keras", "--accuracy", "fast")
    np.testing.assert_array_equal(np.load(out), client.forward("leaky_relu", X, negative_slope=0.2, accuracy="fast"))
    run("apply", "crelu", x_file, out)
    np.testing.assert_array_equal(np.load(out), client.forward("crelu", X))
    run("apply", "crelu", x_file, str(tmp_path / "d.npy"), "--mode", "derivative", "--upstream", out)
    np.testing.assert_array_equal(
        np.load(tmp_path / "d.npy"), client.derivative("crelu", X, upstream=client.forward("crelu", X))
    )
    penalty = run("penalty", "leaky_relu", x_file, "--preset", "keras", "--gradient", out)
    assert float(penalty) == client.regularization("leaky_relu", X, preset="keras").penalty
    assert np.load(out).shape == X.shape
    assert json.loads(run("stats", "leaky_relu", x_file, "--preset", "keras", "--nonfinite", "reject", "--json"))


def test_what_is_not_finite_is_told_or_refused(
    run: Any, address: str, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    x, out = str(tmp_path / "x.npy"), str(tmp_path / "y.npy")
    np.save(x, np.array([1, np.nan, -np.inf, np.nan]))
    assert main(["apply", "relu", x, out, "--server", address]) == 0
    assert capsys.readouterr().err == "actserve: not finite: 2 NaN, 1 -inf in the input; 2 NaN in the result\n"
    for command in (("apply", "relu", x, out), ("penalty", "relu", x), ("stats", "relu", x)):
        assert "element 1 of x is nan" in run(*command, "--nonfinite", "reject", status=1)


def test_bfloat16_loads_back_the_way_it_was_written(run: Any, client: Client, tmp_path: Path) -> None:
    x = X.astype(ml_dtypes.bfloat16)
    source, out = str(tmp_path / "x.npy"), str(tmp_path / "y.npy")
    np.save(source, x)
    assert "--dtype bfloat16" in run("apply", "gelu", source, out, status=1)
    run("apply", "gelu", source, out, "--dtype", "bfloat16")
    assert np.load(out).dtype == np.load(source).dtype
    np.testing.assert_array_equal(np.load(out).view(ml_dtypes.bfloat16), client.forward("gelu", x))
    options = ("--mode", "derivative", "--upstream", source, "--dtype", "bfloat16")
    run("apply", "gelu", source, out, *options)
    np.testing.assert_array_equal(np.load(out).view(ml_dtypes.bfloat16), client.derivative("gelu", x, upstream=x))
    assert float(run("penalty", "relu", source, "--dtype", "bfloat16")) == client.regularization("relu", x).penalty
    np.save(source, X)
    assert "holds float32" in run("apply", "gelu", source, out, "--dtype", "bfloat16", status=1)
    np.save(source, X.astype(np.float16))
    run("apply", "gelu", source, out)
    assert np.load(out).dtype == np.float16


def test_a_failure_is_one_line_and_leaves_the_old_file(run: Any, x_file: str, tmp_path: Path) -> None:
    out = tmp_path / "y.npy"
    out.write_text("before")
    np.save(tmp_path / "ints.npy", np.arange(3))
    (tmp_path / "bad.npy").write_text("no array")
    for arguments, text in (
        (("apply", "sigmod", x_file, str(out)), "did you mean sigmoid"),
        (("apply", "relu", str(tmp_path / "none.npy"), str(out)), "No such file"),
        (("apply", "relu", str(tmp_path / "bad.npy"), str(out)), "no .npy file"),
        (("apply", "relu", str(tmp_path / "ints.npy"), str(out)), "int64"),
        (("apply", "softmax", x_file, str(out), "--mode", "derivative"), "jacobian"),
    ):
        message = run(*arguments, status=1)
        assert text in message
        assert message.startswith("actserve: ")
        assert len(message.splitlines()) == 1
    assert out.read_text() == "before"
    assert {path.name for path in tmp_path.iterdir()} == {"x.npy", "y.npy", "ints.npy", "bad.npy"}
    with pytest.raises(SystemExit) as caught:
        main(["apply"])
    assert caught.value.code == 2


def test_arguments_that_do_not_go_together_are_wrong_usage(run: Any, x_file: str, tmp_path: Path) -> None:
    for arguments, text in (
        (("apply", "relu", x_file, str(tmp_path / "y.npy"), "--upstream", x_file), "--mode derivative"),
        (("plot", "relu", "--output", str(tmp_path / "p.png"), "--range", "3", "-3"), "range"),
        (("stats", "relu", x_file, "--interval", "3"), "--watch"),
    ):
        message = run(*arguments, status=2)
        assert text in message
        assert message.startswith("actserve: ")
        assert len(message.splitlines()) == 1
    assert [path.name for path in tmp_path.iterdir()] == ["x.npy"]


def test_penalty_and_stats(run: Any, client: Client, x_file: str, tmp_path: Path) -> None:
    expected = client.regularization("relu", X, strength=0.5, reduction="mean", gradient=True)
    options = ("--strength", "0.5", "--reduction", "mean", "--gradient", str(tmp_path / "g.npy"))
    assert float(run("penalty", "relu", x_file, *options)) == expected.penalty
    np.testing.assert_array_equal(np.load(tmp_path / "g.npy"), expected.gradient)
    answer = json.loads(run("stats", "relu", x_file, "--threshold", "0.5", "--json"))
    stats = client.neuron_stats("relu", X, threshold=0.5)
    assert answer["dead_fraction"] == stats.dead_fraction
    assert answer["inactive_fraction"] == stats.inactive_fraction.tolist()
    assert "dead (inactive fraction >= 0.1)" in run("stats", "relu", x_file)


def test_every_regularizer_and_its_options(run: Any, client: Client, x_file: str, tmp_path: Path) -> None:
    expected = client.regularization("sigmoid", X, "kl_sparsity", rho=0.25, gradient=True)
    state, gradient = tmp_path / "state", tmp_path / "g.npy"
    call = ("penalty", "sigmoid", x_file, "--regularizer", "kl_sparsity", "--option", "rho=0.25")
    assert float(run(*call, "--save-state", str(state))) == expected.penalty
    assert state.read_bytes() == expected.state
    again = json.loads(run(*call, "--state", str(state), "--gradient", str(gradient), "--json"))
    assert again == {"penalty": expected.penalty, "regularizer": "kl_sparsity", "strength": 0.01}
    np.testing.assert_array_equal(np.load(gradient), expected.gradient)
    of_input = float(run("penalty", "relu", x_file, "--regularizer", "l1", "--of", "input"))
    assert of_input == client.regularization("relu", X, "l1", of="input").penalty
    weights = json.loads(run("penalty", "relu", x_file, "--regularizer", "l1l2", "--option", "l1=0.5", "--json"))
    assert weights["strength"] == 1


def test_an_option_of_another_regularizer_is_refused(
    address: str, x_file: str, capsys: pytest.CaptureFixture[str]
) -> None:
    options = ("--server", address, "--regularizer", "lp", "--option", "rho=1")
    assert main(["penalty", "relu", x_file, *options]) == 2
    assert capsys.readouterr().err == "actserve: --option rho: lp has no such parameter (it takes: p)\n"


def test_stats_of_every_kind(run: Any, client: Client, tmp_path: Path) -> None:
    x = np.random.default_rng(0).normal(0, 3, (200, 3, 4)).astype(np.float32)
    x[:, 1, 2] = -1
    x[5, 0, 0] = np.nan
    np.save(tmp_path / "x.npy", x)
    file, state, plot = (str(tmp_path / name) for name in ("x.npy", "x.state", "x.png"))
    options = ("--neuron-axis", "1", "--neuron-axis", "-1", "--fired", "abs>0.5", "--tau", "0.1", "--threshold", "0.9")
    more = ("--dead-after-samples", "50", "--first-sample", "7", "--histogram", "layer")
    answer = json.loads(run("stats", "relu", file, *options, *more, "--json", "--state", state, "--plot", plot))
    stats = client.neuron_stats(
        "relu", x, neuron_axis=(1, -1), fired="abs>0.5", tau=0.1, threshold=0.9, dead_after_samples=50, first_sample=7,
        histogram="layer",
    )  # fmt: skip
    assert Path(state).read_bytes() == stats.state
    assert merge([Path(state).read_bytes()]) == stats
    assert Path(plot).read_bytes().startswith(b"\x89PNG")
    assert answer["shape"] == [3, 4]
    assert answer["dead"] == answer["never_fired"] == answer["dormant"] == [6]
    assert answer["mean"] == stats.mean.tolist()
    assert answer["layer"]["variance"] == stats.layer.variance
    assert answer["quantiles"]["0.5"] == stats.quantile(0.5)
    text = run("stats", "relu", file, *options, *more, "--top", "2", "--plot", plot)
    assert "the 2 least active neurons" in text
    assert re.search(r"1, 2 +100.0% +█{20} +never +0 ", text)
    assert "not fired in the last 50 samples" in text
    # The title is as long as the path, and may be broken anywhere.
    assert "a neuron fires when |a| > 0.5" in " ".join(text.split())
    after = json.loads(run("stats", "gelu", file, "--post", "--no-sums", "--json"))
    assert after["layer"]["saturated_fraction"] is None
    assert after["mean"] == [None] * 4
    assert run("stats", "relu", file, "--post", "--no-sums", "--top", "0").count("unknown") == 2
    assert "--top is -1" in run("stats", "relu", file, "--top", "-1", status=2)
    assert "fired is 'often'" in run("stats", "relu", file, "--fired", "often", status=1)


def test_stats_of_no_neurons_and_of_no_samples(run: Any, tmp_path: Path) -> None:
    for shape in ((3, 0), (0, 3)):
        np.save(tmp_path / "x.npy", np.zeros(shape))
        assert "neurons" in run("stats", "relu", str(tmp_path / "x.npy"), "--plot", str(tmp_path / "x.png"))
        assert json.loads(run("stats", "relu", str(tmp_path / "x.npy"), "--json"))["dead_fraction"] == 0


def test_the_catalogue(run: Any, client: Client) -> None:
    names = [record["name"] for record in json.loads(run("list", "--json"))]
    assert names == [record.name for record in client.activations()]
    listed = run("list")
    assert all(name in listed for name in names)
    assert json.loads(run("describe", "swish", "--json"))["name"] == "silu"
    assert "negative_slope" in run("describe", "leaky_relu")
    assert "negative_slope=0.2" in run("describe", "keras:leaky_relu")
    assert "must be given" in " ".join(run("describe", "maxout").split())
    assert "a seed is given when training is true" in " ".join(run("describe", "rrelu").split())
    assert "resizing" in listed
    assert run("health") == "serving\n"


def test_plot(run: Any, tmp_path: Path) -> None:
    run("plot", "relu", "gelu", "softmax", "crelu", "--output", str(tmp_path / "p.png"))
    assert (tmp_path / "p.png").read_bytes().startswith(b"\x89PNG")
    options = ("--preset", "keras", "--accuracy", "fast", "--param", "negative_slope=1")
    run("plot", "leaky_relu", "--output", str(tmp_path / "q.png"), *options)
    assert (tmp_path / "q.png").read_bytes().startswith(b"\x89PNG")


def test_plot_of_every_gated_unit(run: Any, client: Client, tmp_path: Path) -> None:
    if names := [record.name for record in client.activations() if record.kind == "gated"]:
        run("plot", *names, "--output", str(tmp_path / "p.png"))


def test_health_without_a_server(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["health", "--server", "127.0.0.1:1", "--timeout", "2"]) == 1
    assert capsys.readouterr().out == "not serving\n"


def test_demo(run: Any, tmp_path: Path) -> None:
    answer = json.loads(run("demo", "--epochs", "3", "--output", str(tmp_path / "demo.png"), "--json"))
    assert [epoch["number"] for epoch in answer["epochs"]] == [1, 2, 3]
    assert answer["epochs"][-1]["loss"] < answer["epochs"][0]["loss"]
    assert answer["epochs"][-1]["accuracy"] > 0.8
    assert (tmp_path / "demo.png").stat().st_size > 20_000


def test_a_large_file_takes_constant_memory(run: Any, tmp_path: Path) -> None:
    large = np.lib.format.open_memmap(tmp_path / "x.npy", mode="w+", dtype=np.float32, shape=(96 << 20,))
    large[-3:] = [-1, 2, 3]
    del large
    before, peaks = psutil.Process().memory_info().rss, []
    from actserve_client.cli import files

    original = files.releaser

    def watching(*arrays: Any) -> Any:
        release = original(*arrays)

        def follow() -> None:
            release()
            peaks.append(psutil.Process().memory_info().rss)

        return follow

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(files, "releaser", watching)
        run("apply", "relu", str(tmp_path / "x.npy"), str(tmp_path / "y.npy"))
    # Client and server are one process here: 384 MB in, 384 MB out.
    assert max(peaks) - before < 250e6
    assert np.load(tmp_path / "y.npy", mmap_mode="r")[-3:].tolist() == [0, 2, 3]


def test_the_readmes_call_from_another_language(client: Client) -> None:
    readme = (Path(__file__).resolve().parents[2] / "README.md").read_text()
    (body,) = re.findall(r"grpcurl -plaintext -d '(.*?)'", readme, re.DOTALL)
    request = json_format.Parse(body, compute_pb2.ComputeRequest())
    call: Any = client._pool.pick().channel.unary_stream("/actserve.v1.ActivationService/Compute")
    answers = [compute_pb2.ComputeResponse.FromString(raw) for raw in call(request.SerializeToString())]
    got = np.frombuffer(b"".join(answer.data for answer in answers), np.float32)
    np.testing.assert_array_equal(got, client.forward("sigmoid", np.array([0, 1], np.float32)))


def test_apply_writes_to_a_pipe_and_leaves_it_there(run: Any, client: Client, x_file: str, tmp_path: Path) -> None:
    pipe = tmp_path / "pipe.npy"
    os.mkfifo(pipe)
    with futures.ThreadPoolExecutor(1) as pool:
        read = pool.submit(pipe.read_bytes)
        run("apply", "gelu", x_file, str(pipe))
        np.testing.assert_array_equal(np.load(io.BytesIO(read.result())), client.forward("gelu", X))
    assert pipe.is_fifo()


def test_apply_leaves_links_and_permissions_as_they_are(run: Any, client: Client, x_file: str, tmp_path: Path) -> None:
    target, link = tmp_path / "target.npy", tmp_path / "link.npy"
    target.touch(mode=0o600)
    link.symlink_to(target)
    run("apply", "gelu", x_file, str(link))
    assert link.is_symlink()
    assert target.stat().st_mode & 0o777 == 0o600
    np.testing.assert_array_equal(np.load(target), client.forward("gelu", X))


def test_where_nothing_can_be_written_is_named(run: Any, x_file: str, tmp_path: Path) -> None:
    nowhere = str(tmp_path / "none" / "y.npy")
    for arguments in (("apply", "relu", x_file, nowhere), ("penalty", "relu", x_file, "--gradient", nowhere)):
        assert run(*arguments, status=1) == f"actserve: {nowhere}: No such file or directory\n"
    assert run("apply", "relu", x_file, str(tmp_path), status=1) == f"actserve: {tmp_path}: Is a directory\n"
    missing = str(tmp_path / "missing.npy")
    assert run("apply", "relu", missing, nowhere, status=1) == f"actserve: {missing}: No such file or directory\n"


@pytest.mark.skipif(not hasattr(os, "posix_fallocate"), reason="the system cannot reserve room")
def test_a_full_disk_is_an_error_and_leaves_what_was_there(
    run: Any, x_file: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "y.npy").write_bytes(b"before")
    asked = []

    def full(descriptor: int, offset: int, length: int) -> None:
        asked.append((os.fstat(descriptor).st_size, offset, length))
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "posix_fallocate", full)
    text = run("apply", "relu", x_file, str(tmp_path / "y.npy"), status=1)
    assert text == f"actserve: {tmp_path / 'y.npy'}: No space left on device\n"
    # All of the file, before anything is written to its pages.
    size = 128 + X.nbytes
    assert asked == [(size, 0, size)]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["x.npy", "y.npy"]
    assert (tmp_path / "y.npy").read_bytes() == b"before"


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="there is no /dev/full")
@pytest.mark.parametrize("command", [("apply", "relu", "{}", "/dev/full"), ("apply", "relu", "{}", "-"), ("list",)])
def test_an_output_that_takes_nothing(address: str, x_file: str, command: tuple[str, ...]) -> None:
    arguments = [part.format(x_file) for part in command]
    with open("/dev/full", "wb") as full:
        done = subprocess.run(
            [sys.executable, "-m", "actserve_client.cli", *arguments, "--server", address],
            stdout=full, stderr=subprocess.PIPE, text=True, check=False,
        )  # fmt: skip
    assert done.returncode == 1
    assert done.stderr.endswith("No space left on device\n")
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize("closed", [">&-", "2>&-", ">&- 2>&-"])
def test_streams_that_the_shell_closed(address: str, closed: str) -> None:
    command = f"{shlex.quote(sys.executable)} -m actserve_client.cli describe relu --server {shlex.quote(address)}"
    done = subprocess.run(["/bin/sh", "-c", f"{command} {closed}"], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


def test_a_reader_that_has_seen_enough(address: str) -> None:
    command = f"{shlex.quote(sys.executable)} -m actserve_client.cli list --json --server {shlex.quote(address)}"
    done = subprocess.run(["/bin/sh", "-c", f"{command} | head -n 1"], capture_output=True, text=True, check=False)
    assert (done.stdout, done.stderr) == ("[\n", "")


def test_the_standard_input_is_named(address: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "actserve_client.cli", "apply", "relu", "-", "-", "--server", address],
        input=b"", capture_output=True, check=False,
    )  # fmt: skip
    assert done.returncode == 1
    assert done.stderr.startswith(b"actserve: the standard input is no .npy file")


@pytest.mark.parametrize(
    "arguments", [("plot", "relu", "--output"), ("stats", "relu", "x.npy", "--plot"), ("demo", "--output")]
)
def test_a_picture_of_a_kind_that_is_not_drawn(address: str, capsys: Any, arguments: tuple[str, ...]) -> None:
    with pytest.raises(SystemExit) as caught:
        main([*arguments, "curve.jpeg", "--server", address])
    assert caught.value.code == 2
    assert "'curve.jpeg' must end in one of .png, .svg, .pdf" in capsys.readouterr().err


def test_plot_draws_what_the_name_ends_in(run: Any, tmp_path: Path) -> None:
    for suffix, begin in ((".png", b"\x89PNG"), (".svg", b"<?xml"), (".pdf", b"%PDF")):
        run("plot", "relu", "--output", str(tmp_path / f"curve{suffix}"))
        assert (tmp_path / f"curve{suffix}").read_bytes().startswith(begin)


def test_watching_what_speaks_no_http(run: Any) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server, futures.ThreadPoolExecutor(1) as pool:

        def answer() -> None:
            connection, _ = server.accept()
            with connection:
                connection.recv(1024)
                connection.sendall(b"\x00\x00\x06\x04\x00\r\n\r\n")

        answering = pool.submit(answer)
        place = f"127.0.0.1:{server.getsockname()[1]}"
        text = run("stats", "--watch", place, "--count", "1", status=1)
        answering.result()
    assert (
        text == f"actserve: no metrics at {place}: what answers speaks no HTTP; is it a server's --metrics-address?\n"
    )
