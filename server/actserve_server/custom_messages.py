"""Between the wire's messages of added activations and entries, in both directions."""

from __future__ import annotations

import math
from typing import Any

from actserve.v1 import catalogue_pb2, service_pb2

from actserve_server import messages
from actserve_server.activations.spec import Parameter
from actserve_server.custom.entry import Entry
from actserve_server.custom.registry import Added
from actserve_server.errors import InvalidFormula
from actserve_server.formulas import Report

__all__ = ["activation", "entry"]

_PROOFS = {"proved": catalogue_pb2.PROOF_PROVED, "sampled": catalogue_pb2.PROOF_SAMPLED}
_MONOTONICITIES = {
    "increasing": catalogue_pb2.MONOTONICITY_INCREASING,
    "decreasing": catalogue_pb2.MONOTONICITY_DECREASING,
    "constant": catalogue_pb2.MONOTONICITY_CONSTANT,
    "neither": catalogue_pb2.MONOTONICITY_NEITHER,
}
_SPANS = ("nan_regions", "infinite_regions")
_PLAIN = (
    "lipschitz",
    "zero_centred",
    "worst_ulp",
    "worst_ulp_at",
    "derivative_worst_ulp",
    "derivative_worst_ulp_at",
    "speed_gb_per_s",
    "derivative_speed_gb_per_s",
)


def entry(request: service_pb2.CreateActivationRequest) -> Entry:
    """What a caller wants to add. Raises InvalidFormula for a parameter that is no number."""
    return Entry(
        name=request.name,
        formula=request.formula,
        parameters=tuple(_parameter(parameter) for parameter in request.parameters),
        derivative_formula=request.derivative_formula,
        description=request.description,
    )


def _parameter(message: catalogue_pb2.Parameter) -> Parameter:
    kind = message.default.WhichOneof("value")
    missing = kind is None and message.required
    if kind not in ("number", "integer") and not missing:
        raise InvalidFormula(
            f"the parameter {message.name!r} has no default that is a number, and is not required",
            field=f"parameters[{message.name!r}]",
        )
    bounded = message.HasField("range")
    return Parameter(
        name=message.name,
        meaning=message.meaning,
        default=None if missing else float(getattr(message.default, kind or "")),
        low=message.range.low if bounded else -math.inf,
        high=message.range.high if bounded else math.inf,
        low_open=message.range.low_open if bounded else True,
        high_open=message.range.high_open if bounded else True,
    )


def activation(added: Added) -> catalogue_pb2.Activation:
    """An added activation as the catalogue shows it."""
    message = messages.activation(added.record)
    message.revision = added.entry.revision
    report = added.entry.report
    if report is not None:
        message.report.CopyFrom(_report(report))
        for rewrite in added.entry.rewrites:
            message.report.rewrites.add(before=rewrite.before, after=rewrite.after, reason=rewrite.reason)
    return message


def _report(report: Report) -> catalogue_pb2.FormulaReport:
    given: dict[str, Any] = {name: getattr(report, name) for name in _PLAIN}
    for name in _SPANS:
        given[name] = [_span(*span) for span in getattr(report, name)]
    return catalogue_pb2.FormulaReport(
        monotonic=_MONOTONICITIES[report.monotonic],
        monotonic_proof=_PROOFS[report.monotonic_proof],
        range=_span(*report.range),
        range_proof=_PROOFS[report.range_proof],
        zeros=report.zeros,
        kinks=report.kinks,
        saturates=messages.SATURATIONS[report.saturates],
        lipschitz_proof=_PROOFS[report.lipschitz_proof],
        dead_zone=None if report.dead_zone is None else _span(*report.dead_zone),
        **given,
    )


def _span(low: float, high: float) -> catalogue_pb2.NumberSpan:
    return catalogue_pb2.NumberSpan(low=low, high=high)
