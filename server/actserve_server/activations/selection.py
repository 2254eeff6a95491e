"""Hardmax and top-k: of a slice, the greatest element or elements. Says what they are, not how blocks reach them.

A slice that holds a NaN is NaN; the infinities are numbers like others here. Of equal elements the first is taken.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from actserve_server.activations.spec import AxisActivation, Library, Parameter, Traits, kernel, word

__all__ = ["HARDMAX", "TOPK"]

PLACE = 0
"""The row of hardmax's state: the place of the first maximum; NaN if the slice holds one."""


@kernel
def _hardmax_reduce(x: Any, state: Any) -> None:
    n, inner = x.shape
    greatest = np.empty(inner)
    for j in range(inner):
        greatest[j] = np.nan
    for i in range(n):
        for j in range(inner):
            value = np.float64(x[i, j])
            spoilt = (value != value) | ((i > 0) & (state[PLACE, j] != state[PLACE, j]))
            better = (i == 0) | (value > greatest[j])
            greatest[j] = value if better else greatest[j]
            place = np.float64(i) if better else state[PLACE, j]
            state[PLACE, j] = np.nan if spoilt else place


@kernel
def _hardmax(v: float, i: int, j: int, state: Any) -> float:
    place: float = state[PLACE, j]
    return (1.0 if np.float64(i) == place else 0.0) if place == place else place


@kernel
def _hardmax_vjp_reduce(x: Any, g: Any, state: Any, vjp_state: Any) -> None:
    """Nothing is needed: the product is 0."""


@kernel
def _hardmax_vjp(v: float, u: float, i: int, j: int, state: Any, vjp_state: Any) -> float:
    place: float = state[PLACE, j]
    return 0.0 * place


@kernel
def _hardmax_jacobian(v: float, w: float, i: int, k: int, j: int, state: Any) -> float:
    place: float = state[PLACE, j]
    return 0.0 * place


HARDMAX = AxisActivation(
    name="hardmax",
    summary="1 for the greatest element of a slice, the first of equal ones, and 0 for all others.",
    reference="ONNX operator specification, Hardmax",
    formula="1 if i == min(k for k in range(len(x)) if x[k] == max(x)) else 0",
    derivative_formula="0",
    state_size=1,
    reduce=_hardmax_reduce,
    forward=_hardmax,
    vjp_state_size=0,
    vjp_reduce=_hardmax_vjp_reduce,
    vjp=_hardmax_vjp,
    jacobian=_hardmax_jacobian,
    range="[0, 1]",
    traits=Traits(monotonic=True, zero_centred=False, saturates="both", smooth=False),
    advice="To read off a decision as a one-hot vector; nothing trains through it, for its gradient is 0.",
    libraries=(Library("onnx", ("Hardmax",)),),
)


THRESHOLD, LAST = 0, 1
"""The rows of top-k's state: the k-th greatest key, and the place of the last element equal to it that is kept."""


@kernel
def _key(value: float, by_magnitude: float) -> float:
    """What elements are ranked by."""
    return abs(value) if by_magnitude > 0.0 else value


