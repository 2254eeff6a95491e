"""The servicer: calls in, messages to jobs, blocks to messages. No mathematics, and no statuses: errors are raised.

It takes and gives raw bytes, because the bulk field is framed by hand (`actserve.wire`), and is written against the blocking
API of gRPC; docs/server.md says why, with figures.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, TypeVar

import grpc
import numpy as np
from actserve import wire
from actserve.stats import NeuronStats, StateError
from actserve.v1 import catalogue_pb2, compute_pb2, service_pb2
from google.protobuf.message import Message

from actserve_server import custom_messages, messages
from actserve_server.activations import catalogue
from actserve_server.activations.spec import Record
from actserve_server.custom.creation import Creation
from actserve_server.custom.registry import Added, Registry
from actserve_server.engine.inlets import Chunk
from actserve_server.engine.names import Names, Pinned
from actserve_server.engine.parts import bits_of
from actserve_server.engine.plan import Limits, Plan, plan
from actserve_server.engine.run import Run
from actserve_server.errors import (
    ChunkOutOfPlace,
    DataSizeMismatch,
    Draining,
    InvalidOption,
    InvalidState,
    LimitExceeded,
    MalformedMessage,
    RequestError,
    StreamEndedEarly,
    UnexpectedFrame,
    UnknownActivation,
)
from actserve_server.gate import Gate, Stay
from actserve_server.kernels.threads import Team
from actserve_server.monitoring import Monitors, MonitorStream
from actserve_server.placement import NOWHERE, Placement, placed
from actserve_server.regions import Regions
from actserve_server.status import status_of

SERVICE_NAME = service_pb2.DESCRIPTOR.services_by_name["ActivationService"].full_name

_BREAKS_THE_STREAM = (UnexpectedFrame, StreamEndedEarly, MalformedMessage, Draining)
"""Errors after which what follows on a stream can't be understood, or will not be served: they end the call."""

_LARGEST_PAGE = 1000
_USUAL_PAGE = 100

T = TypeVar("T", bound=Message)


