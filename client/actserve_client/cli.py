"""The `actserve` command: arguments to calls of the client, and answers to text. No mathematics, no protocol.

Exit status: 0 done, 1 failed, 2 wrong usage. An error is one line on the standard error.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import json
import math
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from actserve import penalties
from actserve.stats import NeuronStats

from actserve_client import _files, _following, _reports, records
from actserve_client._summaries import Nonfinite, Summary
from actserve_client.client import Client
from actserve_client.errors import ActserveError, InvalidRequest

_SERVER_COMMANDS = ("serve", "warm")
_HEALTH_ADDRESS = "127.0.0.1:50051"
_PACKAGES = {
    "rich": "'actserve[cli]'",
    "matplotlib": "'actserve[plot]'",
    "sklearn": "'actserve[demo]'",
    "ml_dtypes": "ml_dtypes",
}
"""What to install when one of them is missing."""

_LONGEST_INTERVAL_S = 86_400.0
_FLOATS = ("float16", "bfloat16", "float32", "float64")


class _Failure(Exception):
    """Expected error: something that the user can mend; the text says what."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command, and give its exit status."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    if arguments and arguments[0] in _SERVER_COMMANDS:
        os.execv(sys.executable, [sys.executable, "-m", "actserve_server", *arguments])  # noqa: S606  # our own module
    options = _parser().parse_args(arguments)
    try:
        status: int = options.run(options) or 0
        sys.stdout.flush()
        return status
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        # Whoever read the output has seen enough.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except ImportError as error:
        missing = (error.name or "").partition(".")[0]
        if missing not in _PACKAGES:
            raise
        return _fail(f"this needs {missing}: pip install {_PACKAGES[missing]}")
    except InvalidRequest as error:
        if error.reason == "INVALID_FORMULA":
            # Its last lines are the formula and a caret, which belong one above the other.
            print(f"actserve: {error}", file=sys.stderr)
            return 1
        return _fail(str(error), status=1)
    except (ActserveError, _Failure, OSError, ValueError) as error:
        return _fail(str(error))


def _fail(text: str, status: int = 1) -> int:
    print("actserve: " + " ".join(text.split()), file=sys.stderr)
    return status


# ---- arguments -----------------------------------------------------------------------------------------------------


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="actserve",
        description="Exact activation maths from a service. Without --server (or ACTSERVE_ADDRESS) a private server is "
        "started for the command's lifetime.",
    )
    commands = parser.add_subparsers(metavar="COMMAND", required=True)
    commands.add_parser("serve", help="start a server; `actserve serve --help` lists its options", add_help=False)
    commands.add_parser("warm", help="compile all kernels into the cache", add_help=False)

    apply = _command(commands, "apply", _apply, "stream a .npy file of any size through an activation")
    _add_subject(apply)
    apply.add_argument("output", metavar="OUT.npy", help="where the result goes; - for the standard output")
    apply.add_argument("--mode", choices=("forward", "derivative"), default="forward", help="what to compute [forward]")
    apply.add_argument("--upstream", metavar="G.npy", help="upstream gradient, for the vector-Jacobian product")
    apply.add_argument("--jacobian", choices=("full", "diag"), help="the part of an axis activation's Jacobian")

    penalty = _command(commands, "penalty", _penalty, "the penalty of activation regularization")
    _add_subject(penalty)
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
        type=_parameter,
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
    _add_json(penalty)

    stats = _command(
        commands,
        "stats",
        _stats,
        "what a layer's neurons do: dead, dormant, saturated; of a file, or of what a server monitors",
    )
    _add_subject(stats, optional=True)
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
    stats.add_argument("--plot", metavar="FILE.png", type=Path, help="draw the histogram and the map of dead neurons")
    _add_json(stats)

    _add_json(_command(commands, "list", _list, "the activations there are"))
    describe = _command(commands, "describe", _describe, "all about an activation")
    describe.add_argument("name", metavar="NAME")
    _add_json(describe)

    plot = _command(commands, "plot", _plot, "draw activations and their derivatives")
    plot.add_argument("names", metavar="NAME", nargs="+")
    plot.add_argument("--output", metavar="FILE.png", required=True, type=Path)
    plot.add_argument("--range", nargs=2, type=float, default=(-5.0, 5.0), metavar=("LOW", "HIGH"), help="[-5 5]")
    _add_parameters(plot)
    _add_variant(plot)

    create = _command(commands, "create", _create, "add an activation by a formula to a server")
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
    create.add_argument("--output", type=Path, metavar="FILE.png", help="also draw it")
    _add_json(create)
    delete = _command(commands, "delete", _delete, "remove an activation that was added to a server")
    delete.add_argument("name", metavar="NAME")

    health = _command(commands, "health", _health, "exit 0 when the server is serving", server=False)
    health.add_argument("--server", metavar="ADDRESS", help=f"[$ACTSERVE_ADDRESS or {_HEALTH_ADDRESS}]")
    health.add_argument("--timeout", type=float, default=5.0, help="seconds to wait for the answer [5]")

    demo = _command(commands, "demo", _demo, "train a small network on real digits, through every mode")
    demo.add_argument("--epochs", type=int, default=12, help="how often the data is gone through [12]")
    demo.add_argument("--activation", default="relu", metavar="NAME", help="of the hidden layers [relu]")
    demo.add_argument("--output", metavar="FILE.png", type=Path, default=Path("demo.png"), help="[demo.png]")
    _add_json(demo)
    return parser


