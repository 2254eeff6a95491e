"""`actserve stats`: what a layer's neurons do, of a file, or of what a server monitors."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from actserve_client.cli import following
from actserve_client.cli.layer import as_json, print_layer
from actserve_client.cli.options import add_json, add_subject, command, how, picture, tensor
from actserve_client.cli.output import print_json
from actserve_client.cli.progress import progress_of
from actserve_client.cli.usage import UsageError
from actserve_client.client import Client

__all__ = ["add"]

_INTERVAL_S = 2.0
_LONGEST_INTERVAL_S = 86_400.0


def add(commands: Any) -> None:
    """Add `stats` to the commands."""
    stats = command(
        commands,
        "stats",
        _run,
        "what a layer's neurons do: dead, dormant, saturated; of a file, or of what a server monitors",
    )
    add_subject(stats, optional=True)
    _add_watch(stats)
    stats.add_argument("--threshold", type=float, default=0.1, help="inactive fraction from which on it is dead [0.1]")
    stats.add_argument(
        "--neuron-axis", type=int, action="append", metavar="K", help="the axis of the neurons; may be given again [-1]"
    )
    stats.add_argument(
        "--fired",
        default="positive",
        metavar="RULE",
        help="when a neuron fires: positive, nonzero, or abs>0.001 [positive]",
    )
    stats.add_argument("--zero-tolerance", type=float, default=0.0, help="what counts as zero: |a| up to this [0]")
    stats.add_argument("--tau", type=float, default=0.0, help="mean |a|, by the layer's, up to which it is dormant [0]")
    stats.add_argument(
        "--saturation-eps", type=float, default=1e-3, help="part of the largest slope below which it is small [0.001]"
    )
    stats.add_argument(
        "--dead-after-samples", type=int, metavar="N", help="tell which did not fire in the last N samples [in none]"
    )
    stats.add_argument("--first-sample", type=int, default=0, metavar="N", help="the index of the first sample [0]")
    stats.add_argument("--post", action="store_true", help="the file holds the activations already, after NAME")
    stats.add_argument("--histogram", choices=("layer", "neuron"), help="for quantiles; --plot takes the layer's")
    stats.add_argument("--no-sums", action="store_true", help="leave exact sums out, and with them mean and dormancy")
    stats.add_argument(
        "--top", type=int, default=10, metavar="N", help="how many of the least active neurons to list [10]"
    )
    stats.add_argument("--state", metavar="FILE", help="write the state too, for merging")
    stats.add_argument(
        "--plot",
        metavar="FILE.png",
        type=picture,
        help="draw the histogram and the map of dead neurons (or .svg, .pdf)",
    )
    add_json(stats)


def _add_watch(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--watch",
        metavar="HOST:PORT",
        help="instead of a file, follow the monitors of the server whose --metrics-address this is, until interrupted",
    )
    parser.add_argument(
        "--interval", type=float, metavar="SECONDS", help=f"between two looks [{_INTERVAL_S:g}]; goes with --watch"
    )
    parser.add_argument("--count", type=int, metavar="N", help="look so many times, and end; goes with --watch")


def _run(options: argparse.Namespace) -> None:
    if options.watch:
        _watch(options)
        return
    for name in ("interval", "count"):
        if getattr(options, name) is not None:
            raise UsageError(f"--{name} goes with --watch")
    if options.name is None or options.input is None:
        raise UsageError("stats needs NAME and IN.npy, or --watch HOST:PORT")
    x = tensor(options, options.input)
    histogram = options.histogram or ("layer" if options.plot else None)
    axes: list[int] = options.neuron_axis or [-1]
    keywords: dict[str, Any] = {
        **{name: getattr(options, name) for name in ("threshold", "fired", "zero_tolerance", "tau", "saturation_eps")},
        **{name: getattr(options, name) for name in ("dead_after_samples", "first_sample")},
        "neuron_axis": axes[0] if len(axes) == 1 else axes,
        "input": "post" if options.post else "pre",
        "histogram": histogram,
        "sums": not options.no_sums,
    }
    if options.top < 0:
        raise UsageError(f"--top is {options.top}, and must not be negative")
    if options.plot:
        # Before anything long begins.
        from actserve_client import plotting

        options.plot.resolve().parent.mkdir(parents=True, exist_ok=True)
    with Client(options.server) as client, progress_of(options.name, x) as progress:
        stats = client.neuron_stats(options.name, x, progress=progress, **keywords, **how(options))
    if options.state:
        Path(options.state).write_bytes(stats.state)
    if options.plot:
        plotting.plot_neurons(stats, options.plot)
    if options.json:
        print_json(as_json(stats))
    else:
        print_layer(stats, options.input, options.top)
        if options.plot:
            print(f"the plot is in {options.plot}")


def _watch(options: argparse.Namespace) -> None:
    if options.name is not None:
        raise UsageError("--watch takes no NAME and no IN.npy")
    interval = _INTERVAL_S if options.interval is None else options.interval
    if not 0 < interval <= _LONGEST_INTERVAL_S:
        raise UsageError(f"--interval is {interval:g}, and must be in (0, {_LONGEST_INTERVAL_S:g}]")
    if options.count is not None and options.count < 1:
        raise UsageError(f"--count is {options.count}, and must be at least 1")
    following.follow(options.watch, interval_s=interval, count=options.count, as_json=options.json)
