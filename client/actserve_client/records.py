"""What a server tells of itself and of its activations, as frozen records."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping

from actserve import wire
from actserve.v1 import catalogue_pb2, compute_pb2, service_pb2

_SATURATIONS = {
    catalogue_pb2.SATURATION_NONE: "no",
    catalogue_pb2.SATURATION_LEFT: "left",
    catalogue_pb2.SATURATION_RIGHT: "right",
    catalogue_pb2.SATURATION_BOTH: "both",
}
_MODES = {
    compute_pb2.MODE_FORWARD: "forward",
    compute_pb2.MODE_DERIVATIVE: "derivative",
    compute_pb2.MODE_REGULARIZATION: "regularization",
    compute_pb2.MODE_NEURON_STATS: "neuron_stats",
}
_KINDS = {
    catalogue_pb2.ACTIVATION_KIND_ELEMENTWISE: "elementwise",
    catalogue_pb2.ACTIVATION_KIND_AXIS: "axis",
    catalogue_pb2.ACTIVATION_KIND_GATED: "gated",
    catalogue_pb2.ACTIVATION_KIND_RESIZING: "resizing",
}
_PARAMETER_KINDS = {
    catalogue_pb2.PARAMETER_KIND_NUMBER: "number",
    catalogue_pb2.PARAMETER_KIND_INTEGER: "integer",
    catalogue_pb2.PARAMETER_KIND_FLAG: "flag",
    catalogue_pb2.PARAMETER_KIND_WORD: "word",
    catalogue_pb2.PARAMETER_KIND_SEED: "seed",
    catalogue_pb2.PARAMETER_KIND_AXIS: "axis",
}

Value = float | int | str | bool | None
"""The value of a parameter; None where there is none."""


@dataclasses.dataclass(frozen=True, slots=True)
class Parameter:
    """A parameter of an activation."""

    name: str
    meaning: str
    kind: str
    """A "number", an "integer", a "flag", a "word", a "seed", or an "axis" along which the values of channels lie."""
    default: Value
    """None when there is none."""
    required: bool
    """Whether it has no default and must be given; the activation's `constraints` may say when."""
    per_channel: bool
    """Whether an array may be given, with a value for each channel."""
    allowed: str
    """The values allowed, in words."""
    low: float
    high: float
    choices: tuple[str, ...]
    """The words allowed, for a parameter that is a word."""
    aliases: tuple[str, ...]


@dataclasses.dataclass(frozen=True, slots=True)
class Traits:
    """What people choose an activation by, at its default parameters."""

    monotonic: bool
    zero_centred: bool
    saturates: str
    """On which side the slope tends to 0: "no", "left", "right" or "both"."""
    smooth: bool


@dataclasses.dataclass(frozen=True, slots=True)
class Library:
    """What another library calls an activation, and what differs there; its name is what `preset` takes."""

    library: str
    names: tuple[str, ...]
    """All its names there, the usual one first."""
    defaults: Mapping[str, Value] = dataclasses.field(hash=False)
    """The parameters whose default differs there."""
    renamed: Mapping[str, str] = dataclasses.field(hash=False)
    """The parameters' names there, each with ours."""


Span = tuple[float, float]
"""From one number to another, which may be infinite."""


@dataclasses.dataclass(frozen=True, slots=True)
class Rewrite:
    """What a server says otherwise than a formula did, because it loses fewer digits so."""

    before: str
    after: str
    reason: str


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """What an added activation is like, at its parameters' defaults. What is "proved" holds for |x| up to 700."""

    monotonic: str
    """"increasing" (it never falls), "decreasing", "constant" or "neither"."""
    monotonic_proof: str
    """"proved", by interval arithmetic or an example, or "sampled", from values at many numbers."""
    range: Span
    range_proof: str
    zeros: tuple[float, ...]
    """Where it is 0, in [-30, 30]."""
    kinks: tuple[float, ...]
    """Where its derivative jumps, or it does, in [-30, 30]."""
    saturates: str
    """On which side its slope tends to 0: "no", "left", "right" or "both"."""
    lipschitz: float
    """The largest |f'|."""
    lipschitz_proof: str
    zero_centred: bool
    """Whether it takes both signs."""
    nan_regions: tuple[Span, ...]
    """Where it or its derivative is NaN."""
    infinite_regions: tuple[Span, ...]
    """Where it or its derivative is infinite."""
    dead_zone: Span | None
    """The longest interval in which its slope is 0."""
    worst_ulp: float
    """The largest error found in float64, in units in the last place."""
    worst_ulp_at: float
    derivative_worst_ulp: float
    derivative_worst_ulp_at: float
    speed_gb_per_s: float
    """How fast one core of the server computes it in float64, bytes read and written."""
    derivative_speed_gb_per_s: float
    rewrites: tuple[Rewrite, ...]


