"""What another program's ONNX file answers to a few inputs, where its operations do not say what its scores are."""

from __future__ import annotations

from typing import Literal

import numpy as np

_NEAR_ONE = {"float32": 1e-3, "float64": 1e-3, "float16": 2e-2, "bfloat16": 5e-2, "int8": 5e-2}  # of a row's sum
_EXTREMES = (0.05, 0.95)  # scores beyond both show that 0 and 1 are limits, and not chance


def inputs(size: tuple[int, int], *, kind: Literal["tensor", "unit", "bytes"]) -> np.ndarray:
    """A few photos (N, 3, height, width) that have little in common: noise, single colours and stripes.

    kind: normalised, from 0 to 1, or from 0 to 255.
    """
    random = np.random.default_rng(0)
    noise = random.random((3, 3, *size))
    colours = np.broadcast_to(np.eye(3)[:, :, None, None], (3, 3, *size))
    plain = np.broadcast_to(np.array([0.0, 1.0])[:, None, None, None], (2, 3, *size))
    stripes = np.broadcast_to(np.arange(size[1]) // 4 % 2, (1, 3, *size))
    unit = np.concatenate([noise, colours, plain, stripes])
    if kind == "tensor":
        return np.concatenate([4.5 * unit - 2.1, 20 * (unit - 0.5)]).astype(np.float32)
    return (unit * (255 if kind == "bytes" else 1)).astype(np.float32)


def is_softmax(scores: np.ndarray, dtype: str) -> bool:
    """Whether all scores are shares of one sum, mostly 1. scores: (N, classes) of ``inputs``."""
    if scores.shape[1] < 2 or not np.isfinite(scores).all():
        return False
    sums = scores.sum(1)
    near = _NEAR_ONE.get(dtype, 1e-3) * sums.mean()
    alike = (scores == scores[:1]).all()  # one answer to everything says nothing, unless its sum is 1
    return bool((scores >= 0).all() and (np.abs(sums - (1 if alike else sums.mean())) <= near).all() and near > 0)


def joined(scores: np.ndarray, dtype: str) -> int:
    """How many softmaxes stand side by side: the sum of every photo's scores, where it is a whole number of at least 2
    and no score is above 1; otherwise 0. scores: (N, classes) of ``inputs``.
    """
    if not np.isfinite(scores).all() or not len(scores):
        return 0
    near = _NEAR_ONE.get(dtype, 1e-3)
    sums = scores.sum(1)
    heads = round(float(sums.mean()))
    if heads < 2 or 2 * heads > scores.shape[1] or (np.abs(sums - heads) > near * heads).any():
        return 0
    return heads if (scores >= 0).all() and (scores <= 1 + near).all() else 0


def in_unit_range(scores: np.ndarray) -> bool:
    """Whether no score is below 0 or above 1."""
    return bool(np.isfinite(scores).all() and (scores >= 0).all() and (scores <= 1).all() and np.ptp(scores) > 0)


def is_sigmoid(scores: np.ndarray) -> bool:
    """Whether all scores are between 0 and 1 and come near to both."""
    low, high = _EXTREMES
    return in_unit_range(scores) and float(scores.min()) < low and float(scores.max()) > high
