"""Between the wire's messages and the engine's terms, in both directions. No decisions about mathematics or calls here."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, TypeVar

import numpy as np
from actserve import wire
from actserve.penalties import PenaltyState
from actserve.stats import NeuronStats, StateError
from actserve.v1 import catalogue_pb2, compute_pb2, tensor_pb2

from actserve_server.activations.spec import (
    Activation,
    AxisActivation,
    GatedActivation,
    Library,
    Parameter,
    Record,
    ResizingActivation,
    Value,
)
from actserve_server.engine.parameters import values_of
from actserve_server.engine.parts import Part
from actserve_server.engine.plan import Job
from actserve_server.engine.run import Run
from actserve_server.errors import InvalidAxis, InvalidOption, InvalidParameter, UnsupportedDataType
from actserve_server.modes.base import Array, Mode, NeuronSummary, Penalty, Piece, Tensor
from actserve_server.modes.maps import Derivative, Forward, JacobianPart
from actserve_server.modes.neuron_stats import RESULTS, NeuronStatistics, pieces, summary
from actserve_server.modes.nonfinite import NonfiniteCounts
from actserve_server.modes.regularization import GradientWrt, Reduction, Regularization, Target
from actserve_server.regularizers.catalogue import REGULARIZERS

_JACOBIANS = {
    compute_pb2.JACOBIAN_UNSPECIFIED: JacobianPart.NONE,
    compute_pb2.JACOBIAN_FULL: JacobianPart.FULL,
    compute_pb2.JACOBIAN_DIAGONAL: JacobianPart.DIAGONAL,
}
_REDUCTIONS = {
    compute_pb2.REDUCTION_UNSPECIFIED: Reduction.SUM,
    compute_pb2.REDUCTION_SUM: Reduction.SUM,
    compute_pb2.REDUCTION_BATCH_MEAN: Reduction.BATCH_MEAN,
    compute_pb2.REDUCTION_MEAN: Reduction.MEAN,
}
_GRADIENTS_WRT = {
    compute_pb2.GRADIENT_WRT_UNSPECIFIED: GradientWrt.ACTIVATION,
    compute_pb2.GRADIENT_WRT_ACTIVATION: GradientWrt.ACTIVATION,
    compute_pb2.GRADIENT_WRT_INPUT: GradientWrt.INPUT,
}
_FIRED_RULES = {
    compute_pb2.FIRED_RULE_UNSPECIFIED: "positive",
    compute_pb2.FIRED_RULE_POSITIVE: "positive",
    compute_pb2.FIRED_RULE_NONZERO: "nonzero",
    compute_pb2.FIRED_RULE_ABOVE_EPS: "abs>eps",
}
_STATS_INPUTS = {
    compute_pb2.STATS_INPUT_UNSPECIFIED: "pre",
    compute_pb2.STATS_INPUT_PRE_ACTIVATION: "pre",
    compute_pb2.STATS_INPUT_POST_ACTIVATION: "post",
}
_STATS_HISTOGRAMS: dict[Any, str | None] = {
    compute_pb2.STATS_HISTOGRAM_UNSPECIFIED: None,
    compute_pb2.STATS_HISTOGRAM_LAYER: "layer",
    compute_pb2.STATS_HISTOGRAM_NEURON: "neuron",
}
_TARGETS = {
    compute_pb2.PENALTY_TARGET_UNSPECIFIED: Target.OUTPUT,
    compute_pb2.PENALTY_TARGET_OUTPUT: Target.OUTPUT,
    compute_pb2.PENALTY_TARGET_INPUT: Target.INPUT,
}
_PENALTIES = {compute_pb2.Regularizer.Value(f"REGULARIZER_{record.name.upper()}"): record for record in REGULARIZERS}
_ACCURACIES = {
    compute_pb2.ACCURACY_UNSPECIFIED: "exact",
    compute_pb2.ACCURACY_EXACT: "exact",
    compute_pb2.ACCURACY_FAST: "fast",
}
_REJECTS_NONFINITE = {
    compute_pb2.NONFINITE_UNSPECIFIED: False,
    compute_pb2.NONFINITE_PROPAGATE: False,
    compute_pb2.NONFINITE_REJECT: True,
}
_KINDS = {
    Activation: catalogue_pb2.ACTIVATION_KIND_ELEMENTWISE,
    AxisActivation: catalogue_pb2.ACTIVATION_KIND_AXIS,
    GatedActivation: catalogue_pb2.ACTIVATION_KIND_GATED,
    ResizingActivation: catalogue_pb2.ACTIVATION_KIND_RESIZING,
}
_PARAMETER_KINDS = {
    "number": catalogue_pb2.PARAMETER_KIND_NUMBER,
    "integer": catalogue_pb2.PARAMETER_KIND_INTEGER,
    "flag": catalogue_pb2.PARAMETER_KIND_FLAG,
    "word": catalogue_pb2.PARAMETER_KIND_WORD,
    "seed": catalogue_pb2.PARAMETER_KIND_SEED,
    "axis": catalogue_pb2.PARAMETER_KIND_AXIS,
}
_WHOLE_KINDS = ("integer", "seed", "axis")
_MOST_PARAMETER_DIMENSIONS = 32
"""As many as every version of NumPy takes."""
_TENSOR_TYPES = (tensor_pb2.DATA_TYPE_FLOAT, tensor_pb2.DATA_TYPE_DOUBLE)
SATURATIONS = {
    "no": catalogue_pb2.SATURATION_NONE,
    "left": catalogue_pb2.SATURATION_LEFT,
    "right": catalogue_pb2.SATURATION_RIGHT,
    "both": catalogue_pb2.SATURATION_BOTH,
}

_LARGEST_STATE_BYTES = 3 << 20
"""Of a penalty, so that a client with gRPC's default limits can read the summary that holds it."""

