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
from collections.abc import Sequence
from pathlib import Path

from actserve_server.config import Config, ConfigError, add_arguments, load


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
        return _serve(config, private=options.private)
    except ConfigError as error:
        print(f"actserve: {error}", file=sys.stderr)
        return 2


def _serve(config: Config, *, private: bool) -> int:
    # Imported here, because they take a second: `--help` and a wrong setting should not.
    from actserve_server.app import Server
    from actserve_server.observability import set_up_logging

    set_up_logging(config)
    stop = threading.Event()

    def on_signal(*_: object) -> None:
        if stop.is_set():
            os._exit(1)
        stop.set()

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


def _follow_parent(stop: threading.Event) -> None:
    """Stop when the standard input ends, as it does however the parent process ends."""
    while os.read(0, 4096):
        pass
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
