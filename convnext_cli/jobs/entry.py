"""A photo of a job and its row: what sorting, metadata and the report work from."""

from __future__ import annotations

import json
import math
import sqlite3
from dataclasses import dataclass

from convnext_cli.base.errors import PhotoError
from convnext_cli.certainty.answer import Answer, PredictionSet
from convnext_cli.jobs.photo_state import text
from convnext_cli.predict.rows import Prediction, Row


@dataclass(frozen=True, slots=True)
class Entry:
    """file: the absolute path of the photo (bytes that are not UTF-8 as surrogate escapes). row: its answer."""

    file: str
    row: Row


_COLUMNS = ("answer", "answer_id", "answer_score", "answer_level", "answer_why", "answer_above", "set", "coverage")
_STATUSES = ("ok", "unknown", "failed", "vanished")


def is_sound(values: sqlite3.Row, row: Row) -> bool:
    """Whether a row that was read from a job can have been written there. values: its columns."""
    sizes = (row.width, row.height)
    return (
        isinstance(values["key"], bytes)
        and isinstance(values["path_bytes"], bytes | None)
        and all(isinstance(text, str) for text in (row.path, row.model, row.model_sha256))
        and row.status in _STATUSES
        and all(size is None or (isinstance(size, int) and 0 <= size < 2**31) for size in sizes)
        and (row.error is None or _is_error(row.error))
        and (row.error is not None or bool(row.predictions))
        and all(guess.rank == rank and _is_guess(guess) for rank, guess in enumerate(row.predictions, 1))
        and (row.answer is None or _is_answer(row.answer, row.status))
        and (row.prediction_set is None or _is_set(row.prediction_set))
    )


def answer_values(row: Row) -> dict[str, str | float | None]:
    """The answer and the set of a row as columns of a job."""
    values: dict[str, str | float | None] = dict.fromkeys(_COLUMNS)
    if (answer := row.answer) is not None:
        above = json.dumps([text(name) for name in answer.above], ensure_ascii=False)
        label = None if answer.label is None else text(answer.label)
        values |= zip(_COLUMNS, (label, answer.id, answer.score, answer.level, answer.why, above), strict=False)
    if (labels := row.prediction_set) is not None:
        names = json.dumps([text(name) for name in labels.labels], ensure_ascii=False)
        values |= {"set": names, "coverage": labels.coverage}
    return values


def answer_of(values: sqlite3.Row) -> Answer | None:
    """The answer in the columns of a job. Raises TypeError and ValueError for damage."""
    if values["answer_level"] is None:
        return None
    return Answer(
        label=values["answer"],
        id=values["answer_id"],
        score=values["answer_score"],
        level=values["answer_level"],
        why=values["answer_why"],
        above=tuple(json.loads(values["answer_above"])),
    )


def set_of(values: sqlite3.Row) -> PredictionSet | None:
    """The set in the columns of a job. Raises TypeError and ValueError for damage."""
    return None if values["coverage"] is None else PredictionSet(tuple(json.loads(values["set"])), values["coverage"])


def _is_error(error: PhotoError) -> bool:
    return isinstance(error.kind, str) and isinstance(error.message, str)


def _is_guess(guess: Prediction) -> bool:
    return (
        isinstance(guess.index, int)
        and 0 <= guess.index < 2**31
        and isinstance(guess.id, str | None)
        and isinstance(guess.label, str)
        and isinstance(guess.score, float)
        and math.isfinite(guess.score)
    )


def _is_answer(answer: Answer, status: str) -> bool:
    is_none = answer.level == "none"
    return (
        answer.level in ("class", "broader", "none")
        and isinstance(answer.label, str) != is_none
        and isinstance(answer.id, str | None)
        and isinstance(answer.why, str)
        and bool(answer.why) == is_none
        and isinstance(answer.score, float)
        and 0 <= answer.score <= 1.001
        and all(isinstance(name, str) for name in answer.above)
        and status in ("vanished", "unknown" if is_none else "ok")
    )


def _is_set(labels: PredictionSet) -> bool:
    names = bool(labels.labels) and all(isinstance(name, str) for name in labels.labels)
    return names and isinstance(labels.coverage, float) and 0 < labels.coverage < 1
