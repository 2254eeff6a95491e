"""Penalties as mergeable states: the exact sums that a regularizer is a function of, their bytes, and that function.

Both ends of the wire use it, and people who merge what several machines saw. Sums are integers, so merging them may happen
in any order and any grouping, and gives the very bytes that one pass over all the data would have given; the penalty is
computed from them in whole numbers, fractions and decimals, and rounded once, so it has the same bits on every machine. It
knows neither messages nor how sums come about.

A state's bytes are framed as `actserve.stats` says, under the kind "penalty", version 1. The header holds what
`PenaltyState` holds under the same names (an infinity as the text "inf" or "-inf"), without the sums, and "columns": for
each sum in the order of the regularizer's form its name and four columns of whole numbers (totals, nan, positive, negative),
each as [shift, width]. The payload is the columns one after another: each number, without `shift` bits at its end which are
zero in all, in `width` bytes, little-endian, in two's complement; shift is as large and width as small as can be.
"""

from __future__ import annotations

import dataclasses
import decimal
import json
import math
from collections.abc import Callable, Mapping, Sequence
from fractions import Fraction
from types import MappingProxyType
from typing import Any, Literal

from actserve.stats.format import StateError, StateMismatch, pack, parameter, unpack
from actserve.stats.format import number as checked_number

__all__ = [
    "ALIASES",
    "FORMS",
    "UNIT_EXPONENTS",
    "Form",
    "PenaltyState",
    "Sums",
    "Undefined",
    "form_of",
    "is_penalty",
    "keywords",
    "known",
]

Quantity = Literal["magnitudes", "squares", "terms", "values"]
Number = Fraction | float
"""An exact sum; a float where it is NaN or infinite."""

UNIT_EXPONENTS: Mapping[str, int] = {"magnitudes": -1074, "squares": -2148, "terms": -1074, "values": -1074}
"""Each quantity is counted in units of 2 to this power: magnitudes |a|, squares of something, terms that were rounded to
float64 one by one, and the values a themselves."""

_VERSION = 1
_HEADER_BEGINS = 12
_MOST_BITS = 4300
_LARGEST_COUNT = (1 << 63) - 1
_MOST_WITHOUT_BYTES = 1 << 20
"""How many sums a state may claim to have that are all 0 and so take no bytes."""
_DIGITS = 60
"""Digits of decimals on the way to a float64, which has 17: what is cancelled on the way has less than half of them."""


class Undefined(StateError):
    """Expected error: the penalty has no value for these data; says why. The fault of whoever chose the regularizer."""


@dataclasses.dataclass(frozen=True, slots=True)
class Sums:
    """Exact sums of a quantity, one or one a neuron, of which NaN and infinities are only counted."""

    totals: tuple[int, ...]
    """The sums over the finite numbers, in the quantity's unit."""
    nan: tuple[int, ...] = ()
    positive: tuple[int, ...] = ()
    """How many were +inf."""
    negative: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        for name in ("nan", "positive", "negative"):
            given = getattr(self, name) or (0,) * len(self.totals)
            object.__setattr__(self, name, given)
            if len(given) != len(self.totals) or any(not 0 <= count <= _LARGEST_COUNT for count in given):
                raise StateError("the counts of a sum are negative, too large, or not as many as there are totals")
        if any(abs(total).bit_length() > _MOST_BITS for total in self.totals):
            raise StateError("a total is larger than its numbers could make it")

    def merge(self, other: Sums) -> Sums:
        """The sums over both."""
        return Sums(
            *(
                tuple(mine + theirs for mine, theirs in zip(getattr(self, name), getattr(other, name), strict=True))
                for name in _COLUMNS
            )
        )

    def values(self, unit_exponent: int) -> tuple[Number, ...]:
        """The sums themselves, with NaN and infinities as IEEE addition has them."""
        unit = Fraction(1, 1 << -unit_exponent)
        found: list[Number] = []
        for total, nan, positive, negative in zip(self.totals, self.nan, self.positive, self.negative, strict=True):
            if nan or (positive and negative):
                found.append(math.nan)
            elif positive or negative:
                found.append(math.inf if positive else -math.inf)
            else:
                found.append(total * unit)
        return tuple(found)


