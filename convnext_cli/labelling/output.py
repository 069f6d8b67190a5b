"""What people get: the rows of a store as a file of another format."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path
from typing import Any

from convnext_cli.errors import OutputError, UsageError
from convnext_cli.files import replacing
from convnext_cli.labelling.store import Store
from convnext_cli.rows import SUFFIXES, WRITERS

FORMATS = ("jsonl", "json", "csv", "tsv", "parquet", "sqlite")
_SQLITE = (".sqlite", ".sqlite3", ".db")


def format_of(target: Path, given: str | None) -> str:
    """The format of an output, by its suffix where none is given. Raises UsageError when the suffix says none."""
    suffix = target.suffix.lower()
    found = given or ("sqlite" if suffix in _SQLITE else SUFFIXES.get(suffix))
    if found is None:
        raise UsageError(
            f"the format of '{target}' cannot be told from its name", f"add -f with one of {', '.join(FORMATS)}"
        )
    return found


def store_of(target: Path, form: str) -> Path:
    """The file of the job behind an output: itself, or a file beside it."""
    return target if form == "sqlite" else target.with_name(f"{target.name}.job")


def write(store: Store, target: Path, form: str, k: int) -> None:
    """Write all rows in order, in one go under a temporary name, and note what was written.

    k: guesses a row that flat formats have columns for. Raises OutputError when it cannot be written, and UsageError
    when the file is not the one that was written before.
    """
    if form == "sqlite":
        return
    check(store, target, form)
    if target.exists() and store.value("stale") is False:
        return
    with replacing(target) as stream:
        writer = WRITERS[form](stream, k)
        for entry in store.entries():
            writer.write(entry.row)
        writer.close()
        stream.flush()
        # noted before it takes its name: a run that is killed in between still knows either file for its own
        store.note(output=[*(store.value("output") or [])[-1:], _identity(stream.fileno())])
        store.commit()
    store.note(stale=False)
    store.commit()


def check(store: Store, target: Path, form: str) -> None:
    """Raises UsageError when there is a file under the output's name that this job did not write."""
    if form == "sqlite" or not target.exists() or _identity(target) in (store.value("output") or []):
        return
    changed = bool(store.value("output"))
    raise UsageError(
        f"{target} was changed since it was written" if changed else f"{target} is there already",
        "choose another name, or replace it with --overwrite",
    )


def remove(target: Path, form: str) -> None:
    """Take an output and its job away, so that a new one begins. Raises OutputError when that is not allowed."""
    store = store_of(target, form)
    for path in (target, store, *(store.with_name(store.name + more) for more in ("-wal", "-shm", "-journal"))):
        try:
            with suppress(FileNotFoundError):
                path.unlink()
        except OSError as error:
            raise OutputError(f"{path} cannot be replaced: {error.strerror}", "choose another name") from error


def _identity(file: Path | int) -> Any:
    """What tells that a file is still the one that was written."""
    found = os.stat(file)  # noqa: PTH116 - open files too
    return [found.st_size, found.st_mtime_ns]
