"""The `actserve` command: arguments to calls of the client, and answers to text. No mathematics, no protocol.

Each command is a module here, with its arguments beside what it does; `options` has the arguments that several take, and
`output` how they print. This one puts them together, and turns what goes wrong into a line and an exit status: 0 done, 1
failed, 2 wrong usage.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Sequence
from typing import Any

from actserve_client.cli import apply, catalogue, custom, demo, health, penalty, plot, stats
from actserve_client.cli.usage import UsageError
from actserve_client.errors import ActserveError, InvalidRequest

__all__ = ["main"]

_SERVER_COMMANDS = ("serve", "warm")
_PACKAGES = {
    "rich": "'actserve[cli]'",
    "matplotlib": "'actserve[plot]'",
    "sklearn": "'actserve[demo]'",
    "ml_dtypes": "ml_dtypes",
}
"""What to install when one of them is missing."""


_COMMANDS: tuple[Callable[[Any], None], ...] = (
    apply.add,
    penalty.add,
    stats.add,
    catalogue.add_list,
    catalogue.add_describe,
    plot.add,
    custom.add_create,
    custom.add_delete,
    health.add,
    demo.add,
)
"""In the order of `actserve --help`."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command, and give its exit status."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    if arguments and arguments[0] in _SERVER_COMMANDS:
        os.execv(sys.executable, [sys.executable, "-m", "actserve_server", *arguments])  # noqa: S606  # our own module
    _open_streams()
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
    except UsageError as error:
        return _fail(str(error), status=2)
    except InvalidRequest as error:
        if error.reason == "INVALID_FORMULA":
            # Its last lines are the formula and a caret, which belong one above the other.
            print(f"actserve: {error}", file=sys.stderr)
            return 1
        return _fail(str(error))
    except OSError as error:
        return _fail(_words(error))
    except (ActserveError, ValueError) as error:
        return _fail(str(error))


def _open_streams() -> None:
    """Give what is printed somewhere to go where the shell closed a stream (`>&-`): Python has None in its place then."""
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))  # noqa: SIM115  # as long as the process


def _words(error: OSError) -> str:
    """What the system refused, and of which file."""
    text = error.strerror or str(error)
    return text if error.filename is None else f"{error.filename}: {text}"


def _fail(text: str, status: int = 1) -> int:
    print("actserve: " + " ".join(text.split()), file=sys.stderr)
    return status


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="actserve",
        description="Exact activation maths from a service. Without --server (or ACTSERVE_ADDRESS) a private server is "
        "started for the command's lifetime.",
    )
    commands = parser.add_subparsers(metavar="COMMAND", required=True)
    commands.add_parser("serve", help="start a server; `actserve serve --help` lists its options", add_help=False)
    commands.add_parser("warm", help="compile all kernels into the cache", add_help=False)
    for add in _COMMANDS:
        add(commands)
    return parser
