"""What people get: the rows of a store as a file of another format."""

from __future__ import annotations

import os
import shlex
from pathlib import Path

from convnext_cli.base.errors import UsageError
from convnext_cli.base.files import replacing
from convnext_cli.jobs.store import Store
from convnext_cli.predict import writers

_SQLITE = (".sqlite", ".sqlite3", ".db")


def format_of(target: Path, asked: str | None) -> str:
    """The format of an output, by its suffix where none is given. Raises UsageError when the suffix says none."""
    form = asked or format_by_suffix(target)
    if form is None:
        raise UsageError(
            f"the format of '{target}' cannot be inferred from its name",
            f"add -f with one of {', '.join(writers.JOB_FORMATS)}",
        )
    return form


def format_by_suffix(target: Path) -> str | None:
    """The format that the name of an output says, if it says one."""
    suffix = target.suffix.lower()
    return "sqlite" if suffix in _SQLITE else writers.format_by_suffix(suffix)


def store_of(target: Path, form: str) -> Path:
    """The file of the job behind an output: itself, or a file beside it."""
    return target if form == "sqlite" else target.with_name(f"{target.name}.job")


def write(store: Store, target: Path, form: str) -> None:
    """Write all rows in order, in one go under a temporary name, and note what was written.

    Raises OutputError when it cannot be written, ModelError when the job is damaged, and UsageError when the file is
    not the one that was written before.
    """
    if form == "sqlite":
        return
    check(store, target, form)
    if target.exists() and store.value("stale") is False:
        return
    with replacing(target) as stream:
        writer = writers.FORMATS[form].writer(stream, store.columns())
        for entry in store.entries():
            writer.write(entry.row)
        writer.close()
        stream.flush()
        # noted before it takes its name: a run that is killed in between still knows either file for its own
        store.note(output=[*(store.value("output") or [])[-1:], identity(stream.fileno())])
        store.commit()
    store.note(stale=False)
    store.commit()


def check(store: Store, target: Path, form: str) -> None:
    """Raises UsageError when there is a file under the output's name that this job did not write."""
    if form == "sqlite" or not target.exists() or identity(target) in (store.value("output") or []):
        return
    if store.value("output"):
        form_option = "" if format_by_suffix(target) == form else f" -f {form}"
        raise UsageError(
            f"{target} has changed since it was written, but its job has not",
            f"write it again from the job: convnext label -o {shlex.quote(str(target))}{form_option} --rewrite; or "
            "choose another name",
        )
    raise UsageError(f"{target} already exists", "choose another name, or replace it with --overwrite")


def disown(store: Store, target: Path, form: str) -> None:
    """Take whatever has the output's name for one that this job wrote, and that is out of date."""
    if form == "sqlite":
        return
    if target.exists():
        store.note(output=[*(store.value("output") or [])[-1:], identity(target)])
    store.note(stale=True)
    store.commit()


def identity(file: Path | int) -> list[int]:
    """Size and time of a file, by which it is known to be the one that was written."""
    status = os.stat(file)  # noqa: PTH116 - open files too
    return [status.st_size, status.st_mtime_ns]
