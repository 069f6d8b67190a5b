"""Scores of scope and their figures, beside pytorch-ood's and scikit-learn's."""

from __future__ import annotations

import numpy as np
import pytest

from convnext_cli.certainty import scope_scores
from convnext_cli.evaluation.figures import auroc

pytestmark = pytest.mark.peers
ROWS, CHANNELS, PHOTOS = 7, 24, 900


@pytest.fixture(scope="module")
def photos() -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Features of photos to fit on and their rows; features and logits of others, some of them far away."""
    random = np.random.default_rng(11)
    means = 2 * random.normal(size=(ROWS, CHANNELS))
    mixing = random.normal(size=(CHANNELS, CHANNELS))
    truth = np.concatenate([np.arange(ROWS), random.integers(0, ROWS, PHOTOS - ROWS)])
    fitted = means[truth] + random.normal(size=(PHOTOS, CHANNELS)) @ mixing
    others = means[random.integers(0, ROWS, 200)] + random.normal(size=(200, CHANNELS)) @ mixing
    others[100:] *= 3
    logits = others @ means.T
    return fitted.astype(np.float32), truth, others.astype(np.float32), logits.astype(np.float32)


def test_logits(photos: tuple[np.ndarray, ...]) -> None:
    import torch
    from pytorch_ood.detector import EnergyBased, MaxLogit, MaxSoftmax

    logits = photos[3]
    for detector, score in (
        (EnergyBased(None), scope_scores.energy),
        (MaxLogit(None), scope_scores.max_logit),
        (MaxSoftmax(None), scope_scores.max_softmax),
    ):
        expected = detector.predict_logits(torch.from_numpy(logits)).numpy()
        np.testing.assert_allclose(score(logits), expected, rtol=1e-5, atol=1e-6)


def test_nearest_neighbour(photos: tuple[np.ndarray, ...]) -> None:
    import torch
    from pytorch_ood.detector import KNN

    fitted, truth, others, _ = photos
    detector = KNN(None, k=scope_scores.NEIGHBOUR).fit_features(torch.from_numpy(fitted), torch.from_numpy(truth))
    expected = detector.predict_features(torch.from_numpy(others)).numpy()
    arrays = scope_scores.unpacked(scope_scores.fit_nearest_neighbour(fitted))
    # the bank is kept in float16
    np.testing.assert_allclose(scope_scores.nearest_neighbour(others, arrays), expected, atol=2e-3)


def test_relative_mahalanobis(photos: tuple[np.ndarray, ...]) -> None:
    import torch
    from pytorch_ood.detector import RMD

    fitted, truth, others, _ = photos
    detector = RMD(None).fit_features(torch.from_numpy(fitted), torch.from_numpy(truth))
    # its covariances are sums over photos where the paper's are means
    expected = PHOTOS * detector.predict_features(torch.from_numpy(others)).numpy()
    arrays = scope_scores.fit_relative_mahalanobis(fitted, truth, shrinkage=0.0)
    found = scope_scores.relative_mahalanobis(others, scope_scores.unpacked(arrays))
    assert float(np.ptp(expected)) > 100
    # the linear part is kept in float16
    np.testing.assert_allclose(found, expected, atol=2e-3 * float(np.ptp(expected)))
    assert np.corrcoef(found, expected)[0, 1] > 0.99999


def test_auroc_equals_scikit_learn() -> None:
    from sklearn.metrics import roc_auc_score

    random = np.random.default_rng(2)
    for own, foreign in ((3, 5), (400, 300), (1, 1), (50, 2000)):
        near, far = random.normal(size=own).round(1), (random.normal(size=foreign) + 0.5).round(1)
        expected = roc_auc_score([0] * own + [1] * foreign, np.concatenate([near, far]))
        assert auroc(near, far) == pytest.approx(expected, abs=1e-12)
