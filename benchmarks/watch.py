"""What a training step pays for being watched: a small torch network, with and without `watch` at every step, as JSON.

Steps alternate in blocks, so that a busy machine hits both alike. The server is a process of its own. Client, server and training share
the machine's cores.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from actserve_client import Client
from actserve_client.torch import watch
from torch import nn


def network(width: int, depth: int) -> nn.Sequential:
    layers: list[nn.Module] = []
    for _ in range(depth):
        layers += [nn.Linear(width, width), nn.ReLU()]
    return nn.Sequential(*layers)


def cpu_ns(pid: int) -> int:
    """The CPU time of the threads that a process has."""
    return sum(int(path.read_text().split()[0]) for path in Path(f"/proc/{pid}/task").glob("*/schedstat"))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--width", type=int, default=640)
    parser.add_argument("--depth", type=int, default=4)
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--blocks", type=int, default=20)
    parser.add_argument("--steps", type=int, default=10, help="steps in a block")
    parser.add_argument("--threads", type=int, default=1, help="of torch")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    torch.manual_seed(0)
    model = network(options.width, options.depth)
    optimizer = torch.optim.SGD(model.parameters(), 0.01)
    x = torch.randn(options.batch, options.width)

    def step() -> tuple[float, float]:
        begin, begin_cpu = time.perf_counter(), time.thread_time()
        optimizer.zero_grad()
        model(x).square().mean().backward()
        optimizer.step()
        return (time.perf_counter() - begin) * 1e3, (time.thread_time() - begin_cpu) * 1e3

    times: dict[str, list[tuple[float, float]]] = {"plain": [], "watched": []}
    dropped = taken = 0
    hooks_s = 0.0
    beside = {"client": 0, "server": 0}
    with Client() as client:
        assert client._server is not None
        pids = {"client": os.getpid(), "server": client._server.pid}
        for block in range(options.blocks + 1):
            for kind in ("plain", "watched"):
                if kind == "plain":
                    found = [step() for _ in range(options.steps)]
                else:
                    with watch(model, client) as watched:
                        offer = watched._watch.offer

                        def timed(layer: str, copy: Callable[[], Any], offer: Any = offer) -> bool:
                            nonlocal hooks_s
                            begin = time.thread_time()
                            try:
                                return bool(offer(layer, copy))
                            finally:
                                hooks_s += time.thread_time() - begin

                        watched._watch.offer = timed  # type: ignore[method-assign]  # in its place, for this run
                        found = [step()]  # which begins the layers
                        watched.report()
                        begin_ns, own_ns = {end: cpu_ns(pid) for end, pid in pids.items()}, time.thread_time_ns()
                        found += [step() for _ in range(options.steps - 1)]
                        watched.report()
                        for end, pid in pids.items():
                            beside[end] += cpu_ns(pid) - begin_ns[end]
                        beside["client"] -= time.thread_time_ns() - own_ns
                    dropped += watched.dropped
                    taken += options.steps * options.depth - watched.dropped
                if block:  # the first block warms both up
                    times[kind].extend(found)
    wall, cpu = ({kind: [step[which] for step in found] for kind, found in times.items()} for which in (0, 1))

    def cost(of: dict[str, list[float]]) -> dict[str, float]:
        plain, watched = statistics.median(of["plain"]), statistics.median(of["watched"])
        return {"plain_ms": plain, "watched_ms": watched, "cost": watched / plain - 1}

    print(
        json.dumps(
            {
                "options": vars(options),
                "cores": os.cpu_count(),
                "load": os.getloadavg()[0],
                "parameters": sum(p.numel() for p in model.parameters()),
                "step": cost(wall),
                # With one thread, what the training's own thread computes: other programs on the machine do not count.
                "step_cpu_time_of_the_training_thread": cost(cpu),
                # Of that, what the copies and the queue take.
                "hooks_cpu_ms_a_step": hooks_s * 1e3 / ((options.blocks + 1) * options.steps),
                # What all other threads of the client and the server take, with a report of each block of steps.
                "beside_cpu_ms_a_step": {
                    end: found / 1e6 / ((options.blocks + 1) * (options.steps - 1)) for end, found in beside.items()
                },
                "taken": taken,
                "dropped": dropped,
            },
            indent=2,
        )
    )


if __name__ == "__main__":
    main()
