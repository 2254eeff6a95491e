"""`actserve create` and `actserve delete`: activations of one's own on a server."""

from __future__ import annotations

import argparse
import os
import sys
from typing import Any

from actserve_client import records
from actserve_client.cli.catalogue import print_activation
from actserve_client.cli.options import add_json, command, picture
from actserve_client.cli.output import print_json
from actserve_client.cli.usage import UsageError
from actserve_client.client import Client

__all__ = ["add_create", "add_delete"]


def add_create(commands: Any) -> None:
    """Add `create` to the commands."""
    create = command(commands, "create", _create, "add an activation by a formula to a server")
    create.add_argument("name", metavar="NAME", help="two to four words with dots between them, such as team.swish")
    create.add_argument(
        "--formula", required=True, help="f(x), such as 'x * sigmoid(beta * x)'; docs/custom.md has the language"
    )
    create.add_argument(
        "--param",
        metavar="NAME[=DEFAULT[:LOW:HIGH]]",
        action="append",
        default=[],
        type=_bounded_parameter,
        help="a parameter that the formula names, and between what it may be, such as beta=1.0:0:10; without a default, "
        "as in beta or beta=:0:10, callers must give it; may be given again",
    )
    create.add_argument("--derivative", metavar="FORMULA", help="f'(x), if another form than the one found is wanted")
    create.add_argument("--description", default="", help="what it is, in a sentence")
    create.add_argument("--replace", action="store_true", help="take the place of one of that name")
    create.add_argument("--validate-only", action="store_true", help="only say what it would be like")
    create.add_argument("--output", type=picture, metavar="FILE.png", help="also draw it (or .svg, .pdf)")
    add_json(create)


def add_delete(commands: Any) -> None:
    """Add `delete` to the commands."""
    delete = command(commands, "delete", _delete, "remove an activation that was added to a server")
    delete.add_argument("name", metavar="NAME")


def _bounded_parameter(text: str) -> tuple[str, float | None, tuple[float, float] | None]:
    name, _, value = text.partition("=")
    default, *rest = value.split(":")
    try:
        bounds = [float(part) for part in rest]
        if not name or len(bounds) not in (0, 2):
            raise ValueError(text)
        return name, float(default) if default else None, (bounds[0], bounds[1]) if bounds else None
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is none of NAME, NAME=DEFAULT and NAME=DEFAULT:LOW:HIGH") from None


def _create(options: argparse.Namespace) -> None:
    defaults = {name: default for name, default, _ in options.param}
    if len(defaults) < len(options.param):
        raise UsageError("--param names a parameter twice")
    if options.output and None in defaults.values():
        raise UsageError(
            "--output draws at the parameters' defaults, and one has none; `actserve plot` takes its value"
        )
    with Client(options.server) as client:
        found = client.create_activation(
            options.name,
            options.formula,
            derivative_formula=options.derivative,
            description=options.description,
            bounds={name: bounds for name, _, bounds in options.param if bounds is not None},
            replace=options.replace,
            validate_only=options.validate_only,
            parameters=defaults,
        )
        if options.output:
            _draw_created(client, options, found)
        if options.json:
            print_json(found)
        else:
            print_activation(found)
    if not (options.server or os.environ.get("ACTSERVE_ADDRESS") or options.validate_only):
        print(
            "actserve: no server was named, so this was a private one, and the activation is gone with it; "
            "--server ADDRESS keeps it",
            file=sys.stderr,
        )


def _draw_created(client: Client, options: argparse.Namespace, found: records.Activation) -> None:
    from actserve_client.plotting import plot_activations

    if options.validate_only:
        raise UsageError("--output draws what was created, and --validate-only creates nothing")
    plot_activations(client, [found.name], options.output)


def _delete(options: argparse.Namespace) -> None:
    with Client(options.server) as client:
        client.delete_activation(options.name)
