"""An activation of one's own beside the catalogue's, and how long one takes from its formula to a first result: `make bench-custom`, or

    python benchmarks/custom.py [--elements 1e6] [--rounds 40]

Prints JSON. Speed is in GB/s read and written on one core, in process: silu written as people write it, x / (1 + exp(-x)), and a formula that
nothing in the catalogue computes, each beside the built-in silu, which take turns; each one's best round counts, and the
ratio is the median of the rounds' own. Time to a first result is that of a server that has been up for some seconds and has compiled nothing:
`create_activation` by a client, and then a first `forward` of float64, of three different formulas.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from actserve_client import Client
from actserve_server.activations.gated_by_x import SILU
from actserve_server.app import Server
from actserve_server.config import Config
from actserve_server.formulas import define
from actserve_server.kernels import compiler

SPEEDS = {"silu by formula": "x / (1 + exp(-x))", "of its own": "x * tanh(log(1 + exp(x)) + arctan(x) / 4)"}
FIRSTS = ("x / (1 + exp(-x))", "x if x > 0 else 0.3 * (exp(x) - 1)", "x * tanh(log(1 + exp(x)) + arctan(x) / 4)")
UP_S = 8.0
"""How long the server is up before: its compiling process has been started, and is ready."""


def speeds(elements: int, rounds: int) -> dict[str, Any]:
    """By type and operation: GB/s of the built-in and of each formula, and the ratio of the two."""
    found: dict[str, Any] = {}
    for dtype in (np.float32, np.float64):
        x = np.random.default_rng(0).standard_normal(elements).astype(dtype)
        out = np.empty_like(x)
        for operation in ("forward", "derivative"):
            loops: dict[str, Callable[[], None]] = {}
            for name, record, parameters in (
                ("built-in silu", SILU, (1.0,)),
                *((name, define("own.bench", text).record, ()) for name, text in SPEEDS.items()),
            ):
                loop = compiler.load(record, operation, dtype)
                loops[name] = lambda loop=loop, given=parameters: loop(x, out, given)  # type: ignore[misc]
            times: dict[str, list[float]] = {name: [] for name in loops}
            for turn in range(rounds + 2):
                for name, run in loops.items():
                    begin = time.perf_counter()
                    run()
                    if turn >= 2:
                        times[name].append(time.perf_counter() - begin)
            base = times["built-in silu"]
            found[f"{np.dtype(dtype).name} {operation}"] = {
                name: {
                    "gb_per_s": round(2 * x.nbytes / min(spent) / 1e9, 2),
                    "of_built_in": round(statistics.median(b / s for b, s in zip(base, spent, strict=True)), 3),
                }
                for name, spent in times.items()
            }
    return found


def firsts() -> dict[str, Any]:
    """Seconds from a formula to its first result."""
    found: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as folder:
        own, cache = Path(folder, "own"), Path(folder, "cache")
        server = Server(Config(address="127.0.0.1:0", grace_s=1, activations_dir=str(own), cache_dir=str(cache)))
        server.start()
        try:
            time.sleep(UP_S)
            with Client(server.addresses[0]) as client:
                for number, formula in enumerate(FIRSTS):
                    begin = time.perf_counter()
                    client.create_activation(f"bench.own{number}", formula)
                    created = time.perf_counter()
                    client.forward(f"bench.own{number}", np.linspace(-3, 3, 1000))
                    ended = time.perf_counter()
                    found[formula] = {"created_s": round(created - begin, 2), "first_result_s": round(ended - begin, 2)}
        finally:
            server.stop()
    return found


def main() -> None:
    """Measure, and print."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--elements", type=float, default=1e6)
    parser.add_argument("--rounds", type=int, default=40)
    options = parser.parse_args()
    # The server first: what it is to compile must not be in the memory of this process.
    first = firsts()
    print(json.dumps({"first_result": first, "speed": speeds(int(options.elements), options.rounds)}, indent=2))


if __name__ == "__main__":
    main()
