"""What samples say: percentiles, intervals over repeats, warm-up, drift. No clock is read here."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from itertools import pairwise
from statistics import median

REPEATS = 10  # parts that the samples of a run are cut into; calls beside each other are not independent, parts nearly
RESAMPLES = 1000
LEVEL = 0.95  # of every interval

Interval = tuple[float, float]


def percentile(samples: Sequence[float], percent: float) -> float:
    """Linear between the two nearest samples. Raises ValueError when there are none."""
    if not samples:
        raise ValueError("no samples")
    ordered = sorted(samples)
    at = (len(ordered) - 1) * percent / 100
    low = int(at)
    high = min(low + 1, len(ordered) - 1)
    return ordered[low] + (ordered[high] - ordered[low]) * (at - low)


def repeats(samples: Sequence[float], count: int = REPEATS) -> list[list[float]]:
    """The samples in ``count`` successive parts of nearly the same length, fewer when there are fewer samples."""
    count = min(count, len(samples))
    ends = [round(i * len(samples) / count) for i in range(count + 1)]
    return [list(samples[a:b]) for a, b in pairwise(ends)]


def bootstrap(groups: Sequence[Sequence[float]], statistic: Callable[[list[float]], float] = median) -> Interval:
    """The interval of ``statistic`` over repeats: repeats are drawn with replacement, and the median of each counts.

    A generator of its own with a fixed seed, so that the same samples give the same interval.
    """
    centres = [median(group) for group in groups]
    draw = random.Random(0)
    draws = [statistic(draw.choices(centres, k=len(centres))) for _ in range(RESAMPLES)]
    tail = 100 * (1 - LEVEL) / 2
    return percentile(draws, tail), percentile(draws, 100 - tail)


def ratio(a: Sequence[Sequence[float]], b: Sequence[Sequence[float]]) -> tuple[float, Interval]:
    """How many times as fast a is as b, from the latencies of each, and the interval, the two drawn apart."""
    ours, theirs = [median(group) for group in a], [median(group) for group in b]
    draw = random.Random(0)
    ratios = [
        median(draw.choices(theirs, k=len(theirs))) / median(draw.choices(ours, k=len(ours))) for _ in range(RESAMPLES)
    ]
    tail = 100 * (1 - LEVEL) / 2
    return median(theirs) / median(ours), (percentile(ratios, tail), percentile(ratios, 100 - tail))


def paired_ratio(a: Sequence[Sequence[float]], b: Sequence[Sequence[float]]) -> tuple[float, Interval]:
    """The same for two that took turns: each round gives a ratio of its own, so that what slowed both cancels."""
    rounds = [[median(theirs) / median(ours)] for ours, theirs in zip(a, b, strict=True)]
    return median(r for (r,) in rounds), bootstrap(rounds)


def is_warm(samples: Sequence[float]) -> bool:
    """Whether the median of the first tenth is at most 1.05 times that of the last half."""
    first = samples[: max(1, len(samples) // 10)]
    return median(first) <= 1.05 * median(samples[len(samples) // 2 :])


def drift(samples: Sequence[float]) -> float:
    """The median of the last third over that of the first, less 1: heat, a falling clock."""
    third = max(1, len(samples) // 3)
    return median(samples[-third:]) / median(samples[:third]) - 1


def spread(interval: Sequence[float], centre: float) -> float:
    """Half the width of an interval as a share of its centre."""
    return (interval[1] - interval[0]) / 2 / centre
