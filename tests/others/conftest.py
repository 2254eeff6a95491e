"""Tests that other people wrote for other libraries, passed through the client; and comparisons with those libraries.

The former are imported from the installed packages, with the function under test put in place of theirs; nothing of them is
kept here. Where a package is not installed its tests are not collected: `make test-others` has all.
"""

from __future__ import annotations

import importlib.util

_NEEDS = {
    "test_keras.py": "keras",
    "test_keras_regularizers.py": "keras",
    "test_onnx.py": "onnx",
    "test_scipy.py": "scipy",
    "test_torch.py": "torch",
}
collect_ignore = [module for module, package in _NEEDS.items() if importlib.util.find_spec(package) is None]
