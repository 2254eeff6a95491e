"""From what was asked to a plan: everything is checked here, once and completely, so that running a plan checks nothing.

`plan(job, limits)` either returns a frozen `Plan` or raises one of `actserve_server.errors` naming the field at fault.
"""

from __future__ import annotations

import dataclasses
import difflib
import math
from collections.abc import Mapping
from typing import Any

from actserve_server.activations import catalogue
from actserve_server.activations.spec import Parameter, Record
from actserve_server.errors import (
    InvalidAxis,
    InvalidOption,
    InvalidParameter,
    InvalidShape,
    LimitExceeded,
    UnknownActivation,
    UnknownParameter,
)
from actserve_server.modes.base import Mode, Subject, Tensor, is_axis, resolve_axis
from actserve_server.modes.maps import Derivative

_LARGEST_BYTES = (1 << 63) - 1


@dataclasses.dataclass(frozen=True, slots=True)
class Limits:
    """The settings that bound a job; see `actserve_server.config.Config` for what each means."""

    chunk_bytes: int
    max_chunk_bytes: int
    max_tensor_bytes: int
    max_slice_bytes: int
    max_lead_bytes: int
    max_dimensions: int


@dataclasses.dataclass(frozen=True, slots=True)
class Job:
    """What a caller asked for, in the engine's terms and not yet checked."""

    activation: str
    mode: Mode
    parameters: Mapping[str, Any]
    inputs: tuple[Tensor, ...]
    axis: int | None = None
    chunk_bytes: int = 0
    open_ended: bool = False
    accuracy: str = "exact"
    preset: str = ""
    reject_nonfinite: bool = False


@dataclasses.dataclass(frozen=True, slots=True)
class Plan:
    """A job that can run."""

    subject: Subject
    mode: Mode
    inputs: int
    """How many inputs there are: x, and perhaps the upstream gradient."""
    results: tuple[Tensor, ...]
    open_ended: bool
    row_elements: int
    """Elements of x in one entry of its first dimension; all of them for a scalar."""
    block_elements: int
    """How many elements are computed at a time, at most: a multiple of the subject's unit."""
    max_lead_bytes: int
    max_tensor_bytes: int

    @property
    def total_bytes(self) -> int | None:
        """The bytes of each input; None when not known beforehand."""
        return None if self.open_ended else math.prod(self.subject.shape) * self.subject.dtype.itemsize