V = TypeVar("V")

MODES = (
    compute_pb2.MODE_FORWARD,
    compute_pb2.MODE_DERIVATIVE,
    compute_pb2.MODE_REGULARIZATION,
    compute_pb2.MODE_NEURON_STATS,
)
REGULARIZERS_KNOWN = tuple(compute_pb2.Regularizer.Name(number) for number in sorted(_PENALTIES))
"""By the names of the protocol's enum."""


def job(header: compute_pb2.JobHeader) -> Job:
    """A job as asked for. Raises errors.InvalidRequest for what has no meaning; the plan checks the rest."""
    return Job(
        activation=header.activation,
        mode=_mode(header),
        parameters={name: _parameter_value(name, value) for name, value in header.parameters.items()},
        inputs=tuple(_tensor(index, spec) for index, spec in enumerate(header.inputs)),
        axis=header.axis if header.HasField("axis") else None,
        chunk_bytes=header.chunk_bytes,
        open_ended=header.open_ended,
        accuracy=_known(_ACCURACIES, header.accuracy, "header.accuracy"),
        preset=header.preset,
        reject_nonfinite=_known(_REJECTS_NONFINITE, header.nonfinite, "header.nonfinite"),
        part=_part(header.part) if header.HasField("part") else None,
    )


def _part(message: compute_pb2.Part) -> Part:
    elements = message.elements if message.HasField("elements") else None
    return Part(message.first_element, elements, message.bits)


def _mode(header: compute_pb2.JobHeader) -> Mode:
    options = header.WhichOneof("options")
    wanted = {
        compute_pb2.MODE_FORWARD: None,
        compute_pb2.MODE_DERIVATIVE: "derivative",
        compute_pb2.MODE_REGULARIZATION: "regularization",
        compute_pb2.MODE_NEURON_STATS: "neuron_stats",
    }
    if header.mode not in wanted:
        allowed = ", ".join(compute_pb2.Mode.Name(mode) for mode in MODES)
        raise InvalidOption(
            f"mode is {header.mode}, and must be one of {allowed}",
            field="header.mode",
            value=header.mode,
            allowed=allowed,
        )
    if options is not None and options != wanted[header.mode]:
        raise InvalidOption(
            f"options for {options} do not go with {compute_pb2.Mode.Name(header.mode)}", field=f"header.{options}"
        )
    match header.mode:
        case compute_pb2.MODE_FORWARD:
            return Forward()
        case compute_pb2.MODE_DERIVATIVE:
            return Derivative(
                jacobian=_known(_JACOBIANS, header.derivative.jacobian, "header.derivative.jacobian"),
                parameter_gradients=header.derivative.parameter_gradients,
            )
        case compute_pb2.MODE_NEURON_STATS:
            return _neuron_stats(header.neuron_stats)
        case _:
            return _regularization(header)


