"""From logits to ranked labels."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import numpy as np

from convnext_cli.certainty.probabilities import shortest
from convnext_cli.labels import LabelSet
from convnext_cli.predict.rows import Prediction

ScoreKind = Literal["softmax", "sigmoid", "logits"]
# The default kind of score, by the problem that the model was trained for (the card's ``problem``).
SCORES: dict[str, ScoreKind] = {"single_label": "softmax", "multi_label": "sigmoid", "regression": "logits"}


def floor_of(best: Prediction, floors: Mapping[str, float], min_score: float | None) -> float | None:
    """The score below which a photo with this best prediction is "unknown"; None for no threshold."""
    named = floors.get(best.label, floors.get(best.id or ""))
    return min_score if named is None else named


def ranked(scores: np.ndarray, labels: LabelSet, kind: ScoreKind, k: int) -> tuple[Prediction, ...]:
    """The best predictions from the scores of all classes.

    Args:
        scores: float32 (classes,).
        labels: the names. Probabilities (softmax) of a group's members are added; of other scores the best counts.
        kind: the kind of score.
        k: how many predictions; 0 for all.
    """
    best = np.arange(len(scores))  # the classifier row that stands for each label
    if labels.groups is not None:
        best = np.array([group[int(np.argmax(scores[list(group)]))] for group in labels.groups])
        if kind == "softmax":
            scores = np.array([scores[list(group)].sum() for group in labels.groups], np.float32)
        else:
            scores = scores[best]
    # a stable sort, so that equal scores come in the order of the classes on every machine
    order = np.argsort(-scores, kind="stable")[: k or None]
    ids = labels.group_ids or (None,) * len(labels.names)
    return tuple(
        Prediction(rank, int(best[i]), ids[i] or labels.ids[best[i]], labels.names[i], shortest(scores[i]))
        for rank, i in enumerate(order, 1)
    )


def score(logits: np.ndarray, kind: ScoreKind, temperature: float = 1.0) -> np.ndarray:
    """Scores from the logits of one photo, computed in float32; "logits" leaves them unchanged."""
    x = logits.astype(np.float32)
    if kind == "logits":
        return x
    if kind == "sigmoid":
        return np.asarray(0.5 * (1 + np.tanh(0.5 * x)))  # does not overflow
    x = np.exp((x - x.max()) / np.float32(temperature))
    return np.asarray(x / x.sum())
