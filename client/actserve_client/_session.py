"""What both clients think, without any I/O: arguments to jobs, jobs to messages, messages to results.

`Job` is one computation over arrays that lie in memory: it gives its requests, and an `Assembly` takes the responses and
writes them where they belong. `_blocks` and `_tensors` do the same for iterables of arrays. The two clients only carry bytes
between these and a channel.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, Generic, TypeVar, overload

import numpy as np
import numpy.typing as npt
from actserve import penalties, wire
from actserve.stats import NeuronStats, StateError
from actserve.v1 import catalogue_pb2, compute_pb2, tensor_pb2

from actserve_client._resume import Place, chunk_message
from actserve_client._summaries import Summary
from actserve_client.errors import InvalidRequest, LimitExceeded, ServerError, ServerUnavailable, from_status

Array = npt.NDArray[Any]
T = TypeVar("T")

CHUNK_BYTES = 1 << 20
"""The size of the chunks that are sent and asked for; benchmarks/README.md shows where it comes from."""

UNARY_BYTES = 1 << 20
"""Up to this many bytes of input go in one Compute call, which costs half of what opening a stream does."""

KEPT_BYTES = 64 << 20
"""How much of what was sent of an iterable is kept at most until it is answered, to be sent again where a server is lost."""

_MODES = {"forward": compute_pb2.MODE_FORWARD, "derivative": compute_pb2.MODE_DERIVATIVE}
_JACOBIANS = {
    None: compute_pb2.JACOBIAN_UNSPECIFIED,
    "full": compute_pb2.JACOBIAN_FULL,
    "diag": compute_pb2.JACOBIAN_DIAGONAL,
}
# What is the default anyway is not sent, as it would cost bytes in every call.
_ACCURACIES = {"exact": compute_pb2.ACCURACY_UNSPECIFIED, "fast": compute_pb2.ACCURACY_FAST}
_NONFINITES = {"propagate": compute_pb2.NONFINITE_UNSPECIFIED, "reject": compute_pb2.NONFINITE_REJECT}
_FIRED_RULES = {
    "positive": compute_pb2.FIRED_RULE_POSITIVE,
    "nonzero": compute_pb2.FIRED_RULE_NONZERO,
    "abs>eps": compute_pb2.FIRED_RULE_ABOVE_EPS,
}
_STATS_INPUTS = {"pre": compute_pb2.STATS_INPUT_PRE_ACTIVATION, "post": compute_pb2.STATS_INPUT_POST_ACTIVATION}
_STATS_HISTOGRAMS = {
    None: compute_pb2.STATS_HISTOGRAM_UNSPECIFIED,
    "layer": compute_pb2.STATS_HISTOGRAM_LAYER,
    "neuron": compute_pb2.STATS_HISTOGRAM_NEURON,
}
_REGULARIZERS = {
    name: compute_pb2.Regularizer.Value(f"REGULARIZER_{meant.upper()}")
    for name, meant in {**{name: name for name in penalties.FORMS}, **penalties.ALIASES}.items()
}
_TARGETS = {"output": compute_pb2.PENALTY_TARGET_UNSPECIFIED, "input": compute_pb2.PENALTY_TARGET_INPUT}
_REDUCTIONS = {
    "sum": compute_pb2.REDUCTION_SUM,
    "batch_mean": compute_pb2.REDUCTION_BATCH_MEAN,
    "mean": compute_pb2.REDUCTION_MEAN,
}
_GRADIENTS_WRT = {
    "activation": compute_pb2.GRADIENT_WRT_ACTIVATION,
    "input": compute_pb2.GRADIENT_WRT_INPUT,
}

Progress = Callable[[int, int], None]
"""Called with the bytes of x sent so far and the bytes of the first result received so far."""


@dataclasses.dataclass(frozen=True, slots=True)
class Regularization:
    """The answer of `regularization`: the penalty and, when it was asked for, its gradient in x's shape and type.

    `state` is what the penalty was computed from, as versioned bytes: `merge` takes it, and `regularization` for a gradient.
    """

    penalty: float
    gradient: Array | None = None
    state: bytes = dataclasses.field(default=b"", repr=False)


@dataclasses.dataclass(frozen=True, slots=True)
class Gradients:
    """The answer of `derivative(..., upstream=g, parameter_gradients=True)`: the derivatives of sum(g * f(x)).

    `input` is that with respect to x, in x's shape and type; `parameters` holds, by name, those with respect to the
    activation's parameters: float64, of the shape of the value that was given (a number has the shape `()`).
    """

    input: Array
    parameters: Mapping[str, Array]


OnSummary = Callable[[Summary], object]
"""Called once, when a call's result is complete, from where the result is taken."""

MakeOut = Callable[[tuple[int, ...], np.dtype[Any]], Array]
"""Makes the array that a result is written to, once its shape and its type are known."""


