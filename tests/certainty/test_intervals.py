"""Intervals of a share, beside SciPy's."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from convnext_cli.certainty import intervals

CASES = [
    (0, 1),
    (1, 1),
    (0, 30),
    (30, 30),
    (1, 2),
    (7, 11),
    (58, 59),
    (190, 200),
    (4980, 5000),
    (9999, 10000),
    (3, 9000),
]


@pytest.mark.parametrize(("right", "photos"), CASES)
@pytest.mark.parametrize("confidence", [0.8, 0.95, 0.99])
def test_clopper_pearson_equals_scipy(right: int, photos: int, confidence: float) -> None:
    expected = stats.binomtest(right, photos).proportion_ci(confidence, method="exact")
    assert intervals.clopper_pearson(right, photos, confidence) == pytest.approx(
        (expected.low, expected.high), abs=1e-10
    )
    one_sided = stats.binomtest(right, photos, alternative="greater").proportion_ci(confidence, method="exact")
    assert intervals.lower_bound(right, photos, confidence) == pytest.approx(one_sided.low, abs=1e-10)


@pytest.mark.parametrize(("right", "photos"), CASES)
@pytest.mark.parametrize("share", [0.01, 0.5, 0.9, 0.999])
def test_the_tail_equals_scipy(right: int, photos: int, share: float) -> None:
    expected = stats.binom.sf(right - 1, photos, share)
    assert intervals.tail_probability(right, photos, share) == pytest.approx(expected, rel=1e-9, abs=1e-300)


def test_no_photos_say_nothing() -> None:
    assert intervals.clopper_pearson(0, 0) == (0.0, 1.0)
    assert intervals.lower_bound(0, 0) == 0.0


def test_a_share_is_reached_where_the_bound_is_at_least_as_high() -> None:
    random = np.random.default_rng(1)
    for _ in range(500):
        photos = int(random.integers(1, 400))
        right = int(random.integers(0, photos + 1))
        share = float(random.choice([0.5, 0.8, 0.9, 0.95, 0.99]))
        assert intervals.reaches(right, photos, share) == (intervals.lower_bound(right, photos) >= share)
