"""How a client behaves: small frozen records."""

from __future__ import annotations

import dataclasses
import random
from pathlib import Path

import numpy as np

from actserve_client.errors import InvalidRequest


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Retry:
    """When and how often a call is made again.

    >>> Retry(attempts=1)  # never
    Retry(attempts=1, initial_s=0.05, longest_s=2.0, reconnect_s=60.0)

    All computation is pure, so a call that found the server unavailable or busy may be made again. Between
    attempts the client waits a random time below a bound that doubles from `initial_s` up to `longest_s`, or as long as the server
    asks for, if that is longer. A call's timeout covers all its attempts. All calls of a client together are made again at most a
    hundred times more than one for ten that were answered.

    A computation that loses its server when it has begun goes on from where it was on whatever server answers within `reconnect_s`
    seconds, another one or the same restarted; every result has the bits that it would have had.
    """

    attempts: int = 5
    initial_s: float = 0.05
    longest_s: float = 2.0
    reconnect_s: float = 60.0

    def __post_init__(self) -> None:
        if self.attempts < 1 or self.initial_s < 0 or self.longest_s < 0 or self.reconnect_s < 0:
            raise ValueError(f"{self}: attempts must be at least 1, and times not negative")

    def pause_s(self, failed: int, asked_s: float | None) -> float:
        """How long to wait after so many failed attempts, when the server asked for `asked_s`."""
        bound: float = min(self.initial_s * 2.0 ** (failed - 1), self.longest_s)
        return max(random.uniform(0, bound), asked_s or 0.0)  # noqa: S311  # jitter, not a secret


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Tls:
    """Encryption of a connection, and proof of identity.

    All are paths of PEM files. Without `roots` the certificates that gRPC carries decide whom to trust; `certificate` and
    `key` are the client's own, where the server asks for them.
    """

    roots: Path | str | None = None
    certificate: Path | str | None = None
    key: Path | str | None = None
    server_name: str | None = None
    """The name that the server's certificate must carry, when it is not the address's."""

    def __post_init__(self) -> None:
        if (self.certificate is None) != (self.key is None):
            raise ValueError("a certificate and its key go together")


def seconds(value: object, name: str) -> float | None:
    """A timeout, None for one that never passes.

    >>> seconds(2, "timeout"), seconds(float("inf"), "timeout")
    (2.0, None)
    """
    if value is None:
        return None
    if (
        isinstance(value, (bool, np.bool_))
        or not isinstance(value, (int, float, np.integer, np.floating))
        or value != value
    ):
        raise InvalidRequest(f"{name} is {value!r}, and must be a number of seconds or None", field=name)
    return None if value >= _FOREVER_S else float(value)


_FOREVER_S = 1e9
"""What is longer than that, some thirty years, overflows the clocks of some systems."""


__all__ = ["Retry", "Tls", "seconds"]
