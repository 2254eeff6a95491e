"""What is computed, without its tensors: arguments of the modes to the header of a job."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from actserve import penalties, wire
from actserve.v1 import compute_pb2, tensor_pb2

from actserve_client._session.answers import Regularization
from actserve_client._session.arguments import (
    choice,
    integer,
    is_blocks,
    merge_parameters,
    number,
    parameter_value,
    text,
)
from actserve_client._session.sizes import CHUNK_BYTES
from actserve_client.errors import InvalidRequest, LimitExceeded

__all__ = [
    "How",
    "Question",
    "derivative",
    "forward",
    "map_mode",
    "neuron_stats",
    "regularization",
    "second_pass",
    "two_passes",
]

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
        accuracy=choice(_ACCURACIES, how.accuracy, "accuracy"),
        preset=None if how.preset is None else text(how.preset, "preset"),
        nonfinite=choice(_NONFINITES, how.nonfinite, "nonfinite"),
        **options,
    )
    if how.axis is not None:
        header.axis = integer(how.axis, "axis")
    for key, value in merge_parameters(how.parameters, how.keywords).items():
        if value is not None:
            header.parameters[text(key, "parameters")].CopyFrom(parameter_value(key, value))
    return Question(header)


def forward(name: str, how: How) -> Question:
    """y = f(x)."""
    return _question(name, compute_pb2.MODE_FORWARD, how)


def derivative(name: str, how: How, *, jacobian: str | None, parameter_gradients: bool = False) -> Question:
    """f'(x), the vector-Jacobian product, or a part of the Jacobian."""
    options = None
    if jacobian is not None or parameter_gradients:
        options = compute_pb2.DerivativeOptions(
            jacobian=choice(_JACOBIANS, jacobian, "jacobian"), parameter_gradients=bool(parameter_gradients)
        )
    return _question(name, compute_pb2.MODE_DERIVATIVE, how, derivative=options)


def map_mode(mode: str, name: str, how: How, *, jacobian: str | None, upstream: bool) -> Question:
    """Forward or derivative, by the name of the mode."""
    choice(_MODES, mode, "mode")
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
    which = choice(_REGULARIZERS, regularizer, "regularizer")
    if isinstance(state, Regularization):
        state = state.state
    if not (state is None or isinstance(state, bytes)):
        raise InvalidRequest(f"state is {type(state).__name__}, and must be bytes or a Regularization", field="state")
    if state is not None and not gradient:
        raise InvalidRequest("state goes with gradient=True", field="state")
    options = compute_pb2.RegularizationOptions(
        regularizer=which,
        strength=None if strength is None else number(strength, "strength"),
        reduction=choice(_REDUCTIONS, reduction, "reduction"),
        gradient=bool(gradient),
        gradient_wrt=choice(_GRADIENTS_WRT, gradient_wrt, "gradient_wrt"),
        of=choice(_TARGETS, of, "of"),
        state=state,
    )
    own = penalties.keywords(regularizer)
    for key in [key for key in how.keywords if key in own]:
        if (value := how.keywords[key]) is not None:
            options.parameters[key].CopyFrom(parameter_value(key, value))
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
        fired=choice(_FIRED_RULES, rule, "fired"),
        eps=eps,
        zero_tolerance=number(zero_tolerance, "zero_tolerance"),
        tau=number(tau, "tau"),
        saturation_eps=number(saturation_eps, "saturation_eps"),
        input=choice(_STATS_INPUTS, input, "input"),
        histogram=choice(_STATS_HISTOGRAMS, histogram, "histogram"),
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