# ---- arguments -----------------------------------------------------------------------------------------------------


def as_array(value: Any, name: str) -> Array:
    """An array of a type that can be computed with; anything else is refused by name."""
    array = np.asarray(value)
    try:
        computable = wire.data_type_of(array.dtype) in wire.COMPUTABLE
    except KeyError:
        computable = False
    if not computable:
        raise InvalidRequest(
            f"{name} is an array of {array.dtype}, and must be of float16, bfloat16, float32 or float64; convert it with "
            ".astype",
            field=name,
        )
    return array


def is_blocks(value: Any) -> bool:
    """Whether an argument is an iterable of arrays rather than an array or something that becomes one."""
    if isinstance(value, (np.ndarray, np.generic)) or hasattr(value, "__array__") or not hasattr(value, "__iter__"):
        return False
    return not isinstance(value, (list, tuple)) or (bool(value) and all(isinstance(item, np.ndarray) for item in value))


def merge_parameters(parameters: Mapping[str, Any] | None, keywords: Mapping[str, Any]) -> dict[str, Any]:
    """The activation's parameters from `parameters={...}` and from keywords; a name in both is refused."""
    for name in keywords:
        if parameters and name in parameters:
            raise InvalidRequest(f"{name} is given twice, as a keyword and in parameters", field=name)
    return {**(parameters or {}), **keywords}


def _parameter_value(name: str, value: Any) -> catalogue_pb2.ParameterValue:
    if isinstance(value, (list, tuple)) or (isinstance(value, np.ndarray) and value.ndim):
        return catalogue_pb2.ParameterValue(tensor=_parameter_tensor(name, value))
    if isinstance(value, np.ndarray):
        value = value[()]
    if isinstance(value, (bool, np.bool_)):
        return catalogue_pb2.ParameterValue(flag=bool(value))
    if isinstance(value, (int, np.integer)) and -(1 << 63) <= value < 1 << 63:
        return catalogue_pb2.ParameterValue(integer=int(value))
    if isinstance(value, (int, float, np.floating)) or (
        isinstance(value, np.generic) and value.dtype.name == "bfloat16"
    ):
        return catalogue_pb2.ParameterValue(number=_exact_float(name, value))
    if isinstance(value, str):
        return catalogue_pb2.ParameterValue(text=text(value, name))
    raise InvalidRequest(f"{name} is {value!r}, and must be a number, a word or an array of numbers", field=name)


def _exact_float(name: str, value: Any) -> float:
    try:
        return float(value)
    except OverflowError:
        raise InvalidRequest(f"{name} is too large for a number", field=name) from None


def _parameter_tensor(name: str, value: Any) -> tensor_pb2.TensorValue:
    """The value of each channel, without loss: float32 and what is shorter as float32, all else as float64."""
    try:
        array = np.asarray(value)
    except ValueError:
        raise InvalidRequest(f"{name} is a list whose items differ in length", field=name) from None
    if array.dtype.kind not in "iuf" and array.dtype.name != "bfloat16":
        raise InvalidRequest(f"{name} is an array of {array.dtype}, and must be one of numbers", field=name)
    narrow = array.dtype.kind != "i" and array.dtype.kind != "u" and array.dtype.itemsize <= 4
    wanted = np.dtype("<f4" if narrow else "<f8")
    sent = np.ascontiguousarray(array.astype(wanted)).reshape(array.shape)
    if array.dtype.kind in "iu" and any(int(v) != int(w) for v, w in zip(array.flat, sent.flat, strict=True)):
        raise InvalidRequest(
            f"{name} holds whole numbers that no float64 equals; make it an array of floats", field=name
        )
    if array.dtype.itemsize > 8 and not np.array_equal(sent.astype(array.dtype), array, equal_nan=True):
        raise InvalidRequest(f"{name} is an array of {array.dtype}; convert it with .astype(float)", field=name)
    return tensor_pb2.TensorValue(data_type=wire.data_type_of(wanted), shape=array.shape, data=sent.tobytes())


def _choice(table: Mapping[Any, int], value: Any, name: str) -> Any:
    try:
        return table[value]
    except (KeyError, TypeError):
        allowed = ", ".join(repr(key) for key in table if key is not None)
        raise InvalidRequest(f"{name} is {value!r}, and must be one of {allowed}", field=name) from None


def integer(value: Any, name: str, bits: int = 32) -> int:
    """A whole number that can be sent."""
    if isinstance(value, (bool, np.bool_)) or not isinstance(value, (int, np.integer)):
        raise InvalidRequest(f"{name} is {value!r}, and must be an integer", field=name)
    if not -(1 << bits - 1) <= value < 1 << bits - 1:
        raise InvalidRequest(f"{name} is {value}, which is out of range", field=name)
    return int(value)


