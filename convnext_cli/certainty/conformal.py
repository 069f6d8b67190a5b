"""Split-conformal sets of labels, which include the true one for a chosen share of photos.

The quantile of n scores at coverage c is the ⌈(n + 1) c⌉-th smallest (V. Vovk et al., Algorithmic Learning in a Random
World, 2005): then the true label of a new photo of the same kind is in the set with a probability of at least c.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np

from convnext_cli.base.errors import UsageError

COVERAGES = (0.8, 0.9, 0.95, 0.99)
Kind = Literal["lac", "aps"]
KINDS: tuple[Kind, ...] = get_args(Kind)


@dataclass(frozen=True)
class Quantiles:
    """The quantiles of each kind of score.

    Args:
        photos: validation photos that they rest on.
        values: by kind and coverage; a coverage that needs more photos is missing.

    Raises:
        ValueError: a quantile is not from 0 to 1.
    """

    photos: int
    values: Mapping[Kind, Mapping[float, float]]

    def __post_init__(self) -> None:
        for kind, quantiles in self.values.items():
            if kind not in KINDS or not all(coverage in COVERAGES for coverage in quantiles):
                raise ValueError("quantiles of sets have an unknown kind or coverage")
            # sums of float32 probabilities exceed 1 by a little
            if not all(0 <= value <= 1 + 1e-3 for value in quantiles.values()):
                raise ValueError("a quantile of sets is not from 0 to 1")

    @classmethod
    def fit(cls, probabilities: np.ndarray, truth: np.ndarray) -> Quantiles:
        """Fit on validation photos.

        Args:
            probabilities: (N, rows).
            truth: (N,) the true row of each photo.
        """
        scores = {"lac": lac_scores(probabilities, truth), "aps": aps_scores(probabilities, truth)}
        photos = len(truth)
        return cls(
            photos,
            {kind: {c: quantile(scores[kind], c) for c in COVERAGES if photos >= least_photos(c)} for kind in KINDS},
        )

    def quantile(self, coverage: float, kind: Kind) -> float:
        """The quantile for a coverage.

        Raises:
            UsageError: the coverage is not one of ``COVERAGES``, or rests on too few photos.
        """
        if coverage not in COVERAGES:
            choices = ", ".join(f"{value:g}" for value in COVERAGES)
            raise UsageError(f"sets have no coverage of {coverage:g}", f"choose one of {choices}")
        try:
            return self.values[kind][coverage]
        except KeyError:
            raise UsageError(
                f"a coverage of {coverage:g} needs {least_photos(coverage)} validation photos, "
                f"and the calibration rests on {self.photos}",
                "choose a lower coverage, or calibrate on more photos",
            ) from None


def least_photos(coverage: float) -> int:
    """The fewest photos that have a quantile at this coverage."""
    return next(n for n in range(1, 1_000_000) if _rank(n, coverage) <= n)


def quantile(scores: np.ndarray, coverage: float) -> float:
    """The ⌈(n + 1) coverage⌉-th smallest of n scores; of at least ``least_photos(coverage)``."""
    return float(np.partition(scores, _rank(len(scores), coverage) - 1)[_rank(len(scores), coverage) - 1])


def lac_scores(probabilities: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """Least ambiguous sets (M. Sadinle et al., arXiv 1609.00451): 1 less the probability of the true row, (N,)."""
    return 1 - np.take_along_axis(probabilities, truth[:, None], 1)[:, 0].astype(np.float64)


def aps_scores(probabilities: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """Adaptive sets (arXiv 2006.02544, 2009.14193): all probabilities above that of the true row, and half of it, (N,).

    The papers draw the part of it at random. Its mean in place of a draw gives a photo the same set each time, and the
    coverage still holds, as it does for any fixed score.
    """
    own = np.take_along_axis(probabilities, truth[:, None], 1)
    above = np.where(probabilities > own, probabilities, 0).sum(1, dtype=np.float64)
    return np.asarray(above + own[:, 0].astype(np.float64) / 2)


def members(probabilities: np.ndarray, quantile: float, kind: Kind) -> np.ndarray:
    """The rows of a set, the most probable first; the best row is always among them.

    Args:
        probabilities: (rows,) of one photo.
        quantile: from ``Quantiles``.
        kind: of the quantile.
    """
    order = np.argsort(-probabilities, kind="stable")
    falling = probabilities[order].astype(np.float64)
    if kind == "lac":
        size = int(np.count_nonzero(1 - falling <= quantile))
    else:
        # equally probable rows have the same score, and enter together
        first = np.searchsorted(-falling, -falling, side="left")
        above = np.concatenate(([0.0], np.cumsum(falling)))[first]
        size = int(np.count_nonzero(above + falling / 2 <= quantile))
    return order[: max(1, size)]


def _rank(photos: int, coverage: float) -> int:
    # 1e-9: 0.95 * 20 is 19, not a little more
    return math.ceil((photos + 1) * coverage - 1e-9)
