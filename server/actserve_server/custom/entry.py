"""An added activation as it is kept: what its creator said, and what was found out about it. As JSON, and as a record to compute with."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
import re
from collections.abc import Mapping
from typing import Any

from actserve_server.activations.spec import Activation, Parameter, Traits
from actserve_server.errors import InvalidFormula, InvalidOption
from actserve_server.formulas import Definition, FormulaError, Report, Rewrite, define

__all__ = ["Entry", "EntryError", "check_name", "defined", "report_from", "report_to"]

_FORMAT = 1
_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_]*(\.[A-Za-z][A-Za-z0-9_]*){1,3}")
_LONGEST_NAME = 100
_LONGEST_DESCRIPTION = 500
_LONGEST_MEANING = 200


class EntryError(ValueError):
    """Expected error: a file that holds no activation; says why. The fault of whoever wrote it."""


@dataclasses.dataclass(frozen=True, slots=True)
class Entry:
    """An activation by its formula.

    >>> Entry("team.swish", "x * sigmoid(beta * x)", (Parameter("beta", "", 1.0),)).record.name
    'team.swish'
    """

    name: str
    formula: str
    parameters: tuple[Parameter, ...] = ()
    derivative_formula: str = ""
    description: str = ""
    report: Report | None = dataclasses.field(default=None, compare=False)
    rewrites: tuple[Rewrite, ...] = dataclasses.field(default=(), compare=False)

    @property
    def revision(self) -> str:
        """Tells it apart from others of the same name: equal for two that compute the same."""
        said = (self.name, self.formula, self.derivative_formula, [_parameter_to(p) for p in self.parameters])
        return hashlib.sha256(json.dumps(said).encode()).hexdigest()[:16]

    def record(self, longest: int) -> Activation:
        """What the engine runs. Raises FormulaError."""
        record = dataclasses.replace(self.definition(longest).record, revision=self.revision)
        report = self.report
        if report is None:
            return record
        low, high = report.range
        return dataclasses.replace(
            record,
            range=f"[{low:.6g}, {high:.6g}]".replace("[-inf", "(-inf").replace("inf]", "inf)"),
            traits=Traits(
                monotonic=report.monotonic in ("increasing", "constant"),
                zero_centred=report.zero_centred,
                saturates=report.saturates,
                smooth=not report.kinks and not report.nan_regions,
            ),
            kinks=report.kinks,
            limits=report.limits,
        )

    def definition(self, longest: int) -> Definition:
        """Read and differentiated. Raises FormulaError."""
        return define(
            self.name,
            self.formula,
            self.parameters,
            derivative_formula=self.derivative_formula,
            description=self.description,
            longest=longest,
        )

    def to_json(self) -> str:
        """As it is kept in a file, for people too."""
        kept = {
            "actserve_activation": _FORMAT,
            "name": self.name,
            "formula": self.formula,
            "parameters": [_parameter_to(parameter) for parameter in self.parameters],
            "derivative_formula": self.derivative_formula,
            "description": self.description,
            "report": None if self.report is None else report_to(self.report),
            "rewrites": [dataclasses.asdict(rewrite) for rewrite in self.rewrites],
        }
        return json.dumps(kept, indent=2, allow_nan=False) + "\n"

    @classmethod
    def from_json(cls, text: str) -> Entry:
        """Out of a file. Raises EntryError."""
        try:
            kept = json.loads(text)
            if kept["actserve_activation"] != _FORMAT:
                raise EntryError(f"it is of version {kept['actserve_activation']!r}, and this server knows {_FORMAT}")
            strings = {
                name: _string(kept.get(name, "")) for name in ("name", "formula", "derivative_formula", "description")
            }
            report = kept.get("report")
            return cls(
                **strings,
                parameters=tuple(_parameter_from(parameter) for parameter in kept.get("parameters", ())),
                report=None if report is None else report_from(report),
                rewrites=tuple(Rewrite(**rewrite) for rewrite in kept.get("rewrites", ())),
            )
        except EntryError:
            raise
        except (KeyError, TypeError, ValueError, AttributeError, RecursionError) as error:
            raise EntryError(f"it holds no activation: {type(error).__name__} {error}") from None


def defined(entry: Entry, longest: int) -> Definition:
    """An entry read and differentiated, for a caller who is told what is wrong. Raises InvalidFormula and InvalidOption."""
    check_name(entry.name)
    _check_length("description", entry.description, _LONGEST_DESCRIPTION)
    for parameter in entry.parameters:
        _check_length(f"parameters[{parameter.name[:40]!r}].meaning", parameter.meaning, _LONGEST_MEANING)
    try:
        return entry.definition(longest)
    except FormulaError as error:
        text = f"{error.message}\n{error.pointed}" if error.pointed else error.message
        facts = {} if error.column is None else {"column": error.column}
        raise InvalidFormula(text, field=error.field, **facts) from None


def _check_length(field: str, text: str, longest: int) -> None:
    if len(text) > longest:
        raise InvalidOption(
            f"the {field} has {len(text)} characters, and may have {longest}",
            field=field,
            value=len(text),
            allowed=longest,
        )


def check_name(name: str) -> None:
    """Refuse a name that no added activation may have. Raises InvalidOption."""
    if len(name) > _LONGEST_NAME or not _NAME.fullmatch(name):
        hint = "" if "." in name else "; names without a dot are the catalogue's"
        raise InvalidOption(
            f"the name is {name[:_LONGEST_NAME]!r}, and must be two to four words with dots between them, such as team.swish{hint}",
            field="name",
            value=name,
            allowed="two to four words with dots between them",
        )


def _string(value: Any) -> str:
    if not isinstance(value, str):
        raise EntryError(f"{value!r} stands where text is wanted")
    return value


def _parameter_to(parameter: Parameter) -> dict[str, Any]:
    bounds = {"low": parameter.low, "high": parameter.high}
    return {
        "name": parameter.name,
        "default": parameter.default,
        "meaning": parameter.meaning,
        **{name: bound for name, bound in bounds.items() if math.isfinite(bound)},
        **({"low_open": parameter.low_open} if math.isfinite(parameter.low) else {}),
        **({"high_open": parameter.high_open} if math.isfinite(parameter.high) else {}),
    }


def _parameter_from(kept: Mapping[str, Any]) -> Parameter:
    default = kept["default"]
    if default is not None and (isinstance(default, bool) or not isinstance(default, (int, float))):
        raise EntryError(f"the default {default!r} is no number")
    return Parameter(
        name=_string(kept["name"]),
        meaning=_string(kept.get("meaning", "")),
        default=None if default is None else float(default),
        low=float(kept.get("low", -math.inf)),
        high=float(kept.get("high", math.inf)),
        low_open=bool(kept.get("low_open", True)),
        high_open=bool(kept.get("high_open", True)),
    )


def report_to(report: Report) -> dict[str, Any]:
    """A report as JSON has it: numbers that are not finite as text."""

    def plain(value: Any) -> Any:
        if isinstance(value, float):
            return value if math.isfinite(value) else repr(value)
        return [plain(item) for item in value] if isinstance(value, (tuple, list)) else value

    return {name: plain(value) for name, value in dataclasses.asdict(report).items()}


def report_from(kept: Mapping[str, Any]) -> Report:
    """A report out of JSON. Raises TypeError and ValueError for what is none."""
    words = ("monotonic", "monotonic_proof", "range_proof", "lipschitz_proof", "saturates")

    def number(value: Any) -> Any:
        return tuple(number(item) for item in value) if isinstance(value, list) else float(value)

    return Report(
        **{
            name: value if name in words or isinstance(value, bool) or value is None else number(value)
            for name, value in kept.items()
        }
    )
