"""What was asked of ``convnext train``, and what came of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Job:
    """What was asked for, besides the recipe.

    paths: of the data. folder: of the run. given: settings that are not left to choice. named: the
    recipe's file that each of them is from, "" for the command itself. start, teacher: paths of what
    the recipe names so. val, test: shares, where the data is not split; None is SHARE. memory: bytes that photos may
    take. overwrite: begin anew where the folder holds a run.
    """

    paths: Sequence[str]
    folder: Path
    given: dict[str, Any]
    named: dict[str, str]
    start: Path | None
    teacher: Path | None
    val: float | None = None
    test: float | None = None
    skip_bad: bool = False
    threads: int = 1
    workers: int = 0
    timeout: float | None = None
    memory: int | None = None
    command: str = ""
    overwrite: bool = False


@dataclass(frozen=True)
class Outcome:
    """finished: whether the run came to its end. facts: what run.json holds. trained: whether that was done now."""

    finished: bool
    facts: dict[str, Any]
    trained: bool = True
