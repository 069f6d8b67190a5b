"""Conformal sets, beside a plain reference that tries every label."""

from __future__ import annotations

import math

import numpy as np
import pytest

from convnext_cli.base.errors import UsageError
from convnext_cli.certainty import conformal
from convnext_cli.certainty.conformal import COVERAGES, KINDS, Kind, Quantiles
from convnext_cli.certainty.probabilities import softmax


def photos(number: int, seed: int, rows: int = 12) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(seed)
    truth = random.integers(0, rows, number)
    logits = random.normal(size=(number, rows)) * random.uniform(0.3, 2, (number, 1))
    logits[np.arange(number), truth] += 1.5
    return softmax(logits.astype(np.float32)), truth


def plain_score(probabilities: np.ndarray, label: int, kind: Kind) -> float:
    """How badly a label fits one photo, as the papers define it."""
    if kind == "lac":
        return 1 - float(probabilities[label])
    return sum(float(p) for p in probabilities if p > probabilities[label]) + float(probabilities[label]) / 2


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("coverage", COVERAGES)
def test_sets_equal_a_plain_reference(kind: Kind, coverage: float) -> None:
    probabilities, truth = photos(333, 1)
    scores = sorted(plain_score(row, t, kind) for row, t in zip(probabilities, truth, strict=True))
    expected = scores[math.ceil(334 * coverage) - 1]
    quantile = Quantiles.fit(probabilities, truth).quantile(coverage, kind)
    assert quantile == pytest.approx(expected, abs=1e-6)
    sizes = set()
    for row in photos(200, 2)[0]:
        members = conformal.members(row, quantile, kind).tolist()
        fits = {label for label in range(len(row)) if plain_score(row, label, kind) <= quantile}
        assert set(members) == (fits or {int(row.argmax())})
        assert members[0] == row.argmax() and [*row[members]] == sorted(row[members], reverse=True)
        sizes.add(len(members))
    assert len(sizes) > 1


@pytest.mark.parametrize("kind", KINDS)
def test_the_coverage_holds_on_average(kind: Kind) -> None:
    """Over many draws the share of sets with the true label is at least the coverage, and hardly more."""
    for coverage in (0.8, 0.95):
        shares = []
        for seed in range(40):
            probabilities, truth = photos(400, seed)
            quantile = Quantiles.fit(probabilities[:200], truth[:200]).quantile(coverage, kind)
            pairs = zip(probabilities[200:], truth[200:], strict=True)
            shares.append(np.mean([t in conformal.members(row, quantile, kind) for row, t in pairs]))
        assert coverage - 0.01 < np.mean(shares) < coverage + 0.02


def test_equal_probabilities_enter_together() -> None:
    row = np.array([0.25, 0.25, 0.25, 0.25], np.float32)
    assert len(conformal.members(row, 0.1, "aps")) == 1, "none fits, so the best one is alone"
    assert len(conformal.members(row, 0.2, "aps")) == 4
    assert len(conformal.members(row, 0.75, "lac")) == 4


def test_few_photos_have_no_quantile() -> None:
    assert [conformal.least_photos(coverage) for coverage in COVERAGES] == [4, 9, 19, 99]
    quantiles = Quantiles.fit(*photos(19, 3))
    assert quantiles.quantile(0.95, "lac") > 0
    with pytest.raises(UsageError, match="needs 99 validation photos"):
        quantiles.quantile(0.99, "aps")
    with pytest.raises(UsageError, match=r"no coverage of 0\.5"):
        quantiles.quantile(0.5, "lac")
