"""Gated units: one half of an axis decides how much of the other passes. Says what they are, not how they are run.

Kernels reuse those of the activations, which give the product of an activation with a finite number: where the
activation alone would underflow, the product need not.
"""

from __future__ import annotations

from actserve_server.activations.gated_by_x import (
    gelu_slope_times,
    gelu_tanh_slope_times,
    gelu_tanh_times,
    gelu_times,
    quick_gelu_slope_times,
    quick_gelu_times,
    sigmoid_times,
    silu_slope_times,
    silu_times,
)
from actserve_server.activations.spec import GatedActivation, Library, Parameter, Traits, kernel, word
from actserve_server.elementary import LARGEST, decayed, exp_sum, expm1, working

__all__ = ["BILINEAR", "GEGLU", "GEGLU_QUICK", "GEGLU_TANH", "GLU", "REGLU", "SEGLU", "SWIGLU", "SWIGLU_OAI"]

ACTIVATED_MEANING = "Which half goes through the activation; the other is multiplied by the result."
ACTIVATED = word("activated", ACTIVATED_MEANING, "first", "second")
ACTIVATED_SECOND = Parameter(
    name="activated", meaning=ACTIVATED_MEANING, default="second", kind="word", choices=("first", "second")
)
LAYOUT = word(
    "layout", "Whether the halves lie one after the other, or element by element in turn.", "split", "interleaved"
)

SHAZEER = "Shazeer, GLU variants improve Transformer, 2020, arXiv:2002.05202"
BOTH_SIGNS = Traits(monotonic=False, zero_centred=True, saturates="no", smooth=True)
BOTH_SIGNS_WITH_CORNERS = Traits(monotonic=False, zero_centred=True, saturates="no", smooth=False)

HEADROOM = 2.0**16
"""The largest v are divided by it first, so that their product with u is finite: an activation's sigmoid, or the exponential
in it, may make the whole small."""


# An infinite v would meet a 0 on the way: it is made finite, and multiplied in at the end.
@kernel
def _shrunk(v: float) -> float:
    finite = min(max(v, -LARGEST), LARGEST)
    return finite / HEADROOM if abs(v) > LARGEST / HEADROOM else finite


@kernel
def _grown(value: float, v: float) -> float:
    grown = value * HEADROOM if abs(v) > LARGEST / HEADROOM else value
    return grown if abs(v) <= LARGEST else value * abs(v)


@kernel
def _glu(u: float, v: float) -> float:
    return _grown(sigmoid_times(_shrunk(v), u, 0.0), v)


@kernel
def _glu_u(u: float, v: float) -> float:
    magnitude = -abs(u)
    whole = 1.0 + exp_sum(magnitude, 0.0)
    return _grown(decayed(_shrunk(v) / (whole * whole), magnitude, 0.0), v)


@kernel
def _glu_v(u: float, v: float) -> float:
    return sigmoid_times(1.0, u, 0.0)


GLU = GatedActivation(
    name="glu",
    summary="One half times the sigmoid of the other.",
    reference="Dauphin, Fan, Auli and Grangier, Language modeling with gated convolutional networks, ICML 2017, "
    "arXiv:1612.08083",
    formula="v / (1 + exp(-u))",
    u_formula="v * exp(-u) / (1 + exp(-u))**2",
    v_formula="1 / (1 + exp(-u))",
    forward=_glu,
    u_derivative=_glu_u,
    v_derivative=_glu_v,
    range="(-inf, inf)",
    traits=BOTH_SIGNS,
    advice="For convolutional models of sequences; its gradient has a linear path through the half that is not activated.",
    parameters=(ACTIVATED_SECOND, LAYOUT),
    libraries=(
        Library("torch", ("GLU", "glu")),
        Library("jax", ("glu",)),
        Library("flax", ("glu",)),
        Library("keras", ("glu",)),
    ),
)


@kernel
def _swiglu(u: float, v: float, beta: float) -> float:
    return _grown(silu_times(u, _shrunk(v), beta), v)


@kernel
def _swiglu_u(u: float, v: float, beta: float) -> float:
    return _grown(silu_slope_times(u, _shrunk(v), beta), v)


@kernel
def _swiglu_v(u: float, v: float, beta: float) -> float:
    return silu_times(u, 1.0, beta)


SWIGLU = GatedActivation(
    name="swiglu",
    summary="One half times the SiLU of the other.",
    reference=SHAZEER,
    formula="u / (1 + exp(-beta * u)) * v",
    u_formula="(1 + exp(-beta * u) * (1 + beta * u)) / (1 + exp(-beta * u))**2 * v",
    v_formula="u / (1 + exp(-beta * u))",
    forward=_swiglu,
    u_derivative=_swiglu_u,
    v_derivative=_swiglu_v,
    range="(-inf, inf)",
    traits=BOTH_SIGNS,
    advice="For the feed-forward layers of transformers: what LLaMA, Qwen, Mistral and most since use.",
    parameters=(
        ACTIVATED,
        LAYOUT,
        Parameter(name="beta", meaning="Sharpness of the gate; 0 makes it u/2.", default=1.0),
    ),
    libraries=(
        Library("onnx", ("SwiGLU",), renamed=(("alpha", "beta"),)),
        Library("ggml", ("SWIGLU",)),
    ),
    tried=({"beta": 1.7}, {"beta": -0.3}, {"beta": 0.0}),
)


