"""Penalties with a term for each slice along an axis.

A slice is summed up in one order, whoever asks for it and however the tensor was cut, with the rounding errors carried along.
"""

from __future__ import annotations

import math

from actserve_server.activations.spec import Parameter, kernel, word
from actserve_server.elementary import compensated, copysign, exp_of_difference, fma, log, sqrt
from actserve_server.regularizers.spec import Slicewise

_SOFTMAX = 0.0


def _along(meaning: str, *aliases: str) -> Parameter:
    return Parameter("penalty_axis", meaning, None, kind="axis", aliases=aliases, optional=True)


@kernel
def _largest(x, j):  # type: ignore[no-untyped-def]
    """The largest element of slice j; NaN if there is one."""
    largest = -math.inf
    for i in range(x.shape[0]):
        v = x[i, j]
        if v != v:
            return v
        largest = max(largest, v)
    return largest


@kernel
def _largest_magnitude(x, j):  # type: ignore[no-untyped-def]
    largest = 0.0
    for i in range(x.shape[0]):
        v = abs(x[i, j])
        if v != v:
            return v
        largest = max(largest, v)
    return largest


@kernel
def _exponentials(x, j, largest):  # type: ignore[no-untyped-def]
    """sum exp(v - largest)."""
    total = 0.0
    rest = 0.0
    for i in range(x.shape[0]):
        total, rest = compensated(total, rest, exp_of_difference(x[i, j], largest))
    return total + rest


@kernel
def _log_sum_exp(x, j):  # type: ignore[no-untyped-def]
    largest = _largest(x, j)
    if largest != largest or abs(largest) == math.inf:
        return largest
    return largest + log(_exponentials(x, j, largest))


@kernel
def _log_sum_exp_slope(x, j, out):  # type: ignore[no-untyped-def]
    """Of the square of the above."""
    largest = _largest(x, j)
    total = _exponentials(x, j, largest)
    factor = 2.0 * (largest + log(total)) / total
    for i in range(x.shape[0]):
        out[i, j] = factor * exp_of_difference(x[i, j], largest)


@kernel
def _softmax_entropy(x, j, largest, total):  # type: ignore[no-untyped-def]
    """log(total) - sum(e_i (v_i - largest)) / total for the exponentials e of the slice."""
    mean = 0.0
    rest = 0.0
    for i in range(x.shape[0]):
        e = exp_of_difference(x[i, j], largest)
        if e != 0.0:
            mean, rest = compensated(mean, rest, e * (x[i, j] - largest))
    return log(total) - (mean + rest) / total


@kernel
def _scaled_sum(x, j, largest):  # type: ignore[no-untyped-def]
    """sum |v| / largest."""
    total = 0.0
    rest = 0.0
    for i in range(x.shape[0]):
        total, rest = compensated(total, rest, abs(x[i, j]) / largest)
    return total + rest


@kernel
def _magnitude_entropy(x, j, largest, total):  # type: ignore[no-untyped-def]
    mean = 0.0
    rest = 0.0
    for i in range(x.shape[0]):
        q = abs(x[i, j]) / largest
        if q != 0.0:
            mean, rest = compensated(mean, rest, q * log(q))
    return log(total) - (mean + rest) / total


@kernel
def _entropy(x, j, distribution):  # type: ignore[no-untyped-def]
    """The entropy of a slice; -1 where it has none."""
    if distribution == _SOFTMAX:
        largest = _largest(x, j)
        if largest != largest or abs(largest) == math.inf:
            return math.nan
        return max(_softmax_entropy(x, j, largest, _exponentials(x, j, largest)), 0.0)
    largest = _largest_magnitude(x, j)
    if largest == 0.0:
        return -1.0
    if not largest < math.inf:
        return math.nan
    return max(_magnitude_entropy(x, j, largest, _scaled_sum(x, j, largest)), 0.0)


