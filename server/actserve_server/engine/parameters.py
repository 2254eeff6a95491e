"""The parameters of a job: from what a caller gave by name to what kernels take. Everything is checked here."""

from __future__ import annotations

import dataclasses
import difflib
import math
from collections.abc import Mapping
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from actserve_server.activations.spec import Library, Parameter, Record
from actserve_server.errors import InvalidParameter, LimitExceeded, UnknownParameter
from actserve_server.modes.base import Columns

Given = float | int | str | bool | npt.NDArray[Any]
"""What a parameter may be given as."""

_LARGEST_SEED = (1 << 63) - 1


@dataclasses.dataclass(frozen=True, slots=True)
class Arguments:
    """Parameters as kernels take them."""

    numbers: tuple[float, ...]
    columns: Columns | None
    options: Mapping[str, Any]
    """The values by name; None for what was not given and has no default."""


def arguments(
    record: Record, given: Mapping[str, Given], library: Library | None, shape: tuple[int, ...], max_bytes: int
) -> Arguments:
    """Check parameters and lay them out for a tensor of a shape, whose first dimension may be -1."""
    values = values_of(record, given, library)
    for constraint in record.constraints:
        if not constraint.holds(values):
            raise InvalidParameter(
                f"{record.name}: {constraint.words}; {constraint.field} is {values[constraint.field]!r}",
                field=f"header.parameters[{constraint.field!r}]",
                value=values[constraint.field],
                allowed=constraint.words,
            )
    arrays = {name: value for name, value in values.items() if isinstance(value, np.ndarray)}
    columns = _columns(record, values, arrays, shape, max_bytes) if arrays else None
    options = {name: value for name, value in values.items() if name not in arrays}
    return Arguments(() if columns is not None else _numbers(record, values), columns, options)


class Parametrized(Protocol):
    """What has parameters."""

    @property
    def name(self) -> str:
        """What messages call it."""

    @property
    def parameters(self) -> tuple[Parameter, ...]:
        """All it takes."""


_PATH = "header.parameters"


def values_of(
    record: Parametrized, given: Mapping[str, Given], library: Library | None = None, path: str = _PATH
) -> dict[str, Any]:
    """Every parameter by its name, as given or by default; `path` is the request's field that they were given in."""
    names = {alias: parameter for parameter in record.parameters for alias in (parameter.name, *parameter.aliases)}
    known = {parameter.name: parameter for parameter in record.parameters}
    defaults = {parameter.name: parameter.default for parameter in record.parameters}
    if library is not None:
        names |= {theirs: known[ours] for theirs, ours in library.renamed}
        defaults |= dict(library.defaults)
    values: dict[str, Any] = {}
    # In the order of their names, because a message's map has none: the same mistake is told in the same words.
    for name, value in sorted(given.items()):
        field = f"{path}[{name!r}]"
        parameter = names.get(name)
        if parameter is None:
            takes = ", ".join(known) or "none"
            near = difflib.get_close_matches(name, names, n=2)
            hint = f"; did you mean {' or '.join(near)}?" if near else ""
            raise UnknownParameter(
                f"{record.name} has no parameter {name!r}{hint} (it takes: {takes})",
                field=field,
                value=name,
                allowed=takes,
                near=", ".join(near),
            )
        if parameter.name in values:
            both = " and ".join(
                sorted(alias for alias, other in names.items() if other is parameter and alias in given)
            )
            raise InvalidParameter(
                f"{both} are one parameter of {record.name}; give one of them", field=field, value=name
            )
        values[parameter.name] = _checked(record, parameter, value, field)
    for parameter in record.parameters:
        if parameter.name in values:
            continue
        default = defaults[parameter.name]
        if default is None and not parameter.optional:
            raise InvalidParameter(
                f"{record.name} needs {parameter.name}, which must be {parameter.allowed()}",
                field=f"{path}[{parameter.name!r}]",
                allowed=parameter.allowed(),
            )
        values[parameter.name] = default
    return values


def _checked(record: Parametrized, parameter: Parameter, value: Given, field: str) -> Any:
    if isinstance(value, np.ndarray):
        return _checked_array(record, parameter, value, field)
    number = isinstance(value, (int, float)) and not isinstance(value, bool)
    whole = number and (isinstance(value, int) or float(value).is_integer())
    match parameter.kind:
        case "number" if number and parameter.accepts(float(value)):
            return float(value)
        case "integer" if whole and parameter.accepts(float(value)):
            return int(value)
        case "axis" if whole:
            return int(value)
        case "seed" if isinstance(value, int) and number and 0 <= value <= _LARGEST_SEED:
            return value
        case "flag" if isinstance(value, bool):
            return value
        case "word" if isinstance(value, str) and value in parameter.choices:
            return value
    raise InvalidParameter(
        f"{parameter.name} of {record.name} is {value!r}, and must be {parameter.allowed()}",
        field=field,
        value=value,
        allowed=parameter.allowed(),
    )


