"""Mergeable states: exact sums and counts, their bytes, and what is derived from them.

Both ends of the wire use it, and people who merge what several machines saw. Merging is integer addition, and the larger or
smaller of two, so it may happen in any order and any grouping, and gives the very bytes that one pass over all the data would
have given. It is NumPy only: it knows neither messages nor how states come about.
"""

from actserve.stats.format import StateError, StateMismatch
from actserve.stats.histograms import BINS, Histogram
from actserve.stats.neurons import COLUMNS, FIRED, HISTOGRAMS, INPUTS, SLOPES, LayerStats, NeuronOptions, NeuronStats
from actserve.stats.squares import SQUARE_UNIT_EXPONENT, SquareSum
from actserve.stats.sums import SQUARE_OFFSET, VALUE_OFFSET, ExactSums

__all__ = [
    "BINS",
    "COLUMNS",
    "FIRED",
    "HISTOGRAMS",
    "INPUTS",
    "SLOPES",
    "SQUARE_OFFSET",
    "SQUARE_UNIT_EXPONENT",
    "VALUE_OFFSET",
    "ExactSums",
    "Histogram",
    "LayerStats",
    "NeuronOptions",
    "NeuronStats",
    "SquareSum",
    "StateError",
    "StateMismatch",
]
