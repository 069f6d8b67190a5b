"""The answers of a calibrated model."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypedDict

Level = Literal["class", "broader", "none"]
OUT_OF_SCOPE = "unlike anything this model was trained on"
NOT_SURE = "not sure enough"


class AnswerJson(TypedDict):
    """An answer in a row."""

    label: str | None
    id: str | None
    score: float
    level: Level
    why: str


@dataclass(frozen=True)
class Answer:
    """The lowest level at which a model is sure enough.

    Args:
        label: the name of a class or of a broader group; None where there is no answer.
        id: its WordNet id; None where it has none.
        score: the probability of the answer, 0 to 1, in the digits of a float32; that of the best class where there
            is no answer.
        level: "class", "broader" (a group of classes) or "none".
        why: there is no answer: ``OUT_OF_SCOPE`` or ``NOT_SURE``; "" where there is one.
        above: the names of the groups above the answer, broadest first.
    """

    label: str | None
    id: str | None
    score: float
    level: Level
    why: str = ""
    above: tuple[str, ...] = ()

    @property
    def details(self) -> str:
        """The words behind the label: " (animal › carnivore), 96 % sure"; behind "unknown": ": not sure enough"."""
        if self.label is None:
            return f": {self.why}"
        above = f" ({' › '.join(self.above)})" if self.above else ""
        # never more than is known: 0.9996 is not 100 %
        return f"{above}, {min(int(100 * self.score), 99)} % sure"

    def to_json(self) -> AnswerJson:
        """The answer as plain values, for a row."""
        return {"label": self.label, "id": self.id, "score": self.score, "level": self.level, "why": self.why}


@dataclass(frozen=True)
class PredictionSet:
    """The labels that include the true one for a share of photos.

    Args:
        labels: the most probable first; at least one.
        coverage: that share, as it was asked for.
    """

    labels: tuple[str, ...]
    coverage: float


@dataclass(frozen=True)
class Decision:
    """The result for one photo; None for a part that was not asked for."""

    answer: Answer | None
    prediction_set: PredictionSet | None
