"""How the server's log looks: a JSON object a line for machines, plain lines for people."""

from __future__ import annotations

import logging
import sys
from typing import TextIO

from pythonjsonlogger.json import JsonFormatter

from actserve_server.config import Config

_EXTRA = (
    "worker",
    "pid",
    "status",
    "pause_s",
    "addresses",
    "metrics_address",
    "code",
    "seconds",
    "peer",
    "field",
    "reason",
    "error_id",
)


class _TextFormatter(logging.Formatter):
    """A line for people: time, level, message, and the facts that came with it."""

    def format(self, record: logging.LogRecord) -> str:
        line = super().format(record)
        facts = " ".join(f"{name}={value}" for name in _EXTRA if (value := getattr(record, name, "")) not in ("", None))
        head, newline, traceback = line.partition("\n")
        return f"{head} {facts}{newline}{traceback}" if facts else line


class _Named(logging.Filter):
    """Puts a worker's number and process on its lines."""

    def __init__(self, worker: int) -> None:
        super().__init__()
        self._worker = worker

    def filter(self, record: logging.LogRecord) -> bool:
        record.worker, record.pid = self._worker, record.process
        return True


def set_up_logging(config: Config, stream: TextIO = sys.stderr, *, worker: int | None = None) -> None:
    """Send the server's log to a stream, by default the standard error. The lines of a worker say which it is."""
    as_json = config.log_format == "json" or (config.log_format == "auto" and not stream.isatty())
    handler = logging.StreamHandler(stream)
    if as_json:
        handler.setFormatter(
            JsonFormatter(
                "%(asctime)s %(levelname)s %(name)s %(message)s",
                rename_fields={"asctime": "time", "levelname": "level", "name": "logger"},
            )
        )
    else:
        handler.setFormatter(_TextFormatter("%(asctime)s %(levelname)s %(message)s"))
    if worker is not None:
        handler.addFilter(_Named(worker))
    logger = logging.getLogger("actserve")
    logger.handlers[:] = [handler]
    logger.setLevel(config.log_level.upper())
    logger.propagate = False