def _command(
    commands: Any, name: str, run: Callable[[argparse.Namespace], int | None], text: str, *, server: bool = True
) -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = commands.add_parser(name, help=text, description=text[0].upper() + text[1:] + ".")
    parser.set_defaults(run=run)
    if server:
        parser.add_argument(
            "--server", metavar="ADDRESS", help="HOST:PORT or unix:PATH [$ACTSERVE_ADDRESS, or private]"
        )
    return parser


def _add_subject(parser: argparse.ArgumentParser, *, optional: bool = False) -> None:
    how_many: dict[str, Any] = {"nargs": "?"} if optional else {}
    parser.add_argument("name", metavar="NAME", help="the activation", **how_many)
    parser.add_argument("input", metavar="IN.npy", help=f"{', '.join(_FLOATS)}; - for the standard input", **how_many)
    parser.add_argument(
        "--dtype", choices=("bfloat16",), help="what the files hold, as .npy has no bfloat16 but raw bytes"
    )
    parser.add_argument("--axis", type=int, help="the axis of an activation that works along one [-1]")
    _add_parameters(parser)
    _add_variant(parser)
    parser.add_argument(
        "--nonfinite", choices=("propagate", "reject"), default="propagate", help="at NaN and infinities [propagate]"
    )


def _add_watch(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--watch",
        metavar="HOST:PORT",
        help="instead of a file, follow the monitors of the server whose --metrics-address this is, until interrupted",
    )
    parser.add_argument("--interval", type=float, default=2.0, metavar="SECONDS", help="between two looks [2]")
    parser.add_argument("--count", type=int, metavar="N", help="look so many times, and end")


