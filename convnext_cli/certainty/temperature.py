"""The temperature that makes scores mean what they say."""

from __future__ import annotations

import math

import numpy as np


def fit_temperature(logits: np.ndarray, truth: np.ndarray) -> float:
    """What logits are divided by so that scores mean most: least log loss (C. Guo et al., arXiv 1706.04599).

    The loss is convex in its inverse, which a bisection of the slope finds. One photo more is counted, that may be of
    any class: without a mistake among a few, all scores would become 1.

    Args:
        logits: (N, rows), one photo or more.
        truth: (N,) the true row of each photo.
    """
    x = logits.astype(np.float64)
    any_class = 1 / (len(x) + 1)
    true = (1 - any_class) * x[np.arange(len(x)), truth] + any_class * x.mean(1)
    x = x - x.max(1, keepdims=True)
    shift = logits.astype(np.float64).max(1)

    def slope(sharpness: float) -> float:
        weights = np.exp(sharpness * x)
        expected = (weights * x).sum(1) / weights.sum(1) + shift
        return float((expected - true).mean())

    low, high = 1 / 64, 64.0
    for _ in range(60):
        middle = math.sqrt(low * high)
        low, high = (middle, high) if slope(middle) < 0 else (low, middle)
    return 1 / math.sqrt(low * high)
