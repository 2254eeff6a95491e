"""The same engine behind gRPC's blocking API and behind its asyncio API: `python benchmarks/sync_or_asyncio.py`.

Prints JSON: the time of one 100 MB stream, of two at once, of a small call, and the slowest of the small calls made while two
streams run. The asyncio server hands each block to a thread, because a block computed in the event loop would stall every
other call. Both servers are processes of their own, timed in turn.
"""

from __future__ import annotations

import asyncio
import json
import multiprocessing
import statistics
import sys
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import grpc
import grpc.aio
import numpy as np
from actserve_client import Client

ROUNDS = 5


def _blocking(pipe: Any) -> None:
    from actserve_server.app import Server
    from actserve_server.config import Config

    server = Server(Config(address="127.0.0.1:0"))
    server.start()
    pipe.send(server.addresses[0])
    pipe.recv()
    server.stop(0)


def _asyncio(pipe: Any) -> None:
    from actserve_server.app import Server, _channel_options, _tune_allocator
    from actserve_server.config import Config
    from actserve_server.service import SERVICE_NAME, Servicer

    config = Config(address="127.0.0.1:0")
    # Built for its parts: limits and kernels are configured as in the real server, whose port is never started.
    parts = Server(config)
    servicer: Servicer = parts._servicer
    done = object()

    class Context:
        def is_active(self) -> bool:
            return True

    async def compute(raw: bytes, context: Any) -> AsyncIterator[bytes]:
        answers = servicer.compute(raw, Context())
        while (answer := await asyncio.to_thread(next, answers, done)) is not done:
            yield answer

    async def compute_stream(raws: AsyncIterator[bytes], context: Any) -> AsyncIterator[bytes]:
        loop = asyncio.get_running_loop()

        def pull() -> Iterator[bytes]:
            source = raws.__aiter__()
            while True:
                try:
                    yield asyncio.run_coroutine_threadsafe(source.__anext__(), loop).result()
                except StopAsyncIteration:
                    return

        answers = servicer.compute_stream(pull(), Context())
        while (answer := await asyncio.to_thread(next, answers, done)) is not done:
            yield answer

    async def serve() -> None:
        _tune_allocator()
        server = grpc.aio.server(options=_channel_options(config))
        methods = {
            "Compute": grpc.unary_stream_rpc_method_handler(compute),
            "ComputeStream": grpc.stream_stream_rpc_method_handler(compute_stream),
        }
        server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE_NAME, methods),))
        port = server.add_insecure_port("127.0.0.1:0")
        await server.start()
        pipe.send(f"127.0.0.1:{port}")
        await asyncio.to_thread(pipe.recv)
        await server.stop(0)

    asyncio.run(serve())


def _timed(run: Callable[[], Any]) -> float:
    begin = time.perf_counter()
    run()
    return time.perf_counter() - begin


def _measure(client: Client, large: Any, small: Any) -> dict[str, float]:
    def two() -> None:
        threads = [threading.Thread(target=client.forward, args=("sigmoid", large)) for _ in range(2)]
        for thread in threads:
            thread.start()
        while any(thread.is_alive() for thread in threads):
            beside.append(_timed(lambda: client.forward("sigmoid", small)))
        for thread in threads:
            thread.join()

    beside: list[float] = []
    calls = [_timed(lambda: client.forward("sigmoid", small)) for _ in range(300)]
    return {
        "one_stream_ms": _timed(lambda: client.forward("sigmoid", large)) * 1e3,
        "two_streams_ms": _timed(two) * 1e3,
        "small_call_ms": statistics.median(calls) * 1e3,
        "small_call_beside_two_streams_ms": statistics.median(beside) * 1e3,
    }


def main() -> int:
    spawn = multiprocessing.get_context("spawn")
    large = np.random.default_rng(0).standard_normal(25_000_000).astype(np.float32)
    servers = {}
    for name, target in (("blocking", _blocking), ("asyncio", _asyncio)):
        mine, theirs = spawn.Pipe()
        process = spawn.Process(target=target, args=(theirs,))
        process.start()
        servers[name] = (Client(mine.recv()), mine, process)
    rounds: dict[str, list[dict[str, float]]] = {name: [] for name in servers}
    for _ in range(ROUNDS + 1):
        for name, (client, _, _) in servers.items():
            rounds[name].append(_measure(client, large, large[:1000]))
    for client, pipe, process in servers.values():
        client.close()
        pipe.send(None)
        process.join()
    # The first round warms up.
    median = {
        name: {key: round(statistics.median(r[key] for r in found[1:]), 2) for key in found[0]}
        for name, found in rounds.items()
    }
    print(json.dumps(median, indent=2))
    return 0


if __name__ == "__main__":
    sys.exit(main())
