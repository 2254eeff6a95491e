"""The gauges of the layers that are monitored, for Prometheus, and whether the server serves: an HTTP endpoint of the server's own, off
unless it is given an address.

Gauges are made when they are asked for, from the layers of the streams that are open: a stream that ends takes its own along.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from socketserver import ThreadingMixIn
from typing import TYPE_CHECKING, Any, Protocol
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server

from prometheus_client import CollectorRegistry, make_wsgi_app
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from actserve_server.config import ConfigError
from actserve_server.watched import Watched

if TYPE_CHECKING:
    from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

log = logging.getLogger("actserve.server")

_HEALTH_PATH = "/health"
_LABELS = ("stream", "monitor", "layer")
_GAUGES = {
    "dead_fraction": ("actserve_layer_dead_ratio", "Share of the layer's neurons that are dead."),
    "dormant_fraction": ("actserve_layer_dormant_ratio", "Share of the layer's neurons that are dormant."),
    "saturated_fraction": ("actserve_layer_saturated_ratio", "Share of the layer's activations that are saturated."),
    "nan_count": ("actserve_layer_nan", "How many of the layer's activations were NaN."),
    "samples": ("actserve_layer_samples", "How many samples the layer has seen."),
}
"""Gauges by the figures of a layer."""


class Layers(Collector):
    """The gauges of all layers there are."""

    def __init__(self, watched: Callable[[], Sequence[Watched]]) -> None:
        self._watched = watched

    def describe(self) -> Iterable[GaugeMetricFamily]:
        """The gauges without values, so that registering asks for none."""
        return [GaugeMetricFamily(name, text, labels=_LABELS) for name, text in _GAUGES.values()]

    def collect(self) -> Iterator[GaugeMetricFamily]:
        """The gauges as they are now. A figure that is not known is left out."""
        found = [(layer, layer.figures()) for layer in self._watched()]
        for figure, (name, text) in _GAUGES.items():
            family = GaugeMetricFamily(name, text, labels=_LABELS)
            for layer, figures in found:
                value = figures.get(figure)
                if value is not None and value == value:
                    family.add_metric([str(layer.stream), layer.monitor, layer.layer], value)
            yield family


class Worker(Protocol):
    """What is told of a worker."""

    @property
    def index(self) -> int:
        """Its number."""

    @property
    def up(self) -> bool:
        """Whether it serves."""

    @property
    def restarts(self) -> int:
        """How often another took its place."""

    @property
    def started(self) -> float:
        """When it was started, in seconds since 1970."""


class Workers(Collector):
    """The gauges of the workers that a supervisor has."""

    def __init__(self, states: Callable[[], Sequence[Worker]]) -> None:
        self._states = states

    def describe(self) -> Iterable[Metric]:
        """The gauges without values, so that registering asks for none."""
        return [
            GaugeMetricFamily("actserve_worker_up", "Whether the worker serves.", labels=("worker",)),
            CounterMetricFamily("actserve_worker_restarts", "How often another took its place.", labels=("worker",)),
            GaugeMetricFamily("actserve_worker_start_time_seconds", "When it was started.", labels=("worker",)),
        ]

    def collect(self) -> Iterator[Metric]:
        """The gauges as they are now."""
        up, restarts, started = self.describe()
        for worker in self._states():
            label = [str(worker.index)]
            up.add_metric(label, float(worker.up))  # type: ignore[attr-defined]  # what `describe` made
            restarts.add_metric(label, worker.restarts)  # type: ignore[attr-defined]
            started.add_metric(label, worker.started)  # type: ignore[attr-defined]
        yield from (up, restarts, started)


class _Quiet(WSGIRequestHandler):
    """Logs requests with the server's own log, at DEBUG, as machinery makes them over and over."""

    timeout = 10
    """Seconds in which a request must come: one that does not must not keep a thread."""

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002  # the name in the base class
        log.debug("metrics: " + format, *args)


class _Threading(ThreadingMixIn, WSGIServer):
    daemon_threads = True


def _with_health(gauges: WSGIApplication, serving: Callable[[], bool]) -> WSGIApplication:
    """The gauges, and at /health, for who probes by HTTP, 200 or 503."""

    def answer(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        if environ.get("PATH_INFO") != _HEALTH_PATH:
            return gauges(environ, start_response)
        serves = serving()
        start_response(
            "200 OK" if serves else "503 Service Unavailable",
            [("Content-Type", "text/plain; charset=utf-8"), ("Cache-Control", "no-store")],
        )
        return [b"serving\n" if serves else b"not serving\n"]

    return answer


class Endpoint:
    """Serves /metrics, and /health, at HOST:PORT from `start` to `stop`. Raises ConfigError when that can't be listened on."""

    def __init__(
        self,
        address: str,
        watched: Callable[[], Sequence[Watched]],
        serving: Callable[[], bool],
        workers: Callable[[], Sequence[Worker]] | None = None,
    ) -> None:
        registry = CollectorRegistry()
        registry.register(Layers(watched))
        if workers is not None:
            registry.register(Workers(workers))
        host, _, port = address.rpartition(":")
        try:
            self._server = make_server(
                host.strip("[]"),
                int(port),
                _with_health(make_wsgi_app(registry), serving),
                server_class=_Threading,
                handler_class=_Quiet,
            )
        except OSError as error:
            raise ConfigError(f"--metrics-address: can't listen on {address}: {error.strerror or error}") from None
        self.address = f"{host}:{self._server.server_port}"
        self._thread = threading.Thread(target=self._server.serve_forever, name="metrics", daemon=True)

    def start(self) -> None:
        """Begin to serve."""
        self._thread.start()

    def stop(self) -> None:
        """Stop, and free the port."""
        if self._thread.is_alive():
            self._server.shutdown()
            self._thread.join()
        self._server.server_close()


__all__ = ["Endpoint", "Layers"]
