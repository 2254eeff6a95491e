"""States of several batches or workers to the answer over all their data, without a server."""

from __future__ import annotations

import functools
from collections.abc import Iterable
from typing import Any, overload

from actserve import penalties
from actserve.stats import NeuronStats, StateError

from actserve_client._session.answers import Regularization
from actserve_client.errors import InvalidRequest

__all__ = ["merge"]


@overload
def merge(states: Iterable[NeuronStats]) -> NeuronStats: ...


@overload
def merge(states: Iterable[Regularization]) -> Regularization: ...


@overload
def merge(states: Iterable[bytes | NeuronStats | Regularization]) -> Any: ...


def merge(states: Iterable[bytes | NeuronStats | Regularization]) -> NeuronStats | Regularization:
    """The answer over all the data that states were gathered from: `merge(s.state for s in parts)`.

    >>> parts = np.array([[1.0, -1.0], [2.0, -2.0]]), np.array([[3.0, -3.0]])
    >>> merge(client.neuron_stats("relu", part).state for part in parts).dead
    array([False,  True])
    >>> merge(client.regularization("relu", part, "l1").state for part in parts).penalty
    0.06

    States (the `.state` of a `NeuronStats` or a `Regularization`, or the records themselves) of one layer and the same
    options, in any order; what comes back is of their kind, a `Regularization` without a gradient. Needs no server. Raises
    InvalidRequest for states that do not go together, that are damaged, or when there are none.
    """
    if isinstance(states, (bytes, NeuronStats, Regularization)) or not isinstance(states, Iterable):
        raise InvalidRequest(f"states is {_kind(states)}, and must be an iterable of states", field="states")
    parts: list[Any] = list(states)
    if not parts:
        raise InvalidRequest("there are no states to merge", field="states")
    for number, part in enumerate(parts):
        if not isinstance(part, (bytes, NeuronStats, Regularization)):
            raise InvalidRequest(
                f"states[{number}] is {_kind(part)}, and must be bytes, a NeuronStats or a Regularization",
                field="states",
            )
    kinds = {"penalties" if _is_penalty(part) else "neuron statistics" for part in parts}
    if len(kinds) > 1:
        raise InvalidRequest("states of penalties and of neuron statistics cannot be merged", field="states")
    try:
        if "penalties" in kinds:
            return _merged_penalties(parts)
        stats = [part if isinstance(part, NeuronStats) else NeuronStats.from_bytes(part) for part in parts]
        return functools.reduce(NeuronStats.merge, stats)
    except StateError as error:
        raise InvalidRequest(str(error), field="states") from None


def _kind(value: Any) -> str:
    return "None" if value is None else f"of the type {type(value).__name__}"


def _is_penalty(part: Any) -> bool:
    return isinstance(part, Regularization) or (isinstance(part, bytes) and penalties.is_penalty(part))


def _merged_penalties(parts: list[Any]) -> Regularization:
    data = [part.state if isinstance(part, Regularization) else part for part in parts]
    state = functools.reduce(penalties.PenaltyState.merge, map(penalties.PenaltyState.from_bytes, data))
    return Regularization(state.penalty, None, state.to_bytes())