def _neuron_stats(options: compute_pb2.NeuronStatsOptions) -> NeuronStatistics:
    field = "header.neuron_stats"
    if options.neuron_axes and options.HasField("neuron_axis"):
        raise InvalidAxis(
            "neuron_axis and neuron_axes are both set, and only one may be",
            field=f"{field}.neuron_axes",
            value=list(options.neuron_axes),
        )
    one = options.neuron_axis if options.HasField("neuron_axis") else -1
    given: dict[str, object] = {
        name: getattr(options, name)
        for name in ("threshold", "saturation_eps", "dead_after_samples", "sums")
        if options.HasField(name)
    }
    given |= {name: getattr(options, name) for name in ("eps", "zero_tolerance", "tau")}
    return NeuronStatistics(
        {
            **given,
            "neuron_axis": tuple(options.neuron_axes) or (one,),
            "fired": _known(_FIRED_RULES, options.fired, f"{field}.fired"),
            "input": _known(_STATS_INPUTS, options.input, f"{field}.input"),
            "histogram": _known(_STATS_HISTOGRAMS, options.histogram, f"{field}.histogram"),
        },
        first_sample=options.first_sample,
    )


def _regularization(header: compute_pb2.JobHeader) -> Regularization:
    options, path = header.regularization, "header.regularization"
    record = _PENALTIES.get(options.regularizer)
    if record is None:
        allowed = ", ".join(REGULARIZERS_KNOWN)
        raise InvalidOption(
            f"regularizer is {options.regularizer}, and must be one of {allowed}",
            field=f"{path}.regularizer",
            value=options.regularizer,
            allowed=allowed,
        )
    given = {name: _parameter_value(name, value, f"{path}.parameters") for name, value in options.parameters.items()}
    return Regularization(
        regularizer=record,
        options=values_of(record, given, path=f"{path}.parameters"),
        strength=options.strength if options.HasField("strength") else None,
        reduction=_known(_REDUCTIONS, options.reduction, f"{path}.reduction"),
        gradient=options.gradient,
        gradient_wrt=_known(_GRADIENTS_WRT, options.gradient_wrt, f"{path}.gradient_wrt"),
        of=_known(_TARGETS, options.of, f"{path}.of"),
        axis=header.axis if header.HasField("axis") else None,
        state=_state(options.state, f"{path}.state") if options.state else None,
    )


def _state(data: bytes, field: str) -> PenaltyState:
    try:
        return PenaltyState.from_bytes(data)
    except StateError as error:
        raise InvalidOption(f"the state cannot be read: {error}", field=field, value=f"{len(data)} bytes") from None


def _known(table: Mapping[Any, V], value: int, field: str) -> V:
    """What an enum's value means; a value from a newer protocol means nothing here."""
    if value not in table:
        raise InvalidOption(
            f"{field} is {value}, which this server does not know",
            field=field,
            value=value,
            allowed=f"0 to {max(table)}",
        )
    return table[value]


def _tensor(index: int, spec: tensor_pb2.TensorSpec) -> Tensor:
    if spec.data_type not in wire.COMPUTABLE:
        allowed = ", ".join(wire.data_type_name(number) for number in wire.COMPUTABLE)
        name = wire.data_type_name(spec.data_type)
        raise UnsupportedDataType(
            f"elements of type {name} can't be computed with; convert them to one of {allowed}",
            field=f"header.inputs[{index}].data_type",
            value=name,
            allowed=allowed,
        )
    return Tensor("x" if index == 0 else "upstream", wire.dtype_of(spec.data_type), tuple(spec.shape))


def _parameter_value(
    name: str, value: catalogue_pb2.ParameterValue, path: str = "header.parameters"
) -> float | str | bool | Array:
    match value.WhichOneof("value"):
        case "number":
            return value.number
        case "integer":
            return value.integer
        case "text":
            return value.text
        case "flag":
            return value.flag
        case "tensor":
            return _parameter_array(name, value.tensor, path)
    raise InvalidParameter(f"the parameter {name!r} has no value", field=f"{path}[{name!r}]")


def _parameter_array(name: str, tensor: tensor_pb2.TensorValue, path: str) -> Array:
    field, shape = f"{path}[{name!r}]", list(tensor.shape)
    if tensor.data_type not in _TENSOR_TYPES:
        allowed = ", ".join(wire.data_type_name(number) for number in _TENSOR_TYPES)
        kind = wire.data_type_name(tensor.data_type)
        raise InvalidParameter(
            f"{name} has elements of type {kind}, and must have one of {allowed}",
            field=field,
            value=kind,
            allowed=allowed,
        )
    dtype = wire.dtype_of(tensor.data_type)
    if len(shape) > _MOST_PARAMETER_DIMENSIONS or any(length < 1 for length in shape):
        allowed = f"at most {_MOST_PARAMETER_DIMENSIONS} dimensions, each at least 1"
        raise InvalidParameter(
            f"{name} has the shape {shape[:64]}, and must have {allowed}",
            field=field,
            value=shape[:64],
            allowed=allowed,
        )
    expected = wire.byte_count(shape, dtype.itemsize)
    if len(tensor.data) != expected:
        raise InvalidParameter(
            f"{name} has {len(tensor.data)} bytes of data, and its shape {shape} says {expected}",
            field=field,
            value=len(tensor.data),
            allowed=expected,
        )
    return np.frombuffer(tensor.data, dtype).reshape(shape)