def number(value: Any, name: str) -> float:
    """A number that can be sent."""
    if isinstance(value, (bool, np.bool_)) or not isinstance(value, (int, float, np.integer, np.floating)):
        raise InvalidRequest(f"{name} is {value!r}, and must be a number", field=name)
    return float(value)


def text(value: Any, name: str) -> str:
    """A string that can be sent."""
    if not isinstance(value, str):
        raise InvalidRequest(f"{name} is {value!r}, and must be a string", field=name)
    try:
        value.encode()
    except UnicodeEncodeError:
        raise InvalidRequest(f"{name} is {value!r}, which is no valid text", field=name) from None
    return value


# ---- what a computation is -----------------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True, slots=True)
class Question:
    """A computation without its tensors."""

    template: compute_pb2.JobHeader

    def header(
        self, inputs: Iterable[tuple[np.dtype[Any], tuple[int, ...]]], *, open_ended: bool = False
    ) -> compute_pb2.JobHeader:
        """The header of a job over inputs of these types and shapes."""
        header = compute_pb2.JobHeader()
        header.CopyFrom(self.template)
        header.open_ended = open_ended
        for dtype, shape in inputs:
            shape = (-1, *shape[1:]) if open_ended else shape
            header.inputs.append(tensor_pb2.TensorSpec(data_type=wire.data_type_of(dtype), shape=shape))
        return header


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class How:
    """What every computation may be told, checked where it is sent."""

    axis: int | None
    accuracy: str
    preset: str | None
    nonfinite: str
    parameters: Mapping[str, Any] | None
    keywords: Mapping[str, Any]


def _question(name: str, mode: compute_pb2.Mode, how: How, **options: Any) -> Question:
    header = compute_pb2.JobHeader(
        activation=text(name, "name"),
        mode=mode,
        chunk_bytes=CHUNK_BYTES,
        accuracy=_choice(_ACCURACIES, how.accuracy, "accuracy"),
        preset=None if how.preset is None else text(how.preset, "preset"),
        nonfinite=_choice(_NONFINITES, how.nonfinite, "nonfinite"),
        **options,
    )
    if how.axis is not None:
        header.axis = integer(how.axis, "axis")
    for key, value in merge_parameters(how.parameters, how.keywords).items():
        if value is not None:
            header.parameters[text(key, "parameters")].CopyFrom(_parameter_value(key, value))
    return Question(header)


def forward(name: str, how: How) -> Question:
    """y = f(x)."""
    return _question(name, compute_pb2.MODE_FORWARD, how)


def derivative(name: str, how: How, *, jacobian: str | None, parameter_gradients: bool = False) -> Question:
    """f'(x), the vector-Jacobian product, or a part of the Jacobian."""
    options = None
    if jacobian is not None or parameter_gradients:
        options = compute_pb2.DerivativeOptions(
            jacobian=_choice(_JACOBIANS, jacobian, "jacobian"), parameter_gradients=bool(parameter_gradients)
        )
    return _question(name, compute_pb2.MODE_DERIVATIVE, how, derivative=options)


def map_mode(mode: str, name: str, how: How, *, jacobian: str | None, upstream: bool) -> Question:
    """Forward or derivative, by the name of the mode."""
    _choice(_MODES, mode, "mode")
    if mode == "derivative":
        return derivative(name, how, jacobian=jacobian)
    for given, what in ((upstream, "upstream"), (jacobian is not None, "jacobian")):
        if given:
            raise InvalidRequest(f'{what} goes with mode="derivative"', field=what)
    return forward(name, how)


def regularization(
    name: str,
    regularizer: str,
    how: How,
    *,
    strength: float | None,
    reduction: str,
    gradient: bool,
    gradient_wrt: str,
    of: str,
    state: bytes | Regularization | None,
) -> Question:
    """A penalty on f(x). Of the keywords those that are the regularizer's parameters are not the activation's."""
    which = _choice(_REGULARIZERS, regularizer, "regularizer")
    if isinstance(state, Regularization):
        state = state.state
    if not (state is None or isinstance(state, bytes)):
        raise InvalidRequest(f"state is {type(state).__name__}, and must be bytes or a Regularization", field="state")
    options = compute_pb2.RegularizationOptions(
        regularizer=which,
        strength=None if strength is None else number(strength, "strength"),
        reduction=_choice(_REDUCTIONS, reduction, "reduction"),
        gradient=bool(gradient),
        gradient_wrt=_choice(_GRADIENTS_WRT, gradient_wrt, "gradient_wrt"),
        of=_choice(_TARGETS, of, "of"),
        state=state,
    )
    own = penalties.keywords(regularizer)
    for key in [key for key in how.keywords if key in own]:
        if (value := how.keywords[key]) is not None:
            options.parameters[key].CopyFrom(_parameter_value(key, value))
    rest = {key: value for key, value in how.keywords.items() if key not in own}
    return _question(
        name, compute_pb2.MODE_REGULARIZATION, dataclasses.replace(how, keywords=rest), regularization=options
    )


