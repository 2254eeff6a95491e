"""The C library's memory for chunks that come and go. Knows neither messages nor sides."""

from __future__ import annotations

import ctypes
import functools
import os

__all__ = ["keep_freed_chunks"]

_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3
"""glibc's M_TRIM_THRESHOLD and M_MMAP_THRESHOLD."""
_LARGEST_KEPT = 32 << 20
_KEPT = 64 << 20
_OWN_SETTINGS = ("MALLOC_TRIM_THRESHOLD_", "MALLOC_MMAP_THRESHOLD_", "MALLOC_TOP_PAD_", "MALLOC_MMAP_MAX_")


@functools.cache
def keep_freed_chunks() -> bool:
    """Have this process keep what is freed, up to 64 MiB in each arena, for the next chunks; says whether it does.

    By default glibc gives blocks of a chunk's size back to the system, so that many a chunk faults in fresh pages: benchmarks/README.md has
    the difference. It holds for all blocks of up to 32 MiB that the process allocates. It is done once, where the C library is glibc,
    and where the environment says nothing of its own about these thresholds (`MALLOC_TRIM_THRESHOLD_` and the like, or `glibc.malloc`
    in `GLIBC_TUNABLES`).

    >>> keep_freed_chunks() is keep_freed_chunks()
    True
    """
    if any(name in os.environ for name in _OWN_SETTINGS) or "glibc.malloc" in os.environ.get("GLIBC_TUNABLES", ""):
        return False
    try:
        libc = ctypes.CDLL(None)
        # Other libraries may have a mallopt whose thresholds are numbered otherwise.
        mallopt = libc.mallopt if hasattr(libc, "gnu_get_libc_version") else None
    except (OSError, AttributeError):
        return False
    if mallopt is None:
        return False
    # One without the other is worse than none: what is set at all stops growing with what is freed.
    return bool(mallopt(_MMAP_THRESHOLD, _LARGEST_KEPT) and mallopt(_TRIM_THRESHOLD, _KEPT))