class Servicer:
    """The methods of actserve.v1.ActivationService, as functions of bytes."""

    def __init__(
        self,
        limits: Limits,
        gate: Gate,
        info: service_pb2.ServerInfo,
        team: Team,
        monitors: Monitors,
        registry: Registry,
        creation: Creation,
        regions: Regions,
    ) -> None:
        self._registry = registry
        self._creation = creation
        self._limits = limits
        self._gate = gate
        self._info = info
        self._team = team
        self._monitors = monitors
        self._regions = regions

    def handler(self) -> grpc.GenericRpcHandler:
        """The methods, for a gRPC server."""
        return grpc.method_handlers_generic_handler(
            SERVICE_NAME,
            {
                "Compute": grpc.unary_stream_rpc_method_handler(self.compute),
                "ComputeStream": grpc.stream_stream_rpc_method_handler(self.compute_stream),
                "MergeStats": grpc.stream_stream_rpc_method_handler(self.merge_stats),
                "Monitor": grpc.stream_stream_rpc_method_handler(self.monitor),
                "ListActivations": _unary(service_pb2.ListActivationsRequest, self.list_activations),
                "GetActivation": _unary(service_pb2.GetActivationRequest, self.get_activation),
                "CreateActivation": _unary(service_pb2.CreateActivationRequest, self.create_activation),
                "DeleteActivation": _unary(service_pb2.DeleteActivationRequest, self.delete_activation),
                "GetServerInfo": _unary(service_pb2.GetServerInfoRequest, self.get_server_info),
            },
        )

    def compute(self, raw: bytes, context: grpc.ServicerContext) -> Iterator[bytes]:
        """One job, whole in one message."""
        with self._gate.stay(context) as stay:
            request, data = _parse(compute_pb2.ComputeRequest, raw)
            planned = self._whole_plan(request.header, self._registry)
            with placed(request.header, planned, self._regions) as placement:
                sources = _sources(planned, data, placement)
                # Whoever made the call hears nothing of parts, and so not of parts that lie in shared memory.
                whole = request.header.whole_result or placement.result is not None
                answer = self._whole_results if whole else self._results
                yield from answer(0, planned, _whole(planned, sources, context), stay, placement)

    def compute_stream(self, raws: Iterator[bytes], context: grpc.ServicerContext) -> Iterator[bytes]:
        """Jobs one after another, each a header and its chunks. One that fails answers with its error, and the next goes on."""
        with self._gate.stay(context) as stay:
            latest = failed = None
            names = Pinned(self._registry)
            plans = _Plans(lambda header: self._whole_plan(header, names))
            while (raw := stay.next(raws)) is not None:
                message, data = _parse(compute_pb2.ComputeStreamRequest, raw)
                frame = message.WhichOneof("frame")
                if frame == "chunk" and message.job == latest and not data:
                    continue  # a job ends with its last byte; a chunk of nothing after it, as for an empty tensor, is harmless
                if frame != "header" and failed is not None and message.job == failed:
                    continue
                if frame != "header":
                    raise UnexpectedFrame(
                        f"a frame of job {message.job} with {frame or 'nothing'}, and no job is in progress; send a header",
                        field=frame or "frame",
                        value=message.job,
                    )
                if latest is not None and message.job <= latest:
                    raise UnexpectedFrame(
                        f"a header for job {message.job} after job {latest}; numbers must grow",
                        field="job",
                        value=message.job,
                    )
                if self._gate.draining:
                    raise Draining
                latest = message.job
                try:
                    if data:
                        planned = plans.of(message.header)
                        _refuse_places(message.header)
                        sources = _sources(planned, data, NOWHERE)
                        yield from self._whole_results(latest, planned, _whole(planned, sources, context), stay)
                    else:
                        planned = plan(messages.job(message.header), self._limits, self._team, names)
                        with placed(message.header, planned, self._regions) as placement:
                            chunks = _chunks(latest, planned, raws, placement)
                            yield from self._results(latest, planned, chunks, stay, placement)
                except _BREAKS_THE_STREAM:
                    raise
                except RequestError as error:
                    failed = latest
                    stay.done()
                    yield compute_pb2.ComputeResponse(job=latest, error=status_of(error)).SerializeToString()
            if latest is None:
                raise StreamEndedEarly("the stream ended before any job", field="header")

    def _whole_plan(self, header: compute_pb2.JobHeader, names: Names) -> Plan:
        """The plan of a job whose inputs' bytes come along with its header."""
        if header.open_ended:
            raise InvalidOption(
                "open_ended is for ComputeStream, and jobs that come in chunks", field="header.open_ended", value=True
            )
        return plan(messages.job(header), self._limits, self._team, names)

    def _whole_results(
        self, number: int, planned: Plan, chunks: Iterator[Chunk], stay: Stay, placement: Placement = NOWHERE
    ) -> Iterator[bytes]:
        """A result in one message, where it fits in one."""
        elsewhere = placement.result is not None
        sizes = [wire.byte_count(result.shape, result.dtype.itemsize) for result in planned.results[elsewhere:]]
        # A negative size is of a tensor whose length only the end tells.
        subject = planned.subject
        if planned.part or min(sizes, default=0) < 0 or sum(sizes) > subject.piece_elements * subject.dtype.itemsize:
            yield from self._results(number, planned, chunks, stay, placement)
            return
        run = Run(planned, into=placement.result, steady=placement.steady)
        tensors = [bytearray() for _ in planned.results]
        for piece in run.pieces(chunks):
            if not elsewhere or piece.tensor:
                tensors[piece.tensor] += piece.array.view(np.uint8).data
        answer = messages.whole_result(number, planned.subject.record.name, run, b"".join(tensors), placement.place)
        stay.done()
        yield answer

    def _results(
        self, number: int, planned: Plan, chunks: Iterator[Chunk], stay: Stay, placement: Placement = NOWHERE
    ) -> Iterator[bytes]:
        run = Run(planned, into=placement.result, steady=placement.steady)
        yield messages.result_header(
            number,
            planned.subject.record.name,
            planned.results,
            unit_bytes=planned.unit_bytes,
            bits=bits_of(planned.subject.record),
            place=placement.place,
        )
        made = messages.Chunks(number, run, counted=bool(planned.unit_bytes), shared=placement.result is not None)
        for piece in run.pieces(chunks):
            yield made.message(piece)
        summary = messages.result_summary(number, run, placement.place)
        stay.done()
        yield summary

    def merge_stats(self, raws: Iterator[bytes], context: grpc.ServicerContext) -> Iterator[bytes]:
        """States, each in one message or more, put together one by one."""
        with self._gate:
            merged: NeuronStats | None = None
            for number, data in self._states(raws):
                try:
                    state = NeuronStats.from_bytes(data)
                    merged = state if merged is None else merged.merge(state)
                except StateError as error:
                    raise InvalidState(f"state {number}: {error}", field="data", value=number) from None
            if merged is None:
                raise StreamEndedEarly("the stream ended before any state", field="data")
            yield from messages.merged_stats(merged, self._limits.chunk_bytes)

    def _states(self, raws: Iterator[bytes]) -> Iterator[tuple[int, bytes]]:
        """Whole states with their numbers."""
        number, gathered = None, bytearray()
        for raw in raws:
            message, data = _parse(service_pb2.MergeStatsRequest, raw)
            if number is not None and message.state < number:
                raise UnexpectedFrame(
                    f"bytes of state {message.state} after those of state {number}; numbers must grow",
                    field="state",
                    value=message.state,
                )
            if number is not None and message.state > number:
                yield number, bytes(gathered)
                gathered.clear()
            number = message.state
            gathered += data
            limit = self._limits.max_slice_bytes
            if len(gathered) > limit:
                raise LimitExceeded(
                    f"state {number}, in bytes",
                    field="data",
                    value=len(gathered),
                    limit=limit,
                    setting="max_slice_bytes",
                )
        if number is not None:
            yield number, bytes(gathered)

    def monitor(self, raws: Iterator[bytes], context: grpc.ServicerContext) -> Iterator[bytes]:
        """Neuron health over named layers and batches, for as long as the caller likes or until the server drains."""
        stream = MonitorStream(self._limits, self._team, self._regions, self._registry)
        with self._gate, self._monitors.opened(stream, context):
            yield from stream.responses(raws)

    def list_activations(self, request: service_pb2.ListActivationsRequest) -> service_pb2.ListActivationsResponse:
        """A page of the catalogue; the token is the name after which the page begins."""
        if request.page_size < 0:
            raise InvalidOption("page_size must not be negative", field="page_size", value=request.page_size)
        known: dict[str, Record | Added] = {record.name: record for record in catalogue.CATALOGUE}
        known |= self._registry.added(fresh=True)
        names = sorted(known)
        # Of one that was removed since, the page begins where it was.
        if request.page_token and "." not in request.page_token and request.page_token not in names:
            raise InvalidOption(
                "page_token is not one that this server gave", field="page_token", value=request.page_token
            )
        size = min(request.page_size or _USUAL_PAGE, _LARGEST_PAGE)
        rest = [name for name in names if name > request.page_token]
        page = rest[:size]
        return service_pb2.ListActivationsResponse(
            activations=[_shown(known[name]) for name in page],
            next_page_token=page[-1] if len(rest) > size else "",
        )

    def get_activation(self, request: service_pb2.GetActivationRequest) -> service_pb2.GetActivationResponse:
        """One activation."""
        return service_pb2.GetActivationResponse(activation=self._described(request.name))

    def create_activation(self, request: service_pb2.CreateActivationRequest) -> service_pb2.CreateActivationResponse:
        """Add an activation, or only look into it."""
        with self._gate:
            added = self._creation.create(
                custom_messages.entry(request), replace=request.replace, validate_only=request.validate_only
            )
            return service_pb2.CreateActivationResponse(activation=custom_messages.activation(added))

    def delete_activation(self, request: service_pb2.DeleteActivationRequest) -> service_pb2.DeleteActivationResponse:
        """Remove an activation that was added."""
        self._creation.delete(request.name)
        return service_pb2.DeleteActivationResponse()

    def _described(self, asked: str) -> catalogue_pb2.Activation:
        """An activation as the catalogue shows it, by its name or LIBRARY:NAME. Raises UnknownActivation."""
        names = self._registry
        library, colon, name = asked.partition(":")
        if colon:
            found = names.find_in(library, name)
            if found is None:
                raise UnknownActivation(name, names.near(name, library), where=f" in {library}", field="name")
            return _shown(found[0])
        found_here = names.added(fresh="." in asked).get(asked) or names.find(asked)
        if found_here is None:
            raise UnknownActivation(asked, names.near(asked), field="name")
        return _shown(found_here)

    def get_server_info(self, request: service_pb2.GetServerInfoRequest) -> service_pb2.GetServerInfoResponse:
        """What this server is."""
        return service_pb2.GetServerInfoResponse(server=self._info)


