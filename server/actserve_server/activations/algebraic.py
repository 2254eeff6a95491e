"""Activations made of roots and quotients alone. Says what they are, not how they are run.

Squares are taken of quotients at most 1, or of numbers that have been capped, so that no square overflows.
"""

from __future__ import annotations

import math

from actserve_server.activations.spec import Activation, Library, Parameter, Quick, Traits, kernel
from actserve_server.elementary import LARGEST, copysign, fma, quick_product, sqrt, two_product, working

__all__ = ["BENT_IDENTITY", "ISRLU", "ISRU", "SOFTSIGN", "SQUAREPLUS"]

CAP = 2.0**60
"""Beyond it, 1 is nothing; its square is still far from overflow in float32."""
SMALL = 2.0**-60


@kernel
def _softsign(x: float) -> float:
    magnitude = min(abs(x), LARGEST)
    return copysign(magnitude / (1.0 + magnitude), x)


@kernel
def _softsign_slope(x: float) -> float:
    share = 1.0 / (1.0 + abs(x))
    return share * share


SOFTSIGN = Activation(
    name="softsign",
    summary="From -1 to 1 along an S that reaches its ends slowly.",
    reference="Glorot and Bengio, Understanding the difficulty of training deep feedforward neural networks, AISTATS 2010",
    formula="x / (1 + abs(x))",
    derivative_formula="1 / (1 + abs(x))**2",
    forward=_softsign,
    derivative=_softsign_slope,
    range="(-1, 1)",
    traits=Traits(monotonic=True, zero_centred=True, saturates="both", smooth=True),
    limits=(-1.0, 1.0, 0.0, 0.0),
    advice="In place of tanh where gradients vanish: its slope falls as 1/x^2, not exponentially.",
    libraries=(
        Library("torch", ("Softsign", "softsign")),
        Library("jax", ("soft_sign",)),
        Library("flax", ("soft_sign",)),
        Library("keras", ("softsign",)),
        Library("tensorflow", ("softsign",)),
        Library("onnx", ("Softsign",)),
    ),
)


# With m the greater of |x| and sqrt(b), q the other divided by it, s = sqrt(1 + q^2), and t = |x|/m, which is q or 1:
# sqrt(x^2 + b) = m s and |x| + sqrt(x^2 + b) = m (t + s). On the left, where x + sqrt(x^2 + b) would cancel, it is b divided
# by the latter. Only if both are infinite is the lesser; then q = 1 will do.
@kernel
def _quotient(magnitude: float, root: float) -> float:
    """q."""
    greater = magnitude if magnitude >= root else root
    lesser = root if magnitude >= root else magnitude
    return lesser / (greater if greater > 0.0 else 1.0) if lesser <= LARGEST else 1.0


@kernel
def _squareplus(x: float, b: float) -> float:
    magnitude = abs(x)
    root = working(sqrt(b))
    q = _quotient(magnitude, root)
    beyond = magnitude >= root
    whole = (1.0 if beyond else q) + sqrt(fma(q, q, 1.0))
    right = (magnitude if beyond else root) * (0.5 * whole)
    left = 0.5 * (root * (q if beyond else 1.0)) / whole
    return right if x > 0.0 else left


# The slope is (t + s)/s/2 on the right, and b/m^2/(s (t + s))/2 on the left, where b/m^2 is q^2 or 1. What rounding took from
# sqrt(b) would count twice in q^2, so it is put back.
@kernel
def _squareplus_slope(x: float, b: float) -> float:
    magnitude = abs(x)
    root = working(sqrt(b))
    missing = working(fma(-root, root, b) / b) if (b > 0.0) & (root <= LARGEST) else 0.0
    q = _quotient(magnitude, root)
    beyond = magnitude >= root
    s = sqrt(fma(q, q, 1.0))
    whole = (1.0 if beyond else q) + s
    share = q * fma(q, missing, q) if beyond else 1.0
    numerator = whole if x > 0.0 else share
    denominator = s if x > 0.0 else s * whole
    return 0.5 * numerator / denominator


