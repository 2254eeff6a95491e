"""How much goes in one message, in one call, and is kept of what was sent."""

from __future__ import annotations

__all__ = ["CHUNK_BYTES", "KEPT_BYTES", "UNARY_BYTES"]

CHUNK_BYTES = 1 << 20
"""The size of the chunks that are sent and asked for; benchmarks/README.md shows where it comes from."""

UNARY_BYTES = 1 << 20
"""Up to this many bytes of input go in one Compute call, which costs half of what opening a stream does."""

KEPT_BYTES = 64 << 20
"""How much of what was sent of an iterable is kept at most until it is answered, to be sent again where a server is lost."""