class _Plans:
    """Plans of jobs that come in one message. The last one is kept: small tensors of one shape follow one another on a stream, and
    a plan takes longer than they do.
    """

    def __init__(self, make: Callable[[compute_pb2.JobHeader], Plan]) -> None:
        self._make = make
        self._last: tuple[compute_pb2.JobHeader, Plan] | None = None

    def of(self, header: compute_pb2.JobHeader) -> Plan:
        """The plan of a job. Raises what is wrong with it."""
        if self._last is None or self._last[0] != header:
            self._last = header, self._make(header)
        return self._last[1]


def _shown(found: Record | Added) -> catalogue_pb2.Activation:
    return custom_messages.activation(found) if isinstance(found, Added) else messages.activation(found)


def _unary(kind: type[T], method: Callable[[T], Message]) -> Any:
    def handle(raw: bytes, context: grpc.ServicerContext) -> bytes:
        request = kind()
        try:
            request.ParseFromString(raw)
        except wire.DecodeError:
            raise _malformed(kind) from None
        return method(request).SerializeToString()

    return grpc.unary_unary_rpc_method_handler(handle)


M = TypeVar("M", compute_pb2.ComputeRequest, compute_pb2.ComputeStreamRequest, service_pb2.MergeStatsRequest)


def _parse(kind: type[M], raw: bytes) -> tuple[M, memoryview]:
    try:
        return wire.unframe(kind, raw)
    except wire.DecodeError:
        raise _malformed(kind) from None


