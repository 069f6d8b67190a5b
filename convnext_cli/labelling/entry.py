"""A photo of a job and its row: what sorting, metadata and the report work from."""

from __future__ import annotations

from dataclasses import dataclass

from convnext_cli.rows import Row


@dataclass(frozen=True, slots=True)
class Entry:
    """file: the absolute path of the photo (bytes that are not UTF-8 as surrogate escapes). row: its answer."""

    file: str
    row: Row
