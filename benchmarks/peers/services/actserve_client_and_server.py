"""actserve: one stream over TCP, over a Unix socket (which copies into and out of shared memory), and with arrays that lie in it."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import threading

import contest
from actserve_client import Client


def main() -> None:
    x = contest.tensor()
    with tempfile.TemporaryDirectory(prefix="actserve-bench-") as folder:
        addresses = f"127.0.0.1:0,unix:{folder}/s"
        command = [sys.executable, "-m", "actserve_server", "serve", "--address", addresses, "--log-format", "json"]
        # Started with the end of the input of its own: it ends however this process does.
        with subprocess.Popen(command, stderr=subprocess.PIPE) as server:
            assert server.stderr is not None
            tcp, unix = json.loads(server.stderr.readline())["addresses"]
            threading.Thread(target=server.stderr.read, daemon=True).start()
            try:
                with Client(tcp) as over_tcp, Client(unix) as over_unix:
                    shared, out = over_unix.empty(x.shape, x.dtype), over_unix.empty(x.shape, x.dtype)
                    shared[:] = x
                    contenders = {
                        "actserve, TCP": lambda: over_tcp.forward("sigmoid", x),
                        "actserve, Unix socket": lambda: over_unix.forward("sigmoid", x),
                        "actserve, arrays in shared memory": lambda: over_unix.forward("sigmoid", shared, out=out),
                    }
                    contest.compete(contenders, x)
            finally:
                server.terminate()


if __name__ == "__main__":
    main()
