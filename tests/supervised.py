"""A server of several processes, as a test starts it, with what it says in its log."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from actserve_client import Client

COMMAND = [sys.executable, "-m", "actserve_server", "serve"]


def until(condition: Callable[[], bool], log: Sequence[object] = ()) -> None:
    deadline = time.monotonic() + 120
    while not condition():
        if time.monotonic() > deadline:
            pytest.fail("\n".join(map(str, log)))
        time.sleep(0.05)


class Supervised:
    """A server of several processes, with what it says in its log."""

    def __init__(self, *arguments: str) -> None:
        command = [*COMMAND, "--log-format", "json", "--grace-s", "60", *arguments]
        # Under nohup it would be ignored, in the server too.
        before = signal.signal(signal.SIGHUP, signal.SIG_DFL)
        try:
            self.process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
        finally:
            signal.signal(signal.SIGHUP, before)
        self.log: list[dict[str, Any]] = []
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        self.serving = self.wait_for("serving")
        self.address = self.serving["addresses"][0]

    def _read(self) -> None:
        assert self.process.stderr is not None
        for line in self.process.stderr:
            try:
                self.log.append(json.loads(line))
            except ValueError:  # gRPC has something to say of its own
                self.log.append({"message": line})

    def said(self, message: str) -> list[dict[str, Any]]:
        return [line for line in self.log if line["message"] == message]

    def wait_for(self, message: str, times: int = 1) -> dict[str, Any]:
        until(lambda: len(self.said(message)) >= times or self.process.poll() is not None, self.log)
        return self.said(message)[times - 1]

    def pids(self) -> list[int]:
        """Of the workers, the latest last."""
        return [line["pid"] for line in self.said("worker started")]

    def instances(self, address: str = "", clients: int = 12) -> set[str]:
        """Which processes answer."""
        found = set()
        for _ in range(clients):
            with Client(address or self.address) as client:
                found.add(client.server_info().instance)
        return found

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        until(lambda: not any(map(runs, self.pids())))
        self._reader.join(60)
        assert self.process.stderr is not None
        self.process.stderr.close()


def runs(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False
