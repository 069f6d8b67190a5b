"""Exact intervals of a binomial share: C. J. Clopper and E. S. Pearson, Biometrika 26 (1934)."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

CONFIDENCE = 0.95
_STEPS = 60  # of a bisection of 0 … 1: beyond the precision of a float


def clopper_pearson(right: int, photos: int, confidence: float = CONFIDENCE) -> tuple[float, float]:
    """The two-sided interval of a share; (0, 1) of no photos.

    Args:
        right: successes, 0 … photos.
        photos: trials.
        confidence: the least probability that the interval covers the true share.
    """
    tail = (1 - confidence) / 2
    return _lowest(right, photos, tail), 1 - _lowest(photos - right, photos, tail)


def lower_bound(right: int, photos: int, confidence: float = CONFIDENCE) -> float:
    """The one-sided lower bound: the true share is at least this with that confidence; 0 of no photos."""
    return _lowest(right, photos, 1 - confidence)


def reaches(right: int, photos: int, share: float, confidence: float = CONFIDENCE) -> bool:
    """Whether ``lower_bound`` is at least ``share``, without computing it."""
    if right < share * photos:  # the bound is below the share that was seen
        return share <= 0
    return tail_probability(right, photos, share) <= 1 - confidence


def tail_probability(right: int, photos: int, share: float) -> float:
    """The probability of ``right`` successes or more in ``photos`` trials that each succeed with ``share``.

    It is summed over the number of mistakes, in logarithms: few terms where nearly all is right.
    """
    if right <= 0 or share >= 1:
        return 1.0
    if share <= 0:
        return 0.0
    mistakes = np.arange(1, photos - right + 1)
    ratios = np.log((photos - mistakes + 1) / mistakes) + (math.log1p(-share) - math.log(share))
    logs = photos * math.log(share) + np.concatenate(([0.0], np.cumsum(ratios)))
    return min(1.0, float(np.exp(logs).sum()))


def _lowest(right: int, photos: int, tail: float) -> float:
    """The share under which as many successes or more have the probability ``tail``."""
    if right <= 0:
        return 0.0
    if right == photos:
        return float(tail ** (1 / photos))
    return _bisect(lambda share: tail_probability(right, photos, share) < tail)


def _bisect(is_below: Callable[[float], bool]) -> float:
    low, high = 0.0, 1.0
    for _ in range(_STEPS):
        middle = (low + high) / 2
        low, high = (middle, high) if is_below(middle) else (low, middle)
    return (low + high) / 2
