"""Rows of labels, as commands print them."""

from __future__ import annotations

import json


def rows_of(text: str) -> list[dict]:
    return [json.loads(line) for line in text.splitlines()]


def failures_of(rows: list[dict]) -> list[tuple[str, str | None]]:
    """The name of each row's photo, and the kind of its failure or None."""
    return [(row["path"].rpartition("/")[2], row["error"] and row["error"]["kind"]) for row in rows]
