"""What a server tells of itself and of its activations, as frozen records."""

from __future__ import annotations

import dataclasses
import math

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
}


@dataclasses.dataclass(frozen=True, slots=True)
class Parameter:
    """A parameter of an activation."""

    name: str
    meaning: str
    default: float | str
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
class Activation:
    """An activation, as the server declares it."""

    name: str
    kind: str
    """Each element by itself ("elementwise"), or whole slices along an axis ("axis")."""
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
    )


def _parameter(message: catalogue_pb2.Parameter) -> Parameter:
    word = message.default.WhichOneof("value") == "text"
    return Parameter(
        name=message.name,
        meaning=message.meaning,
        default=message.default.text if word else message.default.number,
        allowed=message.allowed,
        low=-math.inf if word else message.range.low,
        high=math.inf if word else message.range.high,
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
    )


__all__ = ["Activation", "Parameter", "ServerInfo", "Traits"]
