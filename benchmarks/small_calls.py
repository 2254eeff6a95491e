"""Small arrays again and again: over a stream that stands open and by calls of their own, sent ahead one by one and together, by size.

    python benchmarks/small_calls.py [--rounds 7] [--calls 500]

Prints JSON, in microseconds a call. This is where the sizes come from up to which a call goes over a standing stream
(`actserve_client._standing.MOST_BYTES`) and `map` puts tensors together (`_tensors.PACK_BYTES`).
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import json
import os
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import servers
from actserve_client import Client, _standing, _tensors

KIB = (0.25, 1, 4, 16, 64, 128, 256)


@contextlib.contextmanager
def _limits(standing: int, pack: int) -> Iterator[None]:
    """Other limits than usual."""
    before = _standing.MOST_BYTES, _tensors.PACK_BYTES
    _standing.MOST_BYTES, _tensors.PACK_BYTES = standing, pack
    try:
        yield
    finally:
        _standing.MOST_BYTES, _tensors.PACK_BYTES = before


def _contenders(client: Client, x: Any, calls: int) -> dict[str, tuple[int, int, Callable[[], Any]]]:
    """The limits of each, and what it does."""

    def forward() -> None:
        for _ in range(calls):
            client.forward("sigmoid", x)

    def mapped() -> list[Any]:
        return list(client.map("sigmoid", [x] * calls))

    together = {f"map, up to {kib} KiB together": (0, kib << 10, mapped) for kib in (16, 64, 256)}
    return {
        "forward, standing stream": (1 << 30, 0, forward),
        "forward, calls": (0, 0, forward),
        "map, one by one": (0, 0, mapped),
        **together,
        "map of an iterable": (0, _tensors.PACK_BYTES, lambda: list(client.map("sigmoid", itertools.repeat(x, calls)))),
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--calls", type=int, default=500, help="in a round")
    options = parser.parse_args()
    report: dict[str, Any] = {}
    with servers.actserve() as (address, _), Client(address) as client:
        for kib in KIB:
            x = np.random.default_rng(0).standard_normal(int(kib * 256), dtype=np.float32)
            seconds: dict[str, list[float]] = {}
            contenders = _contenders(client, x, options.calls)
            for _ in range(options.rounds + 1):
                for name, (standing, pack, run) in contenders.items():
                    with _limits(standing, pack):
                        begin = time.perf_counter()
                        run()
                        seconds.setdefault(name, []).append(time.perf_counter() - begin)
            scale = 1e6 / options.calls
            report[f"{kib:g} KiB"] = {
                # The first round compiles and connects.
                name: {
                    "best_us": round(min(times[1:]) * scale),
                    "median_us": round(statistics.median(times[1:]) * scale),
                }
                for name, times in seconds.items()
            }
    print(json.dumps({"cores": os.cpu_count(), "calls": options.calls, "sizes": report}, indent=2))
    return 0


if __name__ == "__main__":
    sys.exit(main())
