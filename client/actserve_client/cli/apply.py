"""`actserve apply`: a file through an activation, in constant memory."""

from __future__ import annotations

import argparse
import sys
from typing import Any

from actserve_client._summaries import Nonfinite, Summary
from actserve_client.cli import files
from actserve_client.cli.options import add_subject, command, how, tensor
from actserve_client.cli.progress import progress_of
from actserve_client.cli.usage import UsageError
from actserve_client.client import Client

__all__ = ["add"]


def add(commands: Any) -> None:
    """Add `apply` to the commands."""
    apply = command(commands, "apply", _run, "stream a .npy file of any size through an activation")
    add_subject(apply)
    apply.add_argument("output", metavar="OUT.npy", help="where the result goes; - for the standard output")
    apply.add_argument("--mode", choices=("forward", "derivative"), default="forward", help="what to compute [forward]")
    apply.add_argument("--upstream", metavar="G.npy", help="upstream gradient, for the vector-Jacobian product")
    apply.add_argument("--jacobian", choices=("full", "diag"), help="the part of an axis activation's Jacobian")


def _run(options: argparse.Namespace) -> None:
    if options.mode == "forward" and (options.upstream or options.jacobian):
        raise UsageError("--upstream and --jacobian go with --mode derivative")
    x = tensor(options, options.input)
    upstream = tensor(options, options.upstream) if options.upstream else None
    keywords = how(options)
    if options.mode == "derivative":
        keywords |= {"upstream": upstream, "jacobian": options.jacobian}
    summaries: list[Summary] = []
    with (
        Client(options.server) as client,
        files.written(options.output) as out,
        progress_of(options.name, x, upstream, out) as progress,
    ):
        compute = client.forward if options.mode == "forward" else client.derivative
        compute(options.name, x, out=out.make, progress=progress, on_summary=summaries.append, **keywords)
    for summary in summaries:
        if found := [
            f"{words} in the {where}"
            for where, counts in (("input", summary.nonfinite_in), ("result", summary.nonfinite_out))
            if (words := _counted(counts))
        ]:
            print("actserve: not finite: " + "; ".join(found), file=sys.stderr)


def _counted(counts: Nonfinite) -> str:
    named = ((counts.nan, "NaN"), (counts.positive_infinity, "inf"), (counts.negative_infinity, "-inf"))
    return ", ".join(f"{count:,} {name}" for count, name in named if count)
