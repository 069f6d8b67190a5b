"""A run as it is carried out: model names are resolved to paths, and machine settings are decided."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from convnext_cli.training.records import RunFacts
from convnext_cli.training.settings_changes import SettingsChanges


@dataclass(frozen=True)
class Job:
    """What a run needs to know.

    Args:
        paths: of the data.
        folder: of the run.
        changes: the settings that are not left to the data and the weights.
        named: for each of these the file that names it, "" for the request itself.
        start: the weights that the settings name; None for scratch.
        teacher: the model or the file of logits that the settings name.
        val: the share for val where the data is not split; None for ``data.SHARE``.
        test: the share for test, likewise.
        skip_bad: leave out photos and classes that cannot be used.
        threads: processor threads.
        workers: processes that augment photos; 0 for none.
        timeout: seconds that one photo may take, as for ``Preprocessor``.
        memory: bytes that photos may take; None for half of the free memory.
        command: for run.json.
        overwrite: start again where the folder holds a run.
    """

    paths: Sequence[str]
    folder: Path
    changes: SettingsChanges
    named: Mapping[str, str]
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
    """How a run ended.

    Args:
        finished: whether it came to its end.
        facts: what run.json holds.
        trained: whether anything was trained now.
    """

    finished: bool
    facts: RunFacts
    trained: bool = True