# Where no square overflows, and b is not lost beside one that underflows, the formula needs no quotient.
@kernel
def _squareplus_reach(b: float) -> float:
    size = working(b)
    return 0.25 * sqrt(LARGEST) if (size >= SMALL) & (size <= CAP) else 0.0


@kernel
def _quick_squareplus(x: float, b: float) -> float:
    magnitude = abs(x)
    whole = magnitude + sqrt(fma(magnitude, magnitude, working(b)))
    return 0.5 * (whole if x > 0.0 else working(b) / whole)


@kernel
def _quick_squareplus_slope(x: float, b: float) -> float:
    magnitude = abs(x)
    square = fma(magnitude, magnitude, working(b))
    root = sqrt(square)
    numerator = magnitude + root if x > 0.0 else working(b)
    # The square is rounded less often than a product with the root.
    return 0.5 * numerator / (root if x > 0.0 else fma(magnitude, root, square))


SQUAREPLUS = Activation(
    name="squareplus",
    summary="A softplus without exponentials: ReLU, its corner rounded by a hyperbola.",
    reference="Barron, Squareplus: a softplus-like algebraic rectifier, 2021, arXiv:2112.11687",
    formula="(x + sqrt(x**2 + b)) / 2 if x >= 0 else b / (2 * (sqrt(x**2 + b) - x))",
    derivative_formula="(1 + x / sqrt(x**2 + b)) / 2 if x != 0 or b > 0 else 0",
    forward=_squareplus,
    derivative=_squareplus_slope,
    range="(0, inf)",
    traits=Traits(monotonic=True, zero_centred=False, saturates="left", smooth=True),
    limits=(0.0, math.inf, 0.0, 1.0),
    advice="Where softplus is wanted and exponentials are dear; its left tail falls as 1/x only.",
    parameters=(
        Parameter(name="b", meaning="How round the corner is; 0 gives ReLU.", default=4.0, low=0.0, low_open=False),
    ),
    libraries=(
        Library("jax", ("squareplus",)),
        Library("keras", ("squareplus",)),
    ),
    tried=({"b": 0.0}, {"b": 1e-6}, {"b": 0.3}, {"b": 1e30}, {"b": 1e-60}, {"b": 1e300}),
    quick=Quick(_squareplus_reach, _quick_squareplus, _quick_squareplus_slope),
)


# z = sqrt(alpha) |x|, beyond whose cap the result is its limit.
@kernel
def _inverse_root(x: float, alpha: float) -> float:
    """x/sqrt(1 + alpha x^2)."""
    root = sqrt(alpha)
    z = working(root) * abs(x)
    capped = min(z, CAP)
    value = x / sqrt(fma(capped, capped, 1.0))
    return value if z < CAP else copysign(working(1.0 / root), x)


# As v sqrt(v) may overflow while its inverse is a number yet, a power of two is taken out.
@kernel
def _inverse_root_slope(x: float, alpha: float) -> float:
    """v^(-3/2), v = 1 + alpha x^2."""
    magnitude = min(abs(x), LARGEST)
    hi, lo = two_product(alpha, magnitude)
    whole = fma(hi, magnitude, 1.0)
    v = fma(hi, magnitude, fma(lo, magnitude, 1.0)) if whole <= LARGEST else whole
    return SMALL / (v * (SMALL * sqrt(v)))


# Up to there v sqrt(v) is far from overflow.
@kernel
def _inverse_root_reach(alpha: float) -> float:
    return min(0.5 * sqrt(sqrt(LARGEST)) / working(sqrt(alpha)), LARGEST)


@kernel
def _quick_inverse_root_slope(x: float, alpha: float) -> float:
    hi, lo = quick_product(alpha, x)
    v = fma(hi, x, fma(lo, x, 1.0))
    return 1.0 / (v * sqrt(v))


@kernel
def _isru(x: float, alpha: float) -> float:
    return _inverse_root(x, alpha)


@kernel
def _isru_slope(x: float, alpha: float) -> float:
    return _inverse_root_slope(x, alpha)


