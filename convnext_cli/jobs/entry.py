"""A photo of a job and its row: what sorting, metadata and the report work from."""

from __future__ import annotations

import math
import sqlite3
from dataclasses import dataclass

from convnext_cli.base.errors import PhotoError
from convnext_cli.predict.rows import Prediction, Row


@dataclass(frozen=True, slots=True)
class Entry:
    """file: the absolute path of the photo (bytes that are not UTF-8 as surrogate escapes). row: its answer."""

    file: str
    row: Row


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
    )


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