def _malformed(kind: type[Message]) -> MalformedMessage:
    return MalformedMessage(f"these bytes are no {kind.DESCRIPTOR.full_name}", field="")


def _sources(planned: Plan, data: memoryview, placement: Placement) -> list[memoryview]:
    """The bytes of each input, of a part from its begin on: those that came along, which must be all, and those in shared memory."""
    found: list[memoryview] = []
    expected = sum(spec.sent_bytes for index, spec in enumerate(planned.inputs) if placement.input(index) is None)
    if len(data) != expected:
        raise DataSizeMismatch(
            f"there are {len(data)} bytes of data, and the {'shapes say' if len(planned.inputs) > 1 else 'shape says'} {expected}",
            field="data",
            value=len(data),
            allowed=expected,
        )
    for index, spec in enumerate(planned.inputs):
        memory = placement.input(index)
        if memory is None:
            found.append(data[: spec.sent_bytes])
            data = data[spec.sent_bytes :]
        else:
            found.append(memory.data)
    return found


def _whole(planned: Plan, sources: list[memoryview], context: grpc.ServicerContext) -> Iterator[Chunk]:
    """The inputs of a job whose bytes are all there, block by block: a call that was given up stops at the next."""
    for begin in planned.units[:: planned.block_units]:
        if not context.is_active():
            return
        for index, (spec, source) in enumerate(zip(planned.inputs, sources, strict=True)):
            start = begin * spec.unit_bytes
            stop = min(start + planned.block_units * spec.unit_bytes, spec.end_bytes or 0)
            yield Chunk(index, start, source[start - spec.begin_bytes : stop - spec.begin_bytes])


def _refuse_places(header: compute_pb2.JobHeader) -> None:
    """A job that comes in one message of a stream is a small one."""
    if header.HasField("result") or any(spec.HasField("shared") for spec in header.inputs):
        raise InvalidOption(
            "a job whose bytes come along on a stream has no place in shared memory", field="header.result"
        )


def _chunks(number: int, planned: Plan, raws: Iterator[bytes], placement: Placement) -> Iterator[Chunk]:
    """The chunks of a job in progress. Ends with InputEnd in an open-ended job; the stream must not end before."""
    for raw in raws:
        message, data = _parse(compute_pb2.ComputeStreamRequest, raw)
        frame = message.WhichOneof("frame")
        if message.job != number or frame in (None, "header"):
            raise UnexpectedFrame(
                f"a frame with {frame or 'nothing'} for job {message.job} while job {number} is in progress",
                field=frame or "frame",
                value=message.job,
            )
        if frame == "end":
            if planned.open_ended:
                return
            raise UnexpectedFrame(
                f"an end for job {number}, which is not open-ended and still lacks bytes", field="end", value=number
            )
        yield _shared_chunk(message.chunk, data, planned, placement)
    raise StreamEndedEarly(f"the stream ended in the middle of job {number}", field="data", value=number)


def _shared_chunk(chunk: compute_pb2.InputChunk, data: memoryview, planned: Plan, placement: Placement) -> Chunk:
    """What a chunk carries, or says to lie in shared memory."""
    memory = placement.input(chunk.input) if chunk.input >= 0 else None
    size, offset = chunk.shared_bytes, chunk.offset_bytes
    if memory is None and not size:
        return Chunk(chunk.input, offset, data)
    at = offset - (planned.inputs[chunk.input].begin_bytes if memory is not None else 0)
    if memory is None or len(data) or not 0 <= size <= memory.nbytes or not 0 <= at <= memory.nbytes - size:
        raise ChunkOutOfPlace(
            f"a chunk of input {chunk.input} has {len(data)} bytes of data and {size} in shared memory, where that input has "
            f"{0 if memory is None else memory.nbytes}",
            field="chunk.shared_bytes",
            value=size,
            allowed=0 if memory is None else f"instead of data, up to {memory.nbytes}",
        )
    return Chunk(chunk.input, offset, memory.data[at : at + size])