@kernel
def _kth_greatest(keys: Any, k: int) -> float:
    """The k-th greatest of some numbers, which are put in another order (Hoare's selection)."""
    low, high = 0, keys.size - 1
    rank = k - 1
    while low < high:
        first, middle, last = keys[low], keys[(low + high) // 2], keys[high]
        pivot = max(min(first, middle), min(max(first, middle), last))
        left, right = low, high
        while left <= right:
            while keys[left] > pivot:
                left += 1
            while keys[right] < pivot:
                right -= 1
            if left <= right:
                keys[left], keys[right] = keys[right], keys[left]
                left += 1
                right -= 1
        if rank <= right:
            high = right
        elif rank >= left:
            low = left
        else:
            break
    found: float = keys[rank]
    return found


@kernel
def _topk_reduce(x: Any, state: Any, k: float, relu: float, by: float) -> None:
    n, inner = x.shape
    keys = np.empty(n)
    kept = min(max(int(k), 1), n)
    for j in range(inner if n > 0 else 0):
        spoilt = False
        for i in range(n):
            keys[i] = _key(np.float64(x[i, j]), by)
            spoilt |= keys[i] != keys[i]
        if spoilt:
            state[THRESHOLD, j] = state[LAST, j] = np.nan
            continue
        threshold = _kth_greatest(keys, kept)
        above = 0
        for i in range(n):
            above += 1 if _key(np.float64(x[i, j]), by) > threshold else 0
        equal, place = kept - above, -1
        for i in range(n):
            if _key(np.float64(x[i, j]), by) == threshold:
                place = i
                equal -= 1
                if equal == 0:
                    break
        state[THRESHOLD, j], state[LAST, j] = threshold, np.float64(place)


@kernel
def _kept(v: float, i: int, j: int, state: Any, by: float) -> float:
    """1 for an element that is kept, else 0; NaN in a slice that holds one."""
    threshold: float = state[THRESHOLD, j]
    key = _key(v, by)
    kept = (key > threshold) | ((key == threshold) & (np.float64(i) <= state[LAST, j]))
    return (1.0 if kept else 0.0) if threshold == threshold else threshold


@kernel
def _topk(v: float, i: int, j: int, state: Any, k: float, relu: float, by: float) -> float:
    kept = _kept(v, i, j, state, by)
    value = 0.0 if (relu > 0.0) & (v <= 0.0) else v
    return kept if kept != 1.0 else value


@kernel
def _topk_slope(v: float, i: int, j: int, state: Any, relu: float, by: float) -> float:
    kept = _kept(v, i, j, state, by)
    return 0.0 * kept if (relu > 0.0) & (v <= 0.0) else kept


@kernel
def _topk_vjp_reduce(x: Any, g: Any, state: Any, vjp_state: Any, k: float, relu: float, by: float) -> None:
    """Nothing is needed: an element's product is its own."""


@kernel
def _topk_vjp(
    v: float, u: float, i: int, j: int, state: Any, vjp_state: Any, k: float, relu: float, by: float
) -> float:
    slope = _topk_slope(v, i, j, state, relu, by)
    return u if slope == 1.0 else slope


@kernel
def _topk_jacobian(
    v: float, w: float, i: int, k: int, j: int, state: Any, count: float, relu: float, by: float
) -> float:
    slope = _topk_slope(v, i, j, state, relu, by)
    return slope if i == k else 0.0 * slope


_KEY = '(abs({0}) if by == "magnitude" else {0})'
_RANK = "fsum(1 for p, v in enumerate(x) if ({v}, -p) > ({own}, -i))".format(
    v=_KEY.format("v"), own=_KEY.format("x[i]")
)

TOPK = AxisActivation(
    name="topk",
    summary="The k greatest elements of a slice as they are, or above zero, and 0 for all others.",
    reference="Makhzani and Frey, k-sparse autoencoders, ICLR 2014, arXiv:1312.5663;"
    " Gao et al., Scaling and evaluating sparse autoencoders, 2024, arXiv:2406.04093",
    formula=f"(max(x[i], 0) if relu else x[i]) if {_RANK} < k else 0",
    derivative_formula="1 if i == k and topk(x, i) != 0 else 0",
    state_size=2,
    reduce=_topk_reduce,
    forward=_topk,
    vjp_state_size=0,
    vjp_reduce=_topk_vjp_reduce,
    vjp=_topk_vjp,
    jacobian=_topk_jacobian,
    range="[0, inf)",
    traits=Traits(monotonic=True, zero_centred=False, saturates="left", smooth=False),
    advice="For sparse autoencoders: exactly how many features may be active is set, not tuned through a penalty.",
    parameters=(
        Parameter("k", "How many elements are kept.", None, kind="integer", low=1.0, low_open=False, within_axis=True),
        Parameter("relu", "Whether kept elements below zero become 0.", True, kind="flag"),
        word("by", "What elements are ranked by: their value or their magnitude.", "value", "magnitude"),
    ),
    tried=({"k": 1}, {"k": 3, "relu": False}, {"k": 3, "by": "magnitude"}, {"k": 2, "relu": False, "by": "magnitude"}),
)
