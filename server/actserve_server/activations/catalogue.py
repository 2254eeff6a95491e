"""Every activation that is built in, in the order in which it is listed, and how one is found by name.

Names are compared without case, `_` and `-`, so that LeakyReLU is leaky_relu. This module knows nothing of the
activations that users create.
"""

from __future__ import annotations

import difflib

from actserve_server.activations.along_axis import LOG_SOFTMAX, SOFTMAX
from actserve_server.activations.exponentials import ELU, SOFTPLUS
from actserve_server.activations.gated_by_softplus import LOGISH, MISH, SMISH
from actserve_server.activations.gated_by_tanh import LISHT, PHISH, TANH_EXP
from actserve_server.activations.gated_by_x import CLIPPED_GELU, GELU, GELU_TANH, QUICK_GELU, SILU
from actserve_server.activations.gated_units import (
    BILINEAR,
    GEGLU,
    GEGLU_QUICK,
    GEGLU_TANH,
    GLU,
    REGLU,
    SWIGLU,
    SWIGLU_OAI,
)
from actserve_server.activations.piecewise_linear import IDENTITY, LEAKY_RELU, RELU
from actserve_server.activations.resizing import CRELU, MAXOUT
from actserve_server.activations.sigmoids import SIGMOID, TANH
from actserve_server.activations.spec import Library, Record
from actserve_server.activations.swishes import ACON_C, APTX, E_SWISH, FLATTEN_T_SWISH

__all__ = ["CATALOGUE", "find", "find_in", "near"]

CATALOGUE: tuple[Record, ...] = (
    IDENTITY,
    RELU,
    LEAKY_RELU,
    ELU,
    SOFTPLUS,
    SIGMOID,
    TANH,
    SILU,
    E_SWISH,
    FLATTEN_T_SWISH,
    ACON_C,
    APTX,
    GELU,
    GELU_TANH,
    QUICK_GELU,
    CLIPPED_GELU,
    MISH,
    SMISH,
    LOGISH,
    TANH_EXP,
    LISHT,
    PHISH,
    SOFTMAX,
    LOG_SOFTMAX,
    GLU,
    SWIGLU,
    GEGLU,
    GEGLU_TANH,
    GEGLU_QUICK,
    REGLU,
    BILINEAR,
    SWIGLU_OAI,
    CRELU,
    MAXOUT,
)


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


def find_in(library: str, name: str) -> tuple[Record, Library] | None:
    """The activation that a library calls by that name, or by ours, and how it is there; or None.

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
    return next(((record, there) for there in record.libraries if there.library == library), None)


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
