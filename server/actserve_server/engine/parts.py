"""Parts of a job: what it takes to compute one, and to go on with a result that another server began.

Only results that are computed unit by unit, each unit by itself, have parts. This module knows neither how units are computed nor
who asks for parts.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import platform
import sys
from pathlib import Path

import llvmlite
import numba
import numpy as np

from actserve_server.activations.spec import Record

__all__ = ["Part", "bits_of"]


@dataclasses.dataclass(frozen=True, slots=True)
class Part:
    """Elements of x, and which bits their results must have."""

    first_element: int
    elements: int | None = None
    """None: all that follow."""
    bits: str = ""
    """What `bits_of` said of the result's other parts; empty when nobody cares."""


def bits_of(record: Record) -> str:
    """Tells results apart that may differ in their bits: records and servers that say the same compute the same.

    >>> bits_of(RELU) == bits_of(GELU)
    False
    """
    said = repr([getattr(record, name, None) for name in ("name", "formula", "derivative_formula", "parameters")])
    return hashlib.sha256(f"{_program()}\0{said}".encode()).hexdigest()[:32]


_COMPUTING = ("activations", "elementary", "engine", "formulas", "kernels", "modes")
"""The packages that decide over bits."""


@functools.cache
def _program() -> str:
    """The sources that compute, and what compiles them."""
    sha = hashlib.sha256(
        repr(
            (numba.__version__, llvmlite.__version__, np.__version__, sys.version_info[:2], platform.machine())
        ).encode()
    )
    package = Path(__file__).resolve().parent.parent
    for folder in _COMPUTING:
        for source in sorted((package / folder).glob("*.py")):
            sha.update(f"{folder}/{source.name}\0".encode())
            sha.update(hashlib.sha256(source.read_bytes()).digest())
    return sha.hexdigest()
