"""What is told of a layer that is monitored, to whoever shows it."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping

__all__ = ["Watched"]


@dataclasses.dataclass(frozen=True, slots=True)
class Watched:
    """A layer of a stream that is open, for whoever shows its figures."""

    stream: int
    """The server's number of the stream."""
    monitor: str
    layer: str
    figures: Callable[[], Mapping[str, float]]
