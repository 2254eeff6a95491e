"""What a server says at the end of a call, as callers see it."""

from __future__ import annotations

import dataclasses

from actserve.v1 import compute_pb2


@dataclasses.dataclass(frozen=True, slots=True)
class Nonfinite:
    """How many elements are not finite."""

    nan: int = 0
    positive_infinity: int = 0
    negative_infinity: int = 0

    def __add__(self, other: Nonfinite) -> Nonfinite:
        return Nonfinite(
            self.nan + other.nan,
            self.positive_infinity + other.positive_infinity,
            self.negative_infinity + other.negative_infinity,
        )

    @property
    def total(self) -> int:
        """All of them.

        >>> Nonfinite(nan=2, negative_infinity=1).total
        3
        """
        return self.nan + self.positive_infinity + self.negative_infinity


@dataclasses.dataclass(frozen=True, slots=True)
class Summary:
    """What the server says at the end of a call, to the `on_summary` that was given to it."""

    compute_time_s: float = 0.0
    """How long the server computed, without waiting for input or for the reader; of a call that went on elsewhere, the last server."""
    nonfinite_in: Nonfinite = Nonfinite()
    """What of x is not finite."""
    nonfinite_out: Nonfinite = Nonfinite()
    """What of the values computed is not finite."""

    def __add__(self, other: Summary) -> Summary:
        return Summary(
            self.compute_time_s + other.compute_time_s,
            self.nonfinite_in + other.nonfinite_in,
            self.nonfinite_out + other.nonfinite_out,
        )


def summary_of(message: compute_pb2.ResultSummary) -> Summary:
    """What a caller is told of a summary."""
    return Summary(
        message.compute_time.ToNanoseconds() / 1e9, nonfinite_of(message.input), nonfinite_of(message.output)
    )


def nonfinite_of(message: compute_pb2.NonfiniteCounts) -> Nonfinite:
    """The counts of a message."""
    return Nonfinite(message.nan, message.positive_infinity, message.negative_infinity)


__all__ = ["Nonfinite", "Summary", "nonfinite_of", "summary_of"]