def tensor_specs(
    tensors: Sequence[Tensor], place: tensor_pb2.SharedMemory | None = None
) -> list[tensor_pb2.TensorSpec]:
    """Descriptions of tensors, the first of which may have a place in shared memory."""
    return [
        tensor_pb2.TensorSpec(
            name=tensor.name,
            data_type=wire.data_type_of(tensor.dtype),
            shape=tensor.shape,
            shared=None if index else place,
        )
        for index, tensor in enumerate(tensors)
    ]


def result_header(
    number: int,
    activation: str,
    tensors: Sequence[Tensor],
    unit_bytes: Sequence[int] = (),
    bits: str = "",
    place: tensor_pb2.SharedMemory | None = None,
) -> bytes:
    """The first message of a result."""
    header = compute_pb2.ResultHeader(
        tensors=tensor_specs(tensors, place), activation=activation, unit_bytes=unit_bytes, bits=bits
    )
    return compute_pb2.ComputeResponse(job=number, header=header).SerializeToString()


class Chunks:
    """Makes the messages that carry a result's pieces; where it has parts (`counted`), with what was found not to be finite so far,
    as who goes on elsewhere is told only of the rest. Where the first tensor is `shared`, its bytes are only said to be there.
    """

    def __init__(self, number: int, run: Run, *, counted: bool, shared: bool = False) -> None:
        self._number = number
        self._shared = shared
        self._counted = (run.nonfinite_in, run.nonfinite_out) if counted else ()
        self._told = [0, 0]

    def message(self, piece: Piece) -> bytes:
        """The message of a piece, which may be reused afterwards."""
        chunk = compute_pb2.ResultChunk(tensor=piece.tensor, offset_bytes=piece.first * piece.array.itemsize)
        for index, (counts, field) in enumerate(zip(self._counted, ("input", "output"), strict=False)):
            if counts.total != self._told[index]:
                self._told[index] = counts.total
                getattr(chunk, field).CopyFrom(_nonfinite(counts))
        if self._shared and piece.tensor == 0:
            chunk.shared_bytes = piece.array.nbytes
            return compute_pb2.ComputeResponse(job=self._number, chunk=chunk).SerializeToString()
        return _chunk(self._number, chunk, piece)


def _chunk(number: int, chunk: compute_pb2.ResultChunk, piece: Piece) -> bytes:
    return wire.frame(compute_pb2.ComputeResponse(job=number, chunk=chunk), piece.array.view(np.uint8).data)


def _nonfinite(counts: NonfiniteCounts) -> compute_pb2.NonfiniteCounts:
    return compute_pb2.NonfiniteCounts(
        nan=counts.nan, positive_infinity=counts.positive_infinity, negative_infinity=counts.negative_infinity
    )


def whole_result(
    number: int, activation: str, run: Run, data: bytes, place: tensor_pb2.SharedMemory | None = None
) -> bytes:
    """A result in one message: of a run that is over, with the bytes of its tensors but for one that has a place elsewhere."""
    whole = compute_pb2.WholeResult(activation=activation, summary=_summary(run, place))
    return wire.frame(compute_pb2.ComputeResponse(job=number, whole=whole), data)


def result_summary(number: int, run: Run, place: tensor_pb2.SharedMemory | None = None) -> bytes:
    """The last message of a result: what a run that is over has to say."""
    return compute_pb2.ComputeResponse(job=number, summary=_summary(run, place)).SerializeToString()


def _summary(run: Run, place: tensor_pb2.SharedMemory | None) -> compute_pb2.ResultSummary:
    end = compute_pb2.ResultSummary(
        tensors=tensor_specs(run.results, place),
        input=_nonfinite(run.nonfinite_in),
        output=_nonfinite(run.nonfinite_out),
    )
    end.compute_time.FromNanoseconds(round(run.compute_time_s * 1e9))
    scalars = run.scalars
    match scalars:
        case Penalty(value, state):
            end.regularization.penalty = value
            if len(state) <= _LARGEST_STATE_BYTES:
                end.regularization.state = state
        case NeuronSummary():
            end.neuron_stats.CopyFrom(_stats_result(scalars))
    return end


