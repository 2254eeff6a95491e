"""What the scripts of peers share: they take the name of a contender a line, make its call, and answer how long it took.

    {"ready": ["Flight, DoExchange", ...]}     when the server is there and each call has been made once
    <- Flight, DoExchange
    {"seconds": 0.21}

Standard output is kept for this; whatever a library prints goes to the standard error. Knows nothing of who measures.
"""

from __future__ import annotations

import json
import os
import socket
import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np

CHUNK = 1 << 20
"""Bytes of a message, where a peer sends a tensor in several."""

# Before a library, or a server that is started, can write there.
_ANSWERS = os.fdopen(os.dup(1), "w", buffering=1)
os.dup2(2, 1)


def tensor() -> Any:
    """The float32 array that all send, of as many megabytes as the first argument says."""
    return (np.random.default_rng(0).standard_normal(int(sys.argv[1]) * 250_000) * 3).astype(np.float32)


def sigmoid(x: Any) -> Any:
    """What NumPy makes of it in few passes: the kernel of peers that bring none."""
    out = np.negative(x)
    with np.errstate(over="ignore"):
        np.exp(out, out=out)
    out += 1
    return np.reciprocal(out, out=out)


def free_port() -> int:
    """A port that was free a moment ago, for servers that can't find one themselves."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        return int(taken.getsockname()[1])


def wait(ready: Callable[[], bool], seconds: float = 90) -> None:
    """Until it is; raises TimeoutError."""
    deadline = time.monotonic() + seconds
    while not ready():
        if time.monotonic() > deadline:
            raise TimeoutError("the server did not come up")
        time.sleep(0.1)


def compete(
    contenders: dict[str, Callable[[], Any]], x: Any, *, echoes: dict[str, Callable[[], Any]] | None = None
) -> None:
    """Make calls as they are asked for, until the standard input ends. Each result is compared with NumPy's, once; that of `echoes`, which
    compute nothing, with x."""
    expected = sigmoid(x)
    for call in contenders.values():
        # One of them computes with errors up to 6e-4.
        np.testing.assert_allclose(np.asarray(call()).reshape(-1), expected, rtol=1e-3, atol=1e-6)
    for call in (echoes or {}).values():
        np.testing.assert_array_equal(call(), x)
    contenders = contenders | (echoes or {})
    print(json.dumps({"ready": list(contenders)}), file=_ANSWERS)
    for line in sys.stdin:
        call = contenders[line.rstrip("\n")]
        begin = time.perf_counter()
        call()
        print(json.dumps({"seconds": time.perf_counter() - begin}), file=_ANSWERS)