def _add_variant(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--preset", metavar="LIBRARY", help="mean the names and defaults of torch, keras, …")
    parser.add_argument("--accuracy", choices=("exact", "fast"), default="exact", help="how exact [exact]")


def _add_parameters(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--param",
        metavar="NAME=VALUE",
        action="append",
        default=[],
        type=_parameter,
        help="a number, true, false, a word, or @FILE.npy for a value for each channel; may be given again",
    )


def _parameter(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not (name and equals):
        raise argparse.ArgumentTypeError(f"{text!r} is not NAME=VALUE")
    return name, value


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


def _parameters(options: argparse.Namespace) -> dict[str, Any]:
    return {name: _parameter_value(value) for name, value in options.param}


def _parameter_value(text: str) -> Any:
    """What a value on the command line means.

    >>> [_parameter_value(text) for text in ("3", "0.5", "true", "mean", "nan")]
    [3, 0.5, True, 'mean', 'nan']

    NaN is no parameter's number, but "nan" is a word of softmax.
    """
    if text.startswith("@"):
        return _files.read(text[1:])
    if text in ("true", "false"):
        return text == "true"
    for kind in (int, float):
        with contextlib.suppress(ValueError):
            value = kind(text)
            return text if value != value else value
    return text


def _how(options: argparse.Namespace) -> dict[str, Any]:
    """The options that every computation takes."""
    return {
        "axis": options.axis,
        "accuracy": options.accuracy,
        "preset": options.preset,
        "nonfinite": options.nonfinite,
        "parameters": _parameters(options),
    }


def _add_json(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")


# ---- output --------------------------------------------------------------------------------------------------------


def _print_json(value: Any) -> None:
    # Infinities have no place in JSON, and null says that there is no bound.
    text = json.dumps(value, default=_plain)
    print(json.dumps(json.loads(text, parse_constant=lambda _: None), indent=2, ensure_ascii=False))


def _plain(value: Any) -> Any:
    if isinstance(value, np.ndarray):
        return value.tolist()
    return dataclasses.asdict(value)


def _print_table(columns: Sequence[str], rows: Sequence[Sequence[str]], title: str | None = None) -> None:
    from rich import box
    from rich.console import Console
    from rich.table import Table

    table = Table(title=title, box=box.SIMPLE_HEAD, title_justify="left")
    for column in columns:
        table.add_column(column, overflow="fold")
    for row in rows:
        table.add_row(*row)
    console = Console(markup=False, highlight=False, width=None if sys.stdout.isatty() else 120)
    console.print(table)


@contextlib.contextmanager
def _progress(text: str, x: Any, *others: Any) -> Iterator[Callable[[int, int], None]]:
    """Follows a call: shows a bar on a terminal, and releases the pages of mapped files behind it.

    The bar shows what has been received of the output among `others`, and before there is one what has been sent of x.
    """
    release = _files.releaser(x, *others)
    if not sys.stderr.isatty():
        yield lambda sent, received: release()
        return
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn

    columns = (TextColumn(text), BarColumn(), DownloadColumn(), TransferSpeedColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(text, total=x.nbytes)

        def follow(sent: int, received: int) -> None:
            release()
            made = next((o.array for o in others if isinstance(o, _files.Output) and o.array is not None), None)
            if made is None:
                bar.update(task, completed=sent)
            else:
                bar.update(task, completed=received, total=made.nbytes)

        yield follow


# ---- commands ------------------------------------------------------------------------------------------------------


def _apply(options: argparse.Namespace) -> None:
    if options.mode == "forward" and (options.upstream or options.jacobian):
        raise InvalidRequest("--upstream and --jacobian go with --mode derivative", field="mode")
    x = _read(options, options.input)
    upstream = _read(options, options.upstream) if options.upstream else None
    how = _how(options)
    if options.mode == "derivative":
        how |= {"upstream": upstream, "jacobian": options.jacobian}
    summaries: list[Summary] = []
    with (
        Client(options.server) as client,
        _files.written(options.output) as out,
        _progress(options.name, x, upstream, out) as progress,
    ):
        compute = client.forward if options.mode == "forward" else client.derivative
        compute(options.name, x, out=out.make, progress=progress, on_summary=summaries.append, **how)
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


def _read(options: argparse.Namespace, name: str) -> Any:
    array = _files.read(name, bfloat16=options.dtype == "bfloat16")
    if array.dtype.name not in _FLOATS:
        raise InvalidRequest(f"{name} holds {array.dtype}, and must hold one of {', '.join(_FLOATS)}", field="x")
    return array


def _penalty(options: argparse.Namespace) -> None:
    x = _read(options, options.input)
    keywords: dict[str, Any] = {
        "strength": options.strength,
        "reduction": options.reduction,
        "gradient": options.gradient is not None,
        "gradient_wrt": options.gradient_wrt,
        "of": options.of,
        "state": options.state.read_bytes() if options.state else None,
        **_how(options),
    }
    keywords |= _own_options(options)
    with contextlib.ExitStack() as stack:
        client = stack.enter_context(Client(options.server))
        out = None
        if options.gradient is not None:
            out = stack.enter_context(_files.written(options.gradient))
            keywords["out"] = out.make
        progress = stack.enter_context(_progress(options.name, x, out))
        answer = client.regularization(options.name, x, options.regularizer, progress=progress, **keywords)
    if options.save_state is not None:
        options.save_state.write_bytes(answer.state)
    if options.json:
        strength = penalties.PenaltyState.from_bytes(answer.state).strength if answer.state else options.strength
        _print_json({"penalty": answer.penalty, "regularizer": options.regularizer, "strength": strength})
    else:
        print(answer.penalty)


def _own_options(options: argparse.Namespace) -> dict[str, Any]:
    """The regularizer's parameters; another name would be taken for one of the activation's."""
    own = penalties.keywords(options.regularizer)
    for name, _ in options.option:
        if name not in own:
            takes = ", ".join(sorted(own)) or "none"
            raise InvalidRequest(
                f"--option {name}: {options.regularizer} has no such parameter (it takes: {takes})", field=name
            )
    return {name: _parameter_value(value) for name, value in options.option}


def _stats(options: argparse.Namespace) -> None:
    if options.watch:
        _watch(options)
        return
    if options.name is None or options.input is None:
        raise InvalidRequest("stats needs NAME and IN.npy, or --watch HOST:PORT", field="name")
    x = _read(options, options.input)
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
        raise InvalidRequest(f"--top is {options.top}, and must not be negative", field="top")
    if options.plot:
        # Before anything long begins.
        from actserve_client import plotting

        options.plot.resolve().parent.mkdir(parents=True, exist_ok=True)
    with Client(options.server) as client, _progress(options.name, x) as progress:
        stats = client.neuron_stats(options.name, x, progress=progress, **keywords, **_how(options))
    if options.state:
        Path(options.state).write_bytes(stats.state)
    if options.plot:
        plotting.plot_neurons(stats, options.plot)
    if options.json:
        _print_json(_stats_json(stats))
    else:
        _print_stats(stats, options.input, options.top)
        if options.plot:
            print(f"the plot is in {options.plot}")


_QUANTILES = (0.01, 0.25, 0.5, 0.75, 0.99)


def _stats_json(stats: NeuronStats) -> dict[str, Any]:
    """All figures by name; what is not known is null."""
    arrays = (
        "inactive_fraction",
        "zero_fraction",
        "saturated_fraction",
        "vanishing_fraction",
        "mean",
        "variance",
        "min",
        "max",
    )
    found: dict[str, Any] = {
        "activation": stats.activation,
        "parameters": dict(stats.parameters),
        **dataclasses.asdict(stats.options),
        "shape": stats.shape,
        "neurons": stats.neurons,
        "samples": stats.layer.samples,
        "dead_fraction": stats.dead_fraction,
        "layer": stats.layer,
        "dead": np.flatnonzero(stats.dead),
        "never_fired": np.flatnonzero(stats.never_fired),
        "not_fired_recently": np.flatnonzero(stats.not_fired_recently),
        "dormant": np.flatnonzero(stats.dormant),
        "last_fired": stats.last_fired,
        "nan": stats.nan,
        **{name: getattr(stats, name) for name in arrays},
    }
    if stats.histogram is not None:
        found["quantiles"] = {str(q): stats.quantile(q) for q in _QUANTILES}
    return found


def _print_stats(stats: NeuronStats, source: str, top: int) -> None:
    layer, options = stats.layer, stats.options
    n = stats.neurons

    def of_neurons(count: int) -> tuple[str, str]:
        return f"{count:,} ({count / n if n else 0:.1%})", _bar(count / n if n else 0.0)

    def of_all(share: float) -> tuple[str, str]:
        return ("unknown", "") if math.isnan(share) else (f"{share:.1%}", _bar(share))

    def number(value: float) -> tuple[str, str]:
        return ("unknown" if math.isnan(value) else f"{value:.6g}", "")

    after = options.dead_after_samples
    recently = [(f"not fired in the last {after:,} samples", *of_neurons(layer.not_fired_recently))] if after else []
    dormant = (
        [(f"dormant (mean |a| <= {options.tau:g} of the layer's)", *of_neurons(layer.dormant))] if options.sums else []
    )
    quantiles = []
    if options.histogram == "layer":
        quantiles = [(f"quantile {q:g}", *number(stats.quantile(q))) for q in _QUANTILES]
    infinite = layer.positive_infinity + layer.negative_infinity
    rows = [
        ("neurons", f"{n:,}" if len(stats.shape) == 1 else f"{n:,} {list(stats.shape)}", ""),
        ("samples of each", f"{layer.samples:,}", ""),
        (f"dead (inactive fraction >= {options.threshold:g})", *of_neurons(layer.dead)),
        ("never fired", *of_neurons(layer.never_fired)),
        *recently,
        *dormant,
        ("inactive activations", *of_all(layer.inactive_fraction)),
        ("zero activations", *of_all(layer.zero_fraction)),
        ("saturated", *of_all(layer.saturated_fraction)),
        ("slope exactly 0", *of_all(layer.vanishing_fraction)),
        ("not zero in a sample (L0)", *number(layer.l0)),
        ("mean", *number(layer.mean)),
        ("standard deviation", *number(math.sqrt(layer.variance) if layer.variance >= 0 else math.nan)),
        ("least and largest", f"{layer.min:.6g}, {layer.max:.6g}", ""),
        *quantiles,
        ("NaN, infinite", f"{layer.nan:,}, {infinite:,}", ""),
    ]
    fired = {"positive": "a > 0", "nonzero": "a != 0"}.get(options.fired, f"|a| > {options.eps:g}")
    _print_table(("", "", ""), rows, title=f"{stats.activation} over {source}; a neuron fires when {fired}")
    shown = _least_active(stats, top)
    if len(shown):
        _print_table(
            ("neuron", "inactive", "", "last fired", "mean", "largest", "is"),
            [_neuron_row(stats, place) for place in shown],
            title=f"the {len(shown)} least active neurons",
        )


def _least_active(stats: NeuronStats, top: int) -> Sequence[int]:
    order = np.argsort(-stats.inactive_fraction.reshape(-1), kind="stable")
    found: list[int] = order[:top].tolist()
    return found


def _neuron_row(stats: NeuronStats, place: int) -> tuple[str, ...]:
    where = np.unravel_index(place, stats.shape)
    inactive, last, mean = float(stats.inactive_fraction[where]), int(stats.last_fired[where]), float(stats.mean[where])
    conditions = (("dead", stats.dead), ("never fired", stats.never_fired), ("dormant", stats.dormant))
    return (
        ", ".join(str(int(index)) for index in where),
        "unknown" if math.isnan(inactive) else f"{inactive:.1%}",
        "" if math.isnan(inactive) else _bar(inactive),
        "never" if last < 0 else f"{last:,}",
        "unknown" if math.isnan(mean) else f"{mean:.6g}",
        f"{float(stats.max[where]):.6g}",
        ", ".join(name for name, flags in conditions if flags[where]),
    )


def _watch(options: argparse.Namespace) -> None:
    if options.name is not None:
        raise InvalidRequest("--watch takes no NAME and no IN.npy", field="watch")
    if not 0 < options.interval <= _LONGEST_INTERVAL_S:
        raise InvalidRequest(
            f"--interval is {options.interval:g}, and must be in (0, {_LONGEST_INTERVAL_S:g}]", field="interval"
        )
    if options.count is not None and options.count < 1:
        raise InvalidRequest(f"--count is {options.count}, and must be at least 1", field="count")
    _following.follow(options.watch, interval_s=options.interval, count=options.count, as_json=options.json)


_BAR_WIDTH = 20
_EIGHTHS = " ▏▎▍▌▋▊▉"


def _bar(share: float) -> str:
    """A share as a bar of text.

    >>> _bar(0.5)
    '██████████'
    """
    eighths = round(share * _BAR_WIDTH * 8)
    if share > 0:
        eighths = max(eighths, 1)
    return ("█" * (eighths // 8) + _EIGHTHS[eighths % 8]).rstrip()


def _list(options: argparse.Namespace) -> None:
    with Client(options.server) as client:
        found = client.activations()
    if options.json:
        _print_json(found)
    else:
        _print_table(
            ("name", "kind", "range", "formula", "also in"),
            [(a.name, a.kind, a.range, a.formula, ", ".join(known.library for known in a.libraries)) for a in found],
        )


def _describe(options: argparse.Namespace) -> None:
    with Client(options.server) as client:
        found = client.describe(options.name)
    if options.json:
        _print_json(found)
    else:
        _show(found)


def _show(found: records.Activation) -> None:
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
        rows = [row for row in rows if row[0] in known or row[0].startswith("parameter ")] + _reports.rows(found.report)
    _print_table(("", ""), rows, title=f"{found.name}: {found.summary}")


def _create(options: argparse.Namespace) -> None:
    defaults = {name: default for name, default, _ in options.param}
    if len(defaults) < len(options.param):
        raise InvalidRequest("--param names a parameter twice", field="param")
    if options.output and None in defaults.values():
        raise InvalidRequest(
            "--output draws at the parameters' defaults, and one has none; `actserve plot` takes its value",
            field="output",
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
            _print_json(found)
        else:
            _show(found)
    if not (options.server or os.environ.get("ACTSERVE_ADDRESS") or options.validate_only):
        print(
            "actserve: no server was named, so this was a private one, and the activation is gone with it; "
            "--server ADDRESS keeps it",
            file=sys.stderr,
        )


def _draw_created(client: Client, options: argparse.Namespace, found: records.Activation) -> None:
    from actserve_client.plotting import plot_activations

    if options.validate_only:
        raise InvalidRequest("--output draws what was created, and --validate-only creates nothing", field="output")
    plot_activations(client, [found.name], options.output)


def _delete(options: argparse.Namespace) -> None:
    with Client(options.server) as client:
        client.delete_activation(options.name)


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


def _plot(options: argparse.Namespace) -> None:
    from actserve_client.plotting import plot_activations

    low, high = options.range
    if not (np.isfinite(low) and np.isfinite(high) and low < high):
        raise InvalidRequest(f"the range {low:g} {high:g} is empty or not finite", field="range")
    with Client(options.server) as client:
        plot_activations(
            client,
            options.names,
            options.output,
            low=low,
            high=high,
            parameters=_parameters(options),
            preset=options.preset,
            accuracy=options.accuracy,
        )
    print(options.output)


def _health(options: argparse.Namespace) -> int:
    address = options.server or os.environ.get("ACTSERVE_ADDRESS") or _HEALTH_ADDRESS
    with Client(address, timeout=options.timeout) as client:
        serving = client.healthy()
    print("serving" if serving else "not serving")
    return 0 if serving else 1


def _demo(options: argparse.Namespace) -> None:
    from actserve_client.demo import train
    from actserve_client.plotting import plot_training

    if options.epochs < 1:
        raise InvalidRequest(f"--epochs is {options.epochs}, and must be at least 1", field="epochs")
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
        _print_json({"epochs": epochs, "plot": str(options.output)})
        return
    layers = range(1, len(epochs[0].dead) + 1)
    _print_table(
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


if __name__ == "__main__":
    sys.exit(main())