def _stats_result(scalars: NeuronSummary) -> compute_pb2.NeuronStatsResult:
    fields = dataclasses.asdict(scalars)
    fields.pop("state_bytes")
    return compute_pb2.NeuronStatsResult(**fields)


def merged_stats(stats: NeuronStats, chunk_bytes: int) -> Iterator[bytes]:
    """All messages of the result that neuron statistics are, put together from states."""
    kinds = {"f": np.float64, "b": np.bool_, "i": np.int64}
    tensors = [Tensor(name, np.dtype(kinds[kind]), stats.shape) for name, kind in RESULTS.items()]
    tensors.append(Tensor("state", np.dtype(np.uint8), (len(stats.state),)))
    yield result_header(0, stats.activation, tensors)
    for piece in pieces(stats, chunk_bytes):
        place = compute_pb2.ResultChunk(tensor=piece.tensor, offset_bytes=piece.first * piece.array.itemsize)
        yield _chunk(0, place, piece)
    result = _stats_result(summary(stats))
    counts = {name: int(stats.columns[name].sum()) for name in ("nan", "positive_infinity", "negative_infinity")}
    end = compute_pb2.ResultSummary(
        tensors=tensor_specs(tensors),
        input=compute_pb2.NonfiniteCounts(),
        output=compute_pb2.NonfiniteCounts(**counts),
        neuron_stats=result,
    )
    yield compute_pb2.ComputeResponse(summary=end).SerializeToString()


def activation(record: Record) -> catalogue_pb2.Activation:
    """A record as the catalogue shows it."""
    return catalogue_pb2.Activation(
        name=record.name,
        kind=_KINDS[type(record)],
        summary=record.summary,
        formula=record.formula,
        derivative_formula=_derivative_formula(record),
        range=record.range,
        traits=catalogue_pb2.Traits(
            monotonic=record.traits.monotonic,
            zero_centred=record.traits.zero_centred,
            saturates=SATURATIONS[record.traits.saturates],
            smooth=record.traits.smooth,
        ),
        kinks=record.kinks if isinstance(record, Activation) else (),
        advice=record.advice,
        reference=record.reference,
        parameters=[_parameter(parameter) for parameter in record.parameters],
        aliases=record.aliases,
        libraries=[_library(library) for library in record.libraries],
        parameter_gradients=[gradient.parameter for gradient in getattr(record, "gradients", ())],
        constraints=[constraint.words for constraint in record.constraints],
    )


def _derivative_formula(record: Record) -> str:
    if isinstance(record, GatedActivation):
        return f"d/du: {record.u_formula}; d/dv: {record.v_formula}"
    return record.derivative_formula


def _library(library: Library) -> catalogue_pb2.LibraryName:
    return catalogue_pb2.LibraryName(
        library=library.library,
        names=library.names,
        defaults={name: _value(value) for name, value in library.defaults},
        renamed=dict(library.renamed),
    )


def _value(value: Value) -> catalogue_pb2.ParameterValue:
    """A parameter's value as the catalogue tells it; nothing is set for None."""
    match value:
        case bool():
            return catalogue_pb2.ParameterValue(flag=value)
        case int():
            return catalogue_pb2.ParameterValue(integer=value)
        case float():
            return catalogue_pb2.ParameterValue(number=value)
        case str():
            return catalogue_pb2.ParameterValue(text=value)
        case None:
            return catalogue_pb2.ParameterValue()


def _parameter(parameter: Parameter) -> catalogue_pb2.Parameter:
    message = catalogue_pb2.Parameter(
        name=parameter.name,
        meaning=parameter.meaning,
        allowed=parameter.allowed(),
        choices=parameter.choices,
        aliases=parameter.aliases,
        kind=_PARAMETER_KINDS[parameter.kind],
        required=parameter.default is None and not parameter.optional,
        per_channel=parameter.per_channel,
    )
    if parameter.default is not None:
        whole = parameter.kind in _WHOLE_KINDS and not isinstance(parameter.default, (str, bool))
        number = parameter.kind == "number" and not isinstance(parameter.default, (str, bool))
        default = int(parameter.default) if whole else float(parameter.default) if number else parameter.default
        message.default.CopyFrom(_value(default))
    if parameter.kind in ("number", "integer"):
        message.range.low, message.range.low_open = parameter.low, parameter.low_open
        message.range.high, message.range.high_open = parameter.high, parameter.high_open
        message.range.nonzero = parameter.nonzero
    return message
