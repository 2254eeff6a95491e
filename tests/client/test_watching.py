"""A watch, which is a monitor behind a bounded queue: what it takes, what it drops, and whom it never disturbs."""

from __future__ import annotations

import logging
import subprocess
import sys
import threading
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from actserve_client import Client, InvalidRequest, ServerUnavailable
from actserve_client.watching import Watch

X = np.random.default_rng(0).standard_normal((20, 5)).astype(np.float32)


def test_all_that_is_observed_is_in_the_report(client: Client) -> None:
    with Watch(client, "relu", queue=1000) as watch:
        watch.layer("b", "tanh")
        for row in X:
            batch = row[np.newaxis].copy()
            assert watch.observe("a", batch)
            batch[:] = np.nan
        watch.observe("b", X)
        report = watch.report()
    assert report["a"].state == client.neuron_stats("relu", X, input="post").state
    assert report["b"].state == client.neuron_stats("tanh", X, input="post").state
    assert (watch.taken, watch.dropped, str(watch)) == (21, 0, "21 batches of 2 layers taken, 0 dropped")


def test_every_so_many_of_each_layer(client: Client) -> None:
    with Watch(client, every=3) as watch:
        taken = [[watch.observe(layer, X) for layer in "ab"] for _ in range(7)]
        assert watch.report()["b"].samples[0] == 60
    assert taken == [[step % 3 == 0] * 2 for step in range(7)]
    assert watch.dropped == 0


def test_a_full_queue_drops_counts_and_says_so(client: Client, caplog: pytest.LogCaptureFixture) -> None:
    held, entered = threading.Event(), threading.Event()

    def slow() -> Any:
        entered.set()
        held.wait(60)
        return X

    with caplog.at_level(logging.WARNING, "actserve.watch"):
        with Watch(client, queue=2) as watch:
            # The function that is given runs in the watch's own thread.
            assert watch.offer("a", lambda: slow)
            assert entered.wait(60)
            assert [watch.observe("a", X) for _ in range(5)] == [True, True, False, False, False]
            assert watch.observe("b", X) is False
            held.set()
            assert watch.report()["a"].samples[0] == 60
            assert (watch.dropped, watch.dropped_by_layer) == (4, {"a": 3, "b": 1})
        assert "4 dropped" in caplog.text


def test_waiting_for_room_as_long_as_stated(client: Client) -> None:
    with Watch(client, queue=1, wait_s=60) as watch:
        assert all(watch.observe("a", X) for _ in range(50))
        assert watch.report()["a"].samples[0] == 1000


def test_an_error_shows_in_the_report_and_nowhere_else(client: Client) -> None:
    watch = Watch(client)
    watch.observe("a", X)
    watch.report()
    watch.observe("a", X[:, :3])
    with pytest.raises(InvalidRequest, match="width 3, and the ones before it 5"):
        watch.report()
    assert watch.observe("a", X) is False
    assert watch.dropped == 1
    with pytest.raises(InvalidRequest, match="width 3"):
        watch.close()
    watch.close()
    assert watch.observe("a", X) is False


def test_an_array_of_another_type_is_refused_where_it_is_sent(client: Client) -> None:
    watch = Watch(client)
    assert watch.observe("a", np.arange(5))
    with pytest.raises(InvalidRequest, match="x is an array of int64"):
        watch.report()
    with pytest.raises(InvalidRequest):
        watch.close()


def test_an_error_of_the_copy(client: Client) -> None:
    watch = Watch(client)
    assert watch.offer("a", lambda: 1 / 0) is False  # type: ignore[arg-type, return-value]
    with pytest.raises(ZeroDivisionError):
        watch.report()
    with pytest.raises(ZeroDivisionError):
        watch.close()


def test_a_lost_server_does_not_disturb(make_server: Callable[..., Any]) -> None:
    server = make_server()
    with Client(server.addresses[0]) as client:
        watch = Watch(client, reconnect_s=0)
        watch.observe("a", X)
        watch.report()
        server.stop()
        with pytest.raises(ServerUnavailable):
            watch.report()
        for _ in range(100):
            watch.observe("a", X)
        with pytest.raises(ServerUnavailable):
            watch.close()


def test_an_error_of_the_caller_is_not_replaced(client: Client) -> None:
    watch = Watch(client)
    watch.observe("a", X)
    watch.__exit__(KeyError, KeyError(), None)
    assert not watch._thread.is_alive()


@pytest.mark.parametrize(
    ("options", "field"),
    [({"every": 0}, "every"), ({"queue": 0}, "queue"), ({"wait_s": -1.0}, "wait_s"), ({"every": "x"}, "every")],
)
def test_mistakes(client: Client, options: dict[str, Any], field: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        Watch(client, **options)
    assert caught.value.field == field


def test_the_client_loads_no_framework() -> None:
    code = "import sys, actserve_client, actserve_client.watching; print(*sys.modules, sep='\\n')"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    heavy = {
        "torch",
        "keras",
        "tensorflow",
        "jax",
        "rich",
        "matplotlib",
        "numba",
        "prometheus_client",
        "actserve_server",
    }
    assert not heavy & set(loaded)
