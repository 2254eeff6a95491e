"""Every regularizer there is, in the order in which it is listed."""

from __future__ import annotations

from actserve_server.regularizers import others, pointwise, slices
from actserve_server.regularizers.spec import Record

__all__ = ["BY_NAME", "REGULARIZERS"]

REGULARIZERS: tuple[Record, ...] = (*pointwise.ALL, *slices.ALL, *others.ALL)
"""All of them."""

BY_NAME = {record.name: record for record in REGULARIZERS}
