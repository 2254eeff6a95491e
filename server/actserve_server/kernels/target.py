"""The processor that kernels are compiled for: a published baseline, not whatever the host happens to be.

Code for the baseline runs on every processor that has it, so a cache filled where an image is built is good wherever
the image runs, and the same instructions give the same bits on all of them. What may be compiled for more is said by `vectors`.
This module knows nothing of kernels.
"""

from __future__ import annotations

import contextlib
import functools
import platform
import threading
from collections.abc import Iterator

import llvmlite.binding as llvm
from numba.core import config
from numba.core.registry import cpu_target

__all__ = ["interleaving", "is_x86", "pin"]

_VECTORIZER = threading.Lock()

# LLVM's name of the baseline, and the features that the host must report before it is trusted to run the code:
# the x86-64 psABI's level 3 (https://gitlab.com/x86-psABIs/x86-64-ABI), and ARMv8-A, whose base has fused multiply-add.
_X86 = ("x86-64-v3", ("avx", "avx2", "bmi", "bmi2", "f16c", "fma", "lzcnt", "movbe"))
_ARM = ("generic", ("neon",))
_BASELINES = {"x86_64": _X86, "amd64": _X86, "aarch64": _ARM, "arm64": _ARM}


def is_x86() -> bool:
    """Whether the baseline is that of x86-64."""
    return _BASELINES.get(platform.machine().lower()) is _X86


@functools.cache
def pin() -> str:
    """Set Numba's target for this process and return its name; a host below the baseline is its own target.

    >>> pin()  # doctest: +SKIP
    'x86-64-v3'

    Raises RuntimeError when Numba has compiled already, for what it compiles from then on would carry the wrong name.
    """
    if "_toplevel_target_context" in vars(cpu_target):
        raise RuntimeError("the kernels must be imported before anything else in this process compiles with Numba")
    features = llvm.get_host_cpu_features()
    name, required = _BASELINES.get(platform.machine().lower(), ("", ()))
    if name and all(features.get(feature, False) for feature in required):
        config.CPU_NAME, config.CPU_FEATURES = name, ""
    else:
        config.CPU_NAME, config.CPU_FEATURES = llvm.get_host_cpu_name(), features.flatten()
    return f"{config.CPU_NAME} {config.CPU_FEATURES}".strip()


@contextlib.contextmanager
def interleaving(vectors: int) -> Iterator[None]:
    """Have loops that are compiled meanwhile work at so many vectors at once; 0 leaves it to LLVM.

    LLVM takes one at a time where it sees no reduction, and the loop then waits for the latency of each instruction. The
    option is the process's, so one compilation goes at a time: how a sum is split would change its bits.
    """
    with _VECTORIZER:
        llvm.set_option("", f"-force-vector-interleave={vectors}")
        try:
            yield
        finally:
            llvm.set_option("", "-force-vector-interleave=0")
