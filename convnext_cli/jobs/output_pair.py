"""An output and the job behind it: which job a run works on, and how a new pair takes the place of an old one.

Under ``--overwrite`` a new job is made beside the old one, as FILE.job.new (or FILE.new, where the job is the output).
The old pair stays as it is until the new job is complete. Then the new output takes its name, and after it the new job.
A run that is killed in between leaves a mark, by which the next one finishes this.
"""

from __future__ import annotations

import sqlite3
from dataclasses import dataclass
from pathlib import Path

from convnext_cli.base.errors import ConvNextError, UsageError
from convnext_cli.base.files import remove_stale_parts, sync_folder, unwritten
from convnext_cli.jobs import output
from convnext_cli.jobs.schema import damaged
from convnext_cli.jobs.store import Store

_BESIDE = ("-wal", "-shm", "-journal")  # what SQLite puts beside a file


@dataclass(frozen=True)
class Pair:
    """target: the output. form: its format."""

    target: Path
    form: str

    @property
    def job(self) -> Path:
        """The file of the job."""
        return output.store_of(self.target, self.form)

    @property
    def new_job(self) -> Path:
        """The file of a job that is going to take the place of the other."""
        return self.job.with_name(f"{self.job.name}.new")

    @property
    def is_there(self) -> bool:
        """Whether there is something that could be lost."""
        return self.target.exists() or self.job.exists()

    def tidy(self) -> None:
        """Remove what killed runs left, and finish what one of them was about to finish."""
        remove_stale_parts(self.target)
        if not self.new_job.exists():
            return
        try:
            store = Store(self.new_job)
        except ConvNextError:  # it is looked at when somebody asks for it
            return
        replaces = store.value("replaces")
        is_complete = replaces is not None and self._identity() in (*replaces, *(store.value("output") or []))
        if is_complete:
            self._take_over(store).close()
        else:
            store.close()

    def existing(self, *, rewrite: bool) -> Store | None:
        """The job of an earlier run, to resume; None if there is none.

        Args:
            rewrite: write an output that was changed again.

        Raises:
            UsageError: the file is not a job, or the output was changed.
        """
        if not self.job.exists():
            if self.target.exists():
                raise UsageError(
                    f"{self.target} already exists, but its job {self.job.name} does not",
                    "choose another name, or replace it with --overwrite",
                )
            return None
        if self.form != "sqlite" and self.target.exists() and not self.job.stat().st_size:
            raise damaged(self.job, "it is empty")
        store = Store(self.job)
        try:
            if rewrite:
                output.disown(store, self.target, self.form)
            output.check(store, self.target, self.form)
            form = store.value("format")
            if form not in (None, self.form):
                raise UsageError(
                    f"{self.target} was written as {form}, and this would be {self.form}",
                    f"add -f {form}, or choose another name for the output",
                )
        except BaseException:
            store.close()
            raise
        return store

    def first(self, *, overwrite: bool) -> Store:
        """A new job, where there is nothing yet. overwrite: the same command goes on with it."""
        store = Store(self.job)
        store.note(format=self.form, begun="overwrite" if overwrite else None)
        return store

    def interrupted(self) -> Store | None:
        """The job that --overwrite began where nothing was, if that has never come to its end."""
        if not self.job.exists():
            return None
        try:
            store = Store(self.job)
            if store.value("begun") is not None and store.value("format") == self.form:
                output.disown(store, self.target, self.form)
                return store
            store.close()
        except ConvNextError:  # nothing to go on with
            pass
        return None

    def unfinished(self) -> Store:
        """The job that is going to take the place of the present pair: an earlier run's, or a new one."""
        try:
            store = Store(self.new_job)
        except ConvNextError:  # damaged, or of another release: nothing is lost with it
            _remove(self.new_job)
            store = Store(self.new_job)
        store.note(format=self.form)
        return store

    def take_over(self, store: Store) -> Store:
        """Have a job that is complete, and its output, take the place of the old pair; gives the job in its new place.

        Raises OutputError.
        """
        store.walk.forget_unseen()
        store.walk.keep_found()
        store.note(replaces=[self._identity()])
        store.commit()
        return self._take_over(store)

    def _take_over(self, store: Store) -> Store:
        _make_single(self.job)
        if self._identity() not in (store.value("output") or []) or store.value("stale") is not False:
            output.disown(store, self.target, self.form)
            output.write(store, self.target, self.form)
        store.close()
        _make_single(self.new_job)
        try:
            self.new_job.replace(self.job)
            sync_folder(self.job.parent)
        except OSError as error:
            raise unwritten(self.job, error) from error
        store = Store(self.job)
        store.note(replaces=None)
        store.walk.found_before()
        store.commit()
        return store

    def give_up(self, store: Store) -> None:
        """Close a job that was going to take the place of the pair; it goes where it holds nothing."""
        is_empty = not store.statuses()
        store.close()
        if is_empty:
            _remove(self.new_job)

    def rewrite(self) -> Store:
        """Write the output again from the job, without a look at the photos; gives the job.

        Raises UsageError where there is no job, or none of this output.
        """
        if not self.job.exists() or not (store := self.existing(rewrite=True)):
            raise UsageError(
                f"there is no {self.job}, from which {self.target} could be written",
                "name the output of an earlier convnext label with -o",
            )
        output.write(store, self.target, self.form)
        return store

    def _identity(self) -> list[int] | None:
        if self.form == "sqlite" or not self.target.exists():
            return None
        return output.identity(self.target)


def _make_single(job: Path) -> None:
    """Bring all committed rows of a job into its one file, so that another file may take its name.

    Raises:
        UsageError: another program has it open; when it ends, it would remove the files beside the new one.
    """
    if not job.exists():
        return
    try:
        connection = sqlite3.connect(job, timeout=0)
        try:
            connection.execute("PRAGMA journal_mode = DELETE")
        finally:
            connection.close()
    except sqlite3.DatabaseError as error:
        if "locked" in str(error):
            raise UsageError(
                f"{job} is open in another program",
                "close it there and run the same command again: all photos are labelled, and only the file is renamed",
            ) from error
    _remove(job, suffixes=_BESIDE)


def _remove(job: Path, suffixes: tuple[str, ...] = ("", *_BESIDE)) -> None:
    """Take a job's file away, and what SQLite put beside it. Raises OutputError when that is not allowed."""
    try:
        for suffix in suffixes:
            job.with_name(job.name + suffix).unlink(missing_ok=True)
    except OSError as error:
        raise unwritten(job, error) from error
