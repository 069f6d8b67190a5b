"""What a job shows of the guesses that it keeps: how many, under which names, of which classes, above which scores.

The network says once what is kept (``Kept``). A ``View`` is derived from that and needs neither the network nor the
photos; where what is kept does not hold enough, it says so instead of giving a number that might be wrong.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from hashlib import sha256
from typing import Literal

import numpy as np

from convnext_cli.base.text import JsonObject
from convnext_cli.labels import LabelSet, json_form
from convnext_cli.predict.predictor import Predictor
from convnext_cli.predict.rows import Prediction
from convnext_cli.predict.scoring import ScoreKind, floor_of, ranked

Groups = tuple[tuple[int, ...], ...] | None
Predictions = tuple[Prediction, ...]


@dataclass(frozen=True)
class Kept:
    """What a job keeps of the network's answers.

    k: the best guesses of each photo, from 1. classes: rows of the classifier. groups: of classes, as in ``LabelSet``.
    scores: what the numbers are.
    """

    k: int
    classes: int
    groups: Groups
    scores: ScoreKind

    @property
    def is_complete(self) -> bool:
        """Whether no guess is left out."""
        return self.k >= (self.classes if self.groups is None else len(self.groups))

    def labels(self, view: View) -> LabelSet:
        """Names to label new photos with: the view's where it has the same classes, else numbers, which nobody sees."""
        if self.groups == view.labels.groups:
            return view.labels
        names = LabelSet.numbered(self.classes)
        if self.groups is None:
            return names
        return LabelSet(
            name=names.name,
            ids=names.ids,
            names=tuple(f"group_{number}" for number in range(len(self.groups))),
            lemmas=names.lemmas,
            definitions=names.definitions,
            groups=self.groups,
        )


@dataclass(frozen=True)
class View:
    """k: guesses a photo, from 1. min_score, floors: as for ``Predictor``."""

    labels: LabelSet
    k: int
    min_score: float | None
    floors: Mapping[str, float]

    @classmethod
    def of(cls, predictor: Predictor) -> View:
        """What the options of a run ask for."""
        names = len(predictor.labels.names)
        return cls(predictor.labels, min(predictor.k or names, names), predictor.min_score, dict(predictor.floors))

    @cached_property
    def names(self) -> str:
        """The name of the labels, with a checksum that no other labels have."""
        return name_of(self.labels)

    def obstacle(self, kept: Kept) -> str | None:
        """Why this cannot be derived from what is kept, in words; None when it can."""
        if self.labels.groups == kept.groups:
            return f"guesses (-k) {kept.k} → {self.k}" if self.k > kept.k else None
        if kept.groups is None and kept.is_complete:
            return None
        if kept.groups is None:
            return f"--classes needs the scores of all {kept.classes} classes, and the job has {kept.k} a photo"
        if kept.is_complete and set(self.labels.groups or ((),)) <= set(kept.groups):
            return None
        return "--classes, as the output has scores of other classes"

    def shown(self, predictions: Predictions, kept: Kept) -> Predictions:
        """The guesses of a photo in this view, from those that are kept. Raises IndexError or ValueError for damage."""
        labels = self.labels
        if labels.groups == kept.groups:
            return tuple(self._named(p, p.rank) for p in predictions[: self.k])
        if kept.groups is None:
            scores = np.full(kept.classes, np.nan, np.float32)
            scores[[p.index for p in predictions]] = [p.score for p in predictions]
            if np.isnan(scores).any():
                raise ValueError("some scores are missing")
            return ranked(scores, labels, kept.scores, self.k)
        here = [p for p in predictions if p.index in self._group_of_row]
        here.sort(key=lambda p: (-p.score, self._group_of_row[p.index]))
        return tuple(self._named(p, rank) for rank, p in enumerate(here[: self.k], 1))

    def _named(self, guess: Prediction, rank: int) -> Prediction:
        labels, index = self.labels, guess.index
        if not 0 <= index < len(labels):
            raise IndexError(f"there is no class {index}")
        number = index if labels.groups is None else self._group_of_row[index]
        identity = labels.group_ids[number] if labels.group_ids is not None else None
        return Prediction(rank, index, identity or labels.ids[index], labels.names[number], guess.score)

    @cached_property
    def _group_of_row(self) -> dict[int, int]:
        return {row: group for group, rows in enumerate(self.labels.groups or ()) for row in rows}

    def status(self, predictions: Predictions) -> Literal["ok", "unknown"]:
        """Whether the best of the guesses shown is good enough."""
        floor = floor_of(predictions[0], self.floors, self.min_score) if predictions else None
        return "unknown" if floor is not None and predictions[0].score < floor else "ok"


def name_of(labels: LabelSet) -> str:
    """The name of a set of labels, with a checksum."""
    return f"{labels.name} ({sha256(json.dumps(json_form.to_dict(labels)).encode()).hexdigest()[:12]})"


def to_json(kept: Kept) -> dict[str, object]:
    """As it stands among a job's settings."""
    groups = None if kept.groups is None else [list(rows) for rows in kept.groups]
    return {"top": kept.k, "classes": kept.classes, "groups": groups, "scores": kept.scores}


def from_json(values: JsonObject) -> Kept:
    """The inverse. Raises KeyError, TypeError and ValueError for damage."""
    groups = values["groups"]
    return Kept(
        int(values["top"]),
        int(values["classes"]),
        None if groups is None else tuple(tuple(int(row) for row in rows) for rows in groups),
        values["scores"],
    )
