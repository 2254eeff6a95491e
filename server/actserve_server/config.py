"""The server's settings: one frozen record, and the only reader of the environment.

Every setting has one name in three places: `Config.chunk_bytes`, `--chunk-bytes`, `ACTSERVE_CHUNK_BYTES`. The command line
wins over the environment, the environment over the default. A value that is out of bounds is refused with the name of
the setting as it was given.
"""

from __future__ import annotations

import argparse
import dataclasses
import math
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

KIB = 1 << 10
MIB = 1 << 20
GIB = 1 << 30

GRPC_DEFAULT_MESSAGE_BYTES = 4 * MIB
"""What a gRPC client with default options receives at most; a chunk and its frame must stay below."""

LARGEST_CHUNK_BYTES = GRPC_DEFAULT_MESSAGE_BYTES - 64 * KIB


class ConfigError(ValueError):
    """Expected error: a setting has a value that it may not have. The operator's mistake; the message names the setting."""


def _setting(
    default: Any, doc: str, *, low: float = -math.inf, high: float = math.inf, choices: tuple[str, ...] = ()
) -> Any:
    return dataclasses.field(default=default, metadata={"doc": doc, "low": low, "high": high, "choices": choices})


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    """All settings of a server.

    >>> Config(address="unix:/run/actserve.sock", max_concurrency=8).max_concurrency
    8

    Sizes are in bytes (on the command line 64MiB works too), times in seconds. Raises ConfigError for a value out of bounds.
    """

    address: str = _setting(
        "127.0.0.1:50051", "Where to listen: HOST:PORT (port 0: any free one) or unix:PATH; several with commas."
    )
    chunk_bytes: int = _setting(
        MIB,
        "The size of a result's chunks when the caller does not ask for another.",
        low=8,
        high=LARGEST_CHUNK_BYTES,
    )
    max_request_bytes: int = _setting(
        64 * MIB,
        "The largest message accepted: a Compute request or one frame of a stream.",
        low=4 * KIB,
        high=2 * GIB - 1,
    )
    max_tensor_bytes: int = _setting(
        1 << 40, "The most bytes of one tensor, in or out, on a stream too.", low=1, high=(1 << 63) - 1
    )
    max_slice_bytes: int = _setting(
        64 * MIB,
        "The most bytes that may have to be held whole: slices along an axis that lie interleaved, neuron statistics, or the input of a penalty whose gradient needs all of it.",
        low=KIB,
        high=64 * GIB,
    )
    max_lead_bytes: int = _setting(
        16 * MIB, "By how much one input on a stream may be ahead of the other.", low=MIB, high=GIB
    )
    max_dimensions: int = _setting(64, "The most dimensions of a tensor.", low=1, high=64)
    max_concurrency: int = _setting(
        64, "How many computations run at once; more are refused with the advice to try again.", low=1, high=4096
    )
    workers: int = _setting(
        1,
        "How many processes serve, behind one port (on Linux); one that dies is started anew. Of unix:PATH the second listens at PATH.1, and so on.",
        low=1,
        high=256,
    )
    max_shared_bytes: int = _setting(
        4 * GIB,
        "The most memory shared with clients on this host, all together; never more than half of what the machine or the container has. 0: none.",
        low=0,
        high=1 << 50,
    )
    max_shared_bytes_per_client: int = _setting(GIB, "The most memory shared with one client.", low=MIB, high=1 << 50)
    threads: int = _setting(
        0,
        "How many cores computations may use, all together: a large one is shared among those free. 0: all. Workers share them out.",
        low=0,
        high=1024,
    )
    grace_s: float = _setting(
        30.0, "How long a shutdown waits for what is running, in seconds, before it cuts it off.", low=0, high=86_400
    )
    cache_dir: str = _setting(
        "", "Where compiled kernels are kept. Empty: $XDG_CACHE_HOME/actserve or ~/.cache/actserve."
    )
    metrics_address: str = _setting(
        "",
        "Where Prometheus finds the gauges of monitored layers (/metrics), and HTTP probes whether the server serves (/health): HOST:PORT "
        "(port 0: any free one). Empty: nowhere.",
    )
    allow_create: bool = _setting(True, "Whether callers may add activations by formulas, and remove them.")
    activations_dir: str = _setting(
        "",
        "Where activations that callers add are kept, a file each; servers may share it. Empty: in memory, until the server ends.",
    )
    max_activations: int = _setting(1000, "How many activations callers may add, all together.", low=0, high=100_000)
    max_formula_length: int = _setting(1000, "The longest formula, in characters.", low=1, high=1000)
    max_create_s: float = _setting(
        20.0, "How long a formula may take to be compiled and looked into, in seconds.", low=0.1, high=600
    )
    log_level: str = _setting("info", "The least level logged.", choices=("debug", "info", "warning", "error"))
    log_format: str = _setting(
        "auto",
        "json: a JSON object a line; text: for people; auto: text on a terminal.",
        choices=("auto", "json", "text"),
    )

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            value, meta = getattr(self, field.name), field.metadata
            if meta["choices"] and value not in meta["choices"]:
                raise ConfigError(f"{flag(field.name)}: {value!r} is not one of {', '.join(meta['choices'])}")
            if (
                isinstance(value, (int, float))
                and not isinstance(value, bool)
                and not meta["low"] <= value <= meta["high"]
            ):
                raise ConfigError(f"{flag(field.name)}: {value} is not between {meta['low']} and {meta['high']}")
        if not all(self.addresses):
            raise ConfigError(f"--address: {self.address!r} names no address, or an empty one")
        for address in self.addresses:
            _check_address(address)
        if self.metrics_address and not _is_host_and_port(self.metrics_address):
            raise ConfigError(f"--metrics-address: {self.metrics_address!r} is not HOST:PORT")

    @property
    def addresses(self) -> tuple[str, ...]:
        """The addresses to listen on, one by one."""
        return tuple(part.strip() for part in self.address.split(","))

    def kernel_cache(self, environ: Mapping[str, str] = os.environ) -> Path:
        """Where compiled kernels are kept."""
        if self.cache_dir:
            return Path(self.cache_dir)
        base = environ.get("XDG_CACHE_HOME", "")
        return (Path(base) if os.path.isabs(base) else Path.home() / ".cache") / "actserve"


