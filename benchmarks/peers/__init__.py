"""The libraries that kernels are compared with, each behind one function.

A peer is a module with a NAME, a `version()`, and `bind(record, operation, inputs, threads)`, which gives a
`Bound` call on those inputs, or None for what the library has not. Outputs are allocated beforehand where the library
lets them be. A peer that is not installed is absent.

An operation is "forward" or "derivative" of an elementwise record (inputs: x), or "forward" or "vjp" of one along the
last axis (inputs: x, or x and the upstream gradient, of two dimensions).
"""

from __future__ import annotations

import importlib
from types import ModuleType

MODULES = ("numpy_scipy", "torch_cpu", "onnx_runtime", "jax_cpu", "numexpr_cpu")


def available() -> list[ModuleType]:
    """The peers that are installed."""
    found = []
    for name in MODULES:
        try:
            found.append(importlib.import_module(f"peers.{name}"))
        except ImportError:
            continue
    return found
