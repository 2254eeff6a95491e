"""Penalties on neurons, on differences in time, on slopes, and on the angles between vectors."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import numpy.typing as npt
from actserve.penalties import PenaltyState

from actserve_server.activations.spec import Parameter, word
from actserve_server.regularizers.spec import Contractive, Neuronwise, Orthogonal, Temporal


def _kl_coefficients(state: PenaltyState) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """(1/N) (-rho / mean + (1 - rho) / (1 - mean)) for each neuron of N samples; its mean must be in (0, 1)."""
    rho, samples = Fraction(float(state.options["rho"])), state.elements // max(state.width, 1)
    offsets = [
        total if isinstance(total, float) else float((1 - rho) / (samples - total) - rho / total)
        for total in state.values["values"]
    ]
    return np.array(offsets), np.zeros(state.width)


ALL = (
    Neuronwise(
        name="kl_sparsity",
        summary="How far each neuron's mean activation is from a target, as the divergence of two coins.",
        formula="s * sum over neurons of rho * log(rho / m) + (1 - rho) * log((1 - rho) / (1 - m)), m = mean(a)",
        gradient_formula="s / N * ((1 - rho) / (1 - m) - rho / m), N samples of each neuron",
        domain="an activation outside [0, 1], and a neuron whose mean is 0 or 1",
        reference="Ng, 2011, Sparse autoencoder (CS294A lecture notes)",
        parameters=(
            Parameter("rho", "The mean activation wanted.", 0.05, low=0.0, high=1.0),
            Parameter(
                "neuron_axis", "The dimension whose entries are the neurons; all others are the batch.", -1, "axis"
            ),
        ),
        mean_over="neurons",
        whole_gradient=True,
        coefficients=_kl_coefficients,
    ),
    Temporal(
        name="temporal",
        aliases=("tar",),
        summary="Squared differences of activations that follow one another: makes them change slowly.",
        formula="s * sum((a[t] - a[t + lag])^2)",
        gradient_formula="2 * s * ((a[t] - a[t + lag]) + (a[t] - a[t - lag])), without the terms that there are not",
        libraries='AWD-LSTM and fastai (TAR) with "mean"',
        reference="Merity, McCann and Socher, 2017, Revisiting activation regularization, arXiv:1708.01009",
        parameters=(
            Parameter(
                "lag", "How many steps apart.", 1, "integer", low=1, low_open=False, high=2**31 - 1, high_open=False
            ),
            Parameter(
                "penalty_axis",
                "The dimension of time; the one before the last, or 0 of a vector, when left out.",
                None,
                "axis",
                aliases=("time_axis",),
                optional=True,
            ),
        ),
        mean_over="differences",
    ),
    Contractive(
        name="contractive",
        summary="Squares of the activation's derivative: makes the layer answer weakly to its input.",
        formula="s * sum(f'(x)^2)",
        gradient_formula="2 * s * f'(x) * f''(x), by x",
        convention="f'' is 0 at a kink's jump, and f' there as `derivative` has it. The gradient is by x, whatever "
        "`gradient_wrt` says, as there is none by the activation",
        reference="Rifai et al., 2011, Contractive auto-encoders; for a layer without weights",
    ),
    Orthogonal(
        name="orthogonal",
        summary="Cosines between the rows, or the columns, of a matrix: makes them orthogonal.",
        formula="s * sum over pairs of |cos(a_i, a_j)| / (n * (n - 1) / 2), n rows or columns",
        gradient_formula="s / (n * (n - 1) / 2) * (v - (v . u) * u) / |a_i|, u = a_i / |a_i|, v = sum over j of sign(u . u_j) * u_j",
        convention="A row of zeros is orthogonal to all, and its gradient is 0; sign(0) = 0",
        domain="a tensor that is no matrix, and a single row or column",
        libraries="Keras `OrthogonalRegularizer`, outside a layer",
        reference="Keras; Brock et al., 2017, arXiv:1609.07093",
        parameters=(word("mode", "What is to be orthogonal.", "rows", "columns"),),
        mean_over="1",
    ),
)
