"""A silu of one's own beside the catalogue's, and the time from a formula to its first result; prints JSON.

python benchmarks/custom.py [--rounds 15]

Kernels are timed in this process, on one core, in turn; `ratio` is the catalogue's time by the formula's. The time to a first result is
taken through a client and a server of its own, whose cache is empty of what the formulas need.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from actserve_client import Client
from actserve_client.testing import running_server
from actserve_server.activations.catalogue import find
from actserve_server.activations.spec import Activation, Parameter
from actserve_server.formulas import define
from actserve_server.kernels import compiler

ELEMENTS = 1_000_000
FORMULAS = {
    "silu": "x * sigmoid(beta * x)",
    "mish": "x * tanh(log(1 + exp(x)))",
    "elu": "x if x > 0 else beta * (exp(x) - 1)",
    "gelu": "x * (1 + erf(x / sqrt(2))) / 2",
}


def seconds(loop: Any, x: np.ndarray[Any, Any], out: np.ndarray[Any, Any], parameters: tuple[float, ...]) -> float:
    begin = time.perf_counter()
    loop(x, out, parameters)
    return time.perf_counter() - begin


def kernels(rounds: int) -> list[dict[str, Any]]:
    """Each formula beside the catalogue's activation that it is, forward and derivative, in both types."""
    found: list[dict[str, Any]] = []
    for name, formula in FORMULAS.items():
        own = define(f"own.{name}", formula, [Parameter("beta", "", 1.0)] if "beta" in formula else []).record
        built_in = find(name)
        assert isinstance(built_in, Activation)
        for dtype in (np.float32, np.float64):
            x = np.random.default_rng(0).standard_normal(ELEMENTS).astype(dtype)
            out = np.empty_like(x)
            for operation in ("forward", "derivative"):
                loops = [
                    (compiler.load(record, operation, dtype), (1.0,) * len(record.parameters))
                    for record in (built_in, own)
                ]
                times: list[list[float]] = [[], []]
                for _ in range(rounds):
                    for kept, (loop, parameters) in zip(times, loops, strict=True):
                        kept.append(seconds(loop, x, out, parameters))
                best = [min(kept) for kept in times]
                found.append(
                    {
                        "activation": name,
                        "dtype": np.dtype(dtype).name,
                        "operation": operation,
                        "gb_per_s": round(2 * x.nbytes / best[1] / 1e9, 2),
                        "ratio": round(best[0] / best[1], 3),
                    }
                )
    return found


def first_results() -> dict[str, Any]:
    """Seconds from the call that creates an activation to its first result, on a server that has been up for a while."""
    times: list[float] = []
    with tempfile.TemporaryDirectory() as cache, running_server(cache_dir=cache) as address, Client(address) as client:
        client.forward("relu", np.ones(3, np.float32))
        client.create_activation("team.first", "tanh(x) * 0.5")
        time.sleep(10)  # what it makes in the background is made
        for number, formula in enumerate(FORMULAS.values()):
            begin = time.perf_counter()
            name = f"team.own{number}"
            client.create_activation(name, f"{formula} * 1.625", beta=1.0)
            client.forward(name, np.ones(3, np.float32))
            times.append(time.perf_counter() - begin)
            time.sleep(5)
    return {"seconds": [round(t, 2) for t in times], "median_s": round(statistics.median(times), 2)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=15)
    options = parser.parse_args()
    compiler.configure(Path("~/.cache/actserve").expanduser())
    result = {"kernels": kernels(options.rounds), "create_to_first_result": first_results()}
    compiler.close()
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
