"""The gradient with respect to a parameter: what every element contributes, summed exactly.

A sum does not depend on the order or the split of its terms, so neither does a gradient on chunks, threads or blocks.
"""

from __future__ import annotations

import numpy as np

from actserve_server.kernels import compiler
from actserve_server.kernels.reductions import new_value_sums, settle, value_sum
from actserve_server.modes.base import Array, Subject
from actserve_server.modes.evaluate import evaluate

_SETTLED_AFTER = 1 << 30


class ParameterSum:
    """The sum of g df/dparameter over all elements, for each element of the parameter."""

    def __init__(self, subject: Subject, name: str) -> None:
        self._subject = subject
        self._name = name
        self._terms = evaluate(subject, f"gradient_{name}")
        self._add = compiler.load_reduction("add_values", np.float64)
        columns = subject.columns
        self._inner = 1 if columns is None else columns.inner
        self._limbs = new_value_sums(1 if columns is None else columns.values.shape[1])
        self._unsettled = 0

    def add(self, first: int, *inputs: Array) -> None:
        """Add a block."""
        for at, terms in self._terms(first, *inputs):
            self._add(terms, at, self._inner, self._limbs)
            self._unsettled += terms.size
        if self._unsettled > _SETTLED_AFTER:
            settle(self._limbs)
            self._unsettled = 0

    def result(self) -> Array:
        """The gradient, flat, each element rounded once."""
        settle(self._limbs)
        columns = self._subject.columns
        places = None if columns is None else columns.places.get(self._name)
        if places is None:
            return np.array([value_sum(self._limbs.sum(axis=0))])
        count = int(places.max()) + 1
        limbs = new_value_sums(count)
        np.add.at(limbs, places, self._limbs)
        return np.array([value_sum(row) for row in limbs])


__all__ = ["ParameterSum"]
