"""A bar that follows a call on a terminal, and the pages of mapped files that are released behind it."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterator
from typing import Any

from actserve_client.cli import files

__all__ = ["progress_of"]


@contextlib.contextmanager
def progress_of(text: str, x: Any, *others: Any) -> Iterator[Callable[[int, int], None]]:
    """Follows a call: shows a bar on a terminal, and releases the pages of mapped files behind it.

    The bar shows what has been received of the output among `others`, and before there is one what has been sent of x.
    """
    release = files.releaser(x, *others)
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
            made = next((o.array for o in others if isinstance(o, files.Output) and o.array is not None), None)
            if made is None:
                bar.update(task, completed=sent)
            else:
                bar.update(task, completed=received, total=made.nbytes)

        yield follow
