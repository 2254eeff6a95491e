"""Regularizers as records: what each penalises, its parameters, and the kernels that are compiled for it."""
