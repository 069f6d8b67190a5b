"""From the best class upward: the lowest level of the tree at which a model is sure enough."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from convnext_cli.base.errors import UsageError
from convnext_cli.base.text import counted
from convnext_cli.certainty import intervals
from convnext_cli.certainty.probabilities import by_label
from convnext_cli.certainty.tree import Node, Tree

# Thousandths; near 1, where precisions such as 0.99 are decided, tenths of the rest, three times.
GRID = np.array(
    [step / 1000 for step in range(1000)] + [1 - step / 10**digits for digits in (4, 5, 6) for step in range(9, 0, -1)]
)


@dataclass(frozen=True)
class Threshold:
    """The probability that an answer needs for a precision.

    Args:
        value: the least summed probability.
        precision: the share of answers that was asked for.
        right: right answers among the validation photos at this threshold.
        answered: validation photos with an answer: as many the promise rests on.
    """

    value: float
    precision: float
    right: int
    answered: int


@dataclass(frozen=True, eq=False)
class RollUp:
    """How many validation photos are answered, and how many of these rightly, at each threshold.

    Args:
        thresholds: ascending, 0 to 1.
        answered: photos in scope whose highest group reaches the threshold.
        right: of these, photos whose true class is in the answer.

    Raises:
        ValueError: the counts contradict each other.
    """

    thresholds: np.ndarray
    answered: np.ndarray
    right: np.ndarray

    def __post_init__(self) -> None:
        if not self.thresholds.shape == self.answered.shape == self.right.shape or self.thresholds.ndim != 1:
            raise ValueError("the thresholds and the counts of the roll-up differ in number")
        if not len(self.thresholds) or not ((self.thresholds >= 0) & (self.thresholds <= 1)).all():
            raise ValueError("a threshold of the roll-up is not from 0 to 1")
        if (np.diff(self.thresholds) <= 0).any():
            raise ValueError("the thresholds of the roll-up do not ascend")
        if not ((self.right >= 0) & (self.right <= self.answered)).all() or (np.diff(self.answered) > 0).any():
            raise ValueError("the counts of the roll-up contradict each other")

    @classmethod
    def fit(cls, tree: Tree, probabilities: np.ndarray, truth: np.ndarray, in_scope: np.ndarray) -> RollUp:
        """Count on validation photos.

        Args:
            tree: of the labels.
            probabilities: (N, rows).
            truth: (N,) the true row of each photo.
            in_scope: (N,) bool; other photos are not answered.
        """
        highest, wrong = sums(tree, probabilities, truth)
        highest, wrong = highest[in_scope], wrong[in_scope]
        return cls(GRID, _reaching(highest), _reaching(highest) - _reaching(wrong))

    def threshold(self, precision: float) -> Threshold:
        """The smallest threshold at which the share of right answers is at least this, with 95 % confidence.

        Raises:
            UsageError: it is not between 0 and 1, or no threshold reaches it; the message says how much can be reached.
        """
        if not 0 < precision < 1:
            raise UsageError(f"a precision is between 0 and 1, not {precision:g}", "for example: --sure 0.95")
        for value, right, answered in zip(*self._columns(), strict=True):
            if answered and intervals.reaches(right, answered, precision):
                return Threshold(value, precision, right, answered)
        highest, photos = self.highest()
        raise UsageError(
            f"a precision of {precision:g} cannot be promised: the calibration shows at most {highest:g}",
            f"ask for at most --sure {highest:g}, or calibrate on more photos"
            if highest
            else f"calibrate on more photos: no answer of {counted(photos, 'photo')} could be relied on",
        )

    def highest(self) -> tuple[float, int]:
        """The highest precision that can be promised, rounded down to thousandths, and the photos that it rests on."""
        best, photos = 0.0, int(self.answered[0])
        by_share = sorted(
            (
                (right / answered, right, answered)
                for _, right, answered in zip(*self._columns(), strict=True)
                if answered
            ),
            reverse=True,
        )
        for share, right, answered in by_share:
            if share <= best:
                break
            bound = intervals.lower_bound(right, answered)
            if bound > best:
                best, photos = bound, answered
        return int(best * 1000) / 1000, photos

    def _columns(self) -> tuple[list[float], list[int], list[int]]:
        """The thresholds, the right answers and all answers, as plain numbers."""
        return self.thresholds.tolist(), self.right.tolist(), self.answered.tolist()


def climb(chain: tuple[Node, ...], probabilities: np.ndarray, threshold: float) -> tuple[int, float]:
    """The lowest node of a chain whose summed probability reaches a threshold: its place and the sum.

    Args:
        chain: a label, then the groups above it.
        probabilities: (rows,) of one photo.
        threshold: to reach.

    Returns:
        The place in the chain, and the sum; -1 and the highest sum of a chain that does not reach it.
    """
    total = 0.0
    for place, node in enumerate(chain):
        total = summed(node, probabilities)
        if total >= threshold:
            return place, total
    return -1, total


def summed(node: Node, probabilities: np.ndarray) -> float:
    """The probability of a node, from those of all rows."""
    return float(probabilities[node.rows].sum(dtype=np.float64))


def sums(tree: Tree, probabilities: np.ndarray, truth: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """What decides over every threshold t at once: a photo is answered if its ``highest`` is at least t, and the answer
    is wrong if its ``wrong`` is too. Sums grow along a chain, and the groups that hold the true class are its last.

    Args:
        tree: of the labels.
        probabilities: (N, rows).
        truth: (N,) the true row of each photo.

    Returns:
        highest: (N,) the summed probability of the last group above the best label.
        wrong: (N,) that of the last node without the true class; -1 where the best label is the true one.
    """
    best = by_label(probabilities, tree.labels.groups).argmax(1)
    highest, wrong = np.zeros(len(best)), np.full(len(best), -1.0)
    for label in np.unique(best):
        photos = np.flatnonzero(best == label)
        for node in tree.chains[label]:
            highest[photos] = probabilities[np.ix_(photos, node.rows)].sum(1, dtype=np.float64)
            misses = ~np.isin(truth[photos], node.rows)
            wrong[photos[misses]] = highest[photos[misses]]
    return highest, wrong


def _reaching(values: np.ndarray) -> np.ndarray:
    """How many values are at least each threshold of the grid."""
    return len(values) - np.searchsorted(np.sort(values), GRID, side="left")
