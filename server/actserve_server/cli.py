"""The server's command line: arguments to settings, and the life of the process. No logic of its own.

python -m actserve_server serve ...
python -m actserve_server warm ...
"""

from __future__ import annotations

import argparse
import contextlib
import os
import signal
import sys
import threading
from collections.abc import Callable, Sequence
from pathlib import Path

from actserve_server.config import Config, ConfigError, add_arguments, load
from actserve_server.watched import Watched


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="actserve", description="The server of actserve.")
    commands = parser.add_subparsers(dest="command", required=True)
    serve = commands.add_parser(
        "serve",
        help="start the server",
        description="Serve until SIGTERM or SIGINT; then say NOT_SERVING, finish what runs within the grace, and stop. "
        "A second signal stops at once. Each option is also an environment variable, named beside it.",
    )
    add_arguments(serve)
    # For actserve_client.local: say "ready" on the standard output, live no longer than whoever holds the standard
    # input, and take the socket's folder along at the end.
    serve.add_argument("--private", action="store_true", help=argparse.SUPPRESS)
    # For the supervisor: one of several behind a port. The same, and answers its questions.
    serve.add_argument("--worker", type=int, help=argparse.SUPPRESS)
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
        if config.workers > 1:
            return _supervise(config)
        return _serve(config, private=options.private, worker=options.worker)
    except ConfigError as error:
        print(f"actserve: {error}", file=sys.stderr)
        return 2


def _supervise(config: Config) -> int:
    from actserve_server.observability import set_up_logging
    from actserve_server.supervisor import Supervisor

    set_up_logging(config)
    return Supervisor(config).run()


def _serve(config: Config, *, private: bool, worker: int | None) -> int:
    # Imported here, because they take a second: `--help` and a wrong setting should not.
    from actserve_server.app import Server
    from actserve_server.observability import set_up_logging

    set_up_logging(config, worker=worker)
    stop = threading.Event()

    def on_signal(*_: object) -> None:
        if stop.is_set():
            os._exit(1)
        stop.set()

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, on_signal)
    say = _voice() if private or worker is not None else None
    server = Server(config, worker=worker)
    server.start()
    if say is not None:
        say(b"ready\n")
        threading.Thread(target=_follow_parent, args=(stop, server.watched, say), daemon=True).start()
    if not (private or worker):
        server.prepare()
    stop.wait()
    server.stop()
    if private:
        for address in server.addresses:
            # Goes only when it is empty, as it is when it was made for the socket.
            with contextlib.suppress(OSError):
                Path(address.removeprefix("unix:")).parent.rmdir()
    return 0


def _voice() -> Callable[[bytes], object]:
    """What writes to the parent; whatever a library prints goes to the standard error instead."""
    out = os.fdopen(os.dup(1), "wb", buffering=0)
    os.dup2(2, 1)
    return out.write


def _follow_parent(
    stop: threading.Event, watched: Callable[[], Sequence[Watched]], say: Callable[[bytes], object]
) -> None:
    """Answer the parent, and stop when the standard input ends, as it does however the parent process ends."""
    from actserve_server.supervisor import answer_questions

    with contextlib.suppress(OSError):
        answer_questions(watched, iter(sys.stdin.buffer.readline, b""), say)
    stop.set()


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
