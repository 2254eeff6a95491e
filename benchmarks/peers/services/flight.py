"""Arrow Flight: DoExchange, batch by batch of 1 MiB, and DoPut then DoGet; NumPy behind both. And DoExchange with the batches sent back."""

from __future__ import annotations

import multiprocessing
import threading
from typing import Any

import contest
import numpy as np
import pyarrow as pa
import pyarrow.flight as fl

SCHEMA = pa.schema([("x", pa.float32())])
ROWS = contest.CHUNK // 4


def _batch(x: Any) -> Any:
    return pa.record_batch([pa.array(x)], schema=SCHEMA)


def _values(batch: Any) -> Any:
    return batch.column(0).to_numpy()


class Server(fl.FlightServerBase):  # type: ignore[misc]  # untyped
    """Computes what is exchanged, and keeps what is put until it is gotten."""

    def __init__(self) -> None:
        super().__init__("grpc://127.0.0.1:0")
        self._kept: list[Any] = []

    def do_exchange(self, context: Any, descriptor: Any, reader: Any, writer: Any) -> None:
        writer.begin(SCHEMA)
        for chunk in reader:
            echoed = descriptor.command == b"echo"
            writer.write_batch(chunk.data if echoed else _batch(contest.sigmoid(_values(chunk.data))))

    def do_put(self, context: Any, descriptor: Any, reader: Any, writer: Any) -> None:
        self._kept = [_batch(contest.sigmoid(_values(chunk.data))) for chunk in reader]

    def do_get(self, context: Any, ticket: Any) -> Any:
        kept, self._kept = self._kept, []
        return fl.GeneratorStream(SCHEMA, kept)


def serve(pipe: Any) -> None:
    """The server, in a process of its own."""
    server = Server()
    pipe.send(server.port)
    server.serve()


def main() -> None:
    x = contest.tensor()
    mine, theirs = multiprocessing.get_context("spawn").Pipe()
    multiprocessing.get_context("spawn").Process(target=serve, args=(theirs,), daemon=True).start()
    client = fl.FlightClient(f"grpc://127.0.0.1:{mine.recv()}")

    def filled(reader: Any) -> Any:
        out, at = np.empty_like(x), 0
        for chunk in reader:
            part = _values(chunk.data)
            out[at : at + part.size] = part
            at += part.size
        return out

    def send(writer: Any) -> None:
        for at in range(0, x.size, ROWS):
            writer.write_batch(_batch(x[at : at + ROWS]))
        writer.done_writing()

    def exchange(command: bytes) -> Any:
        writer, reader = client.do_exchange(fl.FlightDescriptor.for_command(command))
        writer.begin(SCHEMA)
        sender = threading.Thread(target=send, args=(writer,))
        sender.start()
        out = filled(reader)
        sender.join()
        writer.close()
        return out

    def put_and_get() -> Any:
        writer, _ = client.do_put(fl.FlightDescriptor.for_command(b"sigmoid"), SCHEMA)
        send(writer)
        writer.close()
        return filled(client.do_get(fl.Ticket(b"sigmoid")))

    contest.compete(
        {"Flight, DoExchange": lambda: exchange(b"sigmoid"), "Flight, DoPut and DoGet": put_and_get},
        x,
        echoes={"Flight, DoExchange, the batches sent back": lambda: exchange(b"echo")},
    )


if __name__ == "__main__":
    main()
