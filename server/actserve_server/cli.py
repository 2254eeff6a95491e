"""The server's command line: arguments to settings, and the life of the process. No logic of its own.

python -m actserve_server serve ...
python -m actserve_server warm ...
"""

from __future__ import annotations

import argparse
import contextlib
import os
import queue
import shutil
import signal
import sys
import threading
from collections.abc import Sequence
from pathlib import Path

from actserve_server.config import Config, ConfigError, add_arguments, load

_TURN_S = 0.25


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="actserve", description="The server of actserve.")
    commands = parser.add_subparsers(dest="command", required=True)
    serve = commands.add_parser(
        "serve",
        help="start the server",
        description="Serve until SIGTERM or SIGINT; then say NOT_SERVING, finish what runs within the grace, and stop. "
        "A second signal stops at once; with --workers, SIGHUP renews the workers one by one. Each option is also an "
        "environment variable, named beside it.",
    )
    add_arguments(serve)
    # For actserve_client.local: say "ready" on the standard output, live no longer than whoever holds the standard
    # input, and take the socket's folder along at the end.
    serve.add_argument("--private", action="store_true", help=argparse.SUPPRESS)
    # For actserve_server.supervisor: the number of this worker, and a folder that goes when the supervisor was killed.
    serve.add_argument("--worker", type=int, help=argparse.SUPPRESS)
    serve.add_argument("--temporary", default="", help=argparse.SUPPRESS)
    warm = commands.add_parser(
        "warm",
        help="compile all kernels into the cache",
        description="Compile every kernel into the cache, so that no request waits for a compiler.",
    )
    add_arguments(warm)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command; the exit status is 0 done, 1 failed, 2 wrong usage."""
    options = _parser().parse_args(argv)
    try:
        config = load(options)
        if options.command == "warm":
            return _warm(config)
        if options.worker is not None:
            return _work(config, options.worker, options.temporary)
        if config.workers > 1:
            return _supervise(config, private=options.private)
        return _serve(config, private=options.private)
    except ConfigError as error:
        print(f"actserve: {error}", file=sys.stderr)
        return 2


def _serve(config: Config, *, private: bool) -> int:
    # Imported here, because they take a second: `--help` and a wrong setting should not.
    from actserve_server.app import Server
    from actserve_server.observability import set_up_logging

    set_up_logging(config)
    stop = _Stop()

    def on_signal(*_: object) -> None:
        if stop.asked:
            os._exit(1)
        stop.ask()

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, on_signal)
    server = Server(config)
    server.start()
    if private:
        print("ready", flush=True)
        threading.Thread(target=_follow_parent, args=(stop,), daemon=True).start()
    else:
        server.prepare()
    stop.wait()
    server.stop()
    if private:
        for address in server.addresses:
            # Goes only when it is empty, as it is when it was made for the socket.
            with contextlib.suppress(OSError):
                Path(address.removeprefix("unix:")).parent.rmdir()
    return 0


def _supervise(config: Config, *, private: bool) -> int:
    from actserve_server.observability import set_up_logging
    from actserve_server.supervisor import Supervisor

    if private:
        raise ConfigError(f"--workers: {config.workers}, and a private server has 1")
    set_up_logging(config)
    return Supervisor(config).run()


def _work(config: Config, worker: int, temporary: str) -> int:
    """Serve as one of several, until told to stop or the supervisor is gone."""
    from actserve_server.app import Server
    from actserve_server.link import Link, attend
    from actserve_server.observability import set_up_logging

    link = Link.of_worker()
    set_up_logging(config, worker=worker)
    stop = _Stop()
    replaced = orphaned = False

    def on_signal(number: int, _: object) -> None:
        nonlocal replaced
        # By SIGHUP the supervisor says that the others serve on.
        replaced = replaced or (number == signal.SIGHUP and not stop.asked)
        stop.ask()

    # However many signals come: a service manager may send its own to all processes beside the supervisor's.
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, on_signal)

    def follow() -> None:
        nonlocal orphaned
        attend(link, server.watched)
        orphaned = True
        stop.ask()

    try:
        server = Server(config, worker=worker)
    except ConfigError as error:
        link.send({"error": str(error)})
        return 2
    server.start()
    with contextlib.suppress(OSError):
        link.send({"ready": True})
    threading.Thread(target=follow, daemon=True).start()
    server.prepare()
    stop.wait()
    with contextlib.suppress(OSError):
        link.send({"draining": True})
    server.stop(others_serve=replaced)
    if temporary and orphaned:
        shutil.rmtree(temporary, ignore_errors=True)
    return 0


class _Stop:
    """What the main thread waits for: somebody asks to stop, another thread or a signal's handler.

    A queue and no event, as a handler interrupts the main thread wherever it is: an event's lock may be held there, which the handler would
    wait for without end. That of a SimpleQueue is none that Python code holds.
    """

    def __init__(self) -> None:
        self.asked = False
        self._asks: queue.SimpleQueue[None] = queue.SimpleQueue()

    def ask(self) -> None:
        """Ask for it, however often."""
        self.asked = True
        self._asks.put(None)

    def wait(self) -> None:
        """Until it is asked for; in the main thread.

        By turns, because a signal wakes the main thread only where it comes while that sleeps: not when another thread is given it, nor in
        the moment in which it falls asleep. Then its handler runs at the end of the turn.
        """
        while not self.asked:
            with contextlib.suppress(queue.Empty):
                self._asks.get(timeout=_TURN_S)


def _follow_parent(stop: _Stop) -> None:
    """Stop when the standard input ends, as it does however the parent process ends."""
    while os.read(0, 4096):
        pass
    stop.ask()


def _warm(config: Config) -> int:
    from actserve_server.activations.catalogue import CATALOGUE
    from actserve_server.kernels import compiler

    compiler.configure(config.kernel_cache())
    try:
        compiler.warm(
            CATALOGUE, progress=lambda done, total, name: print(f"\r{done}/{total} {name:40.40}", end="", flush=True)
        )
    finally:
        compiler.close()
    print(f"\nkernels are in {config.kernel_cache()}")
    return 0
