"""What a prober is told over gRPC: grpc.health.v1, whose watchers hold up no end. Knows neither calls nor what is computed.

A Watch goes on for as long as its caller likes, which would make every drain last its whole grace. So watchers are told what there is
to tell, and then their calls end: whoever asks again is answered by who serves then.

Not grpcio's own servicer: that ends no Watch, and it tells its watchers under a lock that gRPC's one thread of events takes where a
watcher leaves, so that one who leaves at that moment stops both for good.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from concurrent import futures
from typing import Any

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

__all__ = ["Health"]

_ANSWERS = health_pb2.HealthCheckResponse

Send = Callable[[Any], object]


class Health(health_pb2_grpc.HealthServicer):  # type: ignore[misc]  # grpcio's package has no types
    """The health of a server, all of it (`""`) and its services by name: not serving until it is said.

    >>> health = Health(["actserve.v1.ActivationService"])
    >>> health.say(serving=True)
    """

    def __init__(self, services: Sequence[str]) -> None:
        self._services = ("", *services)
        self._serving = False
        self._ended = False
        self._watchers: set[_Watcher] = set()
        self._lock = threading.Lock()
        """For a moment each time, and never while something is sent."""
        self._threads = futures.ThreadPoolExecutor(2, thread_name_prefix="health")
        self.Watch = _Watch(self, self._threads)

    def status(self, service: str) -> Any:
        """What is said of a service; None of one that is not known."""
        if service not in self._services:
            return None
        return _ANSWERS.SERVING if self._serving else _ANSWERS.NOT_SERVING

    def Check(self, request: Any, context: grpc.ServicerContext) -> Any:
        """The status of a service, now."""
        status = self.status(request.service)
        if status is None:
            context.set_code(grpc.StatusCode.NOT_FOUND)
            context.set_details(f"no service is called {request.service!r}")
        return _ANSWERS(status=status)

    def say(self, *, serving: bool) -> None:
        """What probers are told from now on, and watchers at once."""
        self._serving = serving
        self._tell_all()

    def end(self) -> None:
        """End the calls of all watchers, who were told what there was to tell, and of those that come yet."""
        self._ended = True
        self._tell_all()

    def _tell_all(self) -> None:
        with self._lock:
            watchers = list(self._watchers)
        for watcher in watchers:
            # In another thread: one who does not read must not keep the server from its end.
            self._threads.submit(watcher.tell)

    def close(self) -> None:
        """Let go of the threads, once the server has stopped, and with it all watchers."""
        self._threads.shutdown()

    def watch(self, service: str, context: grpc.ServicerContext, send: Send) -> None:
        """Tell the status of a service, and each change of it."""
        watcher = _Watcher(lambda: (self.status(service), self._ended), send)
        with self._lock:
            self._watchers.add(watcher)
        if not context.add_callback(lambda: self._left(watcher)):
            self._left(watcher)
        watcher.tell()

    def _left(self, watcher: _Watcher) -> None:
        watcher.over = True
        with self._lock:
            self._watchers.discard(watcher)


class _Watch:
    """The method Watch, which keeps no thread while it has nothing to tell: what gRPC looks for in a method that it gives a way to send."""

    experimental_non_blocking = True

    def __init__(self, health: Health, threads: futures.ThreadPoolExecutor) -> None:
        self._health = health
        self.experimental_thread_pool = threads

    def __call__(self, request: Any, context: grpc.ServicerContext, send_response_callback: Send) -> None:
        self._health.watch(request.service, context, send_response_callback)


class _Watcher:
    """The call of a watcher: it is told what has changed since it was told last, and ends once."""

    def __init__(self, now: Callable[[], tuple[Any, bool]], send: Send) -> None:
        self._now = now
        self._send = send
        self._told: Any = None
        self._telling = threading.Lock()
        """While something is sent: gRPC's thread of events must not wait for it."""
        self.over = False

    def tell(self) -> None:
        """Send the status, if it is another one, and the end, if it has come."""
        with self._telling:
            status, ended = self._now()
            status = status or _ANSWERS.SERVICE_UNKNOWN
            if not self.over and status != self._told:
                self._told = status
                self._send(_ANSWERS(status=status))
            if not self.over and ended:
                self.over = True
                self._send(None)
