"""Prediction and Row: the answer for one photo. docs/usage.md describes the fields."""

from __future__ import annotations

import base64
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from convnext_cli.base.errors import PhotoError
from convnext_cli.base.text import is_well_formed
from convnext_cli.certainty.answer import Answer, PredictionSet

if TYPE_CHECKING:
    from PIL.Image import Image
Status = Literal["ok", "unknown", "failed", "vanished"]


@dataclass(frozen=True, slots=True)
class Prediction:
    """One prediction.

    Args:
        rank: from 1.
        index: row of the classifier.
        id: WordNet id, or None.
        label: name of the class.
        score: of the kind that was asked for.
    """

    rank: int
    index: int
    id: str | None
    label: str
    score: float


@dataclass(frozen=True, slots=True)
class Row:
    """The result for one photo.

    Args:
        path: of the photo, as the user named it or as it was found.
        status: "ok"; "unknown" when the best score is below the threshold, or no answer is certain enough (the
            predictions are kept); "failed"; or
            "vanished" when a label job finds the photo no more (its earlier result is kept).
        width, height: of the upright photo, in pixels; None when it could not be read.
        predictions: the best first.
        model: name of the model.
        model_sha256: fingerprint of its tensors.
        error: why the photo failed.
        thumbnail: a small RGB picture (Pillow), if it was asked for; never written.
        answer: the answer at the level that is certain enough, if it was asked for.
        prediction_set: the labels among which the true one is, for the share of photos that was asked for.
    """

    path: str
    status: Status
    width: int | None
    height: int | None
    predictions: tuple[Prediction, ...]
    model: str
    model_sha256: str
    error: PhotoError | None = None
    thumbnail: Image | None = None
    answer: Answer | None = None
    prediction_set: PredictionSet | None = None

    def to_dict(self) -> dict[str, object]:
        """The row as JSON values. For a path that is not UTF-8, ``path_bytes`` holds its bytes as base64."""
        values: dict[str, object] = {
            "path": self.path,
            "status": self.status,
            "width": self.width,
            "height": self.height,
            "predictions": [
                {"rank": p.rank, "index": p.index, "id": p.id, "label": p.label, "score": p.score}
                for p in self.predictions
            ],
            "model": self.model,
            "model_sha256": self.model_sha256,
            "error": None if self.error is None else {"kind": self.error.kind, "message": self.error.message},
        }
        if self.answer is not None:
            values["answer"] = self.answer.to_json()
        if self.prediction_set is not None:
            values["set"] = list(self.prediction_set.labels)
            values["coverage"] = self.prediction_set.coverage
        if not is_well_formed(self.path):
            values["path_bytes"] = base64.b64encode(self.path.encode("utf-8", "surrogateescape")).decode()
        return values


def to_json(row: Row) -> str:
    """One line of JSON. Lone surrogates of a path that is not UTF-8 are escaped, so that the line is UTF-8."""
    values = row.to_dict()
    return json.dumps(values, ensure_ascii="path_bytes" in values, separators=(", ", ": "))
