"""The blocking client."""

from __future__ import annotations

import contextlib
import functools
import time
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from concurrent import futures
from types import TracebackType
from typing import Any, Literal, TypeVar, overload

import grpc
import numpy as np
from actserve.stats import NeuronStats
from actserve.v1 import service_pb2

from actserve_client import _blocks, _channel, _formulas, _iterables, _session, _shards, _shared, _tensors, records
from actserve_client._attempts import Attempts, Budget
from actserve_client._formulas import Bounds
from actserve_client._monitoring import MAX_UNACKNOWLEDGED_BYTES, Monitoring
from actserve_client._pool import Line, Pool, check_count
from actserve_client._pulling import Pulling
from actserve_client._regions import Regions
from actserve_client._resume import Course, Frame
from actserve_client._sending import Sending
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
from actserve_client._standing import Standing
from actserve_client.errors import ActserveError, LimitExceeded, ServerUnavailable
from actserve_client.local import LocalServer
from actserve_client.monitor import Monitor, OnAlert
from actserve_client.options import Retry, Tls

T = TypeVar("T")


class Client:
    """Computes activations on a server.

    >>> with Client() as client:
    ...     client.forward("relu", np.array([-1.0, 2.0]))
    array([0., 2.])

    `address` is HOST:PORT or unix:PATH, or several with commas; without one the server that ACTSERVE_ADDRESS names is used, or else a
    private one is started for the client's lifetime (which needs `actserve[server]`). `timeout` is in seconds and applies to every call
    that does not say its own; None waits as long as it takes. `token` is sent as a bearer token, `tls` encrypts. Calls that are
    in progress together spread over the addresses, and over up to `channels` connections to each; a large array under an activation
    that works element by element is computed on all addresses at the same time.

    A computation whose server dies goes on from where it was on another address, or on the same when a server answers there again, as
    `retry` says; its result has the same bits. That holds for arrays and iterables, and for all modes but a penalty's gradient over an
    iterable of more than 64 MiB.

    Arrays are float16, bfloat16 (of ml_dtypes), float32 or float64, of any shape, strides and byte order; anything that
    NumPy makes such an array of will do. Results are new, writable, native-endian arrays of x's type. A client may be
    shared by threads. All its errors are `ActserveError`s.

    What every computation may be told, beside what its method says:

    `axis`        of an activation that works along one: softmax, gated units, maxout, … (-1 when not given)
    `accuracy`    "exact", or "fast" where less exact is enough
    `preset`      a library, such as "keras": its names and its defaults are meant
    `nonfinite`   "propagate", or "reject": a NaN or an infinity, in or out, is then InvalidRequest
    `on_summary`  is called with a `Summary` when the result is complete: the time computed, and what was not finite
    `progress`    is called with the bytes sent and received so far
    `timeout`     in seconds, for this call

    All other keywords, or `parameters` where a name collides, are the activation's parameters: numbers, whole numbers,
    switches, words, and where it takes a value for each channel arrays or lists of numbers (sent without rounding).
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
        self._server: LocalServer | None = None
        self._timeout = timeout
        self._retry = retry or Retry(attempts=1)
        self._budget = Budget()
        self._metadata = _channel.metadata(token)
        check_count(channels)
        credentials = None if tls is None else _channel.credentials(tls)
        address = address or _channel.environment_address()
        if address is None:
            self._server = LocalServer()
            address = self._server.address
        self.address = address
        options = _channel.channel_options(tls)

        def open_channel(address: str) -> grpc.Channel:
            if credentials is None:
                return grpc.insecure_channel(address, options)
            return grpc.secure_channel(address, credentials, options)

        self._known: dict[str, records.Activation] = {}
        self._pool: Pool[grpc.Channel] = Pool(address, channels, open_channel)
        places = self._pool.addresses
        self._regions_at = {place: Regions(_channel.socket_path(place, tls)) for place in places}
        # Where any of several may be called, the caller's arrays lie at none.
        self._regions = self._regions_at[places[0]] if len(places) == 1 else Regions(None)
        self._standing = Standing()

    def close(self) -> None:
        """Close the connections, and end the private server if there is one. May be called again."""
        self._standing.close()
        for channel in self._pool.close():
            channel.close()
        for regions in self._regions_at.values():
            regions.close()
        if self._server is not None:
            self._server.close()

    def __enter__(self) -> Client:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    # ---- memory ---------------------------------------------------------------------------------------------------------

    def empty(self, shape: int | Sequence[int], dtype: Any = np.float32) -> Array:
        """A new array, with whatever is in it, from which and into which the server computes in place where that can be.

        >>> x = client.empty((1000, 1000)); x[:] = 1
        >>> client.forward("relu", x).shape
        (1000, 1000)

        On a Unix socket of the same host, the server shares the memory of a large one: nothing is copied, and the result of a
        computation whose inputs are such arrays is such an array too. Elsewhere, and where the server's limits for it are reached, it
        is an array like any other. docs/shared-memory.md has more.
        """
        return _shared.empty(self._regions, shape, dtype)

    # ---- computing --------------------------------------------------------------------------------------------------

    def forward(
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
        """The activation y = f(x).

        >>> client.forward("leaky_relu", np.array([-1.0, 2.0]), negative_slope=0.1)
        array([-0.1,  2. ])

        The result has x's shape, except that gated and resizing activations change the length of the axis. `out` is filled
        and returned instead of a new array; it may be x itself, or a function that is given the result's shape and type and
        makes the array.
        """
        how = _session.How(
            axis=axis,
            accuracy=accuracy,
            preset=preset,
            nonfinite=nonfinite,
            parameters=parameters,
            keywords=keywords,
        )
        question, inputs = _session.forward(name, how), _session.as_inputs(x)
        return self._map(question, inputs, timeout, out=out, progress=progress, on_summary=on_summary)

    @overload
    def derivative(
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
    def derivative(
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

    def derivative(
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
        """The derivative f'(x), or with `upstream` the vector-Jacobian product.

        >>> client.derivative("relu", np.array([-1.0, 2.0]))
        array([0., 1.])

        An activation along an axis needs `upstream` (of x's shape), or `jacobian="full"`, which has the shape `x.shape + (n,)`
        with `[..., k]` the derivative by the k-th element along the axis, or `jacobian="diag"`. `upstream` has the result's
        shape, which of gated and resizing activations is not x's.

        With `upstream` and `parameter_gradients=True` the answer is a `Gradients`: `.input`, and `.parameters` by name, which
        `Activation.parameter_gradients` lists.

        >>> x = np.array([-1.0, 2.0])
        >>> client.derivative("prelu", x, upstream=np.ones(2), parameter_gradients=True).parameters
        {'slope': array(-1.)}
        """
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
            return self._run(_session.gradients_job(question, inputs, **options), timeout)
        return self._map(question, inputs, timeout, **options)

    def regularization(
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
        """A penalty on the activations a = f(x): "l2" is strength * sum(a**2).

        >>> client.regularization("relu", np.array([-1.0, 2.0]), "l2", strength=0.5, gradient=True)
        Regularization(penalty=2.0, gradient=array([0., 2.]))

        `regularizer` is one of (docs/regularization.md has their formulas), with parameters of its own as keywords:

        `"l1"`, `"l2"`, `"l1l2"` (`l1`, `l2`), `"lp"` (`p`), `"log_student"` (`eps`), `"hoyer"`, `"hoyer_square"`, `"contractive"`
        `"kl_sparsity"`  (`rho`, `neuron_axis`): the divergence of each neuron's mean from rho; activations in [0, 1]
        `"group_lasso"`  (`penalty_axis`): norms of groups, which lie along that axis
        `"entropy"`      (`distribution`: "softmax" or "magnitudes"; `penalty_axis`) of slices
        `"z_loss"`       (`penalty_axis`): squared log-sum-exp of slices
        `"temporal"`     (`lag`, `penalty_axis`), or "tar": squared differences along time
        `"orthogonal"`   (`mode`: "rows" or "columns"): cosines in a matrix

        `strength` is the factor before it, 0.01 when not given (1 for "l1l2" with weights). `axis`, the activation's, is also
        the regularizer's unless `penalty_axis` says otherwise.

        `reduction` divides the sum: "sum" by nothing, "batch_mean" by the length of axis 0, "mean" by the number of terms:
        elements, slices, groups, neurons or differences. `of="input"` penalises x itself.

        The gradient, of x's shape, is taken with respect to the "activation" or, chained, to the "input"; it is computed in
        float64 and rounded once. The penalty is exact and rounded once, so it does not depend on how the data is cut. x may be
        an iterable of blocks. `.state` merges (`merge(r.state for r in parts)`), and given back as `state` it makes the
        gradient of a part of the data that of the penalty on all of it. Where a gradient needs all of x first (hoyer,
        kl_sparsity, groups over the batch), the server holds x up to its `max_slice_bytes`; an array larger than that is sent
        twice, and an iterable is LimitExceeded: call first without `gradient`, then with the `state`.

        Raises InvalidRequest for data where the regularizer is undefined, as kl_sparsity is outside [0, 1].
        """
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
            return self._reduce(question, x, _session.penalty_answer, timeout, **options)
        except LimitExceeded as error:
            first = _session.two_passes(question, error, x)
            if first is None:
                raise
        state = (self._reduce(first, x, _session.penalty_answer, timeout)).state
        question = _session.second_pass(question, state)
        return self._reduce(question, x, _session.penalty_answer, timeout, **options)

    def neuron_stats(
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
        """What each neuron of a layer does over a batch: how often it fires, is dead, dormant or saturated, and its exact mean.

        >>> stats = client.neuron_stats("relu", np.array([[-1.0, 2.0], [-3.0, 4.0]]))
        >>> stats.dead, stats.dead_fraction, stats.mean
        (array([ True, False]), 0.5, array([0., 3.]))

        `threshold`           a neuron is `dead` when the share of samples in which it did not fire reaches this
        `neuron_axis`         the axis whose entries are the neurons, or several; all others are the batch
        `first_sample`        the global index of the first sample, for states that will be merged
        `fired`               when a neuron fires: "positive" (a > 0), "nonzero", or "abs>eps" with `eps` (or "abs>0.001")
        `zero_tolerance`      what counts as zero: |a| <= zero_tolerance
        `tau`                 a neuron is `dormant` when its mean |a| is at most tau times the layer's mean of it
        `saturation_eps`      `saturated_fraction`: samples in a tail where |f'| stays below this part of its largest value
        `dead_after_samples`  `not_fired_recently`: which did not fire in the last so many samples
        `input`               "pre": the activation is applied to x; "post": x holds activations already
        `histogram`           "layer" or "neuron", for `quantile`
        `sums`                exact sums, for mean, variance and dormancy

        An activation's own parameter of such a name goes into `parameters`. The record has arrays of the neurons' shape, float64,
        int64 or bool, and `.layer`, the layer in numbers; docs/neuron_stats.md defines all of them. `.state` is what `merge` takes:
        merged states are, to the byte, what one call over all the data gives. x may be an iterable of blocks.
        """
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
        return self._reduce(question, x, _session.stats_answer, timeout, progress=progress, on_summary=on_summary)

    def stream(
        self,
        name: str,
        blocks: Iterable[Any],
        *,
        mode: str = "forward",
        upstream: Iterable[Any] | None = None,
        jacobian: str | None = None,
        axis: int | None = None,
        accuracy: str = "exact",
        preset: str | None = None,
        nonfinite: str = "propagate",
        timeout: float | None = None,
        on_summary: OnSummary | None = None,
        parameters: Mapping[str, Any] | None = None,
        **keywords: Any,
    ) -> Iterator[Array]:
        """One output block for each input block, in order and in constant memory.

        >>> list(client.stream("relu", (np.full(2, v) for v in (-1.0, 1.0))))
        [array([0., 0.]), array([1., 1.])]

        `mode` is "forward" or "derivative". `upstream` gives a block for each block of x. Activations along an axis take any
        axis but 0, which runs across blocks. The iterables are read from a thread of their own, as fast as results are taken
        and no faster; what they raise is raised here, after the results of the blocks before. Stopping early, by `break` or
        `close()`, ends the computation. An output block has as many rows as its input block.
        """
        how = _session.How(
            axis=axis,
            accuracy=accuracy,
            preset=preset,
            nonfinite=nonfinite,
            parameters=parameters,
            keywords=keywords,
        )
        _session.check_iterables(blocks, "blocks", upstream)
        question = _session.map_mode(mode, name, how, jacobian=jacobian, upstream=upstream is not None)
        return self._stream(_blocks.Blocks(question), _iterables.paired(blocks, upstream), timeout, on_summary)

    def map(
        self,
        name: str,
        arrays: Iterable[Any],
        *,
        mode: str = "forward",
        upstream: Iterable[Any] | None = None,
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
    ) -> Iterator[Any]:
        """One result for each array, in order: many small ones over one stream, sent ahead without waiting for each answer.

        >>> list(client.map("relu", [np.array([-1.0, 2.0]), np.float32(3)]))
        [array([0., 2.]), array(3., dtype=float32)]

        Each array is a tensor by itself, of any type and shape, along any axis; that is what sets it apart from `stream`, whose
        blocks are parts of one. An array of up to 1 MiB takes one message each way. Where the activation works element by element, small
        ones share messages: of a list or tuple 64 KiB of them, of any other iterable what it has given while earlier ones are on their
        way. None ever waits for the next, which may depend on its result.

        `mode` is "forward" or "derivative", `upstream` gives a gradient for each array. A mistake in one array leaves the others
        alone: with `return_exceptions` its error stands in the place of its result, without it is raised when its turn comes, and
        ends the iteration.

        The iterables are read in a thread of their own, up to about 8 MiB ahead of the results; an array's memory may be
        used again when the next one is asked for. What they raise is raised here, after the results of the arrays before. Leaving
        early, by `break` or `close()`, closes those that are generators: at once, or when what they are waiting for has come.
        """
        how = _session.How(
            axis=axis,
            accuracy=accuracy,
            preset=preset,
            nonfinite=nonfinite,
            parameters=parameters,
            keywords=keywords,
        )
        _session.check_iterables(arrays, "arrays", upstream)
        question = _session.map_mode(mode, name, how, jacobian=jacobian, upstream=upstream is not None)
        coder = _tensors.Tensors(question)
        attempts = self._attempts(timeout)
        given = _iterables.closed_with(_iterables.paired(arrays, upstream), arrays, upstream)
        pulling = None
        with contextlib.ExitStack() as stack:
            if not (
                _tensors.may_go_together(question, arrays)
                and _tensors.goes_by_elements(self._find(question, attempts.seconds_left()))
            ):
                answers = self._stream(coder, given, attempts.seconds_left(), on_summary)
            else:
                if _tensors.all_there(arrays, upstream):
                    batches: Iterable[Iterable[_tensors.Inputs]] = (_tensors.all_checked(arrays, upstream),)
                else:
                    pulling = Pulling(_iterables.each_kept(given), _tensors.cost, _tensors.room())
                    batches = stack.enter_context(contextlib.closing(pulling)).batches()
                answers = self._answers(coder, _iterables.encoded(coder, batches), attempts.seconds_left(), on_summary)
            for result in stack.enter_context(contextlib.closing(answers)):
                if pulling is not None:
                    pulling.done()
                yield _tensors.raised(result, return_exceptions=return_exceptions)

    def _stream(
        self,
        coder: _blocks.Blocks | _tensors.Tensors,
        given: Generator[tuple[Any, ...], None, None],
        timeout: float | None,
        on_summary: OnSummary | None,
    ) -> Generator[Any, None, None]:
        def frames() -> Generator[Frame, None, None]:
            with contextlib.closing(given):
                for block in given:
                    yield from coder.encode(*block)
            yield from coder.end()

        return self._answers(coder, frames(), timeout, on_summary)

    def _answers(
        self,
        coder: _blocks.Blocks | _tensors.Tensors,
        frames: Generator[Frame, None, None],
        timeout: float | None,
        on_summary: OnSummary | None,
    ) -> Generator[Any, None, None]:
        _session.check_callbacks(None, on_summary)
        yield from self._converse(coder, frames, timeout)
        yield from coder.finish()
        if on_summary:
            on_summary(coder.summary)

    def _reduce(
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
        if not _session.is_blocks(x):
            array = _session.as_array(x, "x")
            if not _blocks.in_parts(question, array, out, progress):
                return self._run(
                    Job(question, (array,), answer, out=out, progress=progress, on_summary=on_summary), timeout
                )
            x = (array,)
        coder = _blocks.Reduction(question, answer, out=out, progress=progress, on_summary=on_summary)

        def frames() -> Generator[Frame, None, None]:
            for block in x:
                yield from coder.encode(block)
            yield from coder.end()

        for _ in self._converse(coder, frames(), timeout):
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
    ) -> Monitor:
        """Watch the neurons of layers, over as many batches as come: statistics, snapshots and alerts.

        >>> with client.monitor("relu", alerts={"dead_fraction": 0.5}) as monitor:
        ...     monitor.observe("encoder.0", np.array([[0.0, 2.0], [0.0, 4.0]]))
        ...     monitor.report()["encoder.0"].dead_fraction
        0.5

        `activation`                what the layers' activation is; with "identity" nothing saturates
        `layers`                    options of single layers, by name: `{"head": {"activation": "gelu", "tau": 0.1}}`
        `alerts`                    thresholds: "dead_fraction", "dormant_fraction", "saturated_fraction", "nan_count"
        `on_alert`                  is called with each `Alert`, which `Monitor.alerts` keeps too
        `alert_every_samples`       how many samples come between two looks at the thresholds (0: any batch is looked at)
        `snapshot_every_samples`    a snapshot after so many samples of a layer, beside those that keep memory bounded
        `resume`                    the states of an earlier monitor's `snapshot`, to go on from
        `name`                      is shown beside the layers in the server's gauges
        `max_unacknowledged_bytes`  what is kept until a snapshot holds it; `observe` waits where it would be more
        `reconnect_s`               for how long another server is looked for at the address, once one is lost

        All other keywords are options of `neuron_stats`, or the activation's parameters; `input` is "post" unless it is said:
        batches hold activations. docs/monitoring.md has more. Mistakes in options raise InvalidRequest here, or what the server
        finds wrong with them at the next call.
        """
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

        def start(requests: Iterator[bytes]) -> Any:
            call = self._pool.pick().method("stream_stream", _channel.MONITOR)
            return call(requests, metadata=self._metadata)

        return Monitor(
            start,
            core,
            retry=self._retry,
            reconnect_s=reconnect_s,
            timeout=self._seconds(timeout),
            on_alert=on_alert,
        )

    # ---- the catalogue and the server -------------------------------------------------------------------------------

    def activations(self, *, timeout: float | None = None) -> list[records.Activation]:
        """All activations, by name; each has `.name`, `.formula`, `.parameters`, …"""
        found: list[records.Activation] = []
        token = ""
        while True:
            request = service_pb2.ListActivationsRequest(page_token=token)
            page = self._unary(_channel.LIST_ACTIVATIONS, request, service_pb2.ListActivationsResponse, timeout)
            found.extend(records.activation(message) for message in page.activations)
            token = page.next_page_token
            if not token:
                return found

    def describe(self, name: str, *, timeout: float | None = None) -> records.Activation:
        """One activation, by its name, an alias, or "library:name". Raises UnknownActivation, whose text names near ones."""
        request = service_pb2.GetActivationRequest(name=_session.text(name, "name"))
        answer = self._unary(_channel.GET_ACTIVATION, request, service_pb2.GetActivationResponse, timeout)
        return records.activation(answer.activation)

    def create_activation(
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
        """Add an activation of one's own, by its formula; it computes like any other from then on.

        >>> swish = client.create_activation("team.swish", "x / (1 + exp(-beta * x))", beta=1.0)
        >>> swish.report.rewrites[-1].after
        'silu(x, beta=beta)'
        >>> client.forward("team.swish", np.array([1.0]), beta=2.0)
        array([0.88079708])

        A formula is made of x, parameters, numbers, + - * / **, comparisons, and, or, not, `a if condition else b`, functions such as
        exp, log1p, tanh, erf, min, max, clip, where, and the activations that work element by element, by name; docs/custom.md has
        all of it. Keywords are the parameters' defaults (`parameters` where a name collides), `bounds` what they may be:
        `bounds={"beta": (0, 10)}`. A default of None is none: callers must give that parameter. The derivative is found by itself, or
        given and then checked. What can be said more exactly is.

        The answer is what `describe` tells, with a `report`: whether it is monotonic, its range, zeros, kinks, steepest slope,
        where it saturates, is NaN or dead, its largest error and its speed, and what of that is proved.

        Names have a dot. One that exists raises ActivationExists unless it is to be replaced (computations in progress go on with the
        old one); with `validate_only` nothing is created. A formula that is wrong raises InvalidRequest, whose text shows the
        place. A private server forgets it at its end. PermissionDenied: the server allows no creation.
        """
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
        answer = self._unary(
            _channel.CREATE_ACTIVATION, request, service_pb2.CreateActivationResponse, timeout, once=True
        )
        return records.activation(answer.activation)

    def delete_activation(self, name: str, *, timeout: float | None = None) -> None:
        """Remove an activation that was added. Raises UnknownActivation where there is none, and InvalidRequest for the catalogue's."""
        request = service_pb2.DeleteActivationRequest(name=_session.text(name, "name"))
        self._unary(_channel.DELETE_ACTIVATION, request, service_pb2.DeleteActivationResponse, timeout, once=True)

    def server_info(self, *, timeout: float | None = None) -> records.ServerInfo:
        """The server's version and limits."""
        request = service_pb2.GetServerInfoRequest()
        answer = self._unary(_channel.GET_SERVER_INFO, request, service_pb2.GetServerInfoResponse, timeout)
        return records.server_info(answer.server)

    def healthy(self, *, timeout: float | None = None) -> bool:
        """Whether the server answers and says that it is serving (grpc.health.v1); of several addresses, whether one of them does."""
        attempts = self._attempts(timeout)
        lines = self._pool.each()
        for index, line in enumerate(lines):
            call = line.method("unary_unary", _channel.HEALTH_CHECK)
            # A connection may break with one of several workers, while another would answer the next.
            for again in (False, True):
                seconds = attempts.probe_s(len(lines) - index, again=again)
                try:
                    answer = call(b"", timeout=seconds, wait_for_ready=again, metadata=self._metadata)
                except grpc.RpcError as error:
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

    def _map(
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
        count = _shards.worth(question, inputs, out, len(self._pool.addresses))
        attempts = self._attempts(timeout)
        known = None
        if count > 1 or (_shared.goes_in_slices(inputs) and any(r.possible for r in self._regions_at.values())):
            known = self._find(question, attempts.seconds_left())
            timeout = attempts.seconds_left()
        if count == 1 or not _shards.can_be_split(known):
            unit_bytes = _shards.unit_bytes(question, inputs, known)
            job = _session.map_job(
                question, inputs, out=out, progress=progress, on_summary=on_summary, unit_bytes=unit_bytes
            )
            return self._run(job, timeout)
        shards = Shards(question, inputs, count, out=out, progress=progress, on_summary=on_summary)
        with futures.ThreadPoolExecutor(count, thread_name_prefix="actserve-shard") as pool:
            for done in futures.as_completed([pool.submit(self._run, job, timeout) for job in shards.jobs]):
                done.result()
        return shards.answer()

    def _find(self, question: _session.Question, timeout: float | None = None) -> records.Activation | None:
        """The activation that a question is about, asked for once; None where what is wrong with its name is found out elsewhere."""
        name = _shards.asked(question)
        if name not in self._known:
            try:
                self._known[name] = self.describe(name, timeout=timeout)
            except ActserveError:
                return None
        return self._known[name]

    def _run(self, job: Job[T], timeout: float | None) -> T:
        """Compute a job, on several servers one after another where it must be."""
        attempts = self._attempts(timeout)
        assembly = job.assembly()
        landmark = 0
        while not assembly.complete:
            try:
                # All slices of a job at one address: it has their memory.
                with self._pool.using() as line:
                    while not assembly.complete:
                        landmark = assembly.place.landmark
                        self._run_over(line, job, assembly, attempts)
                        attempts.succeeded()
            except ServerUnavailable as error:
                gained = assembly.place.landmark > landmark
                pause_s = attempts.pause_s(error, begun=assembly.begun, gained=gained)
                assembly = job.again(assembly, error)
                time.sleep(pause_s)
        return job.answer(assembly)

    def _run_over(self, line: Line[grpc.Channel], job: Job[Any], assembly: Assembly, attempts: Attempts) -> None:
        """Ask one server for what is lacking, or for the next slice of it."""
        try:
            self._run_by(_shared.way(job, assembly, self._regions_at[line.address]), line, job, assembly, attempts)
        except ServerUnavailable as error:
            if error.reason != _shared.UNKNOWN_REGION:
                raise
            self._run_by(contextlib.nullcontext(job), line, job, assembly, attempts)

    def _run_by(
        self, way: _shared.Way, line: Line[grpc.Channel], job: Job[Any], assembly: Assembly, attempts: Attempts
    ) -> None:
        with way as call_of:
            if call_of is job and not assembly.begun:
                start = functools.partial(line.compute_stream, metadata=self._metadata)
                if self._standing.computed(line, start, job, assembly, attempts.seconds_left()):
                    return
            if call_of.unary:
                call = line.compute(call_of.request(assembly), timeout=attempts.seconds_left(), metadata=self._metadata)
            else:
                call = line.compute_stream(
                    call_of.requests(assembly), timeout=attempts.seconds_left(), metadata=self._metadata
                )
            with _ended(call):
                for raw in call:
                    if assembly.feed(raw):
                        return
        raise _session.incomplete()

    def _converse(
        self,
        coder: _blocks.Blocks | _blocks.Reduction[Any] | _tensors.Tensors,
        frames: Generator[Frame, None, None],
        timeout: float | None,
    ) -> Generator[Any, None, None]:
        """The results of a computation over an iterable, on several servers one after another where it must be.

        What the iterable raises is raised here, after all responses.
        """
        attempts = self._attempts(timeout)
        course = Course()
        with contextlib.closing(Sending(frames, coder.window)) as sending:
            while True:
                landmark = coder.landmark
                try:
                    with self._pool.using() as line:
                        seconds = attempts.seconds_left()
                        call = line.compute_stream(sending.messages(course), timeout=seconds, metadata=self._metadata)
                        with _ended(call):
                            for raw in call:
                                yield from coder.decode(raw)
                except ServerUnavailable as error:
                    if sending.failure:
                        raise sending.failure from None
                    if coder.nothing_owed:
                        break
                    gained = coder.landmark > landmark
                    pause_s = attempts.pause_s(error, begun=sending.begun, gained=gained)
                    course = coder.resume(error)
                    time.sleep(pause_s)
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

    def _unary(self, method: str, request: Any, kind: type[Any], timeout: float | None, *, once: bool = False) -> Any:
        """A call with one message each way, again where no server was found; `once` for what may not be done twice."""
        attempts = self._attempts(timeout)
        while True:
            try:
                with self._pool.using() as line:
                    call = line.method("unary_unary", method)
                    try:
                        seconds = attempts.seconds_left()
                        raw = call(request.SerializeToString(), timeout=seconds, metadata=self._metadata)
                    except grpc.RpcError as error:
                        raise _channel.error_of(error) from None
            except ServerUnavailable as error:
                if once and error.retry_after_s is None:
                    raise
                time.sleep(attempts.pause_s(error))
            else:
                attempts.succeeded()
                return kind.FromString(raw)


@contextlib.contextmanager
def _ended(call: Any) -> Iterator[None]:
    """Give a call up when it is left before its end, and read its failure."""
    try:
        yield
    except grpc.RpcError as error:
        raise _channel.error_of(error) from None
    finally:
        call.cancel()


__all__ = ["Client"]
