"""Several workers behind one port: starts them, starts the next where one dies, and ends with them.

A worker is a process like the server that runs alone, with the port shared among them (SO_REUSEPORT: the kernel gives each connection to one
of them). Lines go to and fro on its standard input and output: it says "ready", and answers "layers" with what it watches. However the
supervisor ends, a worker sees the end of its input, drains, and ends too. This module knows processes and signals, and not gRPC.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import logging
import os
import queue
import random
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from types import FrameType
from typing import TYPE_CHECKING, Any

from actserve_server.config import Config, ConfigError, flag
from actserve_server.kernels.threads import available
from actserve_server.watched import Watched

if TYPE_CHECKING:
    from actserve_server.metrics import Endpoint

__all__ = ["Supervisor", "answer_questions"]

log = logging.getLogger("actserve.supervisor")

_FIRST_PAUSE_S = 0.1
_LONGEST_PAUSE_S = 30.0
_HEALTHY_S = 60.0
"""A worker that has lived so long starts anew at once, whatever was before."""
_ANSWER_S = 5.0
_WRONG_USAGE = 2


@dataclasses.dataclass(frozen=True, slots=True)
class WorkerState:
    """What the gauges say of a worker."""

    index: int
    up: bool
    restarts: int
    started: float
    """Seconds since 1970."""


class _Worker:
    """One place among the workers, and the process that fills it."""

    def __init__(self, index: int, command: Sequence[str]) -> None:
        self.index = index
        self.restarts = 0
        self.started = 0.0
        self.ready = False
        self.failed = 0
        """How often it died soon after its start, in a row."""
        self._command = command
        self._process: subprocess.Popen[bytes] | None = None
        self._answers: queue.SimpleQueue[bytes] = queue.SimpleQueue()
        self._asking = threading.Lock()

    def start(self) -> None:
        """Start a process."""
        self.ready = False
        self.started = time.time()
        self._answers = queue.SimpleQueue()
        self._process = subprocess.Popen(
            self._command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            # An interrupt typed at a terminal is the supervisor's to pass on.
            start_new_session=True,
        )

    @property
    def pid(self) -> int:
        """The process, 0 when there is none."""
        return self._process.pid if self._process is not None else 0

    def wait(self) -> int:
        """Read what it says until it ends, and give its exit status."""
        process = self._process
        assert process is not None and process.stdout is not None and process.stdin is not None
        for line in process.stdout:
            if line == b"ready\n":
                self.ready = True
                log.info("worker %d is ready", self.index, extra={"worker": self.index, "worker_pid": process.pid})
            else:
                self._answers.put(line)
        self.ready = False
        self._answers.put(b"")
        status = process.wait()
        process.stdout.close()
        with contextlib.suppress(OSError):
            process.stdin.close()
        return status

    def signal(self, number: int) -> None:
        """Send it a signal, if it is there."""
        process = self._process
        if process is not None and process.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                process.send_signal(number)

    def layers(self) -> list[Watched]:
        """What it watches; nothing when it does not say so in time."""
        process = self._process
        with self._asking, contextlib.suppress(OSError, ValueError, queue.Empty):
            if not self.ready or process is None or process.stdin is None:
                return []
            while not self._answers.empty():
                self._answers.get_nowait()  # of a question that was given up
            process.stdin.write(b"layers\n")
            process.stdin.flush()
            answer = json.loads(self._answers.get(timeout=_ANSWER_S) or b"[]")
            return [
                # Numbers of streams are a worker's own.
                Watched(found["stream"] * 1000 + self.index, found["monitor"], found["layer"], _just(found["figures"]))
                for found in answer
            ]
        return []


def _just(figures: Mapping[str, float]) -> Callable[[], Mapping[str, float]]:
    return lambda: figures


class Supervisor:
    """Runs `config.workers` workers until it is told to stop.

    >>> Supervisor(Config(address="127.0.0.1:0", workers=2)).run()

    Raises ConfigError when an address can't be listened on.
    """

    def __init__(self, config: Config) -> None:
        self._config = config
        self._held: list[socket.socket] = []
        addresses = [self._resolved(address) for address in config.addresses]
        self.addresses = tuple(address for address in addresses if not address.startswith("unix:"))
        self._workers = [
            _Worker(index, _command(config, _addresses_of(addresses, index), index)) for index in range(config.workers)
        ]
        self._stopping = threading.Event()
        self._refused = False
        self._metrics = self._endpoint()

    def _resolved(self, address: str) -> str:
        """The address with the port that is held for the workers. Another server on that port can't start, and finds out."""
        if address.startswith("unix:"):
            return address
        host, _, port = address.rpartition(":")
        try:
            found = socket.getaddrinfo(host.strip("[]"), int(port), type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
            for family, kind, protocol, _, place in found:
                place = (place[0], int(port), *place[2:])
                if int(port):
                    with socket.socket(family, kind, protocol) as alone:
                        alone.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                        alone.bind(place)
                        # What listens with SO_REUSEADDR is not found by binding alone.
                        alone.listen()
                holder = socket.socket(family, kind, protocol)
                self._held.append(holder)
                holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
                holder.bind(place)
                port = str(holder.getsockname()[1])
        except OSError as error:
            self._release()
            raise ConfigError(f"--address: can't listen on {address}: {error.strerror or error}") from None
        return f"{host}:{port}"

    def _release(self) -> None:
        for holder in self._held:
            holder.close()

    def _endpoint(self) -> Endpoint | None:
        if not self._config.metrics_address:
            return None
        from actserve_server.metrics import Endpoint

        return Endpoint(self._config.metrics_address, self.watched, self.states)

    def watched(self) -> list[Watched]:
        """What all workers watch."""
        return [layer for worker in self._workers for layer in worker.layers()]

    def states(self) -> list[WorkerState]:
        """What there is to say of each worker."""
        return [WorkerState(w.index, w.ready, w.restarts, w.started) for w in self._workers]

    @property
    def metrics_address(self) -> str:
        """Where the gauges are; empty when there are none."""
        return self._metrics.address if self._metrics else ""

    def run(self) -> int:
        """Serve until SIGTERM or SIGINT, and give the exit status."""
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._on_signal)
        keepers = [threading.Thread(target=self._keep, args=(worker,), daemon=True) for worker in self._workers]
        for keeper in keepers:
            keeper.start()
        if self._metrics:
            self._metrics.start()
        log.info(
            "supervising",
            extra={
                "addresses": self.addresses,
                "workers": len(self._workers),
                "metrics_address": self.metrics_address,
            },
        )
        self._stopping.wait()
        for worker in self._workers:
            worker.signal(signal.SIGTERM)
        deadline = time.monotonic() + self._config.grace_s + 10
        for keeper in keepers:
            keeper.join(max(deadline - time.monotonic(), 0))
        for worker in self._workers:
            worker.signal(signal.SIGKILL)
        for keeper in keepers:
            keeper.join(10)
        if self._metrics:
            self._metrics.stop()
        self._release()
        log.info("stopped")
        return _WRONG_USAGE if self._refused else 0

    def _on_signal(self, _: int, __: FrameType | None) -> None:
        if self._stopping.is_set():
            for worker in self._workers:
                worker.signal(signal.SIGKILL)
            os._exit(1)
        self._stopping.set()

    def _keep(self, worker: _Worker) -> None:
        """Keep a worker's place filled."""
        while not self._stopping.is_set():
            worker.start()
            if self._stopping.is_set():
                worker.signal(signal.SIGTERM)  # the one that was sent to all has missed it
            status = worker.wait()
            if self._stopping.is_set():
                return
            if status == _WRONG_USAGE:
                # It has said what is wrong with its settings, and the next would say so too.
                self._refused = True
                self._stopping.set()
                return
            pause_s = self._pause_s(worker)
            log.warning(
                "worker %d ended (%s); the next starts in %.1f s",
                worker.index,
                f"signal {-status}" if status < 0 else f"status {status}",
                pause_s,
                extra={"worker": worker.index, "status": status},
            )
            self._stopping.wait(pause_s)
            worker.restarts += 1

    @staticmethod
    def _pause_s(worker: _Worker) -> float:
        lived = time.time() - worker.started
        worker.failed = 0 if lived > _HEALTHY_S else worker.failed + 1
        bound: float = min(_FIRST_PAUSE_S * 2.0**worker.failed, _LONGEST_PAUSE_S)
        return random.uniform(bound / 2, bound)  # noqa: S311  # jitter, not a secret


def _addresses_of(addresses: Sequence[str], index: int) -> str:
    """Where a worker listens: ports are shared, and a socket's path, which can't be, has the worker's number behind it but for the first."""
    return ",".join(f"{a}.{index}" if a.startswith("unix:") and index else a for a in addresses)


def _command(config: Config, address: str, index: int) -> list[str]:
    """What starts a worker: all settings as they are, but for the cores, which are shared out."""
    threads = max((config.threads or available()) // config.workers, 1)
    given = dataclasses.replace(config, address=address, workers=1, threads=threads, metrics_address="")
    settings = [f"{flag(field.name)}={getattr(given, field.name)}" for field in dataclasses.fields(given)]
    return [sys.executable, "-m", "actserve_server", "serve", "--worker", str(index), *settings]


def answer_questions(
    watched: Callable[[], Sequence[Watched]], lines: Iterator[bytes], say: Callable[[bytes], Any]
) -> None:
    """What a worker does with its supervisor's lines, until they end."""
    for line in lines:
        if line == b"layers\n":
            found = [
                {"stream": w.stream, "monitor": w.monitor, "layer": w.layer, "figures": dict(w.figures())}
                for w in watched()
            ]
            say(json.dumps(found).encode() + b"\n")
