"""What a caller says of an activation to be added, as a request. No I/O."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from actserve.v1 import catalogue_pb2, service_pb2

from actserve_client._session import merge_parameters, number, text
from actserve_client.errors import InvalidRequest

Bounds = Mapping[str, tuple[float, float]]


def creation(
    name: str,
    formula: str,
    *,
    parameters: Mapping[str, Any] | None,
    keywords: Mapping[str, Any],
    bounds: Bounds | None,
    description: str,
    derivative_formula: str | None,
    replace: bool,
    validate_only: bool,
) -> service_pb2.CreateActivationRequest:
    """The request. Raises InvalidRequest for what cannot be sent."""
    request = service_pb2.CreateActivationRequest(
        name=text(name, "name"),
        formula=text(formula, "formula"),
        description=text(description, "description"),
        derivative_formula=text(derivative_formula or "", "derivative_formula"),
        replace=bool(replace),
        validate_only=bool(validate_only),
    )
    defaults = merge_parameters(parameters, keywords)
    for unknown in [name for name in bounds or {} if name not in defaults]:
        raise InvalidRequest(
            f"bounds has {unknown!r}, which is no parameter; there are {', '.join(defaults)}", field="bounds"
        )
    for key, default in defaults.items():
        message = catalogue_pb2.Parameter(name=text(key, "parameters"))
        if default is None:
            message.required = True
        else:
            message.default.number = number(default, key)
        if bounds and key in bounds:
            message.range.CopyFrom(_range(key, bounds[key]))
        request.parameters.append(message)
    return request


def _range(name: str, given: Any) -> catalogue_pb2.NumberRange:
    try:
        low, high = given
    except (TypeError, ValueError):
        raise InvalidRequest(
            f"the bounds of {name} are {given!r}, and must be a pair of numbers", field="bounds"
        ) from None
    low, high = number(low, "bounds"), number(high, "bounds")
    return catalogue_pb2.NumberRange(low=low, high=high, low_open=math.isinf(low), high_open=math.isinf(high))


__all__ = ["Bounds", "creation"]
