"""Scores of how far a photo is from everything that a model was trained on: more is stranger.

Each method has a function that computes scores (N,) in float64 from logits (N, rows) and pooled features (N, channels),
and, where it rests on other photos, one that fits its arrays on them.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from convnext_cli.certainty.probabilities import softmax

Arrays = Mapping[str, np.ndarray]

BANK = 300_000  # numbers that the photos have together, among which the nearest neighbours are looked for
NEIGHBOUR = 10  # the k of the k-th nearest
_HALF = 3e4  # the largest number that is stored in float16


def max_softmax(logits: np.ndarray) -> np.ndarray:
    """The probability of the best class, negated: the baseline of D. Hendrycks and K. Gimpel (arXiv 1610.02136)."""
    return np.asarray(-softmax(logits).max(1).astype(np.float64))


def max_logit(logits: np.ndarray) -> np.ndarray:
    """The largest logit, negated (D. Hendrycks et al., arXiv 1911.11132)."""
    return np.asarray(-logits.max(1).astype(np.float64))


def energy(logits: np.ndarray) -> np.ndarray:
    """The free energy at temperature 1: -log Σ exp(logit) (W. Liu et al., arXiv 2010.03759)."""
    x = logits.astype(np.float64)
    most = x.max(1)
    return np.asarray(-most - np.log(np.exp(x - most[:, None]).sum(1)))


def fit_relative_mahalanobis(features: np.ndarray, truth: np.ndarray, *, shrinkage: float | None = None) -> Arrays:
    """Fit the score of J. Ren et al. (arXiv 2106.09022): the squared Mahalanobis distance to the nearest class mean,
    with one covariance P⁻¹ for all classes, less that to the mean of all photos, with their covariance P₀⁻¹.

    With u = (z - μ₀) / σ and the class means m in the same units, the difference is
    u'(P - P₀)u - 2 u'Pm + m'Pm: one matrix, and one vector a class.

    Args:
        features: (N, channels).
        truth: (N,) the row of each photo.
        shrinkage: the share of a multiple of the identity in both covariances; None for that of O. Ledoit and M. Wolf
            (J. Multivariate Analysis 88, 2004), without which few photos have no inverse.

    Returns:
        mean, deviation: (channels,) μ₀ and σ.
        quadratic: the upper triangle of P - P₀, row by row.
        linear: (classes, channels) Pm. constant: (classes,) m'Pm.
    """
    z = features.astype(np.float64)
    mean, deviation = z.mean(0), _deviation(z)
    u = (z - mean) / deviation
    classes, number = np.unique(truth, return_inverse=True)
    counts = np.bincount(number)
    means = np.zeros((len(classes), u.shape[1]))
    np.add.at(means, number, u)
    means /= counts[:, None]
    within = _precision(u - means[number], shrinkage)
    quadratic = within - _precision(u, shrinkage)
    linear = means @ within
    return {
        "mean": mean.astype(np.float32),
        "deviation": deviation.astype(np.float32),
        "quadratic": quadratic[np.triu_indices(len(mean))].astype(np.float32),
        "linear": linear.astype(np.float16 if np.abs(linear).max() < _HALF else np.float32),
        "constant": (linear * means).sum(1).astype(np.float32),
    }


def relative_mahalanobis(features: np.ndarray, arrays: Arrays) -> np.ndarray:
    """The score whose arrays ``fit_relative_mahalanobis`` makes."""
    u = (features.astype(np.float32) - arrays["mean"]) / arrays["deviation"]
    square = ((u @ arrays["quadratic"]) * u).sum(1, dtype=np.float64)
    return np.asarray(square - (2 * (u @ arrays["linear"].T) - arrays["constant"]).max(1))


def fit_nearest_neighbour(features: np.ndarray, *, seed: int = 0) -> Arrays:
    """Choose the photos among which the neighbours of Y. Sun et al. (arXiv 2204.06507) are looked for.

    Args:
        features: (N, channels).
        seed: of the draw, where there are too many photos to keep all of them.

    Returns:
        bank: (photos, channels) features of length 1.
    """
    bank = max(1, BANK // features.shape[1])
    if len(features) > bank:
        features = features[np.sort(np.random.default_rng(seed).permutation(len(features))[:bank])]
    return {"bank": _unit(features).astype(np.float16)}


def nearest_neighbour(features: np.ndarray, arrays: Arrays, *, k: int = NEIGHBOUR) -> np.ndarray:
    """The distance of features of length 1 to the k-th nearest in the bank; of a smaller bank to the last."""
    bank = arrays["bank"]
    place = max(0, len(bank) - k)
    likeness = np.partition(_unit(features) @ bank.T, place, axis=1)[:, place]
    return np.sqrt(np.maximum(2 - 2 * likeness.astype(np.float64), 0))


def unpacked(arrays: Arrays) -> Arrays:
    """Arrays as they compute: in float32, and a triangle as the symmetric matrix that it stands for."""
    wide = {name: array.astype(np.float32) for name, array in arrays.items()}
    if "quadratic" in wide:
        channels = len(wide["mean"])
        matrix = np.zeros((channels, channels), np.float32)
        matrix[np.triu_indices(channels)] = wide["quadratic"]
        wide["quadratic"] = matrix + np.triu(matrix, 1).T
    return wide


def _deviation(z: np.ndarray) -> np.ndarray:
    """(channels,) standard deviations, none of them 0."""
    return np.asarray(np.maximum(z.std(0), 1e-6 * max(float(z.std()), 1e-30)))


def _precision(centred: np.ndarray, shrinkage: float | None) -> np.ndarray:
    """The inverse of the covariance of centred rows (N, channels)."""
    photos, channels = centred.shape
    covariance = centred.T @ centred / photos
    size = float(np.trace(covariance)) / channels
    if shrinkage is None:
        shrinkage = _ledoit_wolf(centred, covariance, size)
    identity = np.eye(channels)
    # the least multiple of the identity keeps constant channels from dividing by zero
    return np.linalg.inv((1 - shrinkage) * covariance + max(shrinkage * size, 1e-9) * identity)


def _ledoit_wolf(centred: np.ndarray, covariance: np.ndarray, size: float) -> float:
    """The best share of ``size`` times the identity, as estimated from the rows themselves."""
    photos, channels = centred.shape
    distance = float((covariance**2).sum()) - channels * size**2
    spread = float(((centred**2).sum(1) ** 2).sum()) / photos - float((covariance**2).sum())
    return min(1.0, max(0.0, spread / photos / distance)) if distance > 0 else 1.0


def _unit(features: np.ndarray) -> np.ndarray:
    x = features.astype(np.float32)
    return np.asarray(x / np.maximum(np.linalg.norm(x, axis=1, keepdims=True), 1e-12))
