"""Arguments that several commands take, and what their values mean. No command is known here."""

from __future__ import annotations

import argparse
import contextlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

from actserve_client.cli import files
from actserve_client.errors import InvalidRequest

__all__ = [
    "add_json",
    "add_parameters",
    "add_subject",
    "add_variant",
    "command",
    "how",
    "name_and_value",
    "parameter_value",
    "parameters",
    "picture",
    "tensor",
]

_PICTURES = (".png", ".svg", ".pdf")
_FLOATS = ("float16", "bfloat16", "float32", "float64")


def command(
    commands: Any, name: str, run: Callable[[argparse.Namespace], int | None], text: str, *, server: bool = True
) -> argparse.ArgumentParser:
    """A new command, by what runs it; `server` says that it takes the address of one."""
    parser: argparse.ArgumentParser = commands.add_parser(name, help=text, description=text[0].upper() + text[1:] + ".")
    parser.set_defaults(run=run)
    if server:
        parser.add_argument(
            "--server", metavar="ADDRESS", help="HOST:PORT or unix:PATH [$ACTSERVE_ADDRESS, or private]"
        )
    return parser


def add_subject(parser: argparse.ArgumentParser, *, optional: bool = False) -> None:
    """What is computed, of which file, and how."""
    how_many: dict[str, Any] = {"nargs": "?"} if optional else {}
    parser.add_argument("name", metavar="NAME", help="the activation", **how_many)
    parser.add_argument("input", metavar="IN.npy", help=f"{', '.join(_FLOATS)}; - for the standard input", **how_many)
    parser.add_argument(
        "--dtype", choices=("bfloat16",), help="what the files hold, as .npy has no bfloat16 but raw bytes"
    )
    parser.add_argument("--axis", type=int, help="the axis of an activation that works along one [-1]")
    add_parameters(parser)
    add_variant(parser)
    parser.add_argument(
        "--nonfinite", choices=("propagate", "reject"), default="propagate", help="at NaN and infinities [propagate]"
    )


def add_variant(parser: argparse.ArgumentParser) -> None:
    """Whose names and defaults are meant, and how exact the result is to be."""
    parser.add_argument("--preset", metavar="LIBRARY", help="mean the names and defaults of torch, keras, …")
    parser.add_argument("--accuracy", choices=("exact", "fast"), default="exact", help="how exact [exact]")


def add_parameters(parser: argparse.ArgumentParser) -> None:
    """The parameters of an activation."""
    parser.add_argument(
        "--param",
        metavar="NAME=VALUE",
        action="append",
        default=[],
        type=name_and_value,
        help="a number, true, false, a word, or @FILE.npy for a value for each channel; may be given again",
    )


def add_json(parser: argparse.ArgumentParser) -> None:
    """For other programs."""
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")


def name_and_value(text: str) -> tuple[str, str]:
    """The two parts of NAME=VALUE."""
    name, equals, value = text.partition("=")
    if not (name and equals):
        raise argparse.ArgumentTypeError(f"{text!r} is not NAME=VALUE")
    return name, value


def parameters(options: argparse.Namespace) -> dict[str, Any]:
    """The activation's parameters by name."""
    return {name: parameter_value(value) for name, value in options.param}


def parameter_value(text: str) -> Any:
    """What a value on the command line means.

    >>> [parameter_value(text) for text in ("3", "0.5", "true", "mean", "nan")]
    [3, 0.5, True, 'mean', 'nan']

    NaN is no parameter's number, but "nan" is a word of softmax.
    """
    if text.startswith("@"):
        return files.read(text[1:])
    if text in ("true", "false"):
        return text == "true"
    for kind in (int, float):
        with contextlib.suppress(ValueError):
            value = kind(text)
            return text if value != value else value
    return text


def picture(text: str) -> Path:
    """Where a picture goes; what its name ends in says of which kind it is."""
    path = Path(text)
    if path.suffix.lower() not in _PICTURES:
        raise argparse.ArgumentTypeError(f"{text!r} must end in one of {', '.join(_PICTURES)}")
    return path


def how(options: argparse.Namespace) -> dict[str, Any]:
    """The options that every computation takes."""
    return {
        "axis": options.axis,
        "accuracy": options.accuracy,
        "preset": options.preset,
        "nonfinite": options.nonfinite,
        "parameters": parameters(options),
    }


def tensor(options: argparse.Namespace, name: str) -> Any:
    """The array of a file, of a type that can be computed with."""
    array = files.read(name, bfloat16=options.dtype == "bfloat16")
    if array.dtype.name not in _FLOATS:
        raise InvalidRequest(f"{name} holds {array.dtype}, and must hold one of {', '.join(_FLOATS)}", field="x")
    return array