_COLUMNS = ("totals", "nan", "positive", "negative")

Values = Mapping[str, tuple[Number, ...]]
"""The sums of a state by quantity."""


@dataclasses.dataclass(frozen=True, slots=True)
class Form:
    """What a regularizer's penalty is a function of."""

    quantities: tuple[Quantity, ...]
    value: Callable[[PenaltyState, Values], Number]
    """The penalty without strength and reduction, from the sums by quantity; asked for where there is at least an element."""
    terms: Literal["each", "neuron", "one"] = "each"
    """How many terms a mean is over: as many as were counted, one a neuron, or a single one."""
    options: tuple[str, ...] = ()
    """The regularizer's own parameters."""


@dataclasses.dataclass(frozen=True, slots=True)
class PenaltyState:
    """What a penalty over some data is computed from, and with which options.

    >>> state = PenaltyState("l1", "relu", strength=0.5, elements=2, rows=2, terms=2, sums=(Sums((7 << 1074,)),))
    >>> state.penalty
    3.5
    >>> state.merge(state).penalty
    7.0
    """

    regularizer: str
    activation: str
    parameters: Mapping[str, float | str] = dataclasses.field(default_factory=dict, hash=False)
    """The activation's, so that states of different ones are not merged."""
    options: Mapping[str, float | str] = dataclasses.field(default_factory=dict, hash=False)
    """The regularizer's own parameters."""
    of: str = "output"
    strength: float = 1.0
    reduction: str = "sum"
    elements: int = 0
    rows: int = 0
    """How many entries the first dimension had; 1 for a scalar."""
    terms: int = 0
    """How many terms were summed."""
    whole: bool = False
    """Whether the penalty is no function of sums over rows, so that states cannot be merged."""
    sums: tuple[Sums, ...] = ()
    """One for each quantity of the regularizer's form."""

    def __post_init__(self) -> None:
        for name in ("regularizer", "activation", "of", "reduction"):
            if type(getattr(self, name)) is not str:
                raise StateError(f"{name} of a penalty's state must be text, not {getattr(self, name)!r}")
        if self.regularizer not in FORMS:
            raise StateError(f"a penalty of the kind {self.regularizer!r} is not understood")
        if self.of not in ("output", "input") or self.reduction not in ("sum", "batch_mean", "mean"):
            raise StateError(f"a penalty of {self.of!r}, reduced by {self.reduction!r}, is not understood")
        strength = checked_number("strength", self.strength)
        if not (math.isfinite(strength) and strength >= 0):
            raise StateError(f"the strength of a penalty must be finite and not negative, not {strength!r}")
        object.__setattr__(self, "strength", strength)
        for name in ("parameters", "options"):
            table = {key: parameter(key, value) for key, value in sorted(getattr(self, name).items())}
            object.__setattr__(self, name, MappingProxyType(table))
        for name in ("elements", "rows", "terms"):
            count = getattr(self, name)
            if type(count) is not int or not 0 <= count <= _LARGEST_COUNT:
                raise StateError(f"{name} of a penalty's state must be a whole number of 63 bits, not {count!r}")
        if type(self.whole) is not bool or len(self.sums) != len(self.form.quantities):
            raise StateError("a penalty's state has other sums than its regularizer")
        if len({len(sums.totals) for sums in self.sums}) > 1:
            raise StateError("the sums of a penalty's state differ in length")
        if self.options.keys() != set(self.form.options):
            raise StateError(f"a penalty of the kind {self.regularizer} has other options than it should")

    @property
    def form(self) -> Form:
        """What the penalty is a function of."""
        return form_of(self.regularizer, self.options)

    @property
    def width(self) -> int:
        """How many sums there are of each quantity: neurons, groups, or one."""
        return len(self.sums[0].totals)

    def check_like(self, other: PenaltyState) -> None:
        """Raise StateMismatch, naming both sides, if the other is of other options or of another width."""
        for option in ("regularizer", "activation", "parameters", "options", "of", "strength", "reduction", "width"):
            left, right = getattr(self, option), getattr(other, option)
            if left != right:
                left, right = (dict(v) if isinstance(v, Mapping) else v for v in (left, right))
                raise StateMismatch({"options": "regularizer parameters"}.get(option, option), left, right)

    def merge(self, other: PenaltyState) -> PenaltyState:
        """The state over both; one without elements is neutral. Raises StateMismatch, or StateError if it cannot be."""
        self.check_like(other)
        if self.whole or other.whole:
            if not (self.elements and other.elements):
                return self if self.elements else other
            raise StateError(
                f"states of {self.regularizer}{_along(self.options)} cannot be merged: the penalty on all rows is no "
                "function of those on some of them"
            )
        return dataclasses.replace(
            self,
            elements=self.elements + other.elements,
            rows=self.rows + other.rows,
            terms=self.terms if self.form.terms == "neuron" else self.terms + other.terms,
            sums=tuple(mine.merge(theirs) for mine, theirs in zip(self.sums, other.sums, strict=True)),
        )

    @property
    def values(self) -> Values:
        """The sums by quantity."""
        return {
            quantity: sums.values(UNIT_EXPONENTS[quantity])
            for quantity, sums in zip(self.form.quantities, self.sums, strict=True)
        }

    @property
    def divisor(self) -> int:
        """By what the reduction divides; 1 where there is nothing to divide."""
        if self.reduction == "batch_mean":
            return self.rows or 1
        if self.reduction == "mean":
            return {"each": self.terms, "neuron": self.width, "one": 1}[self.form.terms] or 1
        return 1

    @property
    def penalty(self) -> float:
        """The penalty, rounded once; 0 over no elements. Raises Undefined where it has no value."""
        if not self.elements:
            return 0.0
        value = self.form.value(self, self.values)
        if isinstance(value, float):
            return value * self.strength
        try:
            return float(value * Fraction(self.strength) / self.divisor)
        except OverflowError:
            return math.inf if value > 0 else -math.inf

    def to_bytes(self) -> bytes:
        """The state as bytes; equal states give equal bytes."""
        header: dict[str, Any] = {name: getattr(self, name) for name in _FIELDS}
        header |= {name: {k: _text(v) for k, v in header[name].items()} for name in ("parameters", "options")}
        columns, payload = [], []
        for quantity, sums in zip(self.form.quantities, self.sums, strict=True):
            layout = []
            for name in _COLUMNS:
                shift, width, data = _column(getattr(sums, name))
                layout.append([shift, width])
                payload.append(data)
            columns.append([quantity, *layout])
        header |= {"columns": columns, "width": self.width}
        return pack("penalty", _VERSION, header, b"".join(payload))

    @classmethod
    def from_bytes(cls, data: bytes) -> PenaltyState:
        """What `to_bytes` was called on; raises StateError."""
        header, payload = unpack("penalty", _VERSION, (*_FIELDS, "columns", "width"), data)
        for name in ("parameters", "options"):
            if not isinstance(header[name], dict):
                raise StateError(f"the {name} of a penalty's state must be a table")
        try:
            sums = _read_sums(header["columns"], header["width"], payload)
        except (TypeError, ValueError, OverflowError):
            raise StateError("the columns of a penalty's state cannot be read") from None
        state = cls(**{name: header[name] for name in _FIELDS}, sums=sums)
        if state.to_bytes() != data:
            raise StateError("a penalty's state is not written in its only form")
        return state


