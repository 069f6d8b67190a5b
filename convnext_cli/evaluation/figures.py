"""Figures from answers: accuracy with its interval, classes, confusions, calibration, thresholds, and two models.

All functions are pure; arrays have one entry a photo.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

Z95 = 1.959963984540054  # of the normal distribution, for 95 % in the middle
BINS = 15  # of equal width, as Guo et al. (2017) count the expected calibration error
TOP = 5  # guesses of the top-5 figures
GRID = 1000  # thresholds are multiples of one thousandth: short to type
SHOWN = (*(step / 20 for step in range(20)), 0.99)


@dataclass(frozen=True)
class Share:
    """right of photos, and the interval of 95 % (Wilson, 1927) that covers the true share."""

    right: int
    photos: int
    low: float
    high: float

    @property
    def value(self) -> float:
        """0 to 1; NaN of no photos."""
        return self.right / self.photos if self.photos else math.nan

    def is_below(self, percent: float) -> bool:
        """Whether the share is below a percentage, in whole numbers: 57 of 100 are not below 57 %."""
        return 100 * self.right < percent * self.photos

    @classmethod
    def of(cls, right: int, photos: int) -> Share:
        return cls(right, photos, *wilson(right, photos))


def wilson(right: int, photos: int) -> tuple[float, float]:
    """The score interval of a binomial share, 95 %; (0, 1) of no photos.

    E. B. Wilson, Probable inference, the law of succession, and statistical inference, JASA 22 (1927).
    """
    if not photos:
        return 0.0, 1.0
    share, z2 = right / photos, Z95 * Z95
    middle = (share + z2 / (2 * photos)) / (1 + z2 / photos)
    half = Z95 / (1 + z2 / photos) * math.sqrt(share * (1 - share) / photos + z2 / (4 * photos * photos))
    # no share of all or none is beyond its own end, whatever the rounding
    return (0.0 if right == 0 else middle - half), (1.0 if right == photos else middle + half)


@dataclass(frozen=True)
class ClassFigures:
    """Of one label. photos: that are of it; right: of these, answered so; answered: photos of any class answered so."""

    answer: int
    photos: int
    right: int
    answered: int

    @property
    def recall(self) -> float | None:
        return self.right / self.photos if self.photos else None

    @property
    def precision(self) -> float | None:
        """None of a label that was never the answer."""
        return self.right / self.answered if self.answered else None


def classes(truth: np.ndarray, answers: np.ndarray) -> list[ClassFigures]:
    """Of every label that is true of a photo, by number. answers: -1 where there is none."""
    of_truth, of_answers = Counter(truth.tolist()), Counter(answers.tolist())
    right = Counter(truth[truth == answers].tolist())
    return [ClassFigures(number, of_truth[number], right[number], of_answers[number]) for number in sorted(of_truth)]


def confusions(truth: np.ndarray, answers: np.ndarray) -> dict[tuple[int, int], int]:
    """How many photos of a label were answered with a label, by (true, answer); the most frequent first."""
    counts = Counter(zip(truth.tolist(), answers.tolist(), strict=True))
    return dict(sorted(counts.items(), key=lambda item: (-item[1], item[0])))


@dataclass(frozen=True)
class Bin:
    """Photos whose best score is from low up to high. confidence: their mean score; accuracy: the share that is right;
    both None of no photos."""

    low: float
    high: float
    photos: int
    confidence: float | None
    accuracy: float | None


def reliability(scores: np.ndarray, right: np.ndarray) -> list[Bin]:
    """BINS bins of equal width. scores: the best one of each photo, 0 to 1."""
    place = np.minimum((scores * BINS).astype(int), BINS - 1)
    bins = []
    for number in range(BINS):
        inside = place == number
        photos = int(inside.sum())
        means = (float(scores[inside].mean()), float(right[inside].mean())) if photos else (None, None)
        bins.append(Bin(number / BINS, (number + 1) / BINS, photos, *means))
    return bins


def calibration_error(bins: Sequence[Bin]) -> float:
    """ECE: how far scores are from being right as often as they say, on average over photos; NaN of no photos."""
    photos = sum(entry.photos for entry in bins)
    gaps = (entry.photos * abs((entry.accuracy or 0.0) - (entry.confidence or 0.0)) for entry in bins)
    return sum(gaps) / photos if photos else math.nan


def known_calibration_error(bins: Sequence[Bin]) -> float | None:
    """The same, None of fewer photos than there are bins: hardly any bin then has two photos to take a share of."""
    return calibration_error(bins) if sum(entry.photos for entry in bins) >= len(bins) else None


def means_top5(labels: int) -> bool:
    """Whether a top-5 figure says anything: among five labels or fewer, every answer is among the best five."""
    return labels > TOP


@dataclass(frozen=True)
class Threshold:
    """With --min-score at this: the share of answers that are right, and the share of photos that get one."""

    min_score: float
    precision: Share
    coverage: float


def thresholds(scores: np.ndarray, right: np.ndarray, photos: int, at: Sequence[float] = SHOWN) -> list[Threshold]:
    """scores, right: of the photos that were answered. photos: all that count, with those that could not be read."""
    order = np.argsort(-scores, kind="stable")
    falling, correct = scores[order], np.concatenate(([0], np.cumsum(right[order])))
    reached = []
    for value in at:
        answered = int(np.searchsorted(-falling, -value, side="right"))
        reached.append(
            Threshold(value, Share.of(int(correct[answered]), answered), answered / photos if photos else 0.0)
        )
    return reached


def suggested(
    scores: np.ndarray, right: np.ndarray, photos: int, precision: float
) -> tuple[Threshold | None, Threshold]:
    """The lowest threshold, in thousandths, at which at least this share is right; and the one of most precision.

    precision: above 0, below 1. None where no threshold reaches it with 1 / (1 - precision) photos left: of fewer than
    that, it takes little luck that none is wrong.
    """
    least = 1 / (1 - precision)
    tried = thresholds(scores, right, photos, [step / GRID for step in range(GRID + 1)])
    enough = [threshold for threshold in tried if threshold.precision.photos >= least - 1e-9] or tried[:1]
    best = max(enough, key=lambda threshold: (threshold.precision.value, threshold.coverage))
    return next((threshold for threshold in enough if threshold.precision.value >= precision), None), best


@dataclass(frozen=True)
class Difference:
    """Two models on the same photos, each right or wrong.

    first, second: photos that this one alone has right. value: the first's accuracy less the second's; low, high: its
    interval of 95 %. p: of McNemar's test, that models which are equally good differ by so much or more.
    """

    photos: int
    both: int
    first: int
    second: int
    value: float
    low: float
    high: float
    p: float


def difference(first: np.ndarray, second: np.ndarray) -> Difference:
    """first, second: bool, whether this model is right.

    The interval is the adjusted Wald interval of D. G. Bonett and R. M. Price (J. Educ. Behav. Stat. 37, 2012).
    """
    photos = len(first)
    alone, other = int((first & ~second).sum()), int((second & ~first).sum())
    a, b = (alone + 1) / (photos + 2), (other + 1) / (photos + 2)
    half = Z95 * math.sqrt((a + b - (a - b) ** 2) / (photos + 2))
    value = (alone - other) / photos if photos else math.nan
    low, high = max(-1.0, a - b - half), min(1.0, a - b + half)
    return Difference(photos, int((first & second).sum()), alone, other, value, low, high, mcnemar(alone, other))


def mcnemar(first: int, second: int) -> float:
    """The mid-p of McNemar's exact test, two-sided: under equal chances the photos that one model alone has right are
    binomial with one half, and an outcome that is just as extreme counts half.

    M. W. Fagerland, S. Lydersen, P. Laake, The McNemar test for binary matched-pairs data: mid-p and asymptotic are
    better than exact conditional (BMC Med. Res. Methodol. 13:91, 2013).
    """
    photos, fewer = first + second, min(first, second)
    if not photos:
        return 1.0
    logs = [
        math.lgamma(photos + 1) - math.lgamma(k + 1) - math.lgamma(photos - k + 1) - photos * math.log(2)
        for k in range(fewer + 1)
    ]
    *less, same = map(math.exp, logs)
    return 1 - same / 2 if first == second else min(1.0, 2 * math.fsum(less) + same)


def auroc(own: np.ndarray, foreign: np.ndarray) -> float:
    """The area under the ROC curve: the share of pairs in which the foreign photo has the higher score; equal scores
    count half. NaN where there is no pair.

    Args:
        own: scores of how strange photos of the model's kind are.
        foreign: scores of other photos.
    """
    if not len(own) or not len(foreign):
        return math.nan
    ascending = np.sort(own)
    below, upto = np.searchsorted(ascending, foreign, "left"), np.searchsorted(ascending, foreign, "right")
    return float((below + upto).sum() / (2 * len(own) * len(foreign)))
