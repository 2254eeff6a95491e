"""Every activation that is built in, in the order in which it is listed, and how one is found by name.

Names are compared without case, `_` and `-`, so that LeakyReLU is leaky_relu. This module knows nothing of the
activations that users create.
"""

from __future__ import annotations

import difflib

from actserve_server.activations.algebraic import BENT_IDENTITY, ISRLU, ISRU, SOFTSIGN, SQUAREPLUS
from actserve_server.activations.along_axis import LOG_SOFTMAX, SOFTMAX
from actserve_server.activations.clipped_lines import (
    HARD_MISH,
    HARD_SIGMOID,
    HARD_SWISH,
    HARD_TANH,
    RELU6,
    RELU_N,
    SPARSE_SIGMOID,
)
from actserve_server.activations.exponentials import ELU, SOFTPLUS
from actserve_server.activations.gated_by_x import GELU, SILU
from actserve_server.activations.piecewise_linear import (
    ABS,
    AFFINE,
    IDENTITY,
    LEAKY_RELU,
    PRELU,
    RELU,
    RRELU,
    SRELU,
)
from actserve_server.activations.polynomials import RELU_SQUARED, SPARSE_PLUS, SQUARE, STAR_RELU
from actserve_server.activations.sigmoids import SIGMOID, TANH
from actserve_server.activations.spec import Record
from actserve_server.activations.thresholds import (
    HARD_SHRINK,
    JUMP_RELU,
    SHRINK,
    SIGN,
    SOFT_SHRINK,
    STEP,
    THRESHOLD,
    THRESHOLDED_RELU,
)

__all__ = ["CATALOGUE", "find", "near"]

CATALOGUE: tuple[Record, ...] = (
    IDENTITY,
    AFFINE,
    RELU,
    LEAKY_RELU,
    PRELU,
    RRELU,
    SRELU,
    ABS,
    RELU6,
    RELU_N,
    HARD_TANH,
    HARD_SIGMOID,
    SPARSE_SIGMOID,
    HARD_SWISH,
    HARD_MISH,
    THRESHOLD,
    THRESHOLDED_RELU,
    JUMP_RELU,
    HARD_SHRINK,
    SOFT_SHRINK,
    SHRINK,
    SIGN,
    STEP,
    SQUARE,
    RELU_SQUARED,
    STAR_RELU,
    SPARSE_PLUS,
    SQUAREPLUS,
    SOFTSIGN,
    ISRU,
    ISRLU,
    BENT_IDENTITY,
    ELU,
    SOFTPLUS,
    SIGMOID,
    TANH,
    SILU,
    GELU,
    SOFTMAX,
    LOG_SOFTMAX,
)


def _plain(name: str) -> str:
    return name.lower().replace("_", "").replace("-", "")


_BY_PLAIN_NAME = {_plain(name): record for record in CATALOGUE for name in (record.name, *record.aliases)}


def find(name: str) -> Record | None:
    """The activation of that name or alias, or None.

    >>> find("Swish").name
    'silu'
    """
    return _BY_PLAIN_NAME.get(_plain(name))


def near(name: str) -> tuple[str, ...]:
    """Canonical names like the one given, the likeliest first, for the message that there is no such activation.

    >>> near("sigmod")
    ('sigmoid',)
    """
    matches = difflib.get_close_matches(_plain(name), _BY_PLAIN_NAME)
    return tuple(dict.fromkeys(_BY_PLAIN_NAME[match].name for match in matches))
