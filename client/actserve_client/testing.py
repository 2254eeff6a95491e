"""Helpers for users' own tests: a real server, started and stopped around them.

>>> with running_server(max_concurrency=2) as address:
...     with Client(address) as client: ...
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from actserve_client.local import LocalServer


@contextlib.contextmanager
def running_server(**settings: object) -> Iterator[str]:
    """The address of a private server with these settings (`actserve serve --help` lists them), which ends with the block.

    Nothing of it is left afterwards, neither process nor socket. Needs `actserve[server]`; raises ServerUnavailable without.
    """
    with LocalServer(**settings) as server:
        yield server.address


__all__ = ["running_server"]
