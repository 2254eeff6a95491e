"""From what was asked to a plan: everything is checked here, once and completely, so that running a plan checks nothing.

`plan(job, limits)` either returns a frozen `Plan` or raises one of `actserve_server.errors` naming the field at fault.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping

from actserve_server.activations.spec import LIBRARIES, GatedActivation, Library, Record, ResizingActivation
from actserve_server.engine.names import BUILT_IN, Names
from actserve_server.engine.parameters import Arguments, Given, arguments
from actserve_server.engine.parts import Part, bits_of
from actserve_server.errors import (
    InvalidAxis,
    InvalidOption,
    InvalidParameter,
    InvalidShape,
    LimitExceeded,
    OtherBits,
    UnknownActivation,
)
from actserve_server.kernels.threads import SOLO, Team
from actserve_server.modes.base import Mode, Subject, Tensor, is_axis, resolve_axis
from actserve_server.modes.maps import Derivative
from actserve_server.modes.neuron_stats import NeuronStatistics
from actserve_server.modes.regularization import Regularization

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
    parameters: Mapping[str, Given]
    inputs: tuple[Tensor, ...]
    axis: int | None = None
    chunk_bytes: int = 0
    open_ended: bool = False
    accuracy: str = "exact"
    preset: str = ""
    """The library whose names and defaults are meant; the empty string for ours."""
    reject_nonfinite: bool = False
    part: Part | None = None
    """What of it is to be computed; None: all."""


@dataclasses.dataclass(frozen=True, slots=True)
class Input:
    """How the bytes of an input are cut. A unit is the least that can be computed by itself, an element or a block of slices;
    all inputs have equally many."""

    unit_bytes: int
    row_bytes: int
    """The bytes of one entry of the first dimension; all of them for a scalar."""
    end_bytes: int | None
    """Where the bytes that are sent end: after all of them, unless a part is asked for. None when not known beforehand."""
    begin_bytes: int = 0
    """Where they begin."""

    @property
    def sent_bytes(self) -> int:
        """How many bytes of an input of known size are sent."""
        return (self.end_bytes or 0) - self.begin_bytes


@dataclasses.dataclass(frozen=True, slots=True)
class Plan:
    """A job that can run."""

    subject: Subject
    mode: Mode
    inputs: tuple[Input, ...]
    """x, and perhaps the upstream gradient."""
    results: tuple[Tensor, ...]
    open_ended: bool
    unit_elements: int
    """How many elements of x form the smallest block that can be computed by itself."""
    block_units: int
    """How many units are computed at a time, at most."""
    max_lead_bytes: int
    max_tensor_bytes: int
    reject_nonfinite: bool = False
    result_unit_elements: int = 0
    """How many elements of the result a unit makes; 0 where it has no parts, as it is not made unit by unit."""
    first_unit: int = 0
    """The unit that is computed first."""
    part: bool = False
    """Whether no more than a part of the result was asked for."""

    @property
    def units(self) -> range:
        """The units that are computed in a job of known size."""
        x = self.inputs[0]
        return range(self.first_unit, (x.end_bytes or 0) // x.unit_bytes) if x.unit_bytes else range(0)

    @property
    def unit_bytes(self) -> tuple[int, ...]:
        """The bytes of a unit in each input and then in the result; nothing where there are no parts."""
        if not self.result_unit_elements:
            return ()
        return (*(spec.unit_bytes for spec in self.inputs), self.result_unit_elements * self.results[0].dtype.itemsize)

    @property
    def result_span(self) -> tuple[int, int]:
        """Which bytes of the first result are computed; where its length is not known beforehand the end is negative."""
        if not self.part:
            return 0, self.results[0].nbytes
        made = self.unit_bytes[-1]
        return self.first_unit * made, self.units.stop * made

    @property
    def upstream(self) -> bool:
        """Whether there is an upstream gradient."""
        return len(self.inputs) == 2


def plan(job: Job, limits: Limits, team: Team = SOLO, names: Names = BUILT_IN) -> Plan:
    """Check a job and lay out its computation, over the cores of a team."""
    record, library = _record(job, names)
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
    mode = job.mode
    if isinstance(mode, NeuronStatistics):
        mode = mode.within(limits.max_slice_bytes)
    axis = None if _is_after(mode) else _axis(record, job)
    given = arguments(record, job.parameters, library, x.shape, limits.max_slice_bytes)
    subject = Subject(
        record=record,
        parameters=given.numbers,
        dtype=x.dtype,
        shape=x.shape,
        axis=axis,
        piece_elements=max(chunk_bytes // x.dtype.itemsize, 1),
        columns=given.columns,
        options=given.options,
        result_length=_result_length(record, axis, x.shape, given),
        accuracy=job.accuracy,
        team=team,
        max_held_bytes=limits.max_slice_bytes,
    )
    mode.check(subject, upstream=upstream, open_ended=job.open_ended)
    results = mode.results(subject)
    if upstream and job.inputs[1].shape != subject.result_shape:
        raise InvalidShape(
            f"the upstream gradient has shape {list(job.inputs[1].shape)}, and must have the result's, "
            f"{list(subject.result_shape)}",
            field="header.inputs[1].shape",
            value=list(job.inputs[1].shape),
            allowed=list(subject.result_shape),
        )
    itemsize = x.dtype.itemsize
    units = _units(job.mode, subject)
    unit = max(units)
    _limit("a block of slices", "header.axis", unit * itemsize, limits.max_slice_bytes, "max_slice_bytes")
    for tensor in results:
        _limit(f"the result {tensor.name!r}", "header", tensor.nbytes, limits.max_tensor_bytes, "max_tensor_bytes")
    made = mode.unit_result(subject) if all(units[: len(job.inputs)]) else 0
    planned = Plan(
        subject=subject,
        mode=mode,
        inputs=tuple(
            Input(
                unit_bytes=elements * itemsize,
                row_bytes=math.prod(tensor.shape[1:]) * itemsize,
                end_bytes=None if job.open_ended else tensor.nbytes,
            )
            for elements, tensor in zip(units, job.inputs, strict=False)
        ),
        results=results,
        open_ended=job.open_ended,
        unit_elements=units[0],
        # So that the pieces of a result end where its units do, unless a unit takes several.
        block_units=max(subject.piece_elements // max(unit, made, 1), 1),
        max_lead_bytes=max(limits.max_lead_bytes, 2 * unit * itemsize),
        max_tensor_bytes=limits.max_tensor_bytes,
        reject_nonfinite=job.reject_nonfinite,
        result_unit_elements=made,
    )
    return planned if job.part is None else _cut(planned, job.part)


def _cut(planned: Plan, part: Part) -> Plan:
    """The plan of a part of what was planned. Raises InvalidOption and OtherBits."""
    record, unit, path = planned.subject.record, planned.unit_elements, "header.part"
    if not planned.unit_bytes:
        raise InvalidOption(
            "the result is not computed element by element or slice by slice, so no part of it can be; leave part out",
            field=path,
        )
    end_bytes = planned.inputs[0].end_bytes
    total = None if end_bytes is None else end_bytes // planned.subject.dtype.itemsize
    first, count = part.first_element, part.elements
    if first < 0 or first % unit or (total is not None and first > total):
        raise InvalidOption(
            f"the part begins with element {first}, and must begin with a multiple of {unit}"
            + (f" up to {total}" if total is not None else ""),
            field=f"{path}.first_element",
            value=first,
            allowed=f"multiples of {unit}",
        )
    if count is not None and (count < 0 or count % unit or total is None or first + count > total):
        left = "no number, as the job is open-ended" if total is None else f"a multiple of {unit} up to {total - first}"
        raise InvalidOption(
            f"the part has {count} elements, and must have {left}",
            field=f"{path}.elements",
            value=count,
            allowed=left,
        )
    if part.bits and part.bits != bits_of(record):
        raise OtherBits(
            f"the result of {record.name} that is to be gone on with was begun by a server that computes other bits",
            field=f"{path}.bits",
            value=part.bits,
        )
    begin = first // unit

    def cut(spec: Input) -> Input:
        stop = spec.end_bytes if count is None else (first + count) // unit * spec.unit_bytes
        return dataclasses.replace(spec, begin_bytes=begin * spec.unit_bytes, end_bytes=stop)

    return dataclasses.replace(planned, inputs=tuple(map(cut, planned.inputs)), first_unit=begin, part=True)


def check_name(job: Job, names: Names = BUILT_IN) -> str:
    """The canonical name of a job's activation, before its inputs are known. Raises UnknownActivation and InvalidOption."""
    return _record(job, names)[0].name


