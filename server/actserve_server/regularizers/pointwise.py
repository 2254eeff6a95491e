"""Penalties that are sums over single elements, and the two of Hoyer's that are functions of such sums."""

from __future__ import annotations

import math
from fractions import Fraction

from actserve.penalties import PenaltyState

from actserve_server.activations.spec import Parameter, kernel
from actserve_server.elementary import copysign, fma, log, log1p, lower_power, power, sqrt
from actserve_server.regularizers.spec import Coefficients, Pointwise

# ---- powers ----------------------------------------------------------------------------------------------------------


@kernel
def _power(a: float, p: float) -> float:
    """|a|**p, where 0**0 is 0: p = 0 counts what is not 0."""
    magnitude = abs(a)
    if magnitude == 0.0:
        return 0.0
    if a != a:
        return a
    if magnitude == math.inf:
        return math.inf if p > 0.0 else 1.0
    if p == 1.0:
        return magnitude
    if p == 2.0:
        return magnitude * magnitude
    if p == 0.5:
        return sqrt(magnitude)
    return power(magnitude, p)


@kernel
def _power_slope(a: float, p: float) -> float:
    if a == 0.0 or p == 0.0:
        return 0.0
    magnitude = abs(a)
    if a != a:
        return a
    if p == 1.0:
        return copysign(1.0, a)
    if magnitude == math.inf:
        return copysign(math.inf if p > 1.0 else 0.0, a)
    if p == 2.0:
        return 2.0 * a
    return copysign(p * lower_power(magnitude, p), a)


# Beyond this ratio of the activation to sqrt(eps), 1 is nothing beside its square.
_FAR = 1e10


@kernel
def _log_student(a: float, eps: float) -> float:
    """log1p(a^2/eps), also where the square overflows."""
    ratio = abs(a) / sqrt(eps)
    if ratio > _FAR:
        return 2.0 * log(ratio) if ratio < math.inf else 2.0 * log(abs(a)) - log(eps)
    return log1p(ratio * ratio)


@kernel
def _log_student_slope(a: float, eps: float) -> float:
    ratio = abs(a) / sqrt(eps)
    return 2.0 / a if ratio > _FAR else 2.0 * a / (eps * (1.0 + ratio * ratio))


@kernel
def _mixed(a: float, sign: float, factor: float) -> float:
    """sign * sign(a) + factor * a, 0 at 0."""
    if a == 0.0:
        return 0.0 * abs(sign) + 0.0 * abs(factor)
    signed = copysign(sign, a) if sign >= 0.0 else -copysign(-sign, a)
    return a if a != a else (signed if factor == 0.0 else fma(factor, a, signed))


def _own(*names: str) -> Coefficients:
    """The regularizer's parameters of these names."""
    return lambda state: tuple(float(state.options[name]) for name in names)


# ---- functions of sums -----------------------------------------------------------------------------------------------


def root(number: Fraction) -> float:
    """The square root of a positive fraction, which itself may be beyond a float's range."""
    halved = (number.numerator.bit_length() - number.denominator.bit_length()) // 2
    return math.ldexp(math.sqrt(number / Fraction(4) ** halved), halved)


def _hoyer_square_slope(state: PenaltyState) -> tuple[float, float]:
    magnitudes, squares = state.values["magnitudes"][0], state.values["squares"][0]
    if isinstance(magnitudes, float) or isinstance(squares, float):
        return math.nan, math.nan
    if not squares:
        return 0.0, 0.0
    return float(2 * magnitudes / squares), float(-2 * (magnitudes / squares) ** 2)


def _hoyer_slope(state: PenaltyState) -> tuple[float, float]:
    magnitudes, squares = state.values["magnitudes"][0], state.values["squares"][0]
    if isinstance(magnitudes, float) or isinstance(squares, float):
        return math.nan, math.nan
    if not squares or state.elements < 2:
        return 0.0, 0.0
    # Of (sqrt n - S1 / sqrt S2) / (sqrt n - 1): -sign(a) / sqrt S2 and S1 a / S2^(3/2), over sqrt n - 1.
    scale = 1.0 / (math.sqrt(state.elements) - 1.0) / root(squares)
    return -scale, scale * float(magnitudes / squares)


