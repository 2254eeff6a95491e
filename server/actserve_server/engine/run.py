"""Runs a plan: chunks of input in, pieces of results out, in constant memory."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator

from actserve_server.engine.inlets import Chunk, blocks
from actserve_server.engine.plan import Plan
from actserve_server.modes.base import Array, NeuronSummary, Piece, Room, Scalars, Tensor
from actserve_server.modes.nonfinite import NonfiniteCounts


class Run:
    """One execution of a plan. `pieces` is to be exhausted once; the other properties are complete after that.

    `into` is memory for all that is computed of the first result, flat: its pieces are then parts of that. With `steady` a block is
    copied before it is looked at: for input that may change meanwhile, because it is being overwritten by the result, or by somebody else.
    """

    def __init__(self, plan: Plan, *, into: Array | None = None, steady: bool = False) -> None:
        self._plan = plan
        self._into = None if into is None else Room(into, plan.result_span[0] // into.itemsize)
        self._steady = steady
        self._elements = plan.first_unit * plan.unit_elements
        self.compute_time_s = 0.0
        """Time spent computing, without waiting for chunks or for whoever takes the pieces."""
        self.scalars: Scalars = None
        reject = plan.reject_nonfinite
        self.nonfinite_in = NonfiniteCounts("x", reject=reject)
        self.nonfinite_out = NonfiniteCounts("the result", reject=reject)

    def pieces(self, chunks: Iterable[Chunk]) -> Iterator[Piece]:
        """The result, piece by piece; each is good only until the next is asked for.

        Stops within one piece when closed. Raises what `blocks` raises, and whatever `chunks` raises.
        """
        plan = self._plan
        # What is refused when it is not finite is looked at more than once, where nobody else can reach it.
        direct = None if plan.reject_nonfinite else self._into
        stage = plan.mode.start(plan.subject, self.nonfinite_out, upstream=plan.upstream, into=direct)
        for first, inputs in blocks(plan, chunks):
            if self._steady:
                inputs = tuple(array.copy() for array in inputs)
            self.nonfinite_in.add(first, inputs[0])
            yield from self._timed(stage.block(first, *inputs))
            self._elements = first + inputs[0].size
        yield from self._timed(stage.finish(self.rows))
        self.scalars = stage.scalars()

    @property
    def rows(self) -> int | None:
        """The first dimension of x: as planned, or as long as it has turned out to be; None for a scalar."""
        plan = self._plan
        if plan.open_ended:
            row_elements = plan.inputs[0].row_bytes // plan.subject.dtype.itemsize
            return self._elements // row_elements if row_elements else 0
        return plan.subject.shape[0] if plan.subject.shape else None

    @property
    def results(self) -> tuple[Tensor, ...]:
        """The results with their final shapes."""
        # Of neuron statistics it is the state whose length only the end tells; of all else, the rows of an open-ended job.
        length = self.scalars.state_bytes if isinstance(self.scalars, NeuronSummary) else self.rows or 0
        return tuple(
            Tensor(t.name, t.dtype, (length, *t.shape[1:])) if t.shape[:1] == (-1,) else t for t in self._plan.results
        )

    def _timed(self, pieces: Iterator[Piece]) -> Iterator[Piece]:
        while True:
            begin = time.perf_counter()
            piece = next(pieces, None)
            self.compute_time_s += time.perf_counter() - begin
            if piece is None:
                return
            yield piece if self._into is None or piece.tensor else _placed(piece, self._into)


def _placed(piece: Piece, into: Room) -> Piece:
    """A piece of the first result in its place."""
    place = into.part(piece.first, piece.first + piece.array.size)
    if place.__array_interface__["data"] != piece.array.__array_interface__["data"]:
        place[...] = piece.array
    return Piece(piece.tensor, piece.first, place)