def two_passes(question: Question, error: LimitExceeded, x: Any) -> Question | None:
    """The first of two passes for a gradient that the server cannot hold x for; None where that is of no help."""
    if error.field != "gradient" or is_blocks(x):
        return None
    template = compute_pb2.JobHeader()
    template.CopyFrom(question.template)
    template.regularization.gradient = False
    return Question(template)


def second_pass(question: Question, state: bytes) -> Question:
    """The second, which the first one's state lets stream."""
    template = compute_pb2.JobHeader()
    template.CopyFrom(question.template)
    template.regularization.state = state
    return Question(template)


def neuron_stats(
    name: str,
    how: How,
    *,
    threshold: float,
    neuron_axis: int | Sequence[int],
    first_sample: int,
    fired: str,
    eps: float | None,
    zero_tolerance: float,
    tau: float,
    saturation_eps: float,
    dead_after_samples: int | None,
    input: str,  # noqa: A002  # the option's public name
    histogram: str | None,
    sums: bool,
) -> Question:
    """Statistics of each neuron."""
    rule, eps = _fired(fired, eps)
    options = compute_pb2.NeuronStatsOptions(
        threshold=number(threshold, "threshold"),
        fired=_choice(_FIRED_RULES, rule, "fired"),
        eps=eps,
        zero_tolerance=number(zero_tolerance, "zero_tolerance"),
        tau=number(tau, "tau"),
        saturation_eps=number(saturation_eps, "saturation_eps"),
        input=_choice(_STATS_INPUTS, input, "input"),
        histogram=_choice(_STATS_HISTOGRAMS, histogram, "histogram"),
        sums=bool(sums),
        first_sample=integer(first_sample, "first_sample", 64),
    )
    if dead_after_samples is not None:
        options.dead_after_samples = integer(dead_after_samples, "dead_after_samples", 64)
    if isinstance(neuron_axis, (list, tuple)):
        if not neuron_axis:
            raise InvalidRequest("neuron_axis is empty, and must name at least one axis", field="neuron_axis")
        options.neuron_axes.extend(integer(axis, "neuron_axis") for axis in neuron_axis)
    else:
        options.neuron_axis = integer(neuron_axis, "neuron_axis")
    return _question(name, compute_pb2.MODE_NEURON_STATS, how, neuron_stats=options)


_ABOVE = "abs>"


def _fired(fired: Any, eps: Any) -> tuple[str, float]:
    """The rule, and its bound: fired="abs>eps" with eps=1e-3 may be said in one, "abs>1e-3"."""
    rule = text(fired, "fired").replace(" ", "")
    bound = None if eps is None else number(eps, "eps")
    if rule == "abs>eps":
        if bound is None:
            raise InvalidRequest('fired "abs>eps" needs eps', field="eps")
        return rule, bound
    if bound is not None:
        raise InvalidRequest(f'eps is {eps!r}, and goes with fired="abs>eps", not {fired!r}', field="eps")
    if rule.startswith(_ABOVE):
        try:
            return "abs>eps", float(rule.removeprefix(_ABOVE))
        except ValueError:
            pass
    return rule, 0.0


# ---- results -------------------------------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class Room:
    """Memory that is shared with the server, for the first tensor of a result."""

    memory: Array
    """Its bytes."""
    loan: Any
    """What lends it, if it is not the caller's own."""
    place: tensor_pb2.SharedMemory
    """What the server is told of it."""
    given: bool
    """Whether an array in it may be what the caller gets."""

    def array(self, dtype: np.dtype[Any], shape: tuple[int, ...]) -> Array:
        """An array in it. Raises ServerError where it does not fit."""
        nbytes = wire.byte_count(shape, dtype.itemsize)
        if not 0 <= nbytes <= self.memory.nbytes:
            raise ServerError(f"the server wrote {nbytes} bytes to a room of {self.memory.nbytes}")
        return self.memory[:nbytes].view(dtype).reshape(shape)


