"""How commands print what they found: JSON, tables, and bars of text. It knows nothing of what is printed."""

from __future__ import annotations

import dataclasses
import json
import sys
from collections.abc import Sequence
from typing import Any

import numpy as np

__all__ = ["bar", "print_json", "print_table"]


def print_json(value: Any) -> None:
    """Print what arrays and dataclasses hold."""
    # Infinities have no place in JSON, and null says that there is no bound.
    text = json.dumps(value, default=_plain)
    print(json.dumps(json.loads(text, parse_constant=lambda _: None), indent=2, ensure_ascii=False))


def _plain(value: Any) -> Any:
    if isinstance(value, np.ndarray):
        return value.tolist()
    return dataclasses.asdict(value)


def print_table(columns: Sequence[str], rows: Sequence[Sequence[str]], title: str | None = None) -> None:
    """Print a table as wide as the terminal; elsewhere it has 120 columns."""
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


_BAR_WIDTH = 20
_EIGHTHS = " ▏▎▍▌▋▊▉"


def bar(share: float) -> str:
    """A share as a bar of text.

    >>> bar(0.5)
    '██████████'
    """
    eighths = round(share * _BAR_WIDTH * 8)
    if share > 0:
        eighths = max(eighths, 1)
    return ("█" * (eighths // 8) + _EIGHTHS[eighths % 8]).rstrip()
