"""`actserve penalty`: the penalty of activation regularization, its gradient and its state."""

from __future__ import annotations

import argparse
import contextlib
from pathlib import Path
from typing import Any

from actserve import penalties

from actserve_client.cli import files
from actserve_client.cli.options import add_json, add_subject, command, how, name_and_value, parameter_value, tensor
from actserve_client.cli.output import print_json
from actserve_client.cli.progress import progress_of
from actserve_client.cli.usage import UsageError
from actserve_client.client import Client

__all__ = ["add"]


def add(commands: Any) -> None:
    """Add `penalty` to the commands."""
    penalty = command(commands, "penalty", _run, "the penalty of activation regularization")
    add_subject(penalty)
    names = (*penalties.FORMS, *penalties.ALIASES)
    penalty.add_argument(
        "--regularizer", choices=names, default="l2", metavar="NAME", help=f"one of {', '.join(names)} [l2]"
    )
    penalty.add_argument(
        "--strength", type=float, help="the factor before the penalty [0.01; 1 for l1l2 with weights of its own]"
    )
    penalty.add_argument(
        "--option",
        metavar="NAME=VALUE",
        action="append",
        default=[],
        type=name_and_value,
        help="a parameter of the regularizer, such as rho=0.1 or penalty_axis=0; may be given again",
    )
    penalty.add_argument("--of", choices=("output", "input"), default="output", help="what is penalised [output]")
    penalty.add_argument(
        "--reduction", choices=("sum", "batch_mean", "mean"), default="sum", help="what divides it [sum]"
    )
    penalty.add_argument("--gradient", metavar="OUT.npy", help="also write the gradient")
    penalty.add_argument("--gradient-wrt", choices=("activation", "input"), default="activation", help="[activation]")
    penalty.add_argument("--save-state", metavar="FILE", type=Path, help="write the state, which merges with others")
    penalty.add_argument(
        "--state", metavar="FILE", type=Path, help="the state of all the data, for the gradient of a part of them"
    )
    add_json(penalty)


def _run(options: argparse.Namespace) -> None:
    x = tensor(options, options.input)
    keywords: dict[str, Any] = {
        "strength": options.strength,
        "reduction": options.reduction,
        "gradient": options.gradient is not None,
        "gradient_wrt": options.gradient_wrt,
        "of": options.of,
        "state": options.state.read_bytes() if options.state else None,
        **how(options),
    }
    keywords |= _own_options(options)
    with contextlib.ExitStack() as stack:
        client = stack.enter_context(Client(options.server))
        out = None
        if options.gradient is not None:
            out = stack.enter_context(files.written(options.gradient))
            keywords["out"] = out.make
        progress = stack.enter_context(progress_of(options.name, x, out))
        answer = client.regularization(options.name, x, options.regularizer, progress=progress, **keywords)
    if options.save_state is not None:
        options.save_state.write_bytes(answer.state)
    if options.json:
        strength = penalties.PenaltyState.from_bytes(answer.state).strength if answer.state else options.strength
        print_json({"penalty": answer.penalty, "regularizer": options.regularizer, "strength": strength})
    else:
        print(answer.penalty)


def _own_options(options: argparse.Namespace) -> dict[str, Any]:
    """The regularizer's parameters; another name would be taken for one of the activation's."""
    own = penalties.keywords(options.regularizer)
    for name, _ in options.option:
        if name not in own:
            takes = ", ".join(sorted(own)) or "none"
            raise UsageError(f"--option {name}: {options.regularizer} has no such parameter (it takes: {takes})")
    return {name: parameter_value(value) for name, value in options.option}
