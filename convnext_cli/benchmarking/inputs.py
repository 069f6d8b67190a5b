"""What goes through the network while it is measured.

Never zeros, which need less power and flatter the clock, and never one batch again and again, which stays in the cache.
"""

from __future__ import annotations

import secrets

import numpy as np
from numpy.typing import NDArray

from convnext_cli.base import machine, memory

FEWEST = 8
_PHOTO = 3 * 4  # bytes of a pixel: float32, three channels

Batch = NDArray[np.float32]


def fresh_seed() -> int:
    """Another one for each run; it is kept in the results."""
    return secrets.randbits(32)


class Inputs:
    """Batches (N, 3, H, W), float32, drawn from a normal distribution as photos roughly are once normalised.

    At least ``FEWEST`` different ones, together larger than the last-level cache; ``next`` goes round. They overlap in
    one pool, so that large batches do not need eight times their memory. Raises MemoryError when there is not enough.
    """

    def __init__(self, batch_size: int, height: int, width: int, seed: int, cache: int | None = None) -> None:
        photo = _PHOTO * height * width
        self._batch = batch_size
        self._shift = max(1, batch_size // FEWEST)
        cached = 2 * (machine.last_level_cache() if cache is None else cache) // photo + 1
        photos = max(batch_size + (FEWEST - 1) * self._shift, cached)
        memory.demand(photos * photo, f"inputs of batch {batch_size}")
        generator = np.random.default_rng(seed)
        self.pool = generator.standard_normal((photos, 3, height, width), np.float32)
        self.count = (photos - batch_size) // self._shift + 1
        self._at = -1

    def next(self) -> Batch:
        """Another batch than the last one: a view of the pool."""
        self._at = (self._at + 1) % self.count
        start = self._at * self._shift
        return self.pool[start : start + self._batch]

    @property
    def nbytes(self) -> int:
        return self.pool.nbytes
