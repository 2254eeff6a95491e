"""A private server: a child process that listens on a Unix socket in a folder of its own, and dies with its parent.

It is what `Client()` uses when no address is given. The parent never imports the server; it starts
`python -m actserve_server`, which needs `pip install 'actserve[server]'`.
"""

from __future__ import annotations

import importlib.util
import os
import select
import shutil
import subprocess
import sys
import tempfile
import time
import weakref
from types import TracebackType

from actserve_client.errors import ServerUnavailable

_START_S = 60.0
"""Longer than a start takes on a busy machine whose disk cache is cold."""

_STOP_S = 10.0


class LocalServer:
    """A private server, running until `close`.

    >>> with LocalServer() as server:
    ...     server.address
    'unix:/tmp/actserve-.../socket'

    Keywords are the server's settings by name, such as `max_concurrency=4`. However the parent ends, the child sees the end
    of its standard input, and stops and removes its socket. Raises ServerUnavailable when it can't be started.
    """

    def __init__(self, **settings: object) -> None:
        missing = [name for name in ("numba", "grpc_health", "pythonjsonlogger") if not importlib.util.find_spec(name)]
        if missing:
            raise ServerUnavailable(
                f"no server address was given, and a private server needs {', '.join(missing)}: pip install "
                "'actserve[server]', or name a server by its address or in ACTSERVE_ADDRESS"
            )
        folder = tempfile.mkdtemp(prefix="actserve-")
        self.address = f"unix:{folder}/socket"
        # What is added to a private server ends with it.
        options = {
            "log_level": "warning",
            "activations_dir": "",
            "workers": 1,
            **settings,
            "address": self.address,
            "grace_s": 2.0,
        }
        arguments = [f"--{name.replace('_', '-')}={value}" for name, value in options.items()]
        self._process = subprocess.Popen(
            [sys.executable, "-m", "actserve_server", "serve", "--private", *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            # An interrupt from the terminal is the parent's business; the child follows when the parent ends.
            start_new_session=True,
            env={name: value for name, value in os.environ.items() if name != "ACTSERVE_ADDRESS"},
        )
        self._finalizer = weakref.finalize(self, _stop, self._process, folder)
        self._wait_until_ready()

    @property
    def pid(self) -> int:
        """The process id of the server."""
        return self._process.pid

    def _wait_until_ready(self) -> None:
        stdout = self._process.stdout
        assert stdout is not None
        deadline = time.monotonic() + _START_S
        while select.select([stdout], [], [], max(deadline - time.monotonic(), 0))[0]:
            line = stdout.readline()
            if line == b"ready\n":
                return
            if not line:
                break
        self.close()
        raise ServerUnavailable(
            f"the private server did not start (exit status {self._process.returncode}); its messages are above"
        )

    def close(self) -> None:
        """Stop the server, and wait for its end. May be called again."""
        self._finalizer()

    def __enter__(self) -> LocalServer:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()


def _stop(process: subprocess.Popen[bytes], folder: str) -> None:
    assert process.stdin is not None
    assert process.stdout is not None
    # Told once: the end of its input would be a second signal to it, at which it stops at once and leaves its sockets.
    process.terminate()
    try:
        process.wait(_STOP_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    process.stdin.close()
    process.stdout.close()
    shutil.rmtree(folder, ignore_errors=True)


__all__ = ["LocalServer"]
