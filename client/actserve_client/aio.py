"""The asyncio client: the same surface as `Client`, as coroutines and async iterators."""

from __future__ import annotations

import asyncio
import contextlib
import functools
from collections.abc import (
    AsyncGenerator,
    AsyncIterator,
    Callable,
    Iterator,
    Mapping,
    Sequence,
)
from types import TracebackType
from typing import Any, Literal, TypeVar, overload

import grpc
import grpc.aio
import numpy as np
from actserve.stats import NeuronStats
from actserve.v1 import service_pb2

from actserve_client import _blocks, _channel, _formulas, _iterables, _session, _shards, _shared, _tensors, records
from actserve_client._attempts import Attempts, Budget
from actserve_client._formulas import Bounds
from actserve_client._iterables import Blocks
from actserve_client._monitoring import MAX_UNACKNOWLEDGED_BYTES, Monitoring
from actserve_client._pool import Line, Pool, check_count, closed
from actserve_client._pulling import AsyncPulling
from actserve_client._regions import Regions
from actserve_client._resume import Course, Frame
from actserve_client._sending import AsyncSending
from actserve_client._session import (
    Array,
    Assembly,
    Gradients,
    Job,
    MakeOut,
    OnSummary,
    Progress,
    Regularization,
)
from actserve_client._shards import Shards
from actserve_client._standing import AsyncStanding
from actserve_client.errors import ActserveError, InvalidRequest, LimitExceeded, ServerUnavailable
from actserve_client.local import LocalServer
from actserve_client.monitor import AsyncMonitor, OnAlert
from actserve_client.options import Retry, Tls

T = TypeVar("T")


