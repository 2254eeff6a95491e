"""Every activation that is built in, in the order in which it is listed, and how one is found by name.

Names are compared without case, `_` and `-`, so that LeakyReLU is leaky_relu. This module knows nothing of the
activations that users create.
"""

from __future__ import annotations

import difflib

from actserve_server.activations.along_axis import LOG_SOFTMAX, SOFTMAX
from actserve_server.activations.elish import ELISH, HARD_ELISH
from actserve_server.activations.exponentials import CELU, ELU, EXPONENTIAL, PELU, SELU
from actserve_server.activations.gated_by_x import GELU, SILU
from actserve_server.activations.hyperbolic import SCALED_TANH, SOFTCAP, TANH_SHRINK
from actserve_server.activations.normal import GAUSSIAN, LAPLACE
from actserve_server.activations.piecewise_linear import IDENTITY, LEAKY_RELU, RELU
from actserve_server.activations.sigmoids import SIGMOID, TANH
from actserve_server.activations.soft_rectifiers import LOG_SIGMOID, SOFTPLUS, SQRT_SOFTPLUS
from actserve_server.activations.spec import Record
from actserve_server.activations.xielu import XIELU

__all__ = ["CATALOGUE", "find", "near"]

CATALOGUE: tuple[Record, ...] = (
    IDENTITY,
    RELU,
    LEAKY_RELU,
    EXPONENTIAL,
    ELU,
    CELU,
    SELU,
    PELU,
    XIELU,
    ELISH,
    HARD_ELISH,
    SOFTPLUS,
    SQRT_SOFTPLUS,
    LOG_SIGMOID,
    SIGMOID,
    TANH,
    SCALED_TANH,
    SOFTCAP,
    TANH_SHRINK,
    LAPLACE,
    GAUSSIAN,
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
