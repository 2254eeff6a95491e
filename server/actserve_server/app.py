"""The composition root: builds a server from its settings, and owns its start, its drain and its stop."""

from __future__ import annotations

import contextlib
import logging
import os
import secrets
import threading
from concurrent import futures
from pathlib import Path
from typing import TYPE_CHECKING

import grpc
from actserve import shared, wire
from actserve.allocator import keep_freed_chunks
from actserve.v1 import service_pb2
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from actserve_server import __version__, messages
from actserve_server.config import LARGEST_CHUNK_BYTES, Config, ConfigError
from actserve_server.custom.creation import Creation, Quotas
from actserve_server.custom.registry import Registry
from actserve_server.custom.workshop import Workshop
from actserve_server.engine.plan import Limits
from actserve_server.gate import MOST_IDLE, Gate
from actserve_server.health import Health
from actserve_server.interceptors import CallInterceptor
from actserve_server.kernels import compiler
from actserve_server.kernels.threads import Team, available
from actserve_server.monitoring import Monitors
from actserve_server.ports import answers
from actserve_server.regions import Broker, Regions, identity, memory_bytes
from actserve_server.service import SERVICE_NAME, Servicer
from actserve_server.watched import Watched

if TYPE_CHECKING:
    from actserve_server.metrics import Endpoint

log = logging.getLogger("actserve.server")

_SPARE_THREADS = 16
"""Threads beyond those that compute or wait for their callers: they turn calls away, and answer the short ones."""

_IDLE_AT_THE_END_S = 0.25
"""How long a stream may wait for its caller while the server drains: a pause between two jobs, no longer."""

_APART_S = 5.0
"""How long after one worker the next makes ready for formulas: about as long as that takes."""

_FRAME_BYTES = 64 << 10
"""Room for the header of a request beside its data."""


