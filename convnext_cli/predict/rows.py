"""Prediction and Row: the answer for one photo. docs/usage.md describes the fields."""

from __future__ import annotations

import base64
import json
from dataclasses import dataclass
from typing import Any, Literal

from convnext_cli.base.errors import PhotoError
from convnext_cli.base.text import is_well_formed

Status = Literal["ok", "unknown", "failed", "vanished"]


@dataclass(frozen=True, slots=True)
class Prediction:
    """One guess. rank: from 1. index: row of the classifier. id: WordNet id or None. score: as was asked for."""

    rank: int
    index: int
    id: str | None
    label: str
    score: float


@dataclass(frozen=True, slots=True)
class Row:
    """The answer for one photo.

    status: "ok"; "unknown" when the best score is below the floor (its guesses are kept); "failed"; "vanished" when
    a durable job labelled the photo and it is there no more (what it said is kept).
    width, height: pixels of the upright photo, None when it could not be read.
    error: kind and message when failed.
    thumbnail: a small RGB picture (Pillow) when asked for; never written.
    """

    path: str
    status: Status
    width: int | None
    height: int | None
    predictions: tuple[Prediction, ...]
    model: str
    model_sha256: str
    error: PhotoError | None = None
    thumbnail: Any = None

    def to_dict(self) -> dict[str, Any]:
        """The row as JSON values. A path that is not UTF-8 also stands as base64 of its bytes in ``path_bytes``."""
        values: dict[str, Any] = {
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
        if not is_well_formed(self.path):
            values["path_bytes"] = base64.b64encode(self.path.encode("utf-8", "surrogateescape")).decode()
        return values


def to_json(row: Row) -> str:
    """One line of JSON. Lone surrogates of a path that is not UTF-8 are escaped, so that the line is UTF-8."""
    values = row.to_dict()
    return json.dumps(values, ensure_ascii="path_bytes" in values, separators=(", ", ": "))
