"""Explanation and GuessMap: the maps of one photo."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from convnext_cli.predict.rows import Prediction, Row

if TYPE_CHECKING:
    import numpy as np

Box = tuple[float, float, float, float]  # left, top, right, bottom


@dataclass(frozen=True, eq=False)
class GuessMap:
    """What speaks for one guess (above 0) and against it (below 0), and where.

    Args:
        prediction: the guess. For a label that stands for several classes, its ``index`` is the class that is
            explained.
        evidence: float64 (rows, columns). Its sum is the logit, less ``mean_logit``.
        constant: the part of this sum that belongs to no place: biases, and the shift of the norm. ``evidence``
            contains it, shared evenly.
        mean_logit: the mean of all logits of the photo. It is subtracted because only differences between logits
            decide about a softmax; it is 0 where each label has a score of its own.
        file: the picture that was written.
    """

    prediction: Prediction
    evidence: np.ndarray
    constant: float
    mean_logit: float
    file: Path | None = None

    @property
    def logit(self) -> float:
        """The network's output for the class."""
        return float(self.evidence.sum()) + self.mean_logit

    @property
    def speaks_for(self) -> float:
        """The sum of the places that speak for the guess."""
        return float(self.evidence.clip(min=0).sum())

    @property
    def speaks_against(self) -> float:
        """The sum of the places that speak against the guess, at most 0."""
        return float(self.evidence.clip(max=0).sum())


@dataclass(frozen=True, eq=False)
class Explanation:
    """The answer for one photo, and a map for each guess.

    Args:
        row: as ``classify`` gives it; its thumbnail is a small copy of the photo.
        maps: the best guess first; none where the photo failed.
        crop: the part of the photo that the network saw, in pixels of the upright photo; outside the photo where the
            preprocessing pads it.
        box: the part that the places of the maps cover, in the same pixels.
        linearised: whether the classifier has a hidden layer, so that the maps are linearisations around this photo.
    """

    row: Row
    maps: tuple[GuessMap, ...] = ()
    crop: Box = (0.0, 0.0, 0.0, 0.0)
    box: Box = (0.0, 0.0, 0.0, 0.0)
    linearised: bool = False

    @property
    def scale(self) -> float:
        """The largest evidence of a place, for or against, over all guesses: full colour in the pictures."""
        return max((float(abs(one.evidence).max()) for one in self.maps), default=0.0)

    def to_dict(self) -> dict[str, object]:
        """The row as JSON values, with the maps."""
        values = self.row.to_dict()
        if self.row.error is None:
            values |= {"crop": list(self.crop), "box": list(self.box), "linearised": self.linearised}
        values["maps"] = [
            {
                "rank": one.prediction.rank,
                "index": one.prediction.index,
                "label": one.prediction.label,
                "logit": one.logit,
                "mean_logit": one.mean_logit,
                "constant": one.constant,
                "evidence": one.evidence.tolist(),
                "file": None if one.file is None else str(one.file),
            }
            for one in self.maps
        ]
        return values