_FIELDS = tuple(field.name for field in dataclasses.fields(PenaltyState) if field.name != "sums")


def known(name: str) -> str | None:
    """The name of a regularizer that is meant by a name or an alias; None when there is none.

    >>> known("tar")
    'temporal'
    """
    name = ALIASES.get(name, name)
    return name if name in FORMS else None


_ALIASES_OF_PARAMETERS = {"group_lasso": ("group_axis",), "temporal": ("time_axis",)}


def keywords(name: str) -> frozenset[str]:
    """The names under which a regularizer's own parameters are taken.

    >>> sorted(keywords("tar"))
    ['lag', 'penalty_axis', 'time_axis']
    """
    meant = known(name)
    return frozenset() if meant is None else frozenset((*FORMS[meant].options, *_ALIASES_OF_PARAMETERS.get(meant, ())))


def is_penalty(data: bytes) -> bool:
    """Whether bytes are meant to be a penalty's state rather than one of another kind."""
    # The length before the header may hold any byte, a brace as well.
    text = data[_HEADER_BEGINS : _HEADER_BEGINS + (1 << 16)].decode("latin-1")
    try:
        return bool(json.JSONDecoder().raw_decode(text)[0]["kind"] == "penalty")
    except (ValueError, KeyError, TypeError, RecursionError):
        return False


