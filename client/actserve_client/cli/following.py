"""Follows the monitors of a server from outside: reads its gauges again and again, and draws them as a table.

It knows the text format of Prometheus as far as the server's own gauges need it, and neither gRPC nor the client.
"""

from __future__ import annotations

import dataclasses
import http.client
import json
import math
import re
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Sequence
from typing import Any

from actserve_client.cli.usage import UsageError
from actserve_client.errors import ServerUnavailable

_TIMEOUT_S = 10.0
_LARGEST_ANSWER_BYTES = 64 << 20
_SAMPLE = re.compile(r"actserve_layer_(\w+)\{(.*)\} (\S+)")
_LABEL = re.compile(r'(\w+)="((?:[^"\\]|\\.)*)"')
_ESCAPED = {r"\\": "\\", r"\"": '"', r"\n": "\n"}
_BAR = 12
_SHARES = ("dead_ratio", "dormant_ratio", "saturated_ratio")


@dataclasses.dataclass(frozen=True, slots=True)
class Seen:
    """A layer as the gauges show it; a figure that is not known is None."""

    stream: str
    monitor: str
    layer: str
    samples: int | None
    dead_ratio: float | None
    dormant_ratio: float | None
    saturated_ratio: float | None
    nan: int | None


def parse(text: str) -> list[Seen]:
    """The layers in the text of /metrics, by stream and name.

    >>> parse('actserve_layer_nan{stream="1",monitor="",layer="a"} 2.0')[0].nan
    2
    """
    found: dict[tuple[str, str, str], dict[str, float]] = {}
    for line in text.splitlines():
        if match := _SAMPLE.fullmatch(line):
            labels = {
                name: re.sub(r"\\.", lambda m: _ESCAPED.get(m[0], m[0]), raw) for name, raw in _LABEL.findall(match[2])
            }
            key = (labels.get("stream", ""), labels.get("monitor", ""), labels.get("layer", ""))
            found.setdefault(key, {})[match[1]] = float(match[3])

    def whole(value: float | None) -> int | None:
        return None if value is None or not math.isfinite(value) else int(value)

    return [
        Seen(
            *key,
            samples=whole(figures.get("samples")),
            dead_ratio=figures.get("dead_ratio"),
            dormant_ratio=figures.get("dormant_ratio"),
            saturated_ratio=figures.get("saturated_ratio"),
            nan=whole(figures.get("nan")),
        )
        for key, figures in sorted(found.items(), key=lambda item: (len(item[0][0]), item[0]))
    ]


def read(address: str) -> list[Seen]:
    """The layers that a server monitors now. Raises UsageError for what is no address, and ServerUnavailable."""
    host, colon, port = address.rpartition(":")
    if not (colon and host and port.isdecimal() and int(port) <= 65_535):
        raise UsageError(f"--watch is {address!r}, and must be the HOST:PORT of a server's --metrics-address")
    try:
        with urllib.request.urlopen(f"http://{address}/metrics", timeout=_TIMEOUT_S) as answer:  # http it is
            return parse(answer.read(_LARGEST_ANSWER_BYTES).decode(errors="replace"))
    except http.client.HTTPException:
        raise ServerUnavailable(
            f"no metrics at {address}: what answers speaks no HTTP; is it a server's --metrics-address?"
        ) from None
    except (OSError, ValueError) as error:
        reason = getattr(error, "reason", None) or error
        raise ServerUnavailable(f"no metrics at {address}: {reason}; is it a server's --metrics-address?") from None


def follow(address: str, *, interval_s: float, count: int | None, as_json: bool) -> None:
    """Show the layers every so many seconds, so many times or until interrupted."""
    looks = 0
    with _Screen(address, as_json=as_json) as screen:
        while True:
            screen.show(read(address))
            looks += 1
            if count is not None and looks >= count:
                return
            time.sleep(interval_s)


class _Screen:
    """A table that is redrawn on a terminal; elsewhere a table each time, or a line of JSON."""

    def __init__(self, address: str, *, as_json: bool) -> None:
        self._address = address
        self._as_json = as_json
        self._live: Any = None

    def __enter__(self) -> _Screen:
        if not self._as_json:
            from rich.console import Console
            from rich.live import Live

            terminal = sys.stdout.isatty()
            self._console = Console(markup=False, highlight=False, width=None if terminal else 120)
            if terminal:
                self._live = Live(console=self._console, auto_refresh=False)
                self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._live is not None:
            self._live.stop()

    def show(self, layers: Sequence[Seen]) -> None:
        if self._as_json:
            print(json.dumps([dataclasses.asdict(layer) for layer in layers]), flush=True)
        elif self._live is not None:
            self._live.update(self._table(layers), refresh=True)
        else:
            self._console.print(self._table(layers))

    def _table(self, layers: Sequence[Seen]) -> Any:
        from rich import box
        from rich.table import Table

        title = f"monitored at {self._address}" if layers else f"nothing is monitored at {self._address}"
        table = Table(title=title, box=box.SIMPLE_HEAD, title_justify="left")
        for name in ("monitor", "layer"):
            table.add_column(name, overflow="fold")
        for name in ("samples", "dead", "dormant", "saturated", "NaN"):
            table.add_column(name, justify="right", no_wrap=True)
        for layer in layers:
            shares = (_share(getattr(layer, name)) for name in _SHARES)
            name = layer.monitor or f"#{layer.stream}"
            table.add_row(name, layer.layer, _count(layer.samples), *shares, _count(layer.nan))
        return table


def _count(value: int | None) -> str:
    return "-" if value is None else f"{value:,}"


def _share(value: float | None) -> str:
    if value is None or not math.isfinite(value):
        return "-"
    full = round(min(max(value, 0.0), 1.0) * _BAR)
    return f"{'█' * full}{'·' * (_BAR - full)} {value:6.1%}"


__all__ = ["Seen", "follow", "parse", "read"]