@dataclasses.dataclass(frozen=True, slots=True)
class Activation:
    """An activation, as the server declares it."""

    name: str
    kind: str
    """Each element by itself ("elementwise"), whole slices along an axis ("axis"), one half of an axis gating the other
    ("gated"), or slices whose length changes ("resizing")."""
    summary: str
    formula: str
    derivative_formula: str
    range: str
    traits: Traits
    kinks: tuple[float, ...]
    """Where the derivative jumps."""
    advice: str
    """When to choose it."""
    reference: str
    parameters: tuple[Parameter, ...]
    aliases: tuple[str, ...]
    libraries: tuple[Library, ...]
    parameter_gradients: tuple[str, ...]
    """The parameters that `derivative(..., parameter_gradients=True)` gives gradients of."""
    constraints: tuple[str, ...]
    """What must hold between parameters, in words."""
    report: Report | None = None
    """Of one that `create_activation` added: what was found out about it."""
    revision: str = ""
    """Of one that `create_activation` added: tells two apart that had the same name."""


@dataclasses.dataclass(frozen=True, slots=True)
class Alert:
    """A monitored layer's figure has reached its threshold, having been below before."""

    layer: str
    figure: str
    """"dead_fraction", "dormant_fraction", "saturated_fraction" or "nan_count"."""
    value: float
    threshold: float
    samples: int
    """How many samples the layer had seen by then."""


@dataclasses.dataclass(frozen=True, slots=True)
class ServerInfo:
    """A server's version and limits; sizes are in bytes."""

    version: str
    data_types: tuple[str, ...]
    """The types that can be computed with, by their names in the protocol."""
    modes: tuple[str, ...]
    max_request_bytes: int
    max_chunk_bytes: int
    max_tensor_bytes: int
    max_slice_bytes: int
    max_lead_bytes: int
    max_dimensions: int
    max_concurrency: int
    regularizers: tuple[str, ...] = ()
    """The penalties that `regularization` takes."""
    instance: str = ""
    """Tells processes apart: another one for each, and for each start."""
    worker: int = 0
    """Which of the workers behind its address answered."""
    allows_create: bool = False
    """Whether `create_activation` and `delete_activation` are allowed."""
    max_activations: int = 0
    """How many may be added, all together."""
    max_formula_length: int = 0
    """In characters."""


def activation(message: catalogue_pb2.Activation) -> Activation:
    """The record of a message."""
    return Activation(
        name=message.name,
        kind=_KINDS.get(message.kind, "unknown"),
        summary=message.summary,
        formula=message.formula,
        derivative_formula=message.derivative_formula,
        range=message.range,
        traits=Traits(
            monotonic=message.traits.monotonic,
            zero_centred=message.traits.zero_centred,
            saturates=_SATURATIONS.get(message.traits.saturates, "unknown"),
            smooth=message.traits.smooth,
        ),
        kinks=tuple(message.kinks),
        advice=message.advice,
        reference=message.reference,
        parameters=tuple(_parameter(parameter) for parameter in message.parameters),
        aliases=tuple(message.aliases),
        libraries=tuple(_library(library) for library in message.libraries),
        parameter_gradients=tuple(message.parameter_gradients),
        constraints=tuple(message.constraints),
        report=_report(message.report) if message.HasField("report") else None,
        revision=message.revision,
    )


