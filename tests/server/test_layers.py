"""A monitored layer is asked by two threads: the stream that fills it, and whoever scrapes its figures."""

from __future__ import annotations

import threading
from typing import Any

import numpy as np
import pytest
from actserve.stats import NeuronStats
from actserve_server.engine.inlets import Chunk
from actserve_server.engine.layers import Layer, Thresholds
from actserve_server.engine.plan import Job, Limits
from actserve_server.modes.base import Tensor
from actserve_server.modes.neuron_stats import NeuronStatistics
from actserve_server.modes.neuron_tally import NeuronTally

LIMITS = Limits(1 << 20, 1 << 21, 1 << 30, 1 << 26, 1 << 24, 8)
X = np.random.default_rng(0).standard_normal((50, 8)).astype(np.float32)


def filled() -> Layer:
    mode = NeuronStatistics({"input": "post"})
    job = Job(activation="identity", mode=mode, parameters={}, inputs=(Tensor("x", X.dtype, ()),))
    layer = Layer(job, LIMITS, thresholds=Thresholds({"nan_count": 1.0}))
    layer.take(layer.check(X.shape), [Chunk(0, 0, memoryview(X).cast("B"))])
    return layer


def test_states_are_taken_one_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """Taking one passes on carries within the tally; two at once would add them twice."""
    layer, inside, most = filled(), [0], [0]
    waiting = threading.Event()
    take = NeuronTally.state

    def slow(self: NeuronTally, *arguments: Any) -> NeuronStats:
        inside[0] += 1
        most[0] = max(most[0], inside[0])
        waiting.wait(0.2)
        try:
            return take(self, *arguments)
        finally:
            inside[0] -= 1

    monkeypatch.setattr(NeuronTally, "state", slow)
    threads = [threading.Thread(target=ask) for ask in (layer.figures, layer.snapshot, lambda: list(layer.alerts()))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most == [1]
