"""Workers behind one address: processes started, started again when they die, drained together. Knows processes and signals, and
neither gRPC nor what a worker computes.

The kernel spreads connections over all that listen on a port with SO_REUSEPORT; the supervisor only holds the port. It serves
nothing but the gauges, so that there is little in it that could fail. Workers are spawned, with arguments of their own, and
each in a session of its own: an interrupt typed at a terminal reaches the supervisor alone.
"""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import os
import random
import selectors
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections import deque
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from actserve import shared

from actserve_server import __version__
from actserve_server.config import Config, ConfigError, environment_name, flag
from actserve_server.kernels.threads import available
from actserve_server.link import Link, asked
from actserve_server.ports import Held
from actserve_server.regions import memory_bytes
from actserve_server.watched import Watched

if TYPE_CHECKING:
    from actserve_server.metrics import Endpoint

__all__ = ["Supervisor", "WorkerState"]

log = logging.getLogger("actserve.server")

_FIRST_PAUSE_S = 0.2
_LONGEST_PAUSE_S = 30.0
"""Before a worker is started again: doubled with each death, and then anything from half of it, so that they don't keep step."""

_STEADY_S = 30.0
"""Having lived so long, a worker's next death counts as its first."""

_BEYOND_GRACE_S = 10.0
"""How long after the grace a worker that still runs is killed."""

_ANSWER_S = 5.0
"""How long a worker may take to say what it watches: below the 10 s that Prometheus waits."""

_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGCHLD)


@dataclasses.dataclass(frozen=True, slots=True)
class WorkerState:
    """What the gauges say of a worker."""

    index: int
    up: bool
    restarts: int
    started: float
    """Seconds since 1970."""


@dataclasses.dataclass(slots=True)
class _Worker:
    index: int
    process: subprocess.Popen[bytes] | None = None
    link: Link | None = None
    ready: bool = False
    leaving: bool = False
    """It drains, so that another may take its place."""
    deaths: int = 0
    """In a row."""
    starts: int = 0
    started_at: float = 0.0
    """In seconds since 1970."""
    born_s: float = 0.0
    due_s: float = 0.0
    """When it is to be started, where there is no process."""
    kill_s: float = 0.0
    """When it is to be killed, where it was told to drain."""


