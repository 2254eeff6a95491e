"""`actserve health`: whether a server is serving, as an exit status."""

from __future__ import annotations

import argparse
import os
from typing import Any

from actserve_client.cli.options import command
from actserve_client.client import Client

__all__ = ["add"]

_HEALTH_ADDRESS = "127.0.0.1:50051"


def add(commands: Any) -> None:
    """Add `health` to the commands."""
    health = command(commands, "health", _run, "exit 0 when the server is serving", server=False)
    health.add_argument(
        "--server",
        metavar="ADDRESS",
        help=f"of several, with commas, it will do that one serves [$ACTSERVE_ADDRESS or {_HEALTH_ADDRESS}]",
    )
    health.add_argument("--timeout", type=float, default=5.0, help="seconds to wait for the answer [5]")


def _run(options: argparse.Namespace) -> int:
    address = options.server or os.environ.get("ACTSERVE_ADDRESS") or _HEALTH_ADDRESS
    with Client(address, timeout=options.timeout) as client:
        serving = client.healthy()
    print("serving" if serving else "not serving")
    return 0 if serving else 1
