"""A layer's statistics as JSON and as tables: its figures, and its least active neurons."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from actserve.stats import NeuronStats

from actserve_client.cli.output import bar, print_table

__all__ = ["as_json", "print_layer"]

_QUANTILES = (0.01, 0.25, 0.5, 0.75, 0.99)


def as_json(stats: NeuronStats) -> dict[str, Any]:
    """All figures by name; what is not known is null."""
    arrays = (
        "inactive_fraction",
        "zero_fraction",
        "saturated_fraction",
        "vanishing_fraction",
        "mean",
        "variance",
        "min",
        "max",
    )
    found: dict[str, Any] = {
        "activation": stats.activation,
        "parameters": dict(stats.parameters),
        **dataclasses.asdict(stats.options),
        "shape": stats.shape,
        "neurons": stats.neurons,
        "samples": stats.layer.samples,
        "dead_fraction": stats.dead_fraction,
        "layer": stats.layer,
        "dead": np.flatnonzero(stats.dead),
        "never_fired": np.flatnonzero(stats.never_fired),
        "not_fired_recently": np.flatnonzero(stats.not_fired_recently),
        "dormant": np.flatnonzero(stats.dormant),
        "last_fired": stats.last_fired,
        "nan": stats.nan,
        **{name: getattr(stats, name) for name in arrays},
    }
    if stats.histogram is not None:
        found["quantiles"] = {str(q): stats.quantile(q) for q in _QUANTILES}
    return found


def print_layer(stats: NeuronStats, source: str, top: int) -> None:
    """Print the figures of a layer that `source` holds, and so many of its neurons."""
    layer, options = stats.layer, stats.options
    n = stats.neurons

    def of_neurons(count: int) -> tuple[str, str]:
        return f"{count:,} ({count / n if n else 0:.1%})", bar(count / n if n else 0.0)

    def of_all(share: float) -> tuple[str, str]:
        return ("unknown", "") if math.isnan(share) else (f"{share:.1%}", bar(share))

    def number(value: float) -> tuple[str, str]:
        return ("unknown" if math.isnan(value) else f"{value:.6g}", "")

    after = options.dead_after_samples
    recently = [(f"not fired in the last {after:,} samples", *of_neurons(layer.not_fired_recently))] if after else []
    dormant = (
        [(f"dormant (mean |a| <= {options.tau:g} of the layer's)", *of_neurons(layer.dormant))] if options.sums else []
    )
    quantiles = []
    if options.histogram == "layer":
        quantiles = [(f"quantile {q:g}", *number(stats.quantile(q))) for q in _QUANTILES]
    infinite = layer.positive_infinity + layer.negative_infinity
    rows = [
        ("neurons", f"{n:,}" if len(stats.shape) == 1 else f"{n:,} {list(stats.shape)}", ""),
        ("samples of each", f"{layer.samples:,}", ""),
        (f"dead (inactive fraction >= {options.threshold:g})", *of_neurons(layer.dead)),
        ("never fired", *of_neurons(layer.never_fired)),
        *recently,
        *dormant,
        ("inactive activations", *of_all(layer.inactive_fraction)),
        ("zero activations", *of_all(layer.zero_fraction)),
        ("saturated", *of_all(layer.saturated_fraction)),
        ("slope exactly 0", *of_all(layer.vanishing_fraction)),
        ("not zero in a sample (L0)", *number(layer.l0)),
        ("mean", *number(layer.mean)),
        ("standard deviation", *number(math.sqrt(layer.variance) if layer.variance >= 0 else math.nan)),
        ("least and largest", f"{layer.min:.6g}, {layer.max:.6g}", ""),
        *quantiles,
        ("NaN, infinite", f"{layer.nan:,}, {infinite:,}", ""),
    ]
    fired = {"positive": "a > 0", "nonzero": "a != 0"}.get(options.fired, f"|a| > {options.eps:g}")
    print_table(("", "", ""), rows, title=f"{stats.activation} over {source}; a neuron fires when {fired}")
    shown = _least_active(stats, top)
    if len(shown):
        print_table(
            ("neuron", "inactive", "", "last fired", "mean", "largest", "is"),
            [_neuron_row(stats, place) for place in shown],
            title=f"the {len(shown)} least active neurons",
        )


def _least_active(stats: NeuronStats, top: int) -> Sequence[int]:
    order = np.argsort(-stats.inactive_fraction.reshape(-1), kind="stable")
    found: list[int] = order[:top].tolist()
    return found


def _neuron_row(stats: NeuronStats, place: int) -> tuple[str, ...]:
    where = np.unravel_index(place, stats.shape)
    inactive, last, mean = float(stats.inactive_fraction[where]), int(stats.last_fired[where]), float(stats.mean[where])
    conditions = (("dead", stats.dead), ("never fired", stats.never_fired), ("dormant", stats.dormant))
    return (
        ", ".join(str(int(index)) for index in where),
        "unknown" if math.isnan(inactive) else f"{inactive:.1%}",
        "" if math.isnan(inactive) else bar(inactive),
        "never" if last < 0 else f"{last:,}",
        "unknown" if math.isnan(mean) else f"{mean:.6g}",
        f"{float(stats.max[where]):.6g}",
        ", ".join(name for name, flags in conditions if flags[where]),
    )
