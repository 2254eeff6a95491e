"""A real server in process, and clients of it: what nearly all tests go through."""

from __future__ import annotations

import os
import socket
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from actserve_client import Client
from actserve_server.app import Server
from actserve_server.config import Config
from actserve_server.kernels import compiler

MakeServer = Callable[..., Server]


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--kills", type=int, default=7, help="how often a server is killed in mid-stream")
    parser.addoption("--kill-mib", type=int, default=48, help="the length of those streams")
    parser.addoption("--soak-gb", type=float, default=0.5, help="the length of a long stream")
    parser.addoption("--fuzz-examples", type=int, default=3000, help="how many formulas are made up")


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Tests of whole processes come first: they are the longest, and mostly wait, while the other cores compute."""
    items.sort(key=lambda item: "system" not in item.path.parts)


@pytest.fixture(scope="session", autouse=True)
def kernels() -> None:
    """What tests compile themselves lies where servers look for it: nothing is compiled twice."""
    compiler.configure(Config().kernel_cache())


@pytest.fixture
def fuzz_examples(request: pytest.FixtureRequest) -> int:
    return int(request.config.getoption("--fuzz-examples"))


@pytest.fixture
def soak_gb(request: pytest.FixtureRequest) -> float:
    return float(request.config.getoption("--soak-gb"))


@pytest.fixture
def kills(request: pytest.FixtureRequest) -> int:
    return int(request.config.getoption("--kills"))


@pytest.fixture
def kill_bytes(request: pytest.FixtureRequest) -> int:
    return int(request.config.getoption("--kill-mib")) << 20


@pytest.fixture
def unused_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        return int(taken.getsockname()[1])


@pytest.fixture(scope="session")
def socket_folder() -> Iterator[Path]:
    # Not tmp_path: a Unix socket's path may have 107 bytes.
    with tempfile.TemporaryDirectory(prefix="actserve-tests-") as folder:
        yield Path(folder)


@pytest.fixture(scope="session")
def server(socket_folder: Path) -> Iterator[Server]:
    """A server that all tests share, on a Unix socket and a TCP port."""
    server = Server(Config(address=f"unix:{socket_folder}/shared,127.0.0.1:0", grace_s=1))
    server.start()
    yield server
    server.stop()


@pytest.fixture(scope="session")
def address(server: Server) -> str:
    return server.addresses[0]


@pytest.fixture(scope="session")
def client(address: str) -> Iterator[Client]:
    with Client(address, timeout=300) as client:
        yield client


@pytest.fixture
def make_server(tmp_path: Path) -> Iterator[MakeServer]:
    """Starts a server with settings of its own; it ends with the test."""
    servers: list[Server] = []

    def make(**settings: object) -> Server:
        server = Server(Config(**{"address": "127.0.0.1:0", "grace_s": 1.0, **settings}))  # type: ignore[arg-type]
        server.start()
        servers.append(server)
        return server

    yield make
    for server in servers:
        server.stop()


@pytest.fixture
def make_unix(tmp_path: Path, socket_folder: Path) -> Iterator[MakeServer]:
    """Servers on Unix sockets with settings of their own, or one again at the place of an earlier one."""
    servers: list[Server] = []

    def make(at: Server | None = None, **settings: Any) -> Server:
        address = at.addresses[0] if at else f"unix:{socket_folder}/{tmp_path.name[-20:]}-{len(servers)}"
        server = Server(Config(address=address, grace_s=1.0, **settings))
        server.start()
        servers.append(server)
        return server

    yield make
    for server in servers:
        server.stop()


@pytest.fixture
def bytes_client(address: str) -> Iterator[Client]:
    """A client that shares no memory with its server, and sends the bytes."""
    with Client(address, timeout=300) as client:
        client._regions.close()
        yield client


@pytest.fixture(autouse=True)
def no_server_in_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith("ACTSERVE_")]:
        monkeypatch.delenv(name)