_PROOFS = {catalogue_pb2.PROOF_PROVED: "proved", catalogue_pb2.PROOF_SAMPLED: "sampled"}
_MONOTONICITIES = {
    catalogue_pb2.MONOTONICITY_INCREASING: "increasing",
    catalogue_pb2.MONOTONICITY_DECREASING: "decreasing",
    catalogue_pb2.MONOTONICITY_CONSTANT: "constant",
    catalogue_pb2.MONOTONICITY_NEITHER: "neither",
}


def _report(message: catalogue_pb2.FormulaReport) -> Report:
    return Report(
        monotonic=_MONOTONICITIES.get(message.monotonic, "unknown"),
        monotonic_proof=_PROOFS.get(message.monotonic_proof, "unknown"),
        range=_span(message.range),
        range_proof=_PROOFS.get(message.range_proof, "unknown"),
        zeros=tuple(message.zeros),
        kinks=tuple(message.kinks),
        saturates=_SATURATIONS.get(message.saturates, "unknown"),
        lipschitz=message.lipschitz,
        lipschitz_proof=_PROOFS.get(message.lipschitz_proof, "unknown"),
        zero_centred=message.zero_centred,
        nan_regions=tuple(_span(span) for span in message.nan_regions),
        infinite_regions=tuple(_span(span) for span in message.infinite_regions),
        dead_zone=_span(message.dead_zone) if message.HasField("dead_zone") else None,
        worst_ulp=message.worst_ulp,
        worst_ulp_at=message.worst_ulp_at,
        derivative_worst_ulp=message.derivative_worst_ulp,
        derivative_worst_ulp_at=message.derivative_worst_ulp_at,
        speed_gb_per_s=message.speed_gb_per_s,
        derivative_speed_gb_per_s=message.derivative_speed_gb_per_s,
        rewrites=tuple(Rewrite(r.before, r.after, r.reason) for r in message.rewrites),
    )


def _span(message: catalogue_pb2.NumberSpan) -> Span:
    return message.low, message.high


def _library(message: catalogue_pb2.LibraryName) -> Library:
    return Library(
        library=message.library,
        names=tuple(message.names),
        defaults={name: _value(message.defaults[name]) for name in sorted(message.defaults)},
        renamed={name: message.renamed[name] for name in sorted(message.renamed)},
    )


def _value(message: catalogue_pb2.ParameterValue) -> Value:
    kind = message.WhichOneof("value")
    return None if kind in (None, "tensor") else getattr(message, kind)


def _parameter(message: catalogue_pb2.Parameter) -> Parameter:
    bounded = message.HasField("range")
    return Parameter(
        name=message.name,
        meaning=message.meaning,
        kind=_PARAMETER_KINDS.get(message.kind, "unknown"),
        default=_value(message.default),
        required=message.required,
        per_channel=message.per_channel,
        allowed=message.allowed,
        low=message.range.low if bounded else -math.inf,
        high=message.range.high if bounded else math.inf,
        choices=tuple(message.choices),
        aliases=tuple(message.aliases),
    )


def server_info(message: service_pb2.ServerInfo) -> ServerInfo:
    """The record of a message."""
    return ServerInfo(
        version=message.version,
        data_types=tuple(wire.data_type_name(number) for number in message.data_types),
        modes=tuple(_MODES[mode] for mode in message.modes if mode in _MODES),
        max_request_bytes=message.max_request_bytes,
        max_chunk_bytes=message.max_chunk_bytes,
        max_tensor_bytes=message.max_tensor_bytes,
        max_slice_bytes=message.max_slice_bytes,
        max_lead_bytes=message.max_lead_bytes,
        max_dimensions=message.max_dimensions,
        max_concurrency=message.max_concurrency,
        allows_create=message.allows_create,
        max_activations=message.max_activations,
        max_formula_length=message.max_formula_length,
        regularizers=tuple(
            compute_pb2.Regularizer.Name(number).removeprefix("REGULARIZER_").lower()
            for number in message.regularizers
            if number in compute_pb2.Regularizer.values()
        ),
        instance=message.instance,
        worker=message.worker,
    )


__all__ = ["Activation", "Alert", "Library", "Parameter", "Report", "Rewrite", "ServerInfo", "Traits", "Value"]
