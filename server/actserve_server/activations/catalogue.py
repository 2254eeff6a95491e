"""Every activation that is built in, in the order in which it is listed, and how one is found by name.

Names are compared without case, `_` and `-`, so that LeakyReLU is leaky_relu. This module knows nothing of the
activations that users create.
"""

from __future__ import annotations

import difflib
import types
from collections.abc import Iterator
from typing import get_args

from actserve_server.activations import (
    algebraic,
    clipped_lines,
    elish,
    entmax,
    exponentials,
    gated_by_softplus,
    gated_by_tanh,
    gated_by_x,
    gated_units,
    gumbel,
    hyperbolic,
    normal,
    piecewise_linear,
    polynomials,
    resizing,
    selection,
    sigmoids,
    soft_rectifiers,
    softmax,
    sparse_maps,
    swishes,
    thresholds,
    trigonometric,
    xielu,
)
from actserve_server.activations.spec import Library, Record

__all__ = ["CATALOGUE", "find", "find_in", "near"]

_FAMILIES: tuple[types.ModuleType, ...] = (
    piecewise_linear,
    clipped_lines,
    thresholds,
    polynomials,
    algebraic,
    exponentials,
    elish,
    xielu,
    soft_rectifiers,
    sigmoids,
    hyperbolic,
    normal,
    gated_by_x,
    swishes,
    gated_by_softplus,
    gated_by_tanh,
    softmax,
    sparse_maps,
    entmax,
    selection,
    gumbel,
    trigonometric,
    gated_units,
    resizing,
)
"""The modules that declare records: a new record in one of them needs no other line anywhere."""


def _records() -> Iterator[Record]:
    for family in _FAMILIES:
        for value in vars(family).values():
            if isinstance(value, get_args(Record)):
                yield value


# A family that builds on another's record has imported it: each is listed once, where it comes first.
CATALOGUE: tuple[Record, ...] = tuple(dict.fromkeys(_records()))


def _plain(name: str) -> str:
    return name.lower().replace("_", "").replace("-", "")


_BY_PLAIN_NAME = {_plain(name): record for record in CATALOGUE for name in (record.name, *record.aliases)}
_BY_LIBRARY = {
    (library.library, _plain(name)): (record, library)
    for record in CATALOGUE
    for library in record.libraries
    for name in library.names
}


def find(name: str) -> Record | None:
    """The activation of that name or alias, or None.

    >>> find("Swish").name
    'silu'
    """
    return _BY_PLAIN_NAME.get(_plain(name))


def find_in(library: str, name: str) -> tuple[Record, Library | None] | None:
    """The activation that a library calls by that name, or else we do, and how it is there, if it is there; or None.

    >>> record, there = find_in("jax", "gelu")
    >>> record.name
    'gelu_tanh'
    """
    found = _BY_LIBRARY.get((library, _plain(name)))
    if found is not None:
        return found
    record = find(name)
    if record is None:
        return None
    return record, next((there for there in record.libraries if there.library == library), None)


def near(name: str, library: str | None = None) -> tuple[str, ...]:
    """Names like the one given, the likeliest first, for the message that there is no such activation.

    >>> near("sigmod")
    ('sigmoid',)
    """
    if library is None:
        matches = difflib.get_close_matches(_plain(name), _BY_PLAIN_NAME)
        return tuple(dict.fromkeys(_BY_PLAIN_NAME[match].name for match in matches))
    names = {plain: there.names[0] for (known, plain), (_, there) in _BY_LIBRARY.items() if known == library}
    return tuple(dict.fromkeys(names[match] for match in difflib.get_close_matches(_plain(name), names)))
