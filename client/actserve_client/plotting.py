"""Pictures: curves and derivatives as the article's visualizer draws them, a layer's neurons, and the demo's training.

Needs matplotlib (`pip install 'actserve[plot]'`); draws to files, never to a screen.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from actserve.stats import BINS, Histogram

from actserve_client.client import Client
from actserve_client.records import Activation

if TYPE_CHECKING:
    from actserve.stats import NeuronStats

    from actserve_client.demo import Epoch

_POINTS = 1001


def _figure(rows: int, columns: int, width: float, height: float) -> tuple[Any, Any]:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(columns * width, rows * height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure, figure.subplots(rows, columns, squeeze=False)


def draw_activation(
    axes: Any,
    client: Client,
    name: str,
    low: float,
    high: float,
    parameters: Mapping[str, Any] | None = None,
    *,
    preset: str | None = None,
    accuracy: str = "exact",
) -> None:
    """Draw a curve and its derivative into a matplotlib Axes, with the activation's properties.

    Of an activation along an axis it is the first component over its own input, the other one being 0; of a gated unit the
    activated half, the other one being 1.
    """
    record = client.describe(f"{preset}:{name}" if preset else name)
    x = np.linspace(low, high, _POINTS)
    how: dict[str, Any] = {"parameters": parameters, "preset": preset, "accuracy": accuracy}
    title = record.name
    match record.kind:
        case "axis":
            pairs = np.stack([x, np.zeros_like(x)], axis=1)
            y = client.forward(name, pairs, **how)[:, 0]
            slope = client.derivative(name, pairs, jacobian="diag", **how)[:, 0]
            title += " of [x, 0], first component"
        case "resizing":
            pairs = np.stack([x, np.zeros_like(x)], axis=1)
            result = client.forward(name, pairs, **how)
            first = np.zeros_like(result)
            first[:, 0] = 1
            y, slope = result[:, 0], client.derivative(name, pairs, upstream=first, **how)[:, 0]
            title += " of [x, 0], first component"
        case "gated":
            u = 0 if _word(record, "activated", parameters, preset) == "first" else 1
            pairs = np.ones((_POINTS, 2))
            pairs[:, u] = x
            result = client.forward(name, pairs, **how)
            y, slope = result[:, 0], client.derivative(name, pairs, upstream=np.ones_like(result), **how)[:, u]
            title += " of u = x, v = 1"
        case _:
            y, slope = client.forward(name, x, **how), client.derivative(name, x, **how)
    if parameters:
        title += " (" + ", ".join(f"{key}={_short(value)}" for key, value in parameters.items()) + ")"
    axes.axhline(0, color="black", linewidth=0.8, alpha=0.3)
    axes.axvline(0, color="black", linewidth=0.8, alpha=0.3)
    axes.plot(x, y, "b-", label="f(x)")
    axes.plot(x, slope, "r--", label="f'(x)")
    axes.set_title(title)
    axes.grid(True, alpha=0.3)
    axes.legend(loc="upper left", fontsize=8)
    traits = record.traits
    words = [f"range {record.range}", "monotonic" if traits.monotonic else "not monotonic"]
    words += ["zero-centred"] if traits.zero_centred else []
    words += [f"saturates: {traits.saturates}", "smooth" if traits.smooth else "has a kink"]
    axes.set_xlabel("  ·  ".join(words), fontsize=7, color="0.35")


def _word(record: Activation, name: str, parameters: Mapping[str, Any] | None, preset: str | None) -> Any:
    """The value that a parameter has: as given, or the preset's default, or the activation's."""
    defaults = {parameter.name: parameter.default for parameter in record.parameters}
    for library in record.libraries:
        if library.library == preset:
            defaults |= library.defaults
    return {**defaults, **(parameters or {})}.get(name)


def _short(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:g}"
    return f"array of shape {list(np.shape(value))}" if np.ndim(value) else str(value)


def plot_activations(
    client: Client,
    names: Sequence[str],
    output: Path,
    *,
    low: float = -5.0,
    high: float = 5.0,
    parameters: Mapping[str, Any] | None = None,
    preset: str | None = None,
    accuracy: str = "exact",
) -> None:
    """Write a picture, of the kind that the suffix of `output` names, with the curve and the derivative of each activation over [low, high]."""
    columns = math.ceil(math.sqrt(len(names)))
    figure, grid = _figure(math.ceil(len(names) / columns), columns, 4.8, 3.4)
    for axes in grid.flat[len(names) :]:
        axes.set_visible(False)
    for axes, name in zip(grid.flat, names, strict=False):
        draw_activation(axes, client, name, low, high, parameters, preset=preset, accuracy=accuracy)
    figure.savefig(output, dpi=120)


def plot_training(client: Client, epochs: Sequence[Epoch], names: Sequence[str], output: Path) -> None:
    """Write a picture, of the kind that the suffix of `output` names, with the course of a training above, and the activations with their derivatives below."""
    figure, grid = _figure(2, max(4, len(names)), 4.0, 3.2)
    numbers = [epoch.number for epoch in epochs]
    layers = range(len(epochs[0].dead))
    curves: list[tuple[str, list[tuple[str, list[float]]]]] = [
        ("loss", [("training", [epoch.loss for epoch in epochs])]),
        ("accuracy", [("held out", [epoch.accuracy for epoch in epochs])]),
        ("L2 penalty of the activations", [("held out", [epoch.penalty for epoch in epochs])]),
        ("dead neurons", [(f"layer {layer + 1}", [float(epoch.dead[layer]) for epoch in epochs]) for layer in layers]),
    ]
    for axes in grid.flat:
        axes.set_visible(False)
    for axes, (title, lines) in zip(grid[0], curves, strict=False):
        axes.set_visible(True)
        for label, values in lines:
            axes.plot(numbers, values, marker="o", markersize=3, label=label)
        axes.set_title(title)
        axes.set_xlabel("epoch")
        axes.grid(True, alpha=0.3)
        axes.legend(fontsize=8)
    for axes, name in zip(grid[1], names, strict=False):
        axes.set_visible(True)
        draw_activation(axes, client, name, -5, 5)
    figure.savefig(output, dpi=110)


_BARS = 120
_MAP_WIDTH = 128


def plot_neurons(stats: NeuronStats, output: Path) -> None:
    """Write a picture, of the kind that the suffix of `output` names, with the distribution of a layer's activations, and a map of its neurons by how often they are inactive.

    Each neuron is a square of the map, in the order of their indices; dead ones are framed in red. Without a histogram the
    first panel shows how many neurons have which inactive fraction.
    """
    figure, grid = _figure(1, 2, 6.0, 4.2)
    left, right = grid[0]
    if stats.histogram is None:
        left.hist(stats.inactive_fraction.reshape(-1), bins=50, range=(0, 1), color="tab:blue")
        left.set_xlabel("inactive fraction")
        left.set_ylabel("neurons")
    else:
        _draw_distribution(left, stats)
    left.set_title(f"{stats.activation}: {stats.layer.samples:,} samples of {stats.neurons:,} neurons", fontsize=10)
    left.grid(True, alpha=0.3)
    _draw_map(right, stats)
    figure.savefig(output, dpi=120)


def _draw_distribution(axes: Any, stats: NeuronStats) -> None:
    """The numbers but zero, in bars of one width: the histogram's bins, which are wider the larger their numbers, spread over them."""
    assert stats.histogram is not None
    low, high, counts = Histogram.of(stats.histogram.keys % BINS, stats.histogram.counts).bins()
    total = int(counts.sum())
    zero = int(counts[(low == 0) | (high == 0)].sum())
    drawn = (low != 0) & (high != 0) & np.isfinite(low) & np.isfinite(high)
    low, high, counts = low[drawn], high[drawn], counts[drawn]
    if counts.size:
        # Without the rarest at either end, so that one outlier does not make the rest a single bar.
        reached = np.cumsum(counts) / counts.sum()
        first, last = np.searchsorted(reached, (5e-4, 1 - 5e-4))
        edges = np.linspace(low[first], high[last], _BARS + 1)
        below = np.clip((edges[:, np.newaxis] - low) / (high - low), 0, 1) @ counts
        axes.stairs(np.diff(below), edges, fill=True, color="tab:blue")
        axes.set_yscale("log")
    axes.set_xlabel(f"activation; {zero / max(total, 1):.1%} are zero and not drawn")
    axes.set_ylabel("activations")


def _draw_map(axes: Any, stats: NeuronStats) -> None:
    inactive, dead = stats.inactive_fraction.reshape(-1), stats.dead.reshape(-1)
    width = min(max(math.ceil(math.sqrt(inactive.size * 1.4)), 1), _MAP_WIDTH)
    rows = max(math.ceil(inactive.size / width), 1)
    table = np.full(rows * width, math.nan)
    table[: inactive.size] = inactive
    image = axes.imshow(table.reshape(rows, width), cmap="viridis", vmin=0, vmax=1, interpolation="nearest")
    places = np.flatnonzero(dead)
    size = max(min((220 / max(width, rows)) ** 2, 200), 1)
    axes.scatter(
        places % width, places // width, s=size, marker="s", facecolors="none", edgecolors="red", linewidths=0.8
    )
    axes.set_xticks([])
    axes.set_yticks([])
    axes.set_title(
        f"inactive fraction of each neuron; {places.size:,} dead (>= {stats.threshold:g}) in red", fontsize=10
    )
    axes.figure.colorbar(image, ax=axes, shrink=0.85)


__all__ = ["draw_activation", "plot_activations", "plot_neurons", "plot_training"]