def _is_after(mode: Mode) -> bool:
    """Whether x holds activations already, so that nothing is computed along an axis."""
    return isinstance(mode, NeuronStatistics) and mode.after


def _units(mode: Mode, subject: Subject) -> tuple[int, int]:
    """How many elements of x, and of f(x), form the smallest block that can be computed by itself."""
    axis = mode.block_axis(subject) if isinstance(mode, Regularization) else subject.axis
    if axis is None:
        return 1, 1
    return math.prod(subject.shape[axis:]), math.prod(subject.result_shape[axis:])


def _record(job: Job, names: Names) -> tuple[Record, Library | None]:
    """The activation meant by a name, in the library of the preset, which may also stand before the name: jax:gelu."""
    prefix, colon, rest = job.activation.partition(":")
    preset, name = (prefix, rest) if colon else (job.preset, job.activation)
    if not preset:
        record = names.find(name)
        if record is None:
            raise UnknownActivation(name, names.near(name))
        return record, None
    if preset not in LIBRARIES or (colon and job.preset not in ("", preset)):
        raise InvalidOption(
            f"the preset is {preset!r}, and must be one of {', '.join(LIBRARIES)}, once",
            field="header.preset",
            value=preset,
            allowed=", ".join(LIBRARIES),
        )
    found = names.find_in(preset, name)
    if found is None:
        raise UnknownActivation(name, names.near(name, preset), where=f" in {preset}")
    return found


def _result_length(record: Record, axis: int | None, shape: tuple[int, ...], given: Arguments) -> int:
    """The length of the axis in the result. Raises InvalidShape and InvalidParameter."""
    if axis is None:
        return 0
    n = shape[axis] if shape else 1
    for parameter in record.parameters:
        value = given.options.get(parameter.name)
        if parameter.within_axis and isinstance(value, int) and value > n:
            raise InvalidParameter(
                f"{parameter.name} of {record.name} is {value}, and the axis has {n} elements",
                field=f"header.parameters[{parameter.name!r}]",
                value=value,
                allowed=f"at most {n}",
            )
    if isinstance(record, GatedActivation):
        if n % 2 or not shape:
            raise InvalidShape(
                f"{record.name} halves axis {axis}, whose length is {n}, and must be even",
                field="header.inputs[0].shape",
                value=list(shape),
                allowed=f"an even length of dimension {axis}",
            )
        return n // 2
    if isinstance(record, ResizingActivation):
        if not shape:
            raise InvalidShape(
                f"{record.name} needs an axis, and a scalar has none", field="header.inputs[0].shape", value=[]
            )
        try:
            return record.length(n, **given.options)
        except ValueError as error:
            raise InvalidParameter(
                f"{record.name}: {error}", field="header.parameters", value=n, allowed=str(error)
            ) from None
    return n


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
        if job.axis is not None and not (isinstance(job.mode, Regularization) and job.mode.takes_axis):
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