class Server:
    """A server, listening from `start` to `stop`.

    >>> server = Server(Config(address="127.0.0.1:0"))
    >>> server.start()
    >>> server.addresses
    ('127.0.0.1:...',)
    >>> server.stop()

    Raises ConfigError when an address can't be listened on.
    """

    def __init__(self, config: Config, *, worker: int | None = None) -> None:
        """`worker` is its number among those that share a port; None where it is alone."""
        self._config = config
        self._worker = worker
        limits = Limits(
            chunk_bytes=config.chunk_bytes,
            max_chunk_bytes=LARGEST_CHUNK_BYTES,
            max_tensor_bytes=config.max_tensor_bytes,
            max_slice_bytes=config.max_slice_bytes,
            max_lead_bytes=config.max_lead_bytes,
            max_dimensions=config.max_dimensions,
        )
        compiler.configure(config.kernel_cache())
        self._team = Team(config.threads or available())
        self._gate = Gate(config.max_concurrency)
        self._health = Health([SERVICE_NAME])
        self._server = grpc.server(
            futures.ThreadPoolExecutor(config.max_concurrency + MOST_IDLE + _SPARE_THREADS, thread_name_prefix="call"),
            interceptors=[CallInterceptor()],
            options=_channel_options(config, shared_port=worker is not None),
        )
        self._monitors = Monitors()
        most = min(config.max_shared_bytes, memory_bytes() // 2)
        self._regions = Regions(most, config.max_shared_bytes_per_client)
        self._brokers: list[Broker] = []
        self._serving = False
        longest = config.max_formula_length
        registry = _registry(config)
        quotas = Quotas(config.allow_create, config.max_activations, longest, config.max_create_s)
        self._workshop = Workshop(compiler.directory())
        self._preparing: threading.Timer | None = None
        self._servicer = Servicer(
            limits,
            self._gate,
            _server_info(config, worker or 0),
            self._team,
            self._monitors,
            registry,
            Creation(registry, self._workshop, quotas),
            self._regions,
        )
        self._server.add_generic_rpc_handlers((self._servicer.handler(),))
        health_pb2_grpc.add_HealthServicer_to_server(self._health, self._server)
        names = (SERVICE_NAME, health_pb2.DESCRIPTOR.services_by_name["Health"].full_name, reflection.SERVICE_NAME)
        reflection.enable_server_reflection(names, self._server)
        self._sockets: dict[str, tuple[int, int]] = {}
        # A port last: from then on the kernel gives connections to it, which are lost where something else can't be had.
        ports_last = sorted(enumerate(config.addresses), key=lambda numbered: not numbered[1].startswith("unix:"))
        listening = {number: self._listen(address) for number, address in ports_last}
        self.addresses = tuple(listening[number] for number in range(len(listening)))
        self._metrics = self._endpoint(config.metrics_address)
        self.metrics_address = self._metrics.address if self._metrics else ""
        """Where the gauges are, with the port that was found; empty when there are none."""

    def _listen(self, address: str) -> str:
        path = address.removeprefix("unix:") if address.startswith("unix:") else None
        # gRPC would put its socket in the place of one that another server listens on, which nobody could reach then.
        if path is not None and answers(path):
            raise ConfigError(f"--address: can't listen on {address}; another server does")
        try:
            port = self._server.add_insecure_port(address)
        except RuntimeError:
            port = 0
        if not port:
            raise ConfigError(f"--address: can't listen on {address}; is it in use, or not an address of this machine?")
        if path is None:
            return f"{address.rpartition(':')[0]}:{port}"
        self._sockets[path] = identity(path)
        return address

    def _broker(self, address: str) -> Broker | None:
        """What gives shared memory to the clients of an address; clients do without where there is none."""
        if not (shared.SUPPORTED and address.startswith("unix:") and self._regions.most_bytes):
            return None
        try:
            broker = Broker(address.removeprefix("unix:") + shared.SUFFIX, self._regions)
        except OSError as error:
            log.warning("no shared memory at %s: %s", address, error)
            return None
        broker.start()
        return broker

    def _endpoint(self, address: str) -> Endpoint | None:
        if not address:
            return None
        # Only who wants gauges pays for the start of the package that makes them.
        from actserve_server.metrics import Endpoint

        return Endpoint(address, self._monitors.watched, lambda: self._serving)

    def watched(self) -> list[Watched]:
        """The layers that are monitored."""
        return list(self._monitors.watched())

    def start(self) -> None:
        """Begin to serve."""
        keep_freed_chunks()
        # Before gRPC, so that whoever finds the one socket finds the other.
        self._brokers = [broker for address in self.addresses if (broker := self._broker(address))]
        self._server.start()
        self._serving = True
        self._health.say(serving=True)
        if self._metrics:
            self._metrics.start()
        # Of workers the supervisor says so, once for all.
        log.log(
            logging.INFO if self._worker is None else logging.DEBUG,
            "serving",
            extra={"addresses": self.addresses, "metrics_address": self.metrics_address, "version": __version__},
        )

    def prepare(self) -> None:
        """Make ready for formulas that are yet to come, in a process of its own: worth it for a server that stays.

        Workers do so one after another, so that together they leave the cores to calls.
        """
        if self._config.allow_create:
            self._preparing = threading.Timer((self._worker or 0) * _APART_S, self._workshop.prepare)
            self._preparing.daemon = True
            self._preparing.start()

    def stop(self, grace_s: float | None = None, *, others_serve: bool = False) -> None:
        """Say NOT_SERVING, refuse new work, let what runs finish within the grace, then stop. Returns when all is over.

        Where others serve on at the same port it is not said: who asks next is answered by them.
        """
        grace_s = self._config.grace_s if grace_s is None else grace_s
        log.info("draining", extra={"grace_s": grace_s})
        self._gate.draining = True
        self._serving = False
        if not others_serve:
            self._health.say(serving=False)
        self._monitors.drain()
        stopped = self._server.stop(grace_s)
        # After that, because whoever watches again at once is to find another connection.
        self._health.end()
        while not stopped.wait(_IDLE_AT_THE_END_S):
            self._gate.end_idle(_IDLE_AT_THE_END_S)
        for broker in self._brokers:
            broker.close()
        if self._metrics:
            self._metrics.stop()
        self._health.close()
        self._team.close()
        if self._preparing is not None:
            self._preparing.cancel()
        self._workshop.close()
        compiler.close()
        for path, of_ours in self._sockets.items():
            # gRPC leaves the socket's file behind; while this server drained, another may have taken the place.
            with contextlib.suppress(OSError):
                if identity(path) == of_ours:
                    os.unlink(path)
        log.info("stopped")


def _registry(config: Config) -> Registry:
    """The activations. Raises ConfigError where the folder of added ones can't be read."""
    try:
        return Registry(Path(config.activations_dir) if config.activations_dir else None, config.max_formula_length)
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise ConfigError(f"--activations-dir: {config.activations_dir!r} can't be used: {reason}") from None


def _channel_options(config: Config, *, shared_port: bool) -> list[tuple[str, int]]:
    return [
        ("grpc.max_receive_message_length", config.max_request_bytes + _FRAME_BYTES),
        ("grpc.max_send_message_length", -1),
        # Two servers on one port would share its calls by chance; the second is to fail at its start instead, unless both are workers.
        ("grpc.so_reuseport", int(shared_port)),
        # Fewer, larger HTTP/2 frames for the chunks.
        ("grpc.http2.max_frame_size", 16 * 1024 * 1024 - 1),
    ]


def _server_info(config: Config, worker: int) -> service_pb2.ServerInfo:
    return service_pb2.ServerInfo(
        version=__version__,
        data_types=wire.COMPUTABLE,
        modes=messages.MODES,
        regularizers=messages.REGULARIZERS_KNOWN,
        max_request_bytes=config.max_request_bytes,
        max_chunk_bytes=LARGEST_CHUNK_BYTES,
        max_tensor_bytes=config.max_tensor_bytes,
        max_slice_bytes=config.max_slice_bytes,
        max_lead_bytes=config.max_lead_bytes,
        max_dimensions=config.max_dimensions,
        max_concurrency=config.max_concurrency,
        instance=secrets.token_hex(8),
        worker=worker,
        allows_create=config.allow_create,
        max_activations=config.max_activations,
        max_formula_length=config.max_formula_length,
    )