@kernel
def _entropy_slope(x, j, out, distribution):  # type: ignore[no-untyped-def]
    n = x.shape[0]
    if distribution == _SOFTMAX:
        largest = _largest(x, j)
        total = _exponentials(x, j, largest)
        excess = _softmax_entropy(x, j, largest, total) - log(total)
        for i in range(n):
            e = exp_of_difference(x[i, j], largest)
            out[i, j] = 0.0 if e == 0.0 else -(e / total) * (x[i, j] - largest + excess)
        return
    largest = _largest_magnitude(x, j)
    total = _scaled_sum(x, j, largest)
    excess = _magnitude_entropy(x, j, largest, total) - log(total)
    for i in range(n):
        v = x[i, j]
        q = abs(v) / largest
        out[i, j] = 0.0 if q == 0.0 else copysign(1.0, v) * (-(log(q) + excess) / total / largest)


@kernel
def _norm(x, j):  # type: ignore[no-untyped-def]
    largest = _largest_magnitude(x, j)
    if largest == 0.0 or not largest < math.inf:
        return largest
    total = 0.0
    rest = 0.0
    for i in range(x.shape[0]):
        q = x[i, j] / largest
        square = q * q
        total, rest = compensated(total, rest, square)
        rest = rest + fma(q, q, -square)
    return largest * sqrt(total + rest)


@kernel
def _group(x, j):  # type: ignore[no-untyped-def]
    return sqrt(x.shape[0] * 1.0) * _norm(x, j)


@kernel
def _group_slope(x, j, out):  # type: ignore[no-untyped-def]
    norm = _norm(x, j)
    root = sqrt(x.shape[0] * 1.0)
    for i in range(x.shape[0]):
        out[i, j] = 0.0 if norm == 0.0 else root * (x[i, j] / norm)


ENTROPY = Slicewise(
    name="entropy",
    summary="The entropy of each slice as a distribution: small where one entry has all.",
    formula="s * sum over slices of -sum(p * log(p)), p = softmax(a) or |a| / sum(|a|)",
    gradient_formula="-s * p * (log(p) + H) for softmax; -s * sign(a) * (log(p) + H) / sum(|a|) for magnitudes",
    convention="0 log 0 = 0, and the gradient is 0 where p = 0",
    domain='a slice of zeros, with the distribution "magnitudes"',
    reference="Shannon, 1948; as a penalty Grandvalet and Bengio, 2004, Semi-supervised learning by entropy minimization",
    parameters=(
        word("distribution", "What makes a slice a distribution.", "softmax", "magnitudes"),
        _along("The dimension along which slices lie; the activation's axis, or -1, when left out."),
    ),
    mean_over="slices",
    term=_entropy,
    slope=_entropy_slope,
)

Z_LOSS = Slicewise(
    name="z_loss",
    summary="The squared log-sum-exp of each slice: keeps logits from growing.",
    formula="s * sum over slices of log(sum(exp(a)))^2",
    gradient_formula="2 * s * log(sum(exp(a))) * softmax(a)",
    libraries='ST-MoE and PaLM with "mean"',
    reference="Zoph et al., 2022, ST-MoE, arXiv:2202.08906; Chowdhery et al., 2022, PaLM, arXiv:2204.02311",
    parameters=(_along("The dimension along which slices lie; the activation's axis, or -1, when left out."),),
    mean_over="slices",
    term=_log_sum_exp,
    slope=_log_sum_exp_slope,
)

GROUP_LASSO = Slicewise(
    name="group_lasso",
    summary="The norm of each group times the root of its size: makes whole groups 0.",
    formula="s * sum over groups of sqrt(|g|) * sqrt(sum(a^2))",
    gradient_formula="s * sqrt(|g|) * a / sqrt(sum(a^2))",
    convention="0 in a group of zeros",
    reference="Yuan and Lin, 2006, Model selection and estimation in regression with grouped variables",
    parameters=(
        _along(
            "The dimension along which a group's elements lie; the activation's axis, or -1, when left out. Along 0 each "
            "neuron over the whole batch is a group.",
            "group_axis",
        ),
    ),
    mean_over="groups",
    term=_group,
    slope=_group_slope,
)

ALL = (GROUP_LASSO, ENTROPY, Z_LOSS)
