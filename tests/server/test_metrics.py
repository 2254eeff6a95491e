"""The gauges of monitored layers, read as Prometheus reads them, beside what the monitor itself says."""

from __future__ import annotations

import socket
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
from actserve_client import Client
from actserve_server.config import Config, ConfigError
from prometheus_client.parser import text_string_to_metric_families

MakeServer = Callable[..., Any]
Gauges = dict[tuple[str, str], float]


def gauges(address: str) -> Gauges:
    with urllib.request.urlopen(f"http://{address}/metrics", timeout=30) as answer:
        text = answer.read().decode()
    samples = [sample for family in text_string_to_metric_families(text) for sample in family.samples]
    assert len({(s.name, *sorted(s.labels.items())) for s in samples}) == len(samples)
    return {
        (s.name.removeprefix("actserve_layer_"), f"{s.labels['monitor']}/{s.labels['layer']}"): s.value for s in samples
    }


def until(condition: Callable[[], bool]) -> None:
    """The server notices that a stream has ended a moment after its client."""
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_gauges_come_and_go_with_their_streams(make_server: MakeServer) -> None:
    server = make_server(metrics_address="127.0.0.1:0")
    x = np.array([[0.0, 9.0, 1.0, np.nan], [0.0, 9.0, 2.0, -1.0]])
    with Client(server.addresses[0], timeout=300) as client:
        assert gauges(server.metrics_address) == {}
        with (
            client.monitor("tanh", input="pre", threshold=1.0, name="run 7") as one,
            client.monitor(sums=False) as other,
        ):
            one.observe('a"b\\c', x)
            other.observe("plain", x)
            one.report(), other.report()
            found = gauges(server.metrics_address)
            assert found == {
                ("dead_ratio", 'run 7/a"b\\c'): 0.25,
                ("dormant_ratio", 'run 7/a"b\\c'): 0.25,
                ("saturated_ratio", 'run 7/a"b\\c'): 0.25,
                ("nan", 'run 7/a"b\\c'): 1.0,
                ("samples", 'run 7/a"b\\c'): 2.0,
                ("dead_ratio", "/plain"): 0.5,
                ("saturated_ratio", "/plain"): 0.0,
                ("nan", "/plain"): 1.0,
                ("samples", "/plain"): 2.0,
            }
            one.observe('a"b\\c', x)
            one.report()
            assert gauges(server.metrics_address)["samples", 'run 7/a"b\\c'] == 4
        until(lambda: gauges(server.metrics_address) == {})


def test_health_is_told_over_http_too(make_server: MakeServer) -> None:
    def told(address: str) -> tuple[int, bytes]:
        try:
            with urllib.request.urlopen(f"http://{address}/health", timeout=30) as answer:
                return answer.status, answer.read()
        except urllib.error.HTTPError as error:
            with error:
                return error.code, error.read()

    server = make_server(metrics_address="127.0.0.1:0", grace_s=300.0)
    assert told(server.metrics_address) == (200, b"serving\n")
    more = threading.Event()

    def blocks() -> Iterator[Any]:
        yield np.ones(3)
        assert more.wait(120)
        yield np.ones(3)

    with Client(server.addresses[0], timeout=300) as client:
        stream = client.stream("relu", blocks())
        next(stream)
        stopper = threading.Thread(target=server.stop)
        stopper.start()
        # What runs holds up the drain, and meanwhile it serves no more.
        until(lambda: told(server.metrics_address) == (503, b"not serving\n"))
        more.set()
        assert len(list(stream)) == 1
        stopper.join(120)
        assert not stopper.is_alive()


def test_the_port_is_free_again(make_server: MakeServer) -> None:
    server = make_server(metrics_address="127.0.0.1:0")
    address = server.metrics_address
    server.stop()
    again = make_server(metrics_address=address)
    assert gauges(again.metrics_address) == {}


def test_there_are_none_unless_they_are_wanted(make_server: MakeServer) -> None:
    assert make_server().metrics_address == ""


def test_addresses_that_are_none(make_server: MakeServer) -> None:
    with pytest.raises(ConfigError, match="--metrics-address: 'unix:/x' is not HOST:PORT"):
        Config(metrics_address="unix:/x")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(ConfigError, match=f"--metrics-address: can't listen on 127.0.0.1:{port}"):
            make_server(metrics_address=f"127.0.0.1:{port}")