class Assembly:
    """Takes the responses of one job, and writes their chunks into arrays.

    `out`, or the array that it makes, takes the first tensor of the result; the others, and it too when there is none, are
    allocated. In an open-ended job the first dimension may be unknown until the summary: such a tensor is gathered and
    becomes an array at the end. `span` says which bytes of the first tensor come, when they are not all.
    """

    def __init__(
        self,
        out: Array | MakeOut | None = None,
        progress: Progress | None = None,
        on_summary: OnSummary | None = None,
        span: tuple[int, int] | None = None,
    ) -> None:
        self._out = out
        self._progress = progress
        self._on_summary = on_summary
        self._span = span
        self._tensors: list[_Incoming] = []
        self.place = Place(span[0] if span else 0)
        self.sent = 0
        self.room: Room | None = None
        """Where the server writes the first tensor, if it does not send it."""
        self.overwritten = False
        """Whether the result may lie where the input was, without a word of the server yet."""
        self.summary: compute_pb2.ResultSummary | None = None
        self.refused = False
        """Whether the server has said that this job failed, which is no failure of the stream."""

    def feed(self, raw: bytes, job: int | None = None) -> bool:
        """Take a response; True when it was the last. Raises what the server says, or ServerError when it makes no sense.

        `job` is the number that it must have, where a stream has several.
        """
        try:
            message, data = wire.unframe(compute_pb2.ComputeResponse, raw)
        except wire.DecodeError:
            raise ServerError("the server sent bytes that are no ComputeResponse") from None
        if job is not None and message.job != job:
            raise ServerError(f"the server answered job {message.job} where job {job} is due")
        match message.WhichOneof("frame"):
            case "chunk":
                self._chunk(message.chunk, data)
            case "header" if not (self._tensors and self.place.announced):
                self._header(message.header)
            case "summary":
                self._finish(message.summary)
                return True
            case "whole" if not self._tensors:
                self._whole(message.whole.summary, data)
                return True
            case "error":
                self.refused = True
                raise from_status(message.error)
            case frame:
                raise ServerError(f"the server sent {frame or 'an unknown frame'} where none may be")
        return False

    def _header(self, header: compute_pb2.ResultHeader) -> None:
        if not self._tensors:
            for index, spec in enumerate(header.tensors):
                self._tensors.append(self._first(spec) if index == 0 else _incoming(spec))
        self.place.header(header, self._tensors[0].itemsize if self._tensors else 1)

    def _first(self, spec: tensor_pb2.TensorSpec) -> _Incoming:
        out = self._out
        if out is None and spec.HasField("shared") and self.room is not None and self.room.given:
            dtype, shape = spec_of(spec)
            out = self.room.array(dtype.newbyteorder("="), shape)
        return _incoming(spec, out, self._span)

    @property
    def begun(self) -> bool:
        """Whether a server has been at work: it answered, or took more than a connection holds."""
        return self.place.announced or self.place.landmark > 0 or self.sent > 4 * CHUNK_BYTES

    def resume(self) -> None:
        """Go on with what another call sends of the same result; only where `place` is resumable."""
        self._tensors[0].rewind(self.place.resume())

    def _whole(self, summary: compute_pb2.ResultSummary, data: memoryview) -> None:
        for index, spec in enumerate(summary.tensors):
            tensor = self._first(spec) if index == 0 else _incoming(spec)
            self._tensors.append(tensor)
            if index == 0 and spec.HasField("shared"):
                continue
            size = wire.byte_count(spec.shape, tensor.itemsize)
            tensor.write(data[:size])
            data = data[size:]
            if self._progress and index == 0:
                self._progress(self.sent, tensor.filled)
        if len(data):
            raise ServerError("the server sent more bytes than its summary announced")
        self._finish(summary)

    def _chunk(self, chunk: compute_pb2.ResultChunk, data: memoryview) -> None:
        if not 0 <= chunk.tensor < len(self._tensors) or chunk.offset_bytes != self._tensors[chunk.tensor].filled:
            raise ServerError(f"the server sent a chunk out of place: tensor {chunk.tensor}, byte {chunk.offset_bytes}")
        if chunk.shared_bytes and chunk.tensor == 0:
            self._tensors[0].take(self.room, chunk.shared_bytes)
        else:
            self._tensors[chunk.tensor].write(data)
        if chunk.tensor == 0:
            self.place.chunk(chunk, chunk.shared_bytes or len(data))
            if self._progress:
                self._progress(self.sent, self._tensors[0].filled)

    def _finish(self, summary: compute_pb2.ResultSummary) -> None:
        if len(summary.tensors) != len(self._tensors):
            raise ServerError("the server's summary does not fit its header")
        if summary.tensors and summary.tensors[0].HasField("shared") and (lacking := self._tensors[0].lacking):
            self._tensors[0].take(self.room, lacking)
            if self._progress:
                self._progress(self.sent, self._tensors[0].filled)
        for tensor, spec in zip(self._tensors, summary.tensors, strict=True):
            tensor.finish(tuple(spec.shape))
        self.summary = summary
        if self._on_summary:
            self._on_summary(self.place.total(summary))

    @property
    def arrays(self) -> list[Array]:
        """The tensors of the result, complete once the summary has come."""
        return [tensor.array for tensor in self._tensors]


def incomplete() -> ServerError:
    """The error to raise when the responses end before the last summary."""
    return ServerError("the server's answer ended before it was complete")


