"""Photos that are unlike everything that a model was trained on: a score, and the limit that most photos keep."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Literal, get_args

import numpy as np

from convnext_cli.base.errors import ModelError
from convnext_cli.certainty import scope_scores
from convnext_cli.certainty.scope_scores import Arrays

Method = Literal["max_softmax", "max_logit", "energy", "relative_mahalanobis", "nearest_neighbour"]
METHODS: tuple[Method, ...] = get_args(Method)
# The best on average of benchmarks/out_of_scope.py; and the best of those that need no features.
BEST: Method = "nearest_neighbour"
BEST_OF_LOGITS: Method = "energy"
KEPT = 0.95  # the share of validation photos that stay in scope
FOLDS = 20  # few photos are then missing from the statistics that the limit is set by
_CHUNK = 4096  # photos that are scored at once, to bound the memory
_NAMES = {
    "relative_mahalanobis": {"mean", "deviation", "quadratic", "linear", "constant"},
    "nearest_neighbour": {"bank"},
}


@dataclass(frozen=True, eq=False)
class Scorer:
    """One method with its arrays.

    Args:
        method: its name.
        arrays: by name; empty for methods on logits alone.

    Raises:
        ValueError: the arrays do not fit the method, or each other, or are not finite.
    """

    method: Method
    arrays: Arrays = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.method not in METHODS:
            raise ValueError(f"no score of scope is called {self.method!r}")
        if self.arrays.keys() != _NAMES.get(self.method, set()):
            raise ValueError(f"the score {self.method} has other arrays than it needs")
        for name, array in self.arrays.items():
            if array.dtype not in (np.float16, np.float32) or not array.size or not np.isfinite(array).all():
                raise ValueError(f"the array {name} of the score {self.method} is damaged")
        shapes = {name: array.shape for name, array in self.arrays.items()}
        if self.method == "nearest_neighbour" and len(shapes["bank"]) != 2:
            raise ValueError("the bank of the nearest neighbours is not a table")
        if self.method == "relative_mahalanobis":
            channels, classes = math.prod(shapes["mean"]), math.prod(shapes["constant"])
            expected: dict[str, tuple[int, ...]] = {
                "mean": (channels,),
                "deviation": (channels,),
                "quadratic": (channels * (channels + 1) // 2,),
                "linear": (classes, channels),
                "constant": (classes,),
            }
            if shapes != expected or not (self.arrays["deviation"] > 0).all():
                raise ValueError(f"the arrays of the score {self.method} do not fit each other")

    @classmethod
    def fit(cls, method: Method, features: np.ndarray | None, truth: np.ndarray) -> Scorer:
        """Fit a method on photos.

        Args:
            method: its name.
            features: (N, channels); None is enough for methods on logits.
            truth: (N,) the row of each photo.
        """
        if method not in _NAMES:
            return cls(method)
        if features is None:
            raise ValueError(f"the score {method} needs features")
        if method == "nearest_neighbour":
            return cls(method, scope_scores.fit_nearest_neighbour(features))
        return cls(method, scope_scores.fit_relative_mahalanobis(features, truth))

    @property
    def channels(self) -> int | None:
        """How many features it reads; None for a method on logits alone."""
        if self.method == "nearest_neighbour":
            return int(self.arrays["bank"].shape[1])
        return len(self.arrays["mean"]) if "mean" in self.arrays else None

    @cached_property
    def _unpacked(self) -> Arrays:
        return scope_scores.unpacked(self.arrays)

    def scores(self, logits: np.ndarray, features: np.ndarray | None) -> np.ndarray:
        """The scores (N,) of photos, float64; more is stranger.

        Args:
            logits: (N, rows).
            features: (N, channels); None is enough for methods on logits.

        Raises:
            ModelError: features are missing, or have another number of channels.
        """
        if self.channels is None:
            return getattr(scope_scores, self.method)(logits)  # type: ignore[no-any-return]
        if features is None or features.shape[1] != self.channels:
            raise ModelError(
                f"the calibration reads {self.channels} features of a photo, and this engine gives "
                f"{'none' if features is None else features.shape[1]}",
                "calibrate this model again: convnext calibrate",
            )
        parts = [slice(start, start + _CHUNK) for start in range(0, max(1, len(features)), _CHUNK)]
        if self.method == "nearest_neighbour":
            scores = [scope_scores.nearest_neighbour(features[part], self._unpacked) for part in parts]
        else:
            scores = [scope_scores.relative_mahalanobis(features[part], self._unpacked) for part in parts]
        return scores[0] if len(scores) == 1 else np.concatenate(scores)


@dataclass(frozen=True, eq=False)
class Scope:
    """A score, and its limit.

    Args:
        scorer: the score.
        limit: photos with a higher score are out of scope.

    Raises:
        ValueError: the limit is not a number.
    """

    scorer: Scorer
    limit: float

    def __post_init__(self) -> None:
        if not math.isfinite(self.limit):
            raise ValueError("the limit of the scope is not a number")

    @classmethod
    def fit(
        cls, method: Method, logits: np.ndarray, features: np.ndarray | None, truth: np.ndarray
    ) -> tuple[Scope, np.ndarray]:
        """Fit a score on validation photos, and the limit that ``KEPT`` of them keep.

        A photo is nearer to statistics that it is part of. The limit is therefore set by scores of photos that had no
        part in them (``held_out``); the statistics that are kept rest on all photos.

        Args:
            method: the name of the score.
            logits: (N, rows).
            features: (N, channels) or None.
            truth: (N,) the row of each photo.

        Returns:
            The scope, and (N,) whether each photo is in it.
        """
        scores = held_out(method, logits, features, truth)
        rank = min(len(scores), math.ceil((len(scores) + 1) * KEPT - 1e-9))
        limit = float(np.sort(scores)[rank - 1])
        return cls(Scorer.fit(method, features, truth), limit), scores <= limit

    def contains(self, logits: np.ndarray, features: np.ndarray | None) -> np.ndarray:
        """Whether each photo is in scope, (N,). Arguments as for ``Scorer.scores``."""
        return np.asarray(self.scorer.scores(logits, features) <= self.limit)


def held_out(
    method: Method, logits: np.ndarray, features: np.ndarray | None, truth: np.ndarray, *, seed: int = 0
) -> np.ndarray:
    """Scores (N,) of photos by statistics of the other folds, which are drawn at random."""
    if method not in _NAMES or len(truth) < 2:
        return Scorer.fit(method, features, truth).scores(logits, features)
    # each fold has photos of every class, as far as there are enough of it
    order = np.lexsort((np.random.default_rng(seed).random(len(truth)), truth))
    fold = np.empty(len(truth), np.int64)
    fold[order] = np.arange(len(truth)) % min(FOLDS, len(truth))
    scores = np.zeros(len(truth))
    for number in range(int(fold.max()) + 1):
        out = fold == number
        rest = None if features is None else features[~out]
        scorer = Scorer.fit(method, rest, truth[~out])
        scores[out] = scorer.scores(logits[out], None if features is None else features[out])
    return scores


def from_arrays(method: Method, limit: float, arrays: Mapping[str, np.ndarray]) -> Scope:
    """The scope of a stored calibration.

    Raises:
        ValueError: the arrays or the limit are damaged.
    """
    return Scope(Scorer(method, dict(arrays)), limit)
