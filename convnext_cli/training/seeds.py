"""Randomness that a run can be taken up with at any step: every draw has a seed of its own, made from what it is for.

So neither the number of workers, nor of processes, nor where a run was cut changes what is drawn.
"""

from __future__ import annotations

from hashlib import blake2b

import numpy as np
import torch


def seed_of(*parts: int | str) -> int:
    """A number below 2**63, unlike for unlike parts."""
    text = "/".join(map(str, parts)).encode()
    return int.from_bytes(blake2b(text, digest_size=8).digest(), "little") >> 1


def generator(*parts: int | str) -> torch.Generator:
    """On the CPU: the same numbers on every device."""
    return torch.Generator().manual_seed(seed_of(*parts))


def numpy(*parts: int | str) -> np.random.Generator:
    return np.random.default_rng(seed_of(*parts))