class Supervisor:
    """Runs the workers of a server.

    >>> Supervisor(Config(address="127.0.0.1:0", workers=4)).run()  # until SIGTERM or SIGINT; then 0

    Raises ConfigError when an address can't be listened on, or no worker can start with these settings. Only the main
    thread may run it, because of the signals.
    """

    def __init__(self, config: Config) -> None:
        if sys.platform != "linux":
            raise ConfigError(
                f"--workers: {config.workers}, and only Linux spreads connections over several; must be 1"
            )
        self._config = config
        self._workers = [_Worker(index) for index in range(config.workers)]
        self._configs: list[Config] = []
        self._temporary = ""
        self._selector = selectors.DefaultSelector()
        self._to_renew: deque[_Worker] = deque()
        self._renewing: _Worker | None = None
        self._stopping = False
        self._served = False
        """Whether every worker has been ready once."""
        self._error = ""
        """Why none can start."""
        self._asking = threading.Lock()
        self._asked = 0

    def run(self) -> int:
        """Until told to stop. The exit status is 0 when all workers drained, and 1 when one had to be killed."""
        config = self._config
        with contextlib.ExitStack() as stack:
            stack.enter_context(self._selector)
            held = [
                address if address.startswith("unix:") else stack.enter_context(Held(address)).address
                for address in config.addresses
            ]
            folder = config.activations_dir
            if config.allow_create and not folder:
                # What a caller adds is to be known to all workers, and to end with the server.
                folder = self._temporary = tempfile.mkdtemp(prefix="actserve-added-")
                stack.callback(shutil.rmtree, folder, ignore_errors=True)
            self._configs = [
                dataclasses.replace(
                    config,
                    address=",".join(_address_of(address, worker.index) for address in held),
                    activations_dir=folder,
                    metrics_address="",
                    workers=1,
                    max_shared_bytes=min(config.max_shared_bytes, memory_bytes() // 2) // config.workers,
                    threads=max((config.threads or available()) // config.workers, 1),
                )
                for worker in self._workers
            ]
            endpoint = self._endpoint()
            if endpoint:
                stack.callback(endpoint.stop)
            stack.callback(self._end)
            signals = stack.enter_context(_signals())
            self._selector.register(signals, selectors.EVENT_READ)
            if endpoint:
                endpoint.start()
            metrics_address = endpoint.address if endpoint else ""
            status = self._loop(signals, {"addresses": tuple(held), "metrics_address": metrics_address})
        if self._error:
            raise ConfigError(self._error)
        log.info("stopped")
        return status

    # ---- the loop ----------------------------------------------------------------------------------------------------

    def _loop(self, signals: socket.socket, facts: dict[str, object]) -> int:
        forced = False
        while True:
            forced |= self._look_at_clock()
            if self._stopping and all(worker.process is None for worker in self._workers):
                return int(forced)
            for key, _ in self._selector.select(self._until_next_s()):
                if key.fileobj is signals:
                    forced |= self._on_signals(signals.recv(256))
                elif key.fileobj is key.data.link:  # of a worker that was not buried just now
                    self._heard(key.data)
            self._renew()
            if not self._served and all(worker.ready for worker in self._workers):
                self._served = True
                pids = [worker.process.pid for worker in self._workers if worker.process]
                log.info("serving", extra={**facts, "version": __version__, "workers": pids})

    def _look_at_clock(self) -> bool:
        """Start and kill those whose time has come; says whether one was killed."""
        now = time.monotonic()
        killed = False
        for worker in self._workers:
            if worker.process is None:
                if not self._stopping and worker.due_s <= now:
                    self._start(worker)
            elif 0 < worker.kill_s <= now:
                log.warning("worker killed, as it did not drain", extra={"worker": worker.index})
                worker.process.kill()
                worker.kill_s = 0.0
                killed = True
        return killed

    def _until_next_s(self) -> float | None:
        times = [worker.kill_s for worker in self._workers if worker.process and worker.kill_s]
        if not self._stopping:
            times += [worker.due_s for worker in self._workers if not worker.process]
        return max(min(times) - time.monotonic(), 0.0) if times else None

    def _on_signals(self, numbers: bytes) -> bool:
        """Says whether workers were killed."""
        killed = False
        for number in numbers:
            if number == signal.SIGCHLD:
                self._reap()
            elif number == signal.SIGHUP:
                if not self._stopping and not self._to_renew:
                    log.info("renewing workers")
                    self._to_renew.extend(self._workers)
            elif self._stopping:
                self._kill()
                killed = True
            else:
                self._stop()
        return killed

    # ---- one worker --------------------------------------------------------------------------------------------------

    def _start(self, worker: _Worker) -> None:
        command = [sys.executable, "-m", "actserve_server", "serve", f"--worker={worker.index}"]
        if self._temporary:
            command.append(f"--temporary={self._temporary}")
        command += _arguments(self._configs[worker.index])
        settings = {environment_name(field.name) for field in dataclasses.fields(Config)}
        try:
            ours, theirs = socket.socketpair()
            with theirs:
                worker.process = subprocess.Popen(
                    command,
                    stdin=theirs.fileno(),
                    start_new_session=True,
                    env={name: value for name, value in os.environ.items() if name not in settings},
                )
        except OSError as error:
            # The machine has no process or no file left to give: it may have later.
            pause_s = _pause(worker.deaths)
            worker.deaths += 1
            worker.due_s = time.monotonic() + pause_s
            log.error("worker can't start: %s", error, extra={"worker": worker.index, "pause_s": round(pause_s, 1)})
            return
        # It is as new as a renewal would make it.
        with contextlib.suppress(ValueError):
            self._to_renew.remove(worker)
        worker.link = Link(ours)
        self._selector.register(worker.link, selectors.EVENT_READ, worker)
        worker.starts += 1
        worker.started_at, worker.born_s = time.time(), time.monotonic()
        log.info("worker started", extra={"worker": worker.index, "pid": worker.process.pid})

    def _heard(self, worker: _Worker) -> None:
        """A worker has said something, or is gone."""
        assert worker.link is not None
        messages = worker.link.arrived()
        if messages is None:
            worker.ready = False
            self._selector.unregister(worker.link)
        for message in messages or ():
            if message.get("ready"):
                worker.ready = not worker.leaving
                log.info("worker ready", extra={"worker": worker.index, "pid": worker.process and worker.process.pid})
            elif message.get("draining"):
                # Perhaps told by somebody else, and another takes its place all the same.
                self._leaves(worker)
            elif not self._served:
                self._error = self._error or str(message["error"])
                if not self._stopping:
                    self._stop()
            else:
                log.error("worker can't start: %s", message["error"], extra={"worker": worker.index})

    def _reap(self) -> None:
        for worker in self._workers:
            if worker.process is not None and worker.process.poll() is not None:
                self._buried(worker, worker.process)

    def _buried(self, worker: _Worker, process: subprocess.Popen[bytes]) -> None:
        assert worker.link is not None
        # What it may have said last: why it can't start.
        while worker.link in self._selector.get_map() and worker.link.speaks:
            self._heard(worker)
        if worker.link in self._selector.get_map():
            self._selector.unregister(worker.link)
        worker.link.close()
        now = time.monotonic()
        worker.deaths = 0 if now - worker.born_s >= _STEADY_S else worker.deaths
        left = worker.leaving or self._stopping
        pause_s = 0.0 if left else _pause(worker.deaths)
        if not left:
            worker.deaths += 1
            log.error(
                "worker died",
                extra={
                    "worker": worker.index,
                    "pid": process.pid,
                    "status": _ending(process.returncode),
                    "pause_s": round(pause_s, 1),
                },
            )
        worker.process = worker.link = None
        worker.ready = worker.leaving = False
        worker.due_s, worker.kill_s = now + pause_s, 0.0

    # ---- all of them -------------------------------------------------------------------------------------------------

    def _renew(self) -> None:
        """Replace the next worker, once the one before it serves again, and unless it is the only one that does."""
        if self._renewing is not None and self._renewing.ready:
            self._renewing = None
        if self._renewing is not None or not self._to_renew or self._stopping:
            return
        worker = self._to_renew[0]
        if worker.ready and sum(other.ready for other in self._workers) == 1:
            return
        self._renewing = self._to_renew.popleft()
        if worker.process is not None:
            self._drain(worker, signal.SIGHUP)

    def _stop(self) -> None:
        log.info("draining", extra={"grace_s": self._config.grace_s})
        self._stopping = True
        for worker in self._workers:
            self._drain(worker, signal.SIGTERM)

    def _drain(self, worker: _Worker, how: signal.Signals) -> None:
        """SIGTERM, when all end: it says that it no longer serves; SIGHUP, when others serve on: it says no such thing."""
        if worker.process is not None:
            worker.process.send_signal(how)
        self._leaves(worker)

    def _leaves(self, worker: _Worker) -> None:
        worker.ready, worker.leaving = False, True
        if worker.process is not None:
            worker.kill_s = time.monotonic() + self._config.grace_s + _BEYOND_GRACE_S

    def _end(self) -> None:
        """Leave neither a process nor a file: who was killed left his socket."""
        self._kill()
        for config in self._configs:
            for address in config.addresses:
                if address.startswith("unix:"):
                    path = address.removeprefix("unix:")
                    for name in (path, path + shared.SUFFIX):
                        Path(name).unlink(missing_ok=True)

    def _kill(self) -> None:
        for worker in self._workers:
            if worker.process is not None:
                worker.process.kill()
                worker.process.wait()

    # ---- what is shown, by other threads -----------------------------------------------------------------------------

    def _endpoint(self) -> Endpoint | None:
        if not self._config.metrics_address:
            return None
        # Only who wants gauges pays for the start of the package that makes them.
        from actserve_server.metrics import Endpoint

        return Endpoint(self._config.metrics_address, self._watched, self._serving, self._states)

    def _serving(self) -> bool:
        return any(worker.ready for worker in self._workers)

    def _watched(self) -> list[Watched]:
        with self._asking:
            self._asked += 1
            links = {worker.index: link for worker in self._workers if worker.ready and (link := worker.link)}
            return [
                # Numbers of streams are a worker's own.
                dataclasses.replace(layer, stream=layer.stream * 1000 + index)
                for index, layer in asked(links, self._asked, _ANSWER_S)
            ]

    def _states(self) -> list[WorkerState]:
        return [
            WorkerState(worker.index, worker.ready, max(worker.starts - 1, 0), worker.started_at)
            for worker in self._workers
        ]


def _address_of(address: str, index: int) -> str:
    """Processes can't share a Unix socket's path: each has its own."""
    return f"{address}.{index}" if index and address.startswith("unix:") else address


def _arguments(config: Config) -> list[str]:
    """The settings that are not as they would be anyway."""
    return [
        f"{flag(field.name)}={getattr(config, field.name)}"
        for field in dataclasses.fields(Config)
        if getattr(config, field.name) != field.default
    ]


def _pause(deaths: int) -> float:
    longest = min(_FIRST_PAUSE_S * (1 << min(deaths, 16)), _LONGEST_PAUSE_S)
    return longest * random.uniform(0.5, 1.0)  # noqa: S311  # not a secret


def _ending(returncode: int) -> str:
    if returncode >= 0:
        return f"exit status {returncode}"
    try:
        return f"killed by {signal.Signals(-returncode).name}"
    except ValueError:
        return f"killed by signal {-returncode}"


@contextlib.contextmanager
def _signals() -> Iterator[socket.socket]:
    """Signals as bytes on a socket, each its number, so that one loop waits for all there is."""
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    theirs.setblocking(False)
    with ours, theirs:
        before = signal.set_wakeup_fd(theirs.fileno(), warn_on_full_buffer=False)
        # One that was to be ignored, as by nohup, stays so.
        handlers = {
            number: signal.signal(number, lambda *_: None)
            for number in _SIGNALS
            if number == signal.SIGCHLD or signal.getsignal(number) is not signal.SIG_IGN
        }
        try:
            yield ours
        finally:
            signal.set_wakeup_fd(before)
            for number, handler in handlers.items():
                signal.signal(number, handler)