ISRU = Activation(
    name="isru",
    summary="From -1/sqrt(alpha) to 1/sqrt(alpha) along an S: the inverse square root unit.",
    reference="Carlile, Delamarter, Kinney, Marti and Whitney, Improving deep learning by inverse square root linear units, "
    "2017, arXiv:1710.09967",
    formula="x / sqrt(1 + alpha * x**2)",
    derivative_formula="1 / sqrt(1 + alpha * x**2)**3",
    forward=_isru,
    derivative=_isru_slope,
    range="(-1, 1)",
    traits=Traits(monotonic=True, zero_centred=True, saturates="both", smooth=True),
    limits=(-1.0, 1.0, 0.0, 0.0),
    advice="In place of tanh in recurrent cells, where a root is cheaper than an exponential.",
    parameters=(Parameter(name="alpha", meaning="The ends lie at 1/sqrt(alpha).", default=1.0, low=0.0),),
    tried=({"alpha": 0.3}, {"alpha": 7.7}, {"alpha": 1e-30}, {"alpha": 1e30}),
    quick=Quick(_inverse_root_reach, None, _quick_inverse_root_slope),
)


@kernel
def _quick_isrlu_slope(x: float, alpha: float) -> float:
    left = _quick_inverse_root_slope(x, alpha)
    return 1.0 if x > 0.0 else left


@kernel
def _isrlu(x: float, alpha: float) -> float:
    left = _inverse_root(x, alpha)
    return x if x > 0.0 else left


@kernel
def _isrlu_slope(x: float, alpha: float) -> float:
    left = _inverse_root_slope(x, alpha)
    return 1.0 if x > 0.0 else left


ISRLU = Activation(
    name="isrlu",
    summary="The identity above zero; below it, a root that levels off at -1/sqrt(alpha).",
    reference="Carlile, Delamarter, Kinney, Marti and Whitney, Improving deep learning by inverse square root linear units, "
    "2017, arXiv:1710.09967",
    formula="x if x >= 0 else x / sqrt(1 + alpha * x**2)",
    derivative_formula="1 if x >= 0 else 1 / sqrt(1 + alpha * x**2)**3",
    forward=_isrlu,
    derivative=_isrlu_slope,
    range="(-1, inf)",
    traits=Traits(monotonic=True, zero_centred=True, saturates="left", smooth=True),
    limits=(-1.0, math.inf, 0.0, 1.0),
    advice="In place of ELU, where a root is cheaper than an exponential; it has a continuous second derivative too.",
    parameters=(Parameter(name="alpha", meaning="The floor lies at -1/sqrt(alpha).", default=1.0, low=0.0),),
    tried=({"alpha": 0.3}, {"alpha": 7.7}, {"alpha": 1e-30}, {"alpha": 1e30}),
    quick=Quick(_inverse_root_reach, None, _quick_isrlu_slope),
)


# (sqrt(x^2 + 1) - 1)/2 is x^2/(sqrt(x^2 + 1) + 1)/2, which does not cancel; so the result is x times a number from 1/2 to
# 3/2.
@kernel
def _bent_identity(x: float) -> float:
    magnitude = min(abs(x), CAP)
    share = magnitude / (sqrt(fma(magnitude, magnitude, 1.0)) + 1.0)
    return x * fma(copysign(0.5, x), share, 1.0)


@kernel
def _bent_identity_slope(x: float) -> float:
    magnitude = min(abs(x), CAP)
    share = magnitude / sqrt(fma(magnitude, magnitude, 1.0))
    return fma(copysign(0.5, x), share, 1.0)


BENT_IDENTITY = Activation(
    name="bent_identity",
    summary="A line of slope 1/2 on the left that bends into one of slope 3/2 on the right.",
    reference="Godfrey, An evaluation of parametric activation functions for deep learning, IEEE SMC 2019",
    formula="(sqrt(x**2 + 1) - 1) / 2 + x",
    derivative_formula="x / (2 * sqrt(x**2 + 1)) + 1",
    forward=_bent_identity,
    derivative=_bent_identity_slope,
    range="(-inf, inf)",
    traits=Traits(monotonic=True, zero_centred=True, saturates="no", smooth=True),
    limits=(-math.inf, math.inf, 0.5, 1.5),
    advice="Where a mild bend is enough and no gradient may vanish.",
)
