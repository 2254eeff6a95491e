"""100 MB of float32 through sigmoid by services of others and by ours: time, CPU-seconds and memory, in one run.

    python benchmarks/services.py [--rounds 5] [--megabytes 100] [--peers flight,triton] [--environments .venv-peers]

Prints JSON. Each peer is a script under peers/services with an environment of its own, ENVIRONMENTS/NAME; one without is left out and named.
All run at once, but only one is called at a time, in turns, round by round. Those that keep a core busy when nobody calls them would slow the
others down: each comes afterwards, in turns with actserve alone, whose figures are compared with theirs. CPU-seconds are of the client and the server together, by the
clocks of their processes; memory is the most that was seen resident in each while it was called (pages that two share count in both).
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import json
import os
import select
import statistics
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil

FOLDER = Path(__file__).resolve().parent / "peers" / "services"
OURS = ("actserve_client_and_server", "plain_grpc", "grpcio_echo")
"""Those that run in the environment of this script."""
PEERS = ("flight", "triton", "connect", "ml_server", "ray_serve", "ray_serve_high_throughput")
ENVIRONMENT = {"ray_serve_high_throughput": "ray_serve"}
"""Of those whose environment has another name."""
ALONE = ("ray_serve", "ray_serve_high_throughput")
"""Those that listen on every interface, and so get a network of their own, client and server together."""
RESTLESS = ("ray_serve", "ray_serve_high_throughput")
"""Those that take 10 to 15 % of a core when nobody calls them."""
START_S = 240
CALL_S = 120


@dataclasses.dataclass
class Usage:
    """What one call took."""

    seconds: float
    cpu_seconds: float
    client_mb: float
    server_mb: float


def _command(name: str, python: str, megabytes: int) -> list[str]:
    command = [python, str(FOLDER / f"{name}.py"), str(megabytes)]
    if name not in ALONE:
        return command
    # It becomes the command; who is not root becomes root of what it has to itself.
    return ["unshare", "--net", *([] if os.geteuid() == 0 else ["--map-root-user"]), *command]


class Peer:
    """The process of a peer, which is the client, and its children, which are the server."""

    def __init__(self, name: str, python: str, megabytes: int) -> None:
        self.name = name
        self._process = subprocess.Popen(
            _command(name, python, megabytes),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=sys.stderr,
            env={**os.environ, "PYTHONPATH": os.pathsep.join([str(FOLDER), os.environ.get("PYTHONPATH", "")])},
        )
        self._client = psutil.Process(self._process.pid)
        self._server: list[psutil.Process] = []
        self.contenders: list[str] = []

    def start(self) -> None:
        """Wait for its server. Raises TimeoutError and RuntimeError."""
        self.contenders = self._answer(START_S)["ready"]
        # The server's processes are those there are once it has answered.
        self._server = self._client.children(recursive=True)

    def _answer(self, seconds: float) -> dict[str, Any]:
        assert self._process.stdout is not None
        if not select.select([self._process.stdout], [], [], seconds)[0]:
            raise TimeoutError(f"{self.name}: no answer in {seconds} s")
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError(f"{self.name} ended with status {self._process.wait()}")
        found: dict[str, Any] = json.loads(line)
        return found

    def call(self, contender: str) -> Usage:
        """Let it make a call."""
        assert self._process.stdin is not None
        over = threading.Event()
        peak = {"client": 0, "server": 0}

        def sample() -> None:
            while True:
                peak["client"] = max(peak["client"], _resident([self._client]))
                peak["server"] = max(peak["server"], _resident(self._server))
                if over.wait(0.01):
                    return

        sampler = threading.Thread(target=sample)
        before = self._cpu()
        sampler.start()
        try:
            self._process.stdin.write(contender.encode() + b"\n")
            self._process.stdin.flush()
            seconds = self._answer(CALL_S)["seconds"]
        finally:
            over.set()
            sampler.join()
        return Usage(seconds, self._cpu() - before, peak["client"] / 1e6, peak["server"] / 1e6)

    def _cpu(self) -> float:
        return sum(sum(process.cpu_times()[:2]) for process in _alive([self._client, *self._server]))

    def close(self) -> None:
        """End it, and whatever it has left behind."""
        with contextlib.suppress(psutil.NoSuchProcess):
            self._server = [*{*self._server, *self._client.children(recursive=True)}]
        assert self._process.stdin is not None and self._process.stdout is not None
        with contextlib.suppress(OSError):
            self._process.stdin.close()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(60)
        for process in _alive([*self._server, self._client]):
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        self._process.wait()
        self._process.stdout.close()


def _alive(processes: list[psutil.Process]) -> list[psutil.Process]:
    return [process for process in processes if process.is_running() and process.status() != psutil.STATUS_ZOMBIE]


def _resident(processes: list[psutil.Process]) -> int:
    total = 0
    for process in processes:
        with contextlib.suppress(psutil.NoSuchProcess):
            total += process.memory_info().rss
    return total


@contextlib.contextmanager
def _started(names: dict[str, str], megabytes: int, failed: dict[str, str]) -> Iterator[list[Peer]]:
    """Those that start; what became of the others is put into `failed`."""
    with contextlib.ExitStack() as stack:
        peers = []
        for name, python in names.items():
            try:
                peer = Peer(name, python, megabytes)
                stack.callback(peer.close)
                peer.start()
            except (OSError, RuntimeError) as error:
                failed[name] = str(error)
                continue
            peers.append(peer)
        yield peers


def _groups(names: dict[str, str]) -> list[dict[str, str]]:
    """Those that can be there at the same time: all who are quiet, and each other one with ours."""
    quiet = {name: python for name, python in names.items() if name not in RESTLESS}
    return [quiet, *({OURS[0]: names[OURS[0]], name: names[name]} for name in names if name in RESTLESS)]


def _measured(names: dict[str, str], megabytes: int, rounds: int, failed: dict[str, str]) -> dict[str, list[Usage]]:
    """What each call of each contender took, ours first."""
    usages: dict[str, list[Usage]] = {}
    with _started(names, megabytes, failed) as peers:
        for _ in range(rounds):
            for peer in peers:
                for contender in peer.contenders:
                    usages.setdefault(contender, []).append(peer.call(contender))
    return usages


def _figures(usages: list[Usage], ours: list[Usage], gigabytes: float) -> dict[str, Any]:
    seconds = [usage.seconds for usage in usages]
    best = [usage.seconds for usage in ours]
    return {
        "best_ms": round(min(seconds) * 1e3),
        "median_ms": round(statistics.median(seconds) * 1e3),
        "cpu_s_per_gb": round(statistics.median(usage.cpu_seconds for usage in usages) / gigabytes, 2),
        "client_mb": round(max(usage.client_mb for usage in usages)),
        "server_mb": round(max(usage.server_mb for usage in usages)),
        "actserve_is_faster_by_best": round(min(seconds) / min(best), 2),
        "actserve_is_faster_by_median": round(statistics.median(seconds) / statistics.median(best), 2),
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--megabytes", type=int, default=100)
    parser.add_argument("--peers", default=",".join(PEERS), help="which ones, with commas")
    parser.add_argument("--environments", type=Path, default=Path(".venv-peers"))
    options = parser.parse_args()
    names = dict.fromkeys(OURS, sys.executable)
    missing = []
    for name in filter(None, options.peers.split(",")):
        python = options.environments.resolve() / ENVIRONMENT.get(name, name) / "bin" / "python"
        if python.exists():
            names[name] = str(python)
        else:
            missing.append(name)
    contenders: dict[str, Any] = {}
    failed: dict[str, str] = {}
    for group in _groups(names):
        usages = _measured(group, options.megabytes, options.rounds, failed)
        ours = next(iter(usages.values()))
        for contender, found in usages.items():
            # Ours is called again beside each of the restless.
            name = f"{contender}, beside {[*group][-1]}" if contender in contenders else contender
            contenders[name] = _figures(found, ours, options.megabytes / 1e3)
    report = {
        "megabytes": options.megabytes,
        "rounds": options.rounds,
        "cores": os.cpu_count(),
        "contenders": contenders,
        "not_installed": missing,
        "failed": failed,
    }
    print(json.dumps(report, indent=2))
    return 0


if __name__ == "__main__":
    sys.exit(main())