class AsyncClient:
    """Computes activations on a server, from asyncio code.

    >>> async with AsyncClient("localhost:50051") as client:
    ...     y = await client.forward("relu", np.array([-1.0, 2.0]))

    Arguments, results and errors are those of `Client`. It is bound to the event loop that it is first used on. Where `Client` takes
    an iterable of blocks, an async iterable does too. Cancelling a task that awaits a call ends the computation.
    """

    def __init__(
        self,
        address: str | None = None,
        *,
        token: str | None = None,
        tls: Tls | None = None,
        timeout: float | None = None,
        retry: Retry | None = Retry(),
        channels: int = 4,
    ) -> None:
        _channel.check_options(tls=tls, retry=retry, timeout=timeout)
        check_count(channels)
        self._address = address or _channel.environment_address()
        if self._address is not None:
            _channel.addresses_of(self._address)
        self._tls = tls
        self._timeout = timeout
        self._retry = retry or Retry(attempts=1)
        self._budget = Budget()
        self._channels = channels
        self._metadata = _channel.metadata(token)
        self._server: LocalServer | None = None
        self._pool: Pool[grpc.aio.Channel] | None = None
        self._regions_at: dict[str, Regions] = {}
        self._regions = Regions(None)
        self._standing = AsyncStanding()
        self._known: dict[str, records.Activation] = {}
        self._opening = asyncio.Lock()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._closed = False

    async def _open(self) -> Pool[grpc.aio.Channel]:
        """The connections, made on first use, because a channel belongs to the loop that runs then."""
        if self._closed:
            raise closed()
        loop = asyncio.get_running_loop()
        if self._loop is None:
            self._loop = loop
        elif self._loop is not loop:
            raise InvalidRequest(
                "the client belongs to another event loop, the one that it was first used on; make one for each loop",
                field="client",
            )
        async with self._opening:
            if self._pool is None:
                if self._address is None:
                    self._server = await asyncio.to_thread(LocalServer)
                    self._address = self._server.address
                options = _channel.channel_options(self._tls)
                credentials = None if self._tls is None else _channel.credentials(self._tls)

                def open_channel(address: str) -> grpc.aio.Channel:
                    if credentials is None:
                        return grpc.aio.insecure_channel(address, options)
                    return grpc.aio.secure_channel(address, credentials, options)

                self._pool = Pool(self._address, self._channels, open_channel)
                places = self._pool.addresses
                self._regions_at = {place: Regions(_channel.socket_path(place, self._tls)) for place in places}
                # Where any of several may be called, the caller's arrays lie at none.
                if len(places) == 1:
                    self._regions = self._regions_at[places[0]]
            return self._pool

    async def close(self) -> None:
        """Close the connections, and end the private server if there is one. May be called again."""
        self._closed = True
        self._standing.close()
        if self._pool is not None:
            for channel in self._pool.close():
                await channel.close()
        for regions in self._regions_at.values():
            regions.close()
        if self._server is not None:
            await asyncio.to_thread(self._server.close)

    async def __aenter__(self) -> AsyncClient:
        await self._open()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.close()

    # ---- memory ---------------------------------------------------------------------------------------------------------

    async def empty(self, shape: int | Sequence[int], dtype: Any = np.float32) -> Array:
        """A new array, from which and into which the server computes in place where that can be; see `Client.empty`."""
        await self._open()
        return await asyncio.to_thread(_shared.empty, self._regions, shape, dtype)

    # ---- computing --------------------------------------------------------------------------------------------------

    async def forward(
        self,
        name: str,
        x: Any,
        *,
        axis: int | None = None,
        accuracy: str = "exact",
        preset: str | None = None,
        nonfinite: str = "propagate",
        out: Array | MakeOut | None = None,
        timeout: float | None = None,
        progress: Progress | None = None,
        on_summary: OnSummary | None = None,
        parameters: Mapping[str, Any] | None = None,
        **keywords: Any,
    ) -> Array:
        """The activation y = f(x); see `Client.forward`."""
        how = _session.How(
            axis=axis,
            accuracy=accuracy,
            preset=preset,
            nonfinite=nonfinite,
            parameters=parameters,
            keywords=keywords,
        )
        question, inputs = _session.forward(name, how), _session.as_inputs(x)
        return await self._map(question, inputs, timeout, out=out, progress=progress, on_summary=on_summary)

    @overload
    async def derivative(
        self,
        name: str,
        x: Any,
        *,
        upstream: Any = None,
        jacobian: str | None = None,
        parameter_gradients: Literal[False] = False,
        axis: int | None = None,
        accuracy: str = "exact",
        preset: str | None = None,
        nonfinite: str = "propagate",
        out: Array | MakeOut | None = None,
        timeout: float | None = None,
        progress: Progress | None = None,
        on_summary: OnSummary | None = None,
        parameters: Mapping[str, Any] | None = None,
        **keywords: Any,
    ) -> Array: ...

    @overload
    async def derivative(
        self,
        name: str,
        x: Any,
        *,
        upstream: Any = None,
        jacobian: str | None = None,
        parameter_gradients: Literal[True],
        axis: int | None = None,
        accuracy: str = "exact",
        preset: str | None = None,
        nonfinite: str = "propagate",
        out: Array | MakeOut | None = None,
        timeout: float | None = None,
        progress: Progress | None = None,
        on_summary: OnSummary | None = None,
        parameters: Mapping[str, Any] | None = None,
        **keywords: Any,
    ) -> Gradients: ...

    async def derivative(
        self,
        name: str,
        x: Any,
        *,
        upstream: Any = None,
        jacobian: str | None = None,
        parameter_gradients: bool = False,
        axis: int | None = None,
        accuracy: str = "exact",
        preset: str | None = None,
        nonfinite: str = "propagate",
        out: Array | MakeOut | None = None,
        timeout: float | None = None,
        progress: Progress | None = None,
        on_summary: OnSummary | None = None,
        parameters: Mapping[str, Any] | None = None,
        **keywords: Any,
    ) -> Array | Gradients:
        """The derivative f'(x), or with `upstream` the vector-Jacobian product; see `Client.derivative`."""
        how = _session.How(
            axis=axis,
            accuracy=accuracy,
            preset=preset,
            nonfinite=nonfinite,
            parameters=parameters,
            keywords=keywords,
        )
        question = _session.derivative(name, how, jacobian=jacobian, parameter_gradients=parameter_gradients)
        options: dict[str, Any] = {"out": out, "progress": progress, "on_summary": on_summary}
        inputs = _session.inputs_of(x, upstream)
        if parameter_gradients:
            return await self._run(_session.gradients_job(question, inputs, **options), timeout)
        return await self._map(question, inputs, timeout, **options)

    async def regularization(
        self,
        name: str,
        x: Any,
        regularizer: str = "l2",
        *,
        strength: float | None = None,
        reduction: str = "sum",
        gradient: bool = False,
        gradient_wrt: str = "activation",
        of: str = "output",
        state: bytes | Regularization | None = None,
        axis: int | None = None,
        accuracy: str = "exact",
        preset: str | None = None,
        nonfinite: str = "propagate",
        out: Array | MakeOut | None = None,
        timeout: float | None = None,
        progress: Progress | None = None,
        on_summary: OnSummary | None = None,
        parameters: Mapping[str, Any] | None = None,
        **keywords: Any,
    ) -> Regularization:
        """A penalty on the activations; see `Client.regularization`."""
        how = _session.How(
            axis=axis,
            accuracy=accuracy,
            preset=preset,
            nonfinite=nonfinite,
            parameters=parameters,
            keywords=keywords,
        )
        question = _session.regularization(
            name,
            regularizer,
            how,
            strength=strength,
            reduction=reduction,
            gradient=gradient,
            gradient_wrt=gradient_wrt,
            of=of,
            state=state,
        )
        options: dict[str, Any] = {"out": out, "progress": progress, "on_summary": on_summary}
        try:
            return await self._reduce(question, x, _session.penalty_answer, timeout, **options)
        except LimitExceeded as error:
            first = _session.two_passes(question, error, x)
            if first is None:
                raise
        state = (await self._reduce(first, x, _session.penalty_answer, timeout)).state
        question = _session.second_pass(question, state)
        return await self._reduce(question, x, _session.penalty_answer, timeout, **options)

    async def neuron_stats(
        self,
        name: str,
        x: Any,
        *,
        threshold: float = 0.1,
        neuron_axis: int | Sequence[int] = -1,
        first_sample: int = 0,
        fired: str = "positive",
        eps: float | None = None,
        zero_tolerance: float = 0.0,
        tau: float = 0.0,
        saturation_eps: float = 1e-3,
        dead_after_samples: int | None = None,
        input: str = "pre",  # noqa: A002  # the option's public name
        histogram: str | None = None,
        sums: bool = True,
        axis: int | None = None,
        accuracy: str = "exact",
        preset: str | None = None,
        nonfinite: str = "propagate",
        timeout: float | None = None,
        progress: Progress | None = None,
        on_summary: OnSummary | None = None,
        parameters: Mapping[str, Any] | None = None,
        **keywords: Any,
    ) -> NeuronStats:
        """Statistics of each neuron over a batch; see `Client.neuron_stats`."""
        how = _session.How(
            axis=axis,
            accuracy=accuracy,
            preset=preset,
            nonfinite=nonfinite,
            parameters=parameters,
            keywords=keywords,
        )
        question = _session.neuron_stats(
            name,
            how,
            threshold=threshold,
            neuron_axis=neuron_axis,
            first_sample=first_sample,
            fired=fired,
            eps=eps,
            zero_tolerance=zero_tolerance,
            tau=tau,
            saturation_eps=saturation_eps,
            dead_after_samples=dead_after_samples,
            input=input,
            histogram=histogram,
            sums=sums,
        )
        return await self._reduce(question, x, _session.stats_answer, timeout, progress=progress, on_summary=on_summary)

    async def stream(
        self,
        name: str,
        blocks: Blocks,
        *,
        mode: str = "forward",
        upstream: Blocks | None = None,
        jacobian: str | None = None,
        axis: int | None = None,
        accuracy: str = "exact",
        preset: str | None = None,
        nonfinite: str = "propagate",
        timeout: float | None = None,
        on_summary: OnSummary | None = None,
        parameters: Mapping[str, Any] | None = None,
        **keywords: Any,
    ) -> AsyncIterator[Array]:
        """One output block for each input block, in order and in constant memory; see `Client.stream`."""
        how = _session.How(
            axis=axis,
            accuracy=accuracy,
            preset=preset,
            nonfinite=nonfinite,
            parameters=parameters,
            keywords=keywords,
        )
        _session.check_iterables(blocks, "blocks", upstream, asynchronous=True)
        question = _session.map_mode(mode, name, how, jacobian=jacobian, upstream=upstream is not None)
        async with contextlib.aclosing(
            self._stream(_blocks.Blocks(question), _iterables.async_paired(blocks, upstream), timeout, on_summary)
        ) as results:
            async for block in results:
                yield block

    async def map(
        self,
        name: str,
        arrays: Blocks,
        *,
        mode: str = "forward",
        upstream: Blocks | None = None,
        jacobian: str | None = None,
        return_exceptions: bool = False,
        axis: int | None = None,
        accuracy: str = "exact",
        preset: str | None = None,
        nonfinite: str = "propagate",
        timeout: float | None = None,
        on_summary: OnSummary | None = None,
        parameters: Mapping[str, Any] | None = None,
        **keywords: Any,
    ) -> AsyncIterator[Any]:
        """One result for each array, in order, over one stream; see `Client.map`.

        The iterables are read in a task of its own. One that is not async keeps the event loop while it makes an array.
        """
        how = _session.How(
            axis=axis,
            accuracy=accuracy,
            preset=preset,
            nonfinite=nonfinite,
            parameters=parameters,
            keywords=keywords,
        )
        _session.check_iterables(arrays, "arrays", upstream, asynchronous=True)
        question = _session.map_mode(mode, name, how, jacobian=jacobian, upstream=upstream is not None)
        coder = _tensors.Tensors(question)
        attempts = self._attempts(timeout)
        given = _iterables.async_closed_with(_iterables.async_paired(arrays, upstream), arrays, upstream)
        pulling = None
        async with contextlib.AsyncExitStack() as stack:
            if not (
                _tensors.may_go_together(question, arrays)
                and _tensors.goes_by_elements(await self._find(question, attempts.seconds_left()))
            ):
                answers = self._stream(coder, given, attempts.seconds_left(), on_summary)
            else:
                if _tensors.all_there(arrays, upstream):
                    batches = _iterables.async_each((_tensors.all_checked(arrays, upstream),))
                else:
                    pulling = AsyncPulling(_iterables.async_each_kept(given), _tensors.cost, _tensors.room())
                    batches = (await stack.enter_async_context(contextlib.aclosing(pulling))).batches()
                answers = self._answers(
                    coder, _iterables.async_encoded(coder, batches), attempts.seconds_left(), on_summary
                )
            async for result in await stack.enter_async_context(contextlib.aclosing(answers)):
                if pulling is not None:
                    pulling.done()
                yield _tensors.raised(result, return_exceptions=return_exceptions)

    def _stream(
        self,
        coder: _blocks.Blocks | _tensors.Tensors,
        given: AsyncGenerator[tuple[Any, ...], None],
        timeout: float | None,
        on_summary: OnSummary | None,
    ) -> AsyncGenerator[Any, None]:
        async def frames() -> AsyncGenerator[Frame, None]:
            async with contextlib.aclosing(given):
                async for block in given:
                    for frame in coder.encode(*block):
                        yield frame
            for frame in coder.end():
                yield frame

        return self._answers(coder, frames(), timeout, on_summary)

    async def _answers(
        self,
        coder: _blocks.Blocks | _tensors.Tensors,
        frames: AsyncGenerator[Frame, None],
        timeout: float | None,
        on_summary: OnSummary | None,
    ) -> AsyncGenerator[Any, None]:
        _session.check_callbacks(None, on_summary)
        async with contextlib.aclosing(self._converse(coder, frames, timeout)) as results:
            async for result in results:
                yield result
        for block in coder.finish():
            yield block
        if on_summary:
            on_summary(coder.summary)

    async def _reduce(
        self,
        question: _session.Question,
        x: Any,
        answer: Callable[[Assembly], T],
        timeout: float | None,
        *,
        out: Array | MakeOut | None = None,
        progress: Progress | None = None,
        on_summary: OnSummary | None = None,
    ) -> T:
        if not (hasattr(x, "__aiter__") or _session.is_blocks(x)):
            array = _session.as_array(x, "x")
            if not _blocks.in_parts(question, array, out, progress):
                return await self._run(
                    Job(question, (array,), answer, out=out, progress=progress, on_summary=on_summary), timeout
                )
            x = (array,)
        coder = _blocks.Reduction(question, answer, out=out, progress=progress, on_summary=on_summary)

        async def frames() -> AsyncGenerator[Frame, None]:
            async for block in _iterables.async_each(x):
                for frame in coder.encode(block):
                    yield frame
            for frame in coder.end():
                yield frame

        async with contextlib.aclosing(self._converse(coder, frames(), timeout)) as results:
            async for _ in results:
                pass
        return coder.finish()

    # ---- monitoring -------------------------------------------------------------------------------------------------

    def monitor(
        self,
        activation: str = "identity",
        *,
        layers: Mapping[str, Mapping[str, Any]] | None = None,
        alerts: Mapping[str, float] | None = None,
        on_alert: OnAlert | None = None,
        alert_every_samples: int = 0,
        snapshot_every_samples: int = 0,
        resume: Mapping[str, bytes] | None = None,
        name: str = "",
        max_unacknowledged_bytes: int = MAX_UNACKNOWLEDGED_BYTES,
        reconnect_s: float = 60.0,
        timeout: float | None = None,
        **options: Any,
    ) -> AsyncMonitor:
        """Watch the neurons of layers, over as many batches as come; see `Client.monitor`. An async context manager."""
        core = Monitoring(
            activation,
            {
                **options,
                "alerts": alerts,
                "alert_every_samples": alert_every_samples,
                "snapshot_every_samples": snapshot_every_samples,
            },
            layers=layers,
            states=resume,
            name=name,
            max_unacknowledged_bytes=max_unacknowledged_bytes,
            regions=lambda: self._regions,
        )

        async def start(requests: AsyncIterator[bytes]) -> Any:
            stream = (await self._open()).pick().method("stream_stream", _channel.MONITOR)
            return stream(requests, metadata=self._metadata)

        return AsyncMonitor(
            start,
            core,
            retry=self._retry,
            reconnect_s=reconnect_s,
            timeout=self._seconds(timeout),
            on_alert=on_alert,
        )

    # ---- the catalogue and the server -------------------------------------------------------------------------------

    async def activations(self, *, timeout: float | None = None) -> list[records.Activation]:
        """All activations, by name; see `Client.activations`."""
        found: list[records.Activation] = []
        token = ""
        while True:
            request = service_pb2.ListActivationsRequest(page_token=token)
            page = await self._unary(_channel.LIST_ACTIVATIONS, request, service_pb2.ListActivationsResponse, timeout)
            found.extend(records.activation(message) for message in page.activations)
            token = page.next_page_token
            if not token:
                return found

    async def describe(self, name: str, *, timeout: float | None = None) -> records.Activation:
        """One activation, by its name or an alias; see `Client.describe`."""
        request = service_pb2.GetActivationRequest(name=_session.text(name, "name"))
        answer = await self._unary(_channel.GET_ACTIVATION, request, service_pb2.GetActivationResponse, timeout)
        return records.activation(answer.activation)

    async def create_activation(
        self,
        name: str,
        formula: str,
        *,
        derivative_formula: str | None = None,
        description: str = "",
        bounds: Bounds | None = None,
        replace: bool = False,
        validate_only: bool = False,
        timeout: float | None = None,
        parameters: Mapping[str, Any] | None = None,
        **defaults: Any,
    ) -> records.Activation:
        """Add an activation of one's own, by its formula; see `Client.create_activation`."""
        request = _formulas.creation(
            name,
            formula,
            parameters=parameters,
            keywords=defaults,
            bounds=bounds,
            description=description,
            derivative_formula=derivative_formula,
            replace=replace,
            validate_only=validate_only,
        )
        answer = await self._unary(
            _channel.CREATE_ACTIVATION, request, service_pb2.CreateActivationResponse, timeout, once=True
        )
        return records.activation(answer.activation)

    async def delete_activation(self, name: str, *, timeout: float | None = None) -> None:
        """Remove an activation that was added; see `Client.delete_activation`."""
        request = service_pb2.DeleteActivationRequest(name=_session.text(name, "name"))
        await self._unary(_channel.DELETE_ACTIVATION, request, service_pb2.DeleteActivationResponse, timeout, once=True)

    async def server_info(self, *, timeout: float | None = None) -> records.ServerInfo:
        """The server's version and limits."""
        request = service_pb2.GetServerInfoRequest()
        answer = await self._unary(_channel.GET_SERVER_INFO, request, service_pb2.GetServerInfoResponse, timeout)
        return records.server_info(answer.server)

    async def healthy(self, *, timeout: float | None = None) -> bool:
        """Whether the server answers and says that it is serving; see `Client.healthy`."""
        lines = (await self._open()).each()
        attempts = self._attempts(timeout)
        for index, line in enumerate(lines):
            call = line.method("unary_unary", _channel.HEALTH_CHECK)
            for again in (False, True):
                seconds = attempts.probe_s(len(lines) - index, again=again)
                try:
                    answer = await call(b"", timeout=seconds, wait_for_ready=again, metadata=self._metadata)
                except grpc.aio.AioRpcError as error:
                    if error.code() is grpc.StatusCode.UNAVAILABLE:
                        continue
                else:
                    if answer == _channel.SERVING:
                        return True
                break
        return False

    # ---- calls ------------------------------------------------------------------------------------------------------

    def _seconds(self, timeout: float | None) -> float | None:
        return self._timeout if timeout is None else timeout

    def _attempts(self, timeout: float | None) -> Attempts:
        return Attempts(self._retry, self._seconds(timeout), self._budget)

    async def _map(
        self,
        question: _session.Question,
        inputs: tuple[Array, ...],
        timeout: float | None,
        *,
        out: Array | MakeOut | None,
        progress: Progress | None,
        on_summary: OnSummary | None,
    ) -> Array:
        """Forward or derivative: a large one that is computed element by element on all addresses at the same time."""
        count = _shards.worth(question, inputs, out, len((await self._open()).addresses))
        attempts = self._attempts(timeout)
        known = None
        if count > 1 or (_shared.goes_in_slices(inputs) and any(r.possible for r in self._regions_at.values())):
            known = await self._find(question, attempts.seconds_left())
            timeout = attempts.seconds_left()
        if count == 1 or not _shards.can_be_split(known):
            unit_bytes = _shards.unit_bytes(question, inputs, known)
            job = _session.map_job(
                question, inputs, out=out, progress=progress, on_summary=on_summary, unit_bytes=unit_bytes
            )
            return await self._run(job, timeout)
        shards = Shards(question, inputs, count, out=out, progress=progress, on_summary=on_summary)
        await asyncio.gather(*(self._run(job, timeout) for job in shards.jobs))
        return shards.answer()

    async def _find(self, question: _session.Question, timeout: float | None = None) -> records.Activation | None:
        """The activation that a question is about, asked for once; None where what is wrong with its name is found out elsewhere."""
        name = _shards.asked(question)
        if name not in self._known:
            try:
                self._known[name] = await self.describe(name, timeout=timeout)
            except ActserveError:
                return None
        return self._known[name]

    async def _run(self, job: Job[T], timeout: float | None) -> T:
        """Compute a job, on several servers one after another where it must be."""
        pool = await self._open()
        attempts = self._attempts(timeout)
        assembly = job.assembly()
        landmark = 0
        while not assembly.complete:
            try:
                # All slices of a job at one address: it has their memory.
                with pool.using() as line:
                    while not assembly.complete:
                        landmark = assembly.place.landmark
                        await self._run_over(line, job, assembly, attempts)
                        attempts.succeeded()
            except ServerUnavailable as error:
                gained = assembly.place.landmark > landmark
                pause_s = attempts.pause_s(error, begun=assembly.begun, gained=gained)
                assembly = job.again(assembly, error)
                await asyncio.sleep(pause_s)
        return job.answer(assembly)

    async def _run_over(
        self, line: Line[grpc.aio.Channel], job: Job[Any], assembly: Assembly, attempts: Attempts
    ) -> None:
        """Ask one server for what is lacking, or for the next slice of it."""
        regions = self._regions_at[line.address]
        way: _shared.Way = contextlib.nullcontext(job)
        if regions.possible and not job.unary:
            # In a thread, because new memory takes a while.
            way = await asyncio.to_thread(_shared.way, job, assembly, regions)
        try:
            await self._run_by(way, line, job, assembly, attempts)
        except ServerUnavailable as error:
            if error.reason != _shared.UNKNOWN_REGION:
                raise
            await self._run_by(contextlib.nullcontext(job), line, job, assembly, attempts)

    async def _run_by(
        self,
        way: _shared.Way,
        line: Line[grpc.aio.Channel],
        job: Job[Any],
        assembly: Assembly,
        attempts: Attempts,
    ) -> None:
        with way as call_of:
            if call_of is job and not assembly.begun:
                start = functools.partial(line.compute_stream, metadata=self._metadata)
                if await self._standing.computed(line, start, job, assembly, attempts.seconds_left()):
                    return
            if call_of.unary:
                call = line.compute(call_of.request(assembly), timeout=attempts.seconds_left(), metadata=self._metadata)
            else:
                requests = _iterables.async_each(call_of.requests(assembly))
                call = line.compute_stream(requests, timeout=attempts.seconds_left(), metadata=self._metadata)
            with _ended(call):
                async for raw in call:
                    if assembly.feed(raw):
                        return
        raise _session.incomplete()

    async def _converse(
        self,
        coder: _blocks.Blocks | _blocks.Reduction[Any] | _tensors.Tensors,
        frames: AsyncGenerator[Frame, None],
        timeout: float | None,
    ) -> AsyncGenerator[Any, None]:
        """The results of a computation over an iterable, on several servers one after another where it must be.

        What the iterable raises is raised here, after all responses.
        """
        pool = await self._open()
        attempts = self._attempts(timeout)
        sending = AsyncSending(frames, coder.window)
        course = Course()
        async with contextlib.aclosing(sending):
            while True:
                landmark = coder.landmark
                try:
                    with pool.using() as line:
                        seconds = attempts.seconds_left()
                        call = line.compute_stream(sending.messages(course), timeout=seconds, metadata=self._metadata)
                        with _ended(call):
                            async for raw in call:
                                for result in coder.decode(raw):
                                    yield result
                except ServerUnavailable as error:
                    if sending.failure:
                        raise sending.failure from None
                    if coder.nothing_owed:
                        break
                    gained = coder.landmark > landmark
                    pause_s = attempts.pause_s(error, begun=sending.begun, gained=gained)
                    course = coder.resume(error)
                    await asyncio.sleep(pause_s)
                except ActserveError:
                    if sending.failure:
                        raise sending.failure from None
                    if coder.nothing_owed:
                        break
                    raise
                else:
                    break
        if sending.failure:
            raise sending.failure
        attempts.succeeded()

    async def _unary(
        self, method: str, request: Any, kind: type[Any], timeout: float | None, *, once: bool = False
    ) -> Any:
        """A call with one message each way, again where no server was found; `once` for what may not be done twice."""
        pool = await self._open()
        attempts = self._attempts(timeout)
        while True:
            try:
                with pool.using() as line:
                    call = line.method("unary_unary", method)
                    try:
                        seconds = attempts.seconds_left()
                        raw = await call(request.SerializeToString(), timeout=seconds, metadata=self._metadata)
                    except grpc.aio.AioRpcError as error:
                        raise _channel.error_of(error) from None
            except ServerUnavailable as error:
                if once and error.retry_after_s is None:
                    raise
                await asyncio.sleep(attempts.pause_s(error))
            else:
                attempts.succeeded()
                return kind.FromString(raw)


@contextlib.contextmanager
def _ended(call: Any) -> Iterator[None]:
    """Give a call up when it is left before its end, and read its failure."""
    try:
        yield
    except grpc.aio.AioRpcError as error:
        raise _channel.error_of(error) from None
    finally:
        call.cancel()


__all__ = ["AsyncClient"]
