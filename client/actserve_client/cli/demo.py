"""`actserve demo`: the network that `actserve_client.demo` trains, told as a table and a picture."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

from actserve_client.cli.options import add_json, command, picture
from actserve_client.cli.output import print_json, print_table
from actserve_client.cli.usage import UsageError
from actserve_client.client import Client

__all__ = ["add"]


def add(commands: Any) -> None:
    """Add `demo` to the commands."""
    demo = command(commands, "demo", _run, "train a small network on real digits, through every mode")
    demo.add_argument("--epochs", type=int, default=12, help="how often the data is gone through [12]")
    demo.add_argument("--activation", default="relu", metavar="NAME", help="of the hidden layers [relu]")
    demo.add_argument(
        "--output", metavar="FILE.png", type=picture, default=Path("demo.png"), help="or .svg, .pdf [demo.png]"
    )
    add_json(demo)


def _run(options: argparse.Namespace) -> None:
    from actserve_client.demo import train
    from actserve_client.plotting import plot_training

    if options.epochs < 1:
        raise UsageError(f"--epochs is {options.epochs}, and must be at least 1")
    options.output.resolve().parent.mkdir(parents=True, exist_ok=True)
    epochs = []
    with Client(options.server) as client:
        for epoch in train(client, options.epochs, options.activation):
            epochs.append(epoch)
            if not options.json and sys.stderr.isatty():
                print(f"epoch {epoch.number} of {options.epochs}", end="\r", file=sys.stderr)
        names = dict.fromkeys((client.describe(options.activation).name, "sigmoid", "tanh", "leaky_relu", "softmax"))
        plot_training(client, epochs, list(names), options.output)
    if options.json:
        print_json({"epochs": epochs, "plot": str(options.output)})
        return
    layers = range(1, len(epochs[0].dead) + 1)
    print_table(
        (
            "epoch",
            "loss",
            "accuracy",
            "penalty",
            *(f"dead, layer {n}" for n in layers),
            *(f">=10% inactive, {n}" for n in layers),
        ),
        [
            (
                str(e.number),
                f"{e.loss:.4f}",
                f"{e.accuracy:.3f}",
                f"{e.penalty:.5f}",
                *map(str, e.dead),
                *map(str, e.sluggish),
            )
            for e in epochs
        ],
        title="Digits: a network whose every activation was computed by the service",
    )
    print("dead: inactive on every held-out image; >=10% inactive: dead by the article's threshold of 0.1")
    print(f"the plot is in {options.output}")
