"""The hooks in the frameworks themselves. Where one is not installed its tests are not collected: `make test-frameworks` has all."""

from __future__ import annotations

import importlib.util
import os

os.environ.setdefault("KERAS_BACKEND", "torch")
_NEEDS = {"test_torch.py": "torch", "test_keras.py": "keras"}
collect_ignore = [module for module, package in _NEEDS.items() if importlib.util.find_spec(package) is None]