def plan(job: Job, limits: Limits) -> Plan:
    """Check a job and lay out its computation."""
    record = catalogue.find(job.activation)
    if record is None:
        raise UnknownActivation(job.activation, catalogue.near(job.activation))
    upstream = _check_inputs(job)
    x = job.inputs[0]
    _check_shape(x, "header.inputs[0].shape", job.open_ended, limits)
    if job.chunk_bytes < 0:
        raise InvalidOption(
            f"chunk_bytes is {job.chunk_bytes}, and must not be negative",
            field="header.chunk_bytes",
            value=job.chunk_bytes,
        )
    chunk_bytes = min(job.chunk_bytes or limits.chunk_bytes, limits.max_chunk_bytes)
    subject = Subject(
        record=record,
        parameters=_parameters(record, job.parameters),
        dtype=x.dtype,
        shape=x.shape,
        axis=_axis(record, job),
        piece_elements=max(chunk_bytes // x.dtype.itemsize, 1),
    )
    job.mode.check(subject, upstream=upstream, open_ended=job.open_ended)
    results = job.mode.results(subject)
    if upstream and job.inputs[1].shape != results[0].shape:
        raise InvalidShape(
            f"the upstream gradient has shape {list(job.inputs[1].shape)}, and must have the result's, "
            f"{list(results[0].shape)}",
            field="header.inputs[1].shape",
            value=list(job.inputs[1].shape),
            allowed=list(results[0].shape),
        )
    unit = subject.unit_elements
    _limit("a block of slices", "header.axis", unit * x.dtype.itemsize, limits.max_slice_bytes, "max_slice_bytes")
    for tensor in results:
        _limit(f"the result {tensor.name!r}", "header", tensor.nbytes, limits.max_tensor_bytes, "max_tensor_bytes")
    return Plan(
        subject=subject,
        mode=job.mode,
        inputs=len(job.inputs),
        results=results,
        open_ended=job.open_ended,
        row_elements=math.prod(x.shape[1:]),
        block_elements=max(subject.piece_elements // unit * unit, unit) if unit else subject.piece_elements,
        max_lead_bytes=max(limits.max_lead_bytes, 2 * unit * x.dtype.itemsize),
        max_tensor_bytes=limits.max_tensor_bytes,
    )


def _limit(what: str, field: str, value: int, limit: int, setting: str) -> None:
    if value > limit:
        raise LimitExceeded(f"{what} of {value:,} bytes", field=field, value=value, limit=limit, setting=setting)


def _check_inputs(job: Job) -> bool:
    """Whether there is an upstream gradient."""
    allowed = "1 or 2 (x, upstream)" if isinstance(job.mode, Derivative) else "1 (x)"
    if not 1 <= len(job.inputs) <= (2 if isinstance(job.mode, Derivative) else 1):
        raise InvalidOption(
            f"there are {len(job.inputs)} inputs, and this mode takes {allowed}",
            field="header.inputs",
            value=len(job.inputs),
            allowed=allowed,
        )
    upstream = len(job.inputs) == 2
    if upstream and job.inputs[1].dtype != job.inputs[0].dtype:
        raise InvalidOption(
            f"the upstream gradient is {job.inputs[1].dtype} and x is {job.inputs[0].dtype}; they must be of one type",
            field="header.inputs[1].data_type",
            value=job.inputs[1].dtype,
            allowed=job.inputs[0].dtype,
        )
    return upstream


def _check_shape(tensor: Tensor, field: str, open_ended: bool, limits: Limits) -> None:
    shape = tensor.shape
    if len(shape) > limits.max_dimensions:
        raise InvalidShape(
            f"the tensor has {len(shape)} dimensions, and at most {limits.max_dimensions} are allowed",
            field=field,
            value=len(shape),
            allowed=limits.max_dimensions,
        )
    known = shape
    if open_ended:
        if not shape or shape[0] != -1:
            raise InvalidShape(
                f"in an open-ended job the first dimension must be -1, and the shape is {list(shape)}",
                field=field,
                value=list(shape),
            )
        known = shape[1:]
    if any(length < 0 for length in known):
        raise InvalidShape(f"the shape {list(shape)} has a negative dimension", field=field, value=list(shape))
    # Beside a dimension of 0 the others may still be absurd, and an array of such a shape can't be made.
    if math.prod(length for length in known if length) * tensor.dtype.itemsize > _LARGEST_BYTES:
        raise InvalidShape(
            f"the shape {list(shape)} has more than 2^63 - 1 bytes of elements", field=field, value=list(shape)
        )
    _limit("the tensor", field, math.prod(known) * tensor.dtype.itemsize, limits.max_tensor_bytes, "max_tensor_bytes")


def _axis(record: Record, job: Job) -> int | None:
    field = "header.axis"
    if not is_axis(record):
        if job.axis is not None:
            raise InvalidAxis(
                f"{record.name} works element by element and takes no axis", field=field, value=job.axis, allowed="none"
            )
        return None
    axis = resolve_axis(-1 if job.axis is None else job.axis, job.inputs[0].shape, field=field)
    if axis == 0 and job.open_ended:
        raise InvalidAxis(
            f"{record.name} along axis 0 needs the whole tensor, which an open-ended job never has; use another axis",
            field=field,
            value=axis,
        )
    return axis


def _parameters(record: Record, given: Mapping[str, Any]) -> tuple[float, ...]:
    """The kernel's arguments."""
    names = {alias: parameter for parameter in record.parameters for alias in (parameter.name, *parameter.aliases)}
    values: dict[str, float] = {}
    # In the order of their names, because a message's map has none: the same mistake is told in the same words.
    for name, value in sorted(given.items()):
        field = f"header.parameters[{name!r}]"
        parameter = names.get(name)
        if parameter is None:
            takes = ", ".join(p.name for p in record.parameters) or "none"
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
        values[parameter.name] = _argument(record, parameter, value, field)
    return tuple(values[p.name] if p.name in values else _argument(record, p, p.default, "") for p in record.parameters)


def _argument(record: Record, parameter: Parameter, value: Any, field: str) -> float:
    if parameter.choices:
        if isinstance(value, str) and value in parameter.choices:
            return float(parameter.choices.index(value))
    elif isinstance(value, (int, float)) and not isinstance(value, bool) and parameter.accepts(float(value)):
        return float(value)
    raise InvalidParameter(
        f"{parameter.name} of {record.name} is {value!r}, and must be {parameter.allowed()}",
        field=field,
        value=value,
        allowed=parameter.allowed(),
    )
