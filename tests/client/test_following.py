"""`actserve stats --watch` on a server that monitors, and on what is none."""

from __future__ import annotations

import json
import socket
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from actserve_client import Client, cli
from actserve_client.cli.following import parse

MakeServer = Callable[..., Any]


def run(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    status = cli.main(["stats", *arguments])
    return (status, *capsys.readouterr())


def test_the_layers_of_all_monitors(make_server: MakeServer, capsys: pytest.CaptureFixture[str]) -> None:
    server = make_server(metrics_address="127.0.0.1:0")
    at = ("--watch", server.metrics_address, "--count", "2", "--interval", "0.01")
    status, out, _ = run(capsys, *at)
    assert status == 0
    assert out.count(f"nothing is monitored at {server.metrics_address}") == 2
    x = np.array([[0.0, 9.0], [0.0, np.nan]])
    with (
        Client(server.addresses[0], timeout=300) as client,
        client.monitor("relu", threshold=1.0, name="run 7") as monitor,
    ):
        monitor.observe('a "quoted\\ layer', x)
        monitor.report()
        status, out, _ = run(capsys, *at)
        assert status == 0
        assert out.count('a "quoted\\ layer') == out.count("run 7") == 2
        assert "██████······  50.0%" in out
        status, out, _ = run(capsys, *at, "--json")
        first, second = (json.loads(line) for line in out.splitlines())
        assert first == second
        assert first[0]["layer"] == 'a "quoted\\ layer'
        assert {key: first[0][key] for key in ("samples", "dead_ratio", "nan")} == {
            "samples": 2,
            "dead_ratio": 0.5,
            "nan": 1,
        }


def test_numbers_that_are_not_known_and_names_with_signs() -> None:
    text = "\n".join(
        [
            "# HELP actserve_layer_nan x",
            'actserve_layer_nan{stream="10",monitor="",layer="b"} 1e+06',
            r'actserve_layer_nan{stream="9",monitor="m\\n\n\"",layer="x,y=\"z\"} 1"} 0.0',
            'other_nan{stream="1"} 3.0',
        ]
    )
    nine, ten = parse(text)
    assert (nine.stream, nine.monitor, nine.layer, nine.nan) == ("9", 'm\\n\n"', 'x,y="z"} 1', 0)
    assert (ten.stream, ten.nan, ten.dead_ratio, ten.samples) == ("10", 1_000_000, None, None)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ((), "NAME and IN.npy, or --watch"),
        (("relu",), "NAME and IN.npy, or --watch"),
        (("relu", "x.npy", "--interval", "1"), "--interval goes with --watch"),
        (("relu", "x.npy", "--count", "1"), "--count goes with --watch"),
        (("relu", "--watch", "h:1"), "takes no NAME"),
        (("--watch", "nonsense"), "'nonsense', and must be the HOST:PORT"),
        (("--watch", "h:1", "--interval", "0"), "--interval is 0"),
        (("--watch", "h:1", "--interval", "nan"), "--interval is nan"),
        (("--watch", "h:1", "--count", "0"), "--count is 0"),
    ],
)
def test_mistakes(capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...], words: str) -> None:
    status, out, error = run(capsys, *arguments)
    assert (status, out) == (2, "")
    assert words in error
    assert error.count("\n") == 1


def test_no_server_there(capsys: pytest.CaptureFixture[str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    status, _, error = run(capsys, "--watch", f"127.0.0.1:{port}", "--count", "1")
    assert status == 1
    assert f"no metrics at 127.0.0.1:{port}" in error
