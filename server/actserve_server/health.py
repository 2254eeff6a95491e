"""What a prober is told over gRPC: grpc.health.v1, whose watchers hold up no end. Knows neither calls nor what is computed.

A Watch goes on for as long as its caller likes, which would make every drain last its whole grace. So watchers are told what there is
to tell, and then their calls end: whoever asks again is answered by who serves then.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent import futures
from typing import Any

from grpc_health.v1 import health, health_pb2

__all__ = ["Health"]

Send = Callable[[Any], object]


class _Watcher:
    """The call of a watcher, which ends once: grpcio's own servicer ends it again when it is over."""

    def __init__(self, send: Send) -> None:
        self._send = send
        self._over = False
        self._telling = threading.Lock()

    def __call__(self, response: Any) -> None:
        with self._telling:
            if self._over:
                return
            self._over = response is None
        self._send(response)


class Health(health.HealthServicer):  # type: ignore[misc]  # grpcio's package has no types
    """The health of a server, all of it (`""`) and its services by name.

    >>> health = Health(["actserve.v1.ActivationService"])
    >>> health.say(serving=True)
    """

    def __init__(self, services: list[str]) -> None:
        self._threads = futures.ThreadPoolExecutor(2, thread_name_prefix="health")
        super().__init__(experimental_non_blocking=True, experimental_thread_pool=self._threads)
        self._services = ("", *services)
        self._watchers: set[_Watcher] = set()
        self._ended = False
        self._changing = threading.Lock()

    def say(self, *, serving: bool) -> None:
        """What probers are told from now on, and watchers at once."""
        status = health_pb2.HealthCheckResponse.SERVING if serving else health_pb2.HealthCheckResponse.NOT_SERVING
        for service in self._services:
            self.set(service, status)

    def Watch(
        self, request: health_pb2.HealthCheckRequest, context: Any, send_response_callback: Send | None = None
    ) -> Any:
        """Tell the status, and each change of it."""
        assert (
            send_response_callback is not None
        )  # as it is where `experimental_non_blocking` is understood, which is all we support
        watcher = _Watcher(send_response_callback)
        with self._changing:
            self._watchers.add(watcher)
        context.add_callback(lambda: self._gone(watcher))
        super().Watch(request, context, watcher)
        if self._ended:
            watcher(None)

    def _gone(self, watcher: _Watcher) -> None:
        with self._changing:
            self._watchers.discard(watcher)

    def end(self) -> None:
        """End the calls of all watchers, and of those that come yet."""
        with self._changing:
            self._ended = True
            watchers = list(self._watchers)
        for watcher in watchers:
            watcher(None)

    def close(self) -> None:
        """Let go of the threads."""
        self._threads.shutdown()