# ---- numbers -------------------------------------------------------------------------------------------------------


def _text(value: float | str) -> float | str:
    return str(value) if isinstance(value, float) and math.isinf(value) else value


def _along(options: Mapping[str, float | str]) -> str:
    axis = options.get("penalty_axis")
    return "" if axis is None else f" along axis {axis:g}"


def _column(numbers: Sequence[int]) -> tuple[int, int, bytes]:
    """Shift, width and bytes of a column."""
    shift = min(((number & -number).bit_length() - 1 for number in numbers if number), default=0)
    width = max(((number >> shift).bit_length() + 8 if number else 0) // 8 for number in numbers) if numbers else 0
    return shift, width, b"".join((number >> shift).to_bytes(width, "little", signed=True) for number in numbers)


def _read_sums(columns: Any, count: Any, payload: bytes) -> tuple[Sums, ...]:
    if type(count) is not int or count < 0:
        raise ValueError(count)
    found, start = [], 0
    for _, *layout in columns:
        read = []
        for shift, width in layout:
            end = start + width * count
            if not (0 <= shift <= _MOST_BITS and 0 <= width <= _MOST_BITS) or end > len(payload):
                raise ValueError(layout)
            if width == 0 and count > _MOST_WITHOUT_BYTES:
                raise ValueError(count)
            cells = (payload[place : place + width] for place in range(start, end, width)) if width else ()
            read.append(tuple(int.from_bytes(cell, "little", signed=True) << shift for cell in cells) or (0,) * count)
            start = end
        found.append(Sums(*read))
    if start != len(payload):
        raise ValueError(payload)
    return tuple(found)


# ---- what each regularizer is of its sums --------------------------------------------------------------------------


def _float(number: Number) -> float:
    try:
        return float(number)
    except OverflowError:
        return math.copysign(math.inf, number)


def _finite(*numbers: Number) -> bool:
    return not any(isinstance(number, float) for number in numbers)


def _decimal(number: Fraction) -> decimal.Decimal:
    return decimal.Decimal(number.numerator) / decimal.Decimal(number.denominator)


def _context() -> Any:
    return decimal.localcontext(
        decimal.Context(prec=_DIGITS, Emax=decimal.MAX_EMAX, Emin=decimal.MIN_EMIN, traps=[decimal.InvalidOperation])
    )


def _sum(quantity: Quantity) -> Callable[[PenaltyState, Values], Number]:
    return lambda _, values: values[quantity][0]


def _l1l2(state: PenaltyState, values: Values) -> Number:
    parts = [
        (Fraction(float(state.options[weight])), values[quantity][0])
        for weight, quantity in (("l1", "magnitudes"), ("l2", "squares"))
        if state.options[weight]
    ]
    if _finite(*(number for _, number in parts)):
        return sum((weight * Fraction(number) for weight, number in parts), Fraction())
    return sum(float(weight) * _float(number) for weight, number in parts)


def _hoyer_square(_: PenaltyState, values: Values) -> Number:
    magnitudes, squares = values["magnitudes"][0], values["squares"][0]
    if isinstance(magnitudes, float) or isinstance(squares, float):
        return math.nan
    return magnitudes**2 / squares if squares else Fraction()


def _hoyer(state: PenaltyState, values: Values) -> Number:
    magnitudes, squares = values["magnitudes"][0], values["squares"][0]
    if state.elements < 2:
        raise Undefined("hoyer compares with the sparsest of all vectors, and needs at least 2 elements; there is 1")
    if isinstance(magnitudes, float) or isinstance(squares, float):
        return math.nan
    if not squares:
        return Fraction()
    with _context():
        root = decimal.Decimal(state.elements).sqrt()
        return Fraction((root - _decimal(magnitudes**2 / squares).sqrt()) / (root - 1))


def _kl_sparsity(state: PenaltyState, values: Values) -> Number:
    rho, width = Fraction(float(state.options["rho"])), state.width
    if not _finite(*values["values"]):
        return math.nan
    samples = state.elements // width
    with _context():
        active = inactive = decimal.Decimal(1)
        for neuron, total in enumerate(values["values"]):
            mean = Fraction(total) / samples
            if not 0 < mean < 1:
                raise Undefined(
                    f"the mean activation of neuron {neuron} is {_float(mean)!r}, and kl_sparsity is only defined where "
                    "each is in (0, 1)"
                )
            active *= _decimal(mean)
            inactive *= _decimal(1 - mean)
        target, rest = _decimal(rho), _decimal(1 - rho)
        # The logarithm of a product costs as much as that of one factor.
        return Fraction(target * (width * target.ln() - active.ln()) + rest * (width * rest.ln() - inactive.ln()))


def _groups_over_rows(state: PenaltyState, values: Values) -> Number:
    size = state.elements // state.width
    numbers = values["squares"]
    if not _finite(*numbers):
        return math.nan if any(_float(number) != _float(number) for number in numbers) else math.inf
    with _context():
        roots = sum(_decimal(size * Fraction(number)).sqrt() for number in numbers)
        return Fraction(roots)


def _orthogonal(state: PenaltyState, values: Values) -> Number:
    total = values["terms"][0]
    return total if isinstance(total, float) or not state.terms else total / state.terms


FORMS: Mapping[str, Form] = MappingProxyType(
    {
        "l1": Form(("magnitudes",), _sum("magnitudes")),
        "l2": Form(("squares",), _sum("squares")),
        "l1l2": Form(("magnitudes", "squares"), _l1l2, options=("l1", "l2")),
        "lp": Form(("terms",), _sum("terms"), options=("p",)),
        "log_student": Form(("terms",), _sum("terms"), options=("eps",)),
        "hoyer": Form(("magnitudes", "squares"), _hoyer, "one"),
        "hoyer_square": Form(("magnitudes", "squares"), _hoyer_square, "one"),
        "group_lasso": Form(("terms",), _sum("terms"), options=("penalty_axis",)),
        "kl_sparsity": Form(("values",), _kl_sparsity, "neuron", ("rho", "neuron_axis")),
        "entropy": Form(("terms",), _sum("terms"), options=("distribution", "penalty_axis")),
        "z_loss": Form(("squares",), _sum("squares"), options=("penalty_axis",)),
        "temporal": Form(("squares",), _sum("squares"), options=("lag", "penalty_axis")),
        "contractive": Form(("squares",), _sum("squares")),
        "orthogonal": Form(("terms",), _orthogonal, "one", ("mode",)),
    }
)
"""By name."""

_GROUPS_OVER_ROWS = Form(("squares",), _groups_over_rows, "neuron", ("penalty_axis",))
"""Groups that lie along axis 0 grow with the rows, so what can be added up is each one's sum of squares."""


def form_of(regularizer: str, options: Mapping[str, float | str]) -> Form:
    """What a regularizer's penalty is a function of, with its parameters."""
    over_rows = regularizer == "group_lasso" and options.get("penalty_axis") == 0
    return _GROUPS_OVER_ROWS if over_rows else FORMS[regularizer]


ALIASES: Mapping[str, str] = MappingProxyType({"tar": "temporal", "hoyer_sq": "hoyer_square"})
"""Other names of regularizers."""
