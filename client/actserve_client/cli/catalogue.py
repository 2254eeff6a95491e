"""`actserve list` and `actserve describe`: which activations there are, and all about one."""

from __future__ import annotations

import argparse
from typing import Any

from actserve_client import records
from actserve_client.cli import reports
from actserve_client.cli.options import add_json, command
from actserve_client.cli.output import print_json, print_table
from actserve_client.client import Client

__all__ = ["add_describe", "add_list", "print_activation"]


def add_list(commands: Any) -> None:
    """Add `list` to the commands."""
    add_json(command(commands, "list", _list, "the activations there are"))


def add_describe(commands: Any) -> None:
    """Add `describe` to the commands."""
    describe = command(commands, "describe", _describe, "all about an activation")
    describe.add_argument("name", metavar="NAME")
    add_json(describe)


def _list(options: argparse.Namespace) -> None:
    with Client(options.server) as client:
        found = client.activations()
    if options.json:
        print_json(found)
    else:
        print_table(
            ("name", "kind", "range", "formula", "also in"),
            [(a.name, a.kind, a.range, a.formula, ", ".join(known.library for known in a.libraries)) for a in found],
        )


def _describe(options: argparse.Namespace) -> None:
    with Client(options.server) as client:
        found = client.describe(options.name)
    if options.json:
        print_json(found)
    else:
        print_activation(found)


def print_activation(found: records.Activation) -> None:
    """Print all about an activation: of one that was added, with what was found out about it."""
    traits = found.traits
    rows = [
        ("kind", found.kind),
        ("f(x)", found.formula),
        ("f'(x)", found.derivative_formula),
        ("range", found.range),
        ("monotonic", _yes(traits.monotonic)),
        ("zero-centred", _yes(traits.zero_centred)),
        ("saturates", traits.saturates),
        ("smooth", _yes(traits.smooth)),
        ("kinks", ", ".join(f"{kink:g}" for kink in found.kinks) or "none"),
        *((f"parameter {p.name}", _about(p)) for p in found.parameters),
        *(("it must hold", constraint) for constraint in found.constraints),
        ("gradients of", ", ".join(found.parameter_gradients) or "no parameter"),
        ("also called", ", ".join(found.aliases) or "-"),
        *((f"in {library.library}", _about_library(library)) for library in found.libraries),
        ("choose it", found.advice),
        ("reference", found.reference),
    ]
    if found.report is not None:
        known = ("f(x)", "f'(x)")
        rows = [row for row in rows if row[0] in known or row[0].startswith("parameter ")] + reports.rows(found.report)
    print_table(("", ""), rows, title=f"{found.name}: {found.summary}")


def _yes(value: bool) -> str:
    return "yes" if value else "no"


def _about(parameter: records.Parameter) -> str:
    also = f"; also {', '.join(parameter.aliases)}" if parameter.aliases else ""
    if parameter.default is not None:
        default = f"default {parameter.default}"
    else:
        default = "must be given" if parameter.required else "may be left out"
    return f"{parameter.meaning} {parameter.allowed}; {default}{also}"


def _about_library(library: records.Library) -> str:
    differs = [f"{name}={value}" for name, value in library.defaults.items()]
    differs += [f"{name} for {ours}" for name, ours in library.renamed.items()]
    return ", ".join(library.names) + (f" ({', '.join(differs)})" if differs else "")
