"""`actserve plot`: activations and their derivatives, drawn."""

from __future__ import annotations

import argparse
from typing import Any

import numpy as np

from actserve_client.cli.options import add_parameters, add_variant, command, parameters, picture
from actserve_client.cli.usage import UsageError
from actserve_client.client import Client

__all__ = ["add"]


def add(commands: Any) -> None:
    """Add `plot` to the commands."""
    plot = command(commands, "plot", _run, "draw activations and their derivatives")
    plot.add_argument("names", metavar="NAME", nargs="+")
    plot.add_argument("--output", metavar="FILE.png", required=True, type=picture, help="or .svg, .pdf")
    plot.add_argument("--range", nargs=2, type=float, default=(-5.0, 5.0), metavar=("LOW", "HIGH"), help="[-5 5]")
    add_parameters(plot)
    add_variant(plot)


def _run(options: argparse.Namespace) -> None:
    from actserve_client.plotting import plot_activations

    low, high = options.range
    if not (np.isfinite(low) and np.isfinite(high) and low < high):
        raise UsageError(f"the range {low:g} {high:g} is empty or not finite")
    with Client(options.server) as client:
        plot_activations(
            client,
            options.names,
            options.output,
            low=low,
            high=high,
            parameters=parameters(options),
            preset=options.preset,
            accuracy=options.accuracy,
        )
    print(options.output)