def _checked_array(record: Parametrized, parameter: Parameter, value: npt.NDArray[Any], field: str) -> Any:
    if not parameter.per_channel:
        raise InvalidParameter(
            f"{parameter.name} of {record.name} is an array, and must be {parameter.allowed()}",
            field=field,
            value=f"an array of shape {list(value.shape)}",
            allowed=parameter.allowed(),
        )
    wrong = [number for number in value.reshape(-1).astype(np.float64).tolist() if not parameter.accepts(number)]
    if wrong:
        raise InvalidParameter(
            f"{parameter.name} of {record.name} holds {wrong[0]!r}, and each must be {parameter.allowed()}",
            field=field,
            value=wrong[0],
            allowed=parameter.allowed(),
        )
    return value.astype(np.float64)


def _numbers(record: Record, values: Mapping[str, Any]) -> tuple[float, ...]:
    numbers: list[float] = []
    for parameter in record.parameters:
        value = values[parameter.name]
        match parameter.kind:
            case "axis":
                continue
            case "seed":
                numbers += [float((value or 0) >> 32), float((value or 0) & 0xFFFFFFFF)]
            case "word":
                numbers.append(float(parameter.choices.index(value)))
            case _:
                numbers.append(math.nan if value is None else float(value))
    return tuple(numbers)


def _columns(
    record: Record,
    values: Mapping[str, Any],
    arrays: Mapping[str, npt.NDArray[np.float64]],
    shape: tuple[int, ...],
    max_bytes: int,
) -> Columns:
    axis = next((values[p.name] for p in record.parameters if p.kind == "axis"), None)
    laid = {name: array.reshape(_broadcast(record, name, array, axis, shape)) for name, array in arrays.items()}
    wide = [d for d in range(len(shape)) if any(array.shape[d] != 1 for array in laid.values())]
    low, high = (wide[0], wide[-1] + 1) if wide else (0, 0)
    grid = shape[low:high]
    rows = [p.name for p in record.parameters if p.kind != "axis"]
    size = math.prod(grid) * len(rows) * 8
    if size > max_bytes:
        raise LimitExceeded(
            f"the parameters of {record.name} for each channel",
            field="header.parameters",
            value=size,
            limit=max_bytes,
            setting="max_slice_bytes",
        )
    table = np.empty((len(rows), math.prod(grid)))
    places: dict[str, npt.NDArray[np.int64]] = {}
    for row, name in enumerate(rows):
        if name not in laid:
            table[row] = values[name]
            continue
        array = laid[name].reshape(laid[name].shape[low:high])
        table[row] = np.broadcast_to(array, grid).reshape(-1)
        numbered = np.arange(array.size).reshape(array.shape)
        places[name] = np.ascontiguousarray(np.broadcast_to(numbered, grid)).reshape(-1)
    return Columns(table, math.prod(shape[high:]), places, {name: array.shape for name, array in arrays.items()})


def _broadcast(
    record: Record, name: str, array: npt.NDArray[np.float64], axis: int | None, shape: tuple[int, ...]
) -> tuple[int, ...]:
    """The shape of a parameter with as many dimensions as the tensor: by NumPy's rule, or along the channel axis."""
    field, dimensions = f"header.parameters[{name!r}]", len(shape)
    if axis is not None:
        if not -dimensions <= axis < dimensions:
            raise InvalidParameter(
                f"channel_axis is {axis}, and the tensor has {dimensions} dimensions",
                field="header.parameters['channel_axis']",
                value=axis,
                allowed=f"[{-dimensions}, {dimensions - 1}]",
            )
        laid = (1,) * (axis % dimensions) + array.shape + (1,) * (dimensions - axis % dimensions - 1)
    else:
        laid = (1,) * (dimensions - array.ndim) + array.shape
    if len(laid) == dimensions and all(mine in (1, theirs) for mine, theirs in zip(laid, shape, strict=True)):
        return laid
    where = "does not broadcast to" if axis is None else f"does not lie along dimension {axis} of"
    raise InvalidParameter(
        f"{name} of {record.name} has shape {list(array.shape)}, which {where} the tensor's {list(shape)}",
        field=field,
        value=list(array.shape),
        allowed=list(shape),
    )


__all__ = ["Arguments", "Given", "Parametrized", "arguments", "values_of"]
