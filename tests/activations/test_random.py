"""The draws of stochastic activations: the generator's published answers, and what is made of its words."""

from __future__ import annotations

from typing import Any

import numba
import numpy as np
import pytest
from actserve_server.elementary import WIDE, random
from actserve_server.kernels.binding import Bindings

uniform = Bindings(WIDE).inline(random.uniform)


@numba.njit  # type: ignore[misc]
def fill(out: Any, start: int, seed_hi: float, seed_lo: float) -> None:
    for p in range(out.size):
        out[p] = uniform(start + p, seed_hi, seed_lo)


def draws(count: int, start: int, seed: int) -> np.ndarray[Any, Any]:
    out = np.empty(count)
    fill(out, start, float(seed >> 32), float(seed & 0xFFFFFFFF))
    return out


@pytest.mark.parametrize(
    ("counter_and_key", "words"),
    [
        ([0] * 6, "6627e8d5 e169c58d bc57ac4c 9b00dbd8"),
        ([0xFFFFFFFF] * 6, "408f276d 41c83b0e a20bc7c6 6d5451fd"),
        (
            [0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344, 0xA4093822, 0x299F31D0],
            "d16cfe09 94fdcceb 5001e420 24126ea1",
        ),
    ],
)
def test_published_answers(counter_and_key: list[int], words: str) -> None:
    """Those of the Random123 distribution."""
    assert random._philox(*counter_and_key) == tuple(int(word, 16) for word in words.split())


@pytest.mark.parametrize("seed", [0, 1, 2**32, 2**63 - 1])
@pytest.mark.parametrize("start", [0, 2**32 - 40, 2**45])
def test_a_draw_follows_from_index_and_seed(seed: int, start: int) -> None:
    out = draws(97, start, seed)
    for p, drawn in enumerate(out):
        index = start + p
        first, second, _, _ = random._philox(index & 0xFFFFFFFF, index >> 32, 0, 0, seed & 0xFFFFFFFF, seed >> 32)
        assert drawn == ((first << 20 | second >> 12) + 0.5) / 2**52


def test_draws_are_uniform_and_unrelated() -> None:
    out = draws(1_000_000, 0, 20)
    counts = np.bincount((out * 1000).astype(int), minlength=1000)
    assert out.min() > 0 and out.max() < 1
    assert 850 < ((counts - 1000) ** 2 / 1000).sum() < 1150
    for other in (np.roll(out, 1), draws(out.size, 0, 21), draws(out.size, 0, 20 + 2**32)):
        assert abs(np.corrcoef(out, other)[0, 1]) < 0.005
