"""Probabilities from logits, as the ranked labels show them."""

from __future__ import annotations

import numpy as np


def softmax(logits: np.ndarray, temperature: float = 1.0) -> np.ndarray:
    """Probabilities (…, rows) in float32.

    Args:
        logits: (…, rows).
        temperature: that logits are divided by.
    """
    x = logits.astype(np.float32, copy=False)
    x = np.exp((x - x.max(-1, keepdims=True)) / np.float32(temperature))
    return np.asarray(x / x.sum(-1, keepdims=True))


def sigmoid(logits: np.ndarray) -> np.ndarray:
    """Independent scores (…, rows) in float32; no overflow."""
    return np.asarray(0.5 * (1 + np.tanh(0.5 * logits.astype(np.float32, copy=False))))


def by_label(probabilities: np.ndarray, groups: tuple[tuple[int, ...], ...] | None) -> np.ndarray:
    """The probabilities (…, labels) of labels from those of rows; those of a label's rows are added.

    Args:
        probabilities: (…, rows).
        groups: the rows of each label; None where each row is a label.
    """
    if groups is None:
        return probabilities
    return np.stack([probabilities[..., list(rows)].sum(-1) for rows in groups], -1)


def shortest(value: float | np.floating) -> float:
    """The float whose shortest decimal form is that of the float32."""
    return float(str(np.float32(value)))