class _Incoming:
    """A tensor that is being received."""

    def __init__(self, dtype: np.dtype[Any], array: Array | None, span: tuple[int, int] | None = None) -> None:
        self._dtype = dtype
        self.itemsize = dtype.itemsize
        self._array = array
        self._sink = None if array is None else wire.ArraySink(array)
        self._gathered = bytearray()
        self.filled, self._end = span or (0, None if array is None else array.nbytes)

    def write(self, data: memoryview) -> None:
        if self._sink is None or self._end is None:
            self._gathered += data
        elif self.filled + len(data) > self._end or len(data) % self.itemsize:
            raise ServerError("the server sent more bytes than its header announced, or a part of an element")
        else:
            self._sink.write(self.filled, data)
        self.filled += len(data)

    @property
    def lacking(self) -> int:
        """How many bytes of a tensor of known size have not come."""
        return 0 if self._end is None else self._end - self.filled

    def take(self, room: Room | None, size: int) -> None:
        """So many bytes more lie in the room."""
        array, stop = self._array, self.filled + size
        if room is None or array is None or not 0 < size <= self.lacking or stop > room.memory.nbytes:
            raise ServerError(
                "the server wrote to a place that it was not given, or more bytes than its header announced"
            )
        if _address(array) == _address(room.memory):
            self.filled = stop
        else:
            self.write(room.memory[self.filled : stop].data)

    def rewind(self, size: int) -> None:
        """Forget the last bytes."""
        self.filled -= size
        if self._sink is None:
            del self._gathered[self.filled :]

    def finish(self, shape: tuple[int, ...]) -> None:
        end = wire.byte_count(shape, self.itemsize) if self._end is None else self._end
        known = shape if self._array is None else self._array.shape
        if any(length < 0 for length in shape) or shape != known or self.filled != end:
            raise ServerError(f"the server sent {self.filled} bytes of a tensor of shape {list(shape)}")
        if self._array is None:
            self._array = np.frombuffer(self._gathered, self._dtype).reshape(shape)

    @property
    def array(self) -> Array:
        assert self._array is not None
        return self._array


def spec_of(spec: tensor_pb2.TensorSpec) -> tuple[np.dtype[Any], tuple[int, ...]]:
    """The type and the shape of a tensor that the server announces."""
    try:
        return wire.dtype_of(spec.data_type), tuple(spec.shape)
    except KeyError:
        raise ServerError(
            f"the server announced a tensor of {wire.data_type_name(spec.data_type)}, which this client does not know"
        ) from None
    except ImportError:
        raise InvalidRequest("a result of bfloat16 needs ml_dtypes: pip install ml_dtypes", field="x") from None


def _incoming(
    spec: tensor_pb2.TensorSpec, out: Array | MakeOut | None = None, span: tuple[int, int] | None = None
) -> _Incoming:
    dtype, shape = spec_of(spec)
    if callable(out):
        out = out(shape, dtype.newbyteorder("="))
    if out is not None:
        if out.shape != shape or out.dtype.newbyteorder("<") != dtype:
            raise InvalidRequest(
                f"out is {out.dtype} of shape {list(out.shape)}, and must be {dtype} of shape {list(shape)}",
                field="out",
            )
        return _Incoming(dtype, out, span)
    return _Incoming(dtype, None if -1 in shape else np.empty(shape, dtype.newbyteorder("=")), span)


def _address(array: Array) -> int:
    return int(array.__array_interface__["data"][0])


def _same_place(one: Array, other: Array) -> bool:
    return (
        _address(one) == _address(other)
        and one.strides == other.strides
        and one.shape == other.shape
        and one.dtype == other.dtype
    )