@kernel
def _geglu(u: float, v: float) -> float:
    return _grown(gelu_times(u, _shrunk(v)), v)


@kernel
def _geglu_u(u: float, v: float) -> float:
    return _grown(gelu_slope_times(u, _shrunk(v)), v)


@kernel
def _geglu_v(u: float, v: float) -> float:
    return gelu_times(u, 1.0)


GEGLU = GatedActivation(
    name="geglu",
    summary="One half times the GELU of the other.",
    reference=SHAZEER,
    formula="u * erfc(-u / sqrt(2)) / 2 * v",
    u_formula="(erfc(-u / sqrt(2)) / 2 + u * exp(-u**2 / 2) / sqrt(2 * pi)) * v",
    v_formula="u * erfc(-u / sqrt(2)) / 2",
    forward=_geglu,
    u_derivative=_geglu_u,
    v_derivative=_geglu_v,
    range="(-inf, inf)",
    traits=BOTH_SIGNS,
    advice="For the feed-forward layers of transformers; in diffusers the second half is activated.",
    parameters=(ACTIVATED, LAYOUT),
    aliases=("geglu_erf",),
    libraries=(Library("ggml", ("GEGLU_ERF",)),),
)


@kernel
def _geglu_tanh(u: float, v: float) -> float:
    return _grown(gelu_tanh_times(u, _shrunk(v)), v)


@kernel
def _geglu_tanh_u(u: float, v: float) -> float:
    return _grown(gelu_tanh_slope_times(u, _shrunk(v)), v)


@kernel
def _geglu_tanh_v(u: float, v: float) -> float:
    return gelu_tanh_times(u, 1.0)


GEGLU_TANH = GatedActivation(
    name="geglu_tanh",
    summary="One half times the GELU, approximated by a tanh, of the other.",
    reference=SHAZEER,
    formula="u / (1 + exp(-2 * sqrt(2 / pi) * (u + 0.044715 * u**3))) * v",
    u_formula="(1 / (1 + exp(-2 * sqrt(2 / pi) * (u + 0.044715 * u**3))) "
    "+ u * 2 * sqrt(2 / pi) * (1 + 3 * (0.044715 * u**2)) * exp(-2 * sqrt(2 / pi) * (u + 0.044715 * u**3)) "
    "/ (1 + exp(-2 * sqrt(2 / pi) * (u + 0.044715 * u**3)))**2) * v",
    v_formula="u / (1 + exp(-2 * sqrt(2 / pi) * (u + 0.044715 * u**3)))",
    forward=_geglu_tanh,
    u_derivative=_geglu_tanh_u,
    v_derivative=_geglu_tanh_v,
    range="(-inf, inf)",
    traits=BOTH_SIGNS,
    advice="For models trained with it, such as Gemma and T5 1.1; new ones may as well take GEGLU or SwiGLU.",
    parameters=(ACTIVATED, LAYOUT),
    libraries=(Library("ggml", ("GEGLU",)),),
    cancels=("u_derivative",),
)


@kernel
def _geglu_quick(u: float, v: float) -> float:
    return _grown(quick_gelu_times(u, _shrunk(v)), v)


@kernel
def _geglu_quick_u(u: float, v: float) -> float:
    return _grown(quick_gelu_slope_times(u, _shrunk(v)), v)


@kernel
def _geglu_quick_v(u: float, v: float) -> float:
    return quick_gelu_times(u, 1.0)


GEGLU_QUICK = GatedActivation(
    name="geglu_quick",
    summary="One half times the QuickGELU, u sigmoid(1.702 u), of the other.",
    reference=SHAZEER,
    formula="u / (1 + exp(-1.702 * u)) * v",
    u_formula="(1 + exp(-1.702 * u) * (1 + 1.702 * u)) / (1 + exp(-1.702 * u))**2 * v",
    v_formula="u / (1 + exp(-1.702 * u))",
    forward=_geglu_quick,
    u_derivative=_geglu_quick_u,
    v_derivative=_geglu_quick_v,
    range="(-inf, inf)",
    traits=BOTH_SIGNS,
    advice="For models trained with it; GEGLU and SwiGLU are as good elsewhere.",
    parameters=(ACTIVATED, LAYOUT),
    libraries=(Library("ggml", ("GEGLU_QUICK",)),),
)


@kernel
def _reglu(u: float, v: float) -> float:
    return u * v if u > 0.0 else 0.0


@kernel
def _reglu_u(u: float, v: float) -> float:
    return v if u > 0.0 else 0.0


@kernel
def _reglu_v(u: float, v: float) -> float:
    return u if u > 0.0 else 0.0


