"""Scores of scope: their limit, what they rest on, and damaged arrays."""

from __future__ import annotations

import numpy as np
import pytest

from convnext_cli.base.errors import ModelError
from convnext_cli.certainty import scope_scores
from convnext_cli.certainty.out_of_scope import METHODS, Method, Scope, Scorer

Photos = tuple[np.ndarray, np.ndarray, np.ndarray]  # logits, features, true rows
FITTED: list[Method] = ["relative_mahalanobis", "nearest_neighbour"]


def photos(number: int, seed: int, *, strange: bool = False, channels: int = 40, classes: int = 5) -> Photos:
    random = np.random.default_rng(seed)
    means = 3 * np.random.default_rng(0).normal(size=(classes, channels))
    truth = random.permutation(np.arange(number) % classes)
    features = means[truth] + random.normal(size=(number, channels))
    if strange:
        features = 3 * random.normal(size=(number, channels))
    logits = features @ means.T / channels
    return logits.astype(np.float32), features.astype(np.float32), truth


@pytest.mark.parametrize("method", METHODS)
def test_the_limit_keeps_19_of_20_new_photos_and_few_strange_ones(method: Method) -> None:
    scope, inside = Scope.fit(method, *photos(4000, 1))
    assert 0.95 <= inside.mean() < 0.96
    new, strange = photos(4000, 2), photos(2000, 3, strange=True)
    kept = scope.contains(*new[:2]).mean()
    assert 0.935 < kept < 0.965
    assert scope.contains(*strange[:2]).mean() < (0.9 if method == "max_softmax" else 0.7)


def test_the_limit_rests_on_photos_that_had_no_part_in_the_statistics() -> None:
    """Five photos of each of 40 classes lie nearer to the means that they are part of than new photos do."""
    logits, features, truth = photos(200, 4, classes=40)
    new = photos(3000, 5, classes=40)
    scorer = Scorer.fit("relative_mahalanobis", features, truth)
    optimistic = np.quantile(scorer.scores(logits, features), 0.95)
    scope, _ = Scope.fit("relative_mahalanobis", logits, features, truth)
    assert (scorer.scores(*new[:2]) <= optimistic).mean() < 0.9
    assert 0.92 < scope.contains(*new[:2]).mean() < 0.98


@pytest.mark.parametrize("method", FITTED)
def test_fewer_photos_than_channels(method: Method) -> None:
    scope, _ = Scope.fit(method, *photos(30, 6))
    near, far = photos(500, 7), photos(500, 8, strange=True)
    assert scope.scorer.scores(*far[:2]).mean() > scope.scorer.scores(*near[:2]).mean()
    constant = np.ones((20, 3), np.float32)
    assert np.isfinite(Scorer.fit(method, constant, np.zeros(20, int)).scores(constant, constant)).all()


def test_the_shrinkage_is_that_of_ledoit_and_wolf() -> None:
    from sklearn.covariance import ledoit_wolf

    for number, channels in ((50, 40), (30, 90), (2000, 10)):
        x = np.random.default_rng(number).normal(size=(number, channels)) @ np.diag(np.linspace(0.2, 3, channels))
        x -= x.mean(0)
        covariance, _ = ledoit_wolf(x, assume_centered=True)
        np.testing.assert_allclose(scope_scores._precision(x, None), np.linalg.inv(covariance), rtol=1e-6, atol=1e-8)


def test_the_arrays_are_small() -> None:
    """The file of the bundled default, with 200 classes, may grow by 0.7 MB."""
    features = np.random.default_rng(1).normal(size=(10_000, 384)).astype(np.float32)
    for method in FITTED:
        arrays = Scorer.fit(method, features, np.arange(10_000) % 200).arrays
        assert sum(array.nbytes for array in arrays.values()) < 700_000 - 10_000 * 8


@pytest.mark.parametrize("method", FITTED)
def test_features_that_do_not_fit_are_refused(method: Method) -> None:
    scorer = Scorer.fit(method, *photos(50, 9)[1:])
    logits, features, _ = photos(3, 10)
    for wrong in (None, features[:, 1:]):
        with pytest.raises(ModelError, match="40 features"):
            scorer.scores(logits, wrong)


@pytest.mark.parametrize("method", FITTED)
def test_damaged_arrays_are_refused(method: Method) -> None:
    arrays = dict(Scorer.fit(method, *photos(50, 9)[1:]).arrays)
    for name, array in arrays.items():
        for damaged in (
            *(array[:0], array[..., :-1], array.astype(np.float64), array * np.float16(np.nan), array[None]),
            *([np.zeros_like(array)] if name == "deviation" else []),
        ):
            if method == "nearest_neighbour" and damaged.ndim == 2 and damaged.size and np.isfinite(damaged).all():
                continue  # another number of channels is refused when photos come
            with pytest.raises(ValueError):
                Scorer(method, {**arrays, name: damaged})
        with pytest.raises(ValueError):
            Scorer(method, {key: value for key, value in arrays.items() if key != name})
    with pytest.raises(ValueError):
        Scorer("energy", arrays)
