"""A large tensor split over several servers: each computes a part of it, into one result; and what can be split. No I/O."""

from __future__ import annotations

import math

import numpy as np
from actserve.v1 import compute_pb2

from actserve_client import records
from actserve_client._session import (
    Array,
    Assembly,
    Job,
    MakeOut,
    OnSummary,
    Progress,
    Question,
    check_callbacks,
)
from actserve_client._summaries import Summary

LEAST_BYTES = 8 << 20
"""What a shard has at least: below, another connection costs more than it brings."""


def worth(question: Question, inputs: tuple[Array, ...], out: Array | MakeOut | None, places: int) -> int:
    """Into how many shards a map is to be split over so many places, if it is one of an elementwise activation; 1 for none."""
    if question.template.derivative.jacobian or question.template.derivative.parameter_gradients:
        return 1
    if isinstance(out, np.ndarray) and any(np.may_share_memory(array, out) for array in inputs):
        return 1
    return max(min(places, inputs[0].nbytes // LEAST_BYTES), 1)


def can_be_split(known: records.Activation | None) -> bool:
    """Whether an activation is known to be computed element by element."""
    return known is not None and known.kind == "elementwise"


def unit_bytes(question: Question, inputs: tuple[Array, ...], known: records.Activation | None) -> int:
    """How many bytes of each input make as many of a map's result by themselves: an element, or the slices that lie interleaved.

    0 where none do, as where a slice's length changes, and where that is not known.
    """
    header, x = question.template, inputs[0]
    derivative = header.derivative
    if derivative.parameter_gradients or derivative.jacobian == compute_pb2.JACOBIAN_FULL:
        return 0
    if known is None or any(other.shape != x.shape for other in inputs):
        return 0
    if known.kind == "elementwise":
        return x.itemsize
    axis = header.axis if header.HasField("axis") else -1
    if known.kind != "axis" or not -x.ndim <= axis < x.ndim:
        return 0
    return math.prod(x.shape[axis % x.ndim :]) * x.itemsize


def asked(question: Question) -> str:
    """The activation's name, as the catalogue finds it."""
    header = question.template
    return f"{header.preset}:{header.activation}" if header.preset else header.activation


class Shards:
    """The jobs of the parts of an elementwise map, which may run at the same time and in any order."""

    def __init__(
        self,
        question: Question,
        inputs: tuple[Array, ...],
        count: int,
        *,
        out: Array | MakeOut | None,
        progress: Progress | None,
        on_summary: OnSummary | None,
    ) -> None:
        check_callbacks(progress, on_summary)
        x = inputs[0]
        self._on_summary = on_summary
        self._summaries: list[Summary] = []
        self._progress = progress
        self._done = [(0, 0)] * count
        dtype = x.dtype.newbyteorder("=")
        out = out(x.shape, dtype) if callable(out) else out
        self.result: Array = np.empty(x.shape, dtype) if out is None else out
        edges = [x.size * index // count * x.itemsize for index in range(count + 1)]
        self.jobs: list[Job[None]] = [
            Job(
                question,
                inputs,
                _nothing,
                out=self.result,
                progress=self._progress_of(index, edges[index]) if progress else None,
                on_summary=self._summaries.append,
                span=(edges[index], edges[index + 1]),
                unit_bytes=x.itemsize,
            )
            for index in range(count)
        ]

    def _progress_of(self, index: int, begin: int) -> Progress:
        def told(sent: int, received: int) -> None:
            self._done[index] = max(sent - begin, 0), max(received - begin, 0)
            assert self._progress is not None
            self._progress(sum(sent for sent, _ in self._done), sum(received for _, received in self._done))

        return told

    def answer(self) -> Array:
        """The result, when all jobs are done."""
        if self._on_summary:
            total = Summary()
            for summary in self._summaries:
                total += summary
            self._on_summary(total)
        return self.result


def _nothing(_: Assembly) -> None:
    return None


__all__ = ["LEAST_BYTES", "Shards", "asked", "can_be_split", "unit_bytes", "worth"]
