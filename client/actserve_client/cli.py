"""The `actserve` command: arguments to calls of the client, and answers to text. No mathematics, no protocol.

Exit status: 0 done, 1 failed, 2 wrong usage. An error is one line on the standard error.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import json
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from actserve_client import _files, records
from actserve_client.client import Client
from actserve_client.errors import ActserveError, InvalidRequest

_SERVER_COMMANDS = ("serve", "warm")
_HEALTH_ADDRESS = "127.0.0.1:50051"


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
        extra = {"rich": "cli", "matplotlib": "plot", "sklearn": "demo"}.get((error.name or "").partition(".")[0])
        if extra is None:
            raise
        return _fail(f"this needs {error.name}: pip install 'actserve[{extra}]'")
    except InvalidRequest as error:
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
    penalty.add_argument("--regularizer", choices=("l2",), default="l2", help="the penalty's form [l2]")
    penalty.add_argument("--strength", type=float, default=0.01, help="the factor before the sum [0.01]")
    penalty.add_argument(
        "--reduction", choices=("sum", "batch_mean", "mean"), default="sum", help="what divides it [sum]"
    )
    penalty.add_argument("--gradient", metavar="OUT.npy", help="also write the gradient")
    penalty.add_argument("--gradient-wrt", choices=("activation", "input"), default="activation", help="[activation]")
    _add_json(penalty)

    stats = _command(commands, "stats", _stats, "dead-neuron statistics")
    _add_subject(stats)
    stats.add_argument("--threshold", type=float, default=0.1, help="inactive fraction from which on it is dead [0.1]")
    stats.add_argument("--neuron-axis", type=int, default=-1, help="the axis of the neurons [-1]")
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


def _add_subject(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("name", metavar="NAME", help="the activation")
    parser.add_argument("input", metavar="IN.npy", help="float32 or float64; - for the standard input")
    parser.add_argument("--axis", type=int, help="the axis of an axis activation [-1]")
    _add_parameters(parser)


def _add_parameters(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--param", metavar="NAME=VALUE", action="append", default=[], type=_parameter, help="may be given again"
    )


def _parameter(text: str) -> tuple[str, float | str]:
    name, equals, value = text.partition("=")
    if not (name and equals):
        raise argparse.ArgumentTypeError(f"{text!r} is not NAME=VALUE")
    try:
        return name, float(value)
    except ValueError:
        return name, value


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
def _progress(text: str, arrays: Sequence[Any], total: int) -> Iterator[Callable[[int, int], None]]:
    """Follows a call: shows a bar on a terminal, and releases the pages of mapped files behind it."""
    release = _files.releaser(*arrays)
    if not sys.stderr.isatty():
        yield lambda sent, received: release()
        return
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn

    columns = (TextColumn(text), BarColumn(), DownloadColumn(), TransferSpeedColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(text, total=total)

        def follow(sent: int, received: int) -> None:
            release()
            bar.update(task, completed=max(sent, received) if total == sent or received == 0 else received)

        yield follow


# ---- commands ------------------------------------------------------------------------------------------------------


def _result_shape(options: argparse.Namespace, x: Any) -> tuple[int, ...]:
    if options.jacobian != "full":
        return tuple(x.shape)
    axis = -1 if options.axis is None else options.axis
    if not x.ndim or not -x.ndim <= axis < x.ndim:
        raise InvalidRequest(f"axis is {axis}, and {options.input} has {x.ndim} dimensions", field="axis")
    return (*x.shape, x.shape[axis])


def _apply(options: argparse.Namespace) -> None:
    if options.mode == "forward" and (options.upstream or options.jacobian):
        raise InvalidRequest("--upstream and --jacobian go with --mode derivative", field="mode")
    x = _files.read(options.input)
    upstream = _files.read(options.upstream) if options.upstream else None
    parameters = dict(options.param)
    with Client(options.server) as client:
        _check_dtype(options.input, x)
        dtype = x.dtype.newbyteorder("=")
        with (
            _files.written(options.output, dtype, _result_shape(options, x)) as out,
            _progress(options.name, [x, upstream, out], out.nbytes) as progress,
        ):
            if options.mode == "forward":
                client.forward(options.name, x, axis=options.axis, out=out, progress=progress, parameters=parameters)
            else:
                client.derivative(
                    options.name,
                    x,
                    upstream=upstream,
                    jacobian=options.jacobian,
                    axis=options.axis,
                    out=out,
                    progress=progress,
                    parameters=parameters,
                )


def _check_dtype(name: str, x: Any) -> None:
    if x.dtype.newbyteorder("=") not in (np.dtype(np.float32), np.dtype(np.float64)):
        raise InvalidRequest(f"{name} holds {x.dtype}, and must hold float32 or float64", field="x")


def _penalty(options: argparse.Namespace) -> None:
    x = _files.read(options.input)
    _check_dtype(options.input, x)
    keywords: dict[str, Any] = {
        "strength": options.strength,
        "reduction": options.reduction,
        "gradient": options.gradient is not None,
        "gradient_wrt": options.gradient_wrt,
        "axis": options.axis,
        "parameters": dict(options.param),
    }
    with contextlib.ExitStack() as stack:
        client = stack.enter_context(Client(options.server))
        out = None
        if options.gradient is not None:
            out = stack.enter_context(_files.written(options.gradient, x.dtype.newbyteorder("="), x.shape))
        progress = stack.enter_context(_progress(options.name, [x, out], x.nbytes))
        answer = client.regularization(options.name, x, options.regularizer, out=out, progress=progress, **keywords)
    if options.json:
        _print_json({"penalty": answer.penalty, "regularizer": options.regularizer, "strength": options.strength})
    else:
        print(answer.penalty)


def _stats(options: argparse.Namespace) -> None:
    x = _files.read(options.input)
    _check_dtype(options.input, x)
    with Client(options.server) as client, _progress(options.name, [x], x.nbytes) as progress:
        stats = client.neuron_stats(
            options.name,
            x,
            threshold=options.threshold,
            neuron_axis=options.neuron_axis,
            axis=options.axis,
            progress=progress,
            parameters=dict(options.param),
        )
    dead = np.flatnonzero(stats.dead)
    samples = stats.columns["samples"]
    if options.json:
        _print_json(
            {
                "neurons": stats.neurons,
                "samples": int(samples[0]) if len(samples) else 0,
                "threshold": stats.threshold,
                "dead_fraction": stats.dead_fraction,
                "dead": dead,
                "inactive_fraction": stats.inactive_fraction,
                "zero_fraction": stats.zero_fraction,
                "nan": stats.columns["nan"],
            }
        )
        return
    shown = ", ".join(map(str, dead[:20])) + (f", … {len(dead) - 20} more" if len(dead) > 20 else "")
    mean = float(np.mean(stats.inactive_fraction)) if stats.neurons else 0.0
    _print_table(
        ("", ""),
        [
            ("neurons", f"{stats.neurons:,}"),
            ("samples of each", f"{int(samples[0]) if len(samples) else 0:,}"),
            ("mean inactive fraction", f"{mean:.4f}"),
            (f"dead (inactive fraction >= {stats.threshold:g})", f"{len(dead):,} ({stats.dead_fraction:.1%})"),
            ("which are dead", shown or "none"),
            ("NaN", f"{int(stats.columns['nan'].sum()):,}"),
        ],
        title=f"{stats.activation} over {options.input}",
    )


def _list(options: argparse.Namespace) -> None:
    with Client(options.server) as client:
        found = client.activations()
    if options.json:
        _print_json(found)
    else:
        _print_table(("name", "kind", "range", "formula"), [(a.name, a.kind, a.range, a.formula) for a in found])


def _describe(options: argparse.Namespace) -> None:
    with Client(options.server) as client:
        found = client.describe(options.name)
    if options.json:
        _print_json(found)
        return
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
        ("also called", ", ".join(found.aliases) or "-"),
        ("choose it", found.advice),
        ("reference", found.reference),
    ]
    _print_table(("", ""), rows, title=f"{found.name}: {found.summary}")


def _yes(value: bool) -> str:
    return "yes" if value else "no"


def _about(parameter: records.Parameter) -> str:
    also = f"; also {', '.join(parameter.aliases)}" if parameter.aliases else ""
    return f"{parameter.meaning} {parameter.allowed}; default {parameter.default}{also}"


def _plot(options: argparse.Namespace) -> None:
    from actserve_client.plotting import plot_activations

    low, high = options.range
    if not (np.isfinite(low) and np.isfinite(high) and low < high):
        raise InvalidRequest(f"the range {low:g} {high:g} is empty or not finite", field="range")
    with Client(options.server) as client:
        plot_activations(client, options.names, options.output, low=low, high=high, parameters=dict(options.param))
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
