"""What can be computed: each mode a frozen record of its options, one file each.

A mode says which tensors it gives, and opens a *stage* that is fed blocks of input and yields pieces of results. Maps
(forward, derivative) yield as they go; reductions (regularization, neuron statistics) keep a mergeable state, so that
what they answer does not depend on how the input was cut. Modes know arrays and compiled loops; they know neither
messages nor where blocks come from.
"""