ALL = (
    Pointwise(
        name="l1",
        summary="The sum of magnitudes: makes activations sparse.",
        formula="s * sum(|a|)",
        gradient_formula="s * sign(a)",
        convention="sign(0) = 0",
        libraries='Keras `L1`, as an `activity_regularizer` with the reduction "batch_mean"',
        reference="Tibshirani, 1996, Regression shrinkage and selection via the lasso",
        slope=_mixed,
        slope_width=2,
        coefficients=lambda _: (1.0, 0.0),
    ),
    Pointwise(
        name="l2",
        summary="The sum of squares: keeps activations small.",
        formula="s * sum(a^2)",
        gradient_formula="2 * s * a",
        libraries='Keras `L2`, as an `activity_regularizer` with "batch_mean"; fastai and AWD-LSTM (AR) with "mean"',
        reference="Tikhonov, 1943; for activations Merity, McCann and Socher, 2017, arXiv:1708.01009",
        slope=_mixed,
        slope_width=2,
        coefficients=lambda _: (0.0, 2.0),
    ),
    Pointwise(
        name="l1l2",
        summary="Magnitudes and squares, each with a weight of its own: the elastic net.",
        formula="s * (l1 * sum(|a|) + l2 * sum(a^2))",
        gradient_formula="s * (l1 * sign(a) + 2 * l2 * a)",
        convention="sign(0) = 0. Of l1 and l2 the one left out is 0, and s is 1 unless it is given; without both they are 1",
        libraries='Keras `L1L2`, as an `activity_regularizer` with "batch_mean"',
        reference="Zou and Hastie, 2005, Regularization and variable selection via the elastic net",
        parameters=(
            Parameter("l1", "Weight of the magnitudes.", None, low=0.0, low_open=False, optional=True),
            Parameter("l2", "Weight of the squares.", None, low=0.0, low_open=False, optional=True),
        ),
        slope=_mixed,
        slope_width=2,
        coefficients=lambda state: (float(state.options["l1"]), 2 * float(state.options["l2"])),
    ),
    Pointwise(
        name="lp",
        summary="The sum of powers of magnitudes; p = 0 counts the activations that are not 0.",
        formula="s * sum(|a|^p)",
        gradient_formula="s * p * |a|^(p - 1) * sign(a)",
        convention="0 at a = 0 for every p, and 0^0 = 0",
        reference="Frank and Friedman, 1993, A statistical view of some chemometrics regression tools (bridge)",
        parameters=(Parameter("p", "The exponent.", 1.5, low=0.0, low_open=False, high=64.0, high_open=False),),
        term=_power,
        slope=_power_slope,
        slope_width=1,
        coefficients=_own("p"),
    ),
    Pointwise(
        name="log_student",
        summary="A penalty that grows with the logarithm of a large activation: sparse, and mild to outliers.",
        formula="s * sum(log1p(a^2 / eps))",
        gradient_formula="2 * s * a / (eps + a^2)",
        reference="Olshausen and Field, 1996, Emergence of simple-cell receptive field properties",
        parameters=(
            Parameter(
                "eps", "The square of the activation at which it bends.", 1.0, low=1e-280, low_open=False, high=1e280
            ),
        ),
        term=_log_student,
        slope=_log_student_slope,
        slope_width=1,
        coefficients=_own("eps"),
    ),
    Pointwise(
        name="hoyer",
        summary="Hoyer's sparseness: 1 where a single activation is not 0, 0 where all are of one size.",
        formula="s * (sqrt(n) - S1 / sqrt(S2)) / (sqrt(n) - 1), S1 = sum(|a|), S2 = sum(a^2), n elements",
        gradient_formula="s * (S1 * a / S2^(3/2) - sign(a) / sqrt(S2)) / (sqrt(n) - 1)",
        convention="0 where all activations are 0; sign(0) = 0. It grows with sparseness: subtract it from a loss to gain some",
        domain="a single element",
        reference="Hoyer, 2004, Non-negative matrix factorization with sparseness constraints",
        mean_over="1",
        whole_gradient=True,
        slope=_mixed,
        slope_width=2,
        coefficients=_hoyer_slope,
    ),
    Pointwise(
        name="hoyer_square",
        aliases=("hoyer_sq",),
        summary="The squared ratio of the two norms: the number of activations that are not 0, made smooth.",
        formula="s * sum(|a|)^2 / sum(a^2)",
        gradient_formula="2 * s * S1 / S2^2 * (S2 * sign(a) - S1 * a), S1 = sum(|a|), S2 = sum(a^2)",
        convention="0 where all activations are 0; sign(0) = 0",
        libraries="DeepHoyer's Hoyer-Square",
        reference="Yang, Wen and Li, 2020, DeepHoyer, arXiv:1908.09979",
        mean_over="1",
        whole_gradient=True,
        slope=_mixed,
        slope_width=2,
        coefficients=_hoyer_square_slope,
    ),
)