class Job(Generic[T]):
    """One computation over arrays that lie in memory."""

    def __init__(
        self,
        question: Question,
        inputs: tuple[Array, ...],
        answer: Callable[[Assembly], T],
        *,
        out: Array | MakeOut | None = None,
        progress: Progress | None = None,
        on_summary: OnSummary | None = None,
        span: tuple[int, int] | None = None,
    ) -> None:
        if not (out is None or callable(out) or (isinstance(out, np.ndarray) and out.flags.writeable)):
            raise InvalidRequest("out must be a writable NumPy array", field="out")
        self._header = question.header((array.dtype, array.shape) for array in inputs)
        self.inputs = inputs
        self.sources = tuple(wire.ArraySource(array) for array in inputs)
        self._answer = answer
        self._out = out
        self._progress = progress
        self._on_summary = on_summary
        self._span = span
        target = out if isinstance(out, np.ndarray) else None
        shared = [array for array in inputs if target is not None and np.may_share_memory(array, target)]
        # What is computed from a chunk is only written after the chunk was sent, so computing in place is safe; an
        # overlap in any other way is not.
        self._aside = any(target is not None and not _same_place(array, target) for array in shared)
        self.in_place = bool(shared) and not self._aside
        """Whether the result overwrites an input."""

    @property
    def unary(self) -> bool:
        """Whether the inputs are small enough for a Compute call."""
        return sum(source.nbytes for source in self.sources) <= UNARY_BYTES

    def request(self, assembly: Assembly) -> bytes:
        """The message of a Compute call for what the assembly lacks."""
        data = b"".join(source.read(a, b) for source, (a, b) in zip(self.sources, self.owed(assembly), strict=True))
        header = self.asking(assembly)
        header.whole_result = True
        return wire.frame(compute_pb2.ComputeRequest(header=header), data)

    @property
    def activation(self) -> str:
        """What is computed, as it was asked for."""
        return self._header.activation

    def message(self, number: int) -> bytes:
        """The one message of a ComputeStream call that is all of a small job, under a number."""
        data = b"".join(source.read(0, source.nbytes) for source in self.sources)
        return wire.frame(compute_pb2.ComputeStreamRequest(job=number, header=self._header), data)

    def requests(self, assembly: Assembly) -> Iterator[bytes]:
        """The messages of a ComputeStream call for what the assembly lacks."""
        yield compute_pb2.ComputeStreamRequest(job=1, header=self.asking(assembly)).SerializeToString()
        for pieces in pieces_of(self.sources, self.owed(assembly)):
            for index, start, data in pieces:
                yield chunk_message(1, index, start, data)
                if index == 0:
                    assembly.sent = start + len(data)

    @property
    def is_part(self) -> bool:
        """Whether this is a part of a larger job."""
        return self._span is not None

    @property
    def out_array(self) -> Array | None:
        """The array that the first tensor of the result is written to as it comes, if it is known."""
        return self._out if isinstance(self._out, np.ndarray) and not self._aside else None

    @property
    def result_bytes(self) -> int:
        """The size of the first tensor of the result, where that is x's or less; 0 where it is not, or there is none."""
        header = self._header
        if header.mode == compute_pb2.MODE_REGULARIZATION:
            made = header.regularization.gradient
        else:
            whole = header.derivative.jacobian == compute_pb2.JACOBIAN_FULL
            made = header.mode in (compute_pb2.MODE_FORWARD, compute_pb2.MODE_DERIVATIVE) and not whole
        return self.inputs[0].nbytes if made else 0

    def asking(self, assembly: Assembly) -> compute_pb2.JobHeader:
        """The header that asks for what the assembly lacks."""
        part = None
        if assembly.place.resumable():
            part = assembly.place.part()
        elif self._span:
            part = compute_pb2.Part(first_element=self._span[0] // self.sources[0].itemsize)
        if part is None:
            return self._header
        header = compute_pb2.JobHeader()
        header.CopyFrom(self._header)
        header.part.CopyFrom(part)
        if self._span:
            header.part.elements = self._span[1] // self.sources[0].itemsize - part.first_element
        return header

    def owed(self, assembly: Assembly) -> list[tuple[int, int]]:
        """Which bytes of each input are to be sent."""
        begin, end = self._span or (0, None)
        return [
            (max(assembly.place.needed(index), begin), source.nbytes if end is None else end)
            for index, source in enumerate(self.sources)
        ]

    def assembly(self) -> Assembly:
        """A fresh taker of responses."""
        return Assembly(None if self._aside else self._out, self._progress, self._on_summary, self._span)

    def again(self, assembly: Assembly, error: ServerUnavailable) -> Assembly:
        """What takes the responses of another call after one was lost: the same, to go on, or one that begins anew.

        Raises the error when the input is gone, as it was overwritten by the result.
        """
        if assembly.overwritten:
            raise error
        goes_on = assembly.place.resumable(in_place=self.in_place) and error.reason != _OTHER_BITS
        if goes_on:
            assembly.resume()
            return assembly
        if self.in_place and assembly.place.filled > (self._span or (0,))[0]:
            raise error
        return self.assembly()

    def answer(self, assembly: Assembly) -> T:
        """What the caller gets, once the assembly is complete."""
        if self._aside and isinstance(self._out, np.ndarray):
            received = assembly.arrays[0]
            if received.shape != self._out.shape or received.dtype != self._out.dtype.newbyteorder("="):
                raise InvalidRequest(
                    f"out is {self._out.dtype} of shape {list(self._out.shape)}, and must be {received.dtype} of shape "
                    f"{list(received.shape)}",
                    field="out",
                )
            self._out[...] = received
        return self._answer(assembly)


_OTHER_BITS = "OTHER_BITS"


def pieces_of(
    sources: Sequence[wire.ArraySource], spans: Sequence[tuple[int, int]] | None = None, step: int = CHUNK_BYTES
) -> Iterator[list[tuple[int, int, memoryview]]]:
    """What of each input is sent next: its index, the place of the first byte, and the bytes; of all, or of spans of bytes."""
    spans = spans or [(0, source.nbytes) for source in sources]
    for edges in wire.in_step([end - begin for begin, end in spans], step, sources[0].itemsize):
        yield [
            (index, spans[index][0] + a, sources[index].read(spans[index][0] + a, spans[index][0] + b))
            for index, (a, b) in enumerate(edges)
            if a < b
        ]


def inputs_of(x: Any, upstream: Any) -> tuple[Array, ...]:
    """x, and the upstream gradient unless it is None, as arrays that go together."""
    return as_inputs(x) if upstream is None else as_inputs(x, upstream)


def as_inputs(*given: Any) -> tuple[Array, ...]:
    """x, and the upstream gradient where it is given too, as arrays that go together."""
    inputs = tuple(as_array(value, name) for value, name in zip(given, ("x", "upstream"), strict=False))
    _check_upstream(inputs)
    return inputs


def map_job(
    question: Question, inputs: tuple[Array, ...], *, out: Array | MakeOut | None = None, **more: Any
) -> Job[Array]:
    """Forward or derivative of arrays."""
    return Job(question, inputs, lambda assembly: _first(assembly, out), out=out, **more)


def gradients_job(
    question: Question, inputs: tuple[Array, ...], *, out: Array | MakeOut | None = None, **more: Any
) -> Job[Gradients]:
    """The derivative with respect to x and to the parameters."""

    def answer(assembly: Assembly) -> Gradients:
        assert assembly.summary is not None
        others = zip(assembly.summary.tensors[1:], assembly.arrays[1:], strict=True)
        return Gradients(_first(assembly, out), {spec.name.removeprefix(_GRADIENT_OF): array for spec, array in others})

    return Job(question, inputs, answer, out=out, **more)


_GRADIENT_OF = "gradient of "


def _first(assembly: Assembly, out: Array | MakeOut | None) -> Array:
    """The first tensor of a result, which may have been gathered beside `out`."""
    return out if isinstance(out, np.ndarray) else assembly.arrays[0]


def _check_upstream(inputs: tuple[Array, ...]) -> None:
    if len(inputs) == 2 and inputs[0].dtype.newbyteorder("=") != inputs[1].dtype.newbyteorder("="):
        raise InvalidRequest(
            f"upstream is {inputs[1].dtype} and x is {inputs[0].dtype}; they must be of one type", field="upstream"
        )


def penalty_answer(assembly: Assembly) -> Regularization:
    """The answer of the regularization mode."""
    assert assembly.summary is not None
    arrays = assembly.arrays
    found = assembly.summary.regularization
    return Regularization(found.penalty, arrays[0] if arrays else None, found.state)


def stats_answer(assembly: Assembly) -> NeuronStats:
    """The answer of the neuron statistics mode."""
    assert assembly.summary is not None
    names = [tensor.name for tensor in assembly.summary.tensors]
    if "state" not in names:
        raise ServerError("the server's neuron statistics hold no state")
    return NeuronStats.from_bytes(assembly.arrays[names.index("state")].tobytes())


@overload
def merge(states: Iterable[NeuronStats]) -> NeuronStats: ...


@overload
def merge(states: Iterable[Regularization]) -> Regularization: ...


@overload
def merge(states: Iterable[bytes | NeuronStats | Regularization]) -> Any: ...


def merge(states: Iterable[bytes | NeuronStats | Regularization]) -> NeuronStats | Regularization:
    """The answer over all the data that states were gathered from: `merge(s.state for s in parts)`.

    >>> merge(client.neuron_stats("relu", part).state for part in parts).dead
    array([False,  True])
    >>> merge(client.regularization("relu", part, "l1").state for part in parts).penalty
    0.25

    States (the `.state` of a `NeuronStats` or a `Regularization`, or the records themselves) of one layer and the same
    options, in any order; what comes back is of their kind, a `Regularization` without a gradient. Needs no server. Raises
    InvalidRequest for states that do not go together, that are damaged, or when there are none.
    """
    parts: list[Any] = list(states)
    if not parts:
        raise InvalidRequest("there are no states to merge", field="states")
    kinds = {"penalties" if _is_penalty(part) else "neuron statistics" for part in parts}
    if len(kinds) > 1:
        raise InvalidRequest("states of penalties and of neuron statistics cannot be merged", field="states")
    try:
        if "penalties" in kinds:
            return _merged_penalties(parts)
        stats = [part if isinstance(part, NeuronStats) else NeuronStats.from_bytes(part) for part in parts]
        return functools.reduce(NeuronStats.merge, stats)
    except StateError as error:
        raise InvalidRequest(str(error), field="states") from None


def _is_penalty(part: Any) -> bool:
    return isinstance(part, Regularization) or (isinstance(part, bytes) and penalties.is_penalty(part))


def _merged_penalties(parts: list[Any]) -> Regularization:
    data = [part.state if isinstance(part, Regularization) else part for part in parts]
    state = functools.reduce(penalties.PenaltyState.merge, map(penalties.PenaltyState.from_bytes, data))
    return Regularization(state.penalty, None, state.to_bytes())