REGLU = GatedActivation(
    name="reglu",
    summary="One half times the ReLU of the other.",
    reference=SHAZEER,
    formula="u * v if u > 0 else 0",
    u_formula="v if u > 0 else 0",
    v_formula="u if u > 0 else 0",
    forward=_reglu,
    u_derivative=_reglu_u,
    v_derivative=_reglu_v,
    range="(-inf, inf)",
    traits=BOTH_SIGNS_WITH_CORNERS,
    advice="For feed-forward layers whose results should be sparse: half of them are 0.",
    parameters=(ACTIVATED, LAYOUT),
    libraries=(Library("ggml", ("REGLU",)),),
)


@kernel
def _bilinear(u: float, v: float) -> float:
    return u * v


@kernel
def _bilinear_u(u: float, v: float) -> float:
    return v


@kernel
def _bilinear_v(u: float, v: float) -> float:
    return u


BILINEAR = GatedActivation(
    name="bilinear",
    summary="One half times the other.",
    reference=SHAZEER,
    formula="u * v",
    u_formula="v",
    v_formula="u",
    forward=_bilinear,
    u_derivative=_bilinear_u,
    v_derivative=_bilinear_v,
    range="(-inf, inf)",
    traits=BOTH_SIGNS,
    advice="Where a layer is to be analysed: it is a quadratic form of its input, without any other nonlinearity.",
    parameters=(ACTIVATED, LAYOUT),
)


# Where u or v is clipped, its own derivative is 0; the corner belongs to what is clipped.
@kernel
def _swiglu_oai(u: float, v: float, alpha: float, limit: float) -> float:
    bound = working(limit)
    return silu_times(min(u, bound), min(max(v, -bound), bound) + 1.0, alpha)


@kernel
def _swiglu_oai_u(u: float, v: float, alpha: float, limit: float) -> float:
    bound = working(limit)
    return silu_slope_times(u, min(max(v, -bound), bound) + 1.0, alpha) if u < bound else 0.0


@kernel
def _swiglu_oai_v(u: float, v: float, alpha: float, limit: float) -> float:
    bound = working(limit)
    return silu_times(min(u, bound), 1.0, alpha) if abs(v) < bound else 0.0


SWIGLU_OAI = GatedActivation(
    name="swiglu_oai",
    summary="One half plus 1, times the Swish of the other, both clipped.",
    reference="OpenAI, gpt-oss-120b and gpt-oss-20b model card, 2025, arXiv:2508.10925",
    formula="min(u, limit) / (1 + exp(-alpha * min(u, limit))) * (min(max(v, -limit), limit) + 1)",
    u_formula="(1 + exp(-alpha * u) * (1 + alpha * u)) / (1 + exp(-alpha * u))**2 * (min(max(v, -limit), limit) + 1) "
    "if u < limit else 0",
    v_formula="min(u, limit) / (1 + exp(-alpha * min(u, limit))) if -limit < v < limit else 0",
    forward=_swiglu_oai,
    u_derivative=_swiglu_oai_u,
    v_derivative=_swiglu_oai_v,
    range="(-inf, inf)",
    traits=BOTH_SIGNS_WITH_CORNERS,
    advice='For gpt-oss, whose weights are laid out for layout="interleaved".',
    parameters=(
        ACTIVATED,
        LAYOUT,
        Parameter(name="alpha", meaning="Sharpness of the gate.", default=1.702),
        Parameter(name="limit", meaning="Where the halves are clipped.", default=7.0, low=0.0),
    ),
    libraries=(Library("ggml", ("SWIGLU_OAI",)),),
    tried=({"alpha": 1.0, "limit": 2.5}, {"alpha": 0.0, "limit": 7.0}),
)


SELU_ALPHA = 1.6732632423543772
SELU_GAMMA = 1.0507009873554805
SELU_FLOOR = SELU_GAMMA * SELU_ALPHA


@kernel
def _selu_of(u: float) -> float:
    return SELU_GAMMA * u if u >= 0.0 else SELU_FLOOR * expm1(min(u, 0.0))


@kernel
def _seglu(u: float, v: float) -> float:
    return _selu_of(u) * v


@kernel
def _seglu_u(u: float, v: float) -> float:
    left = _grown(decayed(SELU_FLOOR * _shrunk(v), min(u, 0.0), 0.0), v)
    return SELU_GAMMA * v if u > 0.0 else left


@kernel
def _seglu_v(u: float, v: float) -> float:
    return _selu_of(u)


SEGLU = GatedActivation(
    name="seglu",
    summary="One half times the SELU of the other.",
    reference=f"A variant after {SHAZEER}; SELU: Klambauer, Unterthiner, Mayr and Hochreiter, 2017, arXiv:1706.02515",
    formula="1.0507009873554805 * (u if u > 0 else 1.6732632423543772 * expm1(u)) * v",
    u_formula="1.0507009873554805 * (1 if u > 0 else 1.6732632423543772 * exp(u)) * v",
    v_formula="1.0507009873554805 * (u if u > 0 else 1.6732632423543772 * expm1(u))",
    forward=_seglu,
    u_derivative=_seglu_u,
    v_derivative=_seglu_v,
    range="(-inf, inf)",
    traits=BOTH_SIGNS_WITH_CORNERS,
    advice="In self-normalizing networks, where the gate should keep the scale of what passes it.",
    parameters=(ACTIVATED, LAYOUT),
)