def flag(name: str) -> str:
    """The option of a setting on the command line."""
    return "--" + name.replace("_", "-")


def _check_address(address: str) -> None:
    if address.startswith("unix:"):
        if len(os.fsencode(address.removeprefix("unix:"))) > 107:
            raise ConfigError(f"--address: {address!r} is longer than the 107 bytes that a Unix socket's path may have")
        return
    if not _is_host_and_port(address):
        raise ConfigError(f"--address: {address!r} is neither HOST:PORT nor unix:PATH")


def _is_host_and_port(address: str) -> bool:
    host, colon, port = address.rpartition(":")
    return bool(colon and host and port.isdecimal() and int(port) <= 65_535)


_UNITS = {"": 1, "k": 10**3, "m": 10**6, "g": 10**9, "t": 10**12, "kib": KIB, "mib": MIB, "gib": GIB, "tib": 1 << 40}
_UNITS |= {"kb": 10**3, "mb": 10**6, "gb": 10**9, "tb": 10**12, "b": 1}


_SWITCH = {"true": True, "yes": True, "on": True, "1": True, "false": False, "no": False, "off": False, "0": False}


def parse_value(name: str, text: str, source: str) -> Any:
    """The value of a setting given as text; `source` is what the user called it, for the message of ConfigError."""
    default = Config.__dataclass_fields__[name].default
    try:
        if isinstance(default, bool):
            return _SWITCH[text.strip().lower()]
        if isinstance(default, float):
            return float(text)
        if isinstance(default, int):
            number = text.strip().lower()
            digits = number.rstrip("bgikmt")
            return int(digits.strip().replace("_", "")) * _UNITS[number[len(digits) :]]
    except (ValueError, KeyError):
        kind = "a size, such as 1048576 or 64MiB" if name.endswith("_bytes") else "a number"
        kind = "true or false" if isinstance(default, bool) else kind
        raise ConfigError(f"{source}: {text!r} is not {kind}") from None
    return text


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add an option for every setting."""
    for field in dataclasses.fields(Config):
        default: Any = field.default
        shown = f"{default // MIB} MiB" if field.name.endswith("_bytes") and default >= MIB else default
        switch = isinstance(default, bool)
        shown = str(default).lower() if switch else shown
        note = f" [default: {shown}]" if default != "" else ""
        parser.add_argument(
            flag(field.name),
            metavar=(field.metadata["choices"] and "|".join(field.metadata["choices"]))
            or ("true|false" if switch else field.name.split("_")[-1].upper()),
            help=f"{field.metadata['doc']}{note} (${environment_name(field.name)})".replace("%", "%%"),
        )


def environment_name(name: str) -> str:
    """The environment variable of a setting."""
    return "ACTSERVE_" + name.upper()


def load(arguments: Sequence[str] | argparse.Namespace, environ: Mapping[str, str] = os.environ) -> Config:
    """The settings from the command line and the environment. Raises ConfigError."""
    if not isinstance(arguments, argparse.Namespace):
        parser = argparse.ArgumentParser()
        add_arguments(parser)
        arguments = parser.parse_args(arguments)
    given: dict[str, Any] = {}
    for field in dataclasses.fields(Config):
        option = getattr(arguments, field.name, None)
        variable = environment_name(field.name)
        if option is not None:
            given[field.name] = parse_value(field.name, option, flag(field.name))
        elif environ.get(variable):
            given[field.name] = parse_value(field.name, environ[variable], variable)
    return Config(**given)
