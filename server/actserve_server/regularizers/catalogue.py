"""Every regularizer there is, in the order in which it is listed, and how one is found by name."""

from __future__ import annotations

from actserve.penalties import known

from actserve_server.regularizers import others, pointwise, slices
from actserve_server.regularizers.spec import Record

__all__ = ["REGULARIZERS", "find"]

REGULARIZERS: tuple[Record, ...] = (*pointwise.ALL, *slices.ALL, *others.ALL)
"""All of them."""

_BY_NAME = {record.name: record for record in REGULARIZERS}


def find(name: str) -> Record | None:
    """The regularizer of a name or an alias.

    >>> find("tar").name
    'temporal'
    """
    meant = known(name)
    return None if meant is None else _BY_NAME[meant]
