"""Photos into one folder a label: ``plan`` says what would be done, ``apply`` does it, ``undo.undo`` takes it back.

Nothing is ever overwritten, and at no moment is there less of a photo than before. What is going to be done is written
to the log first (``undo.Log``), so that a sort which was killed can be taken back, or given again to go on.
"""

from __future__ import annotations

import errno
import os
import shlex
import stat
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Literal, NoReturn

from convnext_cli.base.errors import OutputError, UsageError
from convnext_cli.base.file_names import name_key
from convnext_cli.jobs.actions import move_files
from convnext_cli.jobs.actions.folder_names import UNKNOWN, Folders, file_names
from convnext_cli.jobs.actions.undo import Log, Made, Mode
from convnext_cli.jobs.entry import Entry
from convnext_cli.photos.containers.shards import is_container
from convnext_cli.predict.rows import Row

By = Literal["label", "id"]
_GROUP = 64  # photos whose log lines go to the disk together, before the first of them is touched
_FULL = (errno.ENOSPC, errno.EDQUOT)
_DONE = {"copy": "copied", "link": "linked", "hardlink": "hard-linked", "move": "moved"}
_DO: dict[Mode, Callable[[Path, Path], None]] = {
    "copy": move_files.copy,
    "link": move_files.link,
    "hardlink": move_files.hardlink,
    "move": move_files.move,
}


@dataclass(frozen=True, slots=True)
class Step:
    """One photo's way. target: its new name, in its label's folder. label: or id; "unknown" below the floor."""

    source: Path
    target: Path
    label: str


@dataclass(slots=True)
class Sorted:
    """placed: photos by folder. failed: photos by reason; the log has each of them."""

    placed: Counter[str] = field(default_factory=Counter)
    failed: Counter[str] = field(default_factory=Counter)


@dataclass
class Plan:
    """The steps of a sort, decided one by one as they are asked for: a million photos need no list.

    left: photos that stay as they are, by reason: "failed"; "vanished"; "in a shard", not a file of its own;
    "inside", those in the sorted tree; "already", those that an earlier run placed.
    """

    entries: Iterable[Entry]
    into: Path
    mode: Mode
    by: By
    folders: Folders
    left: Counter[str] = field(default_factory=Counter)
    _claimed: set[int] = field(default_factory=set)  # checksums of the names that photos of this run have

    def __iter__(self) -> Iterator[Step]:
        for entry in self.entries:
            source = Path(entry.file)
            if reason := self._reason_to_leave(source, entry.row):
                self.left[reason] += 1
                continue
            label = _label(entry.row, self.by)
            folder = self.into / (UNKNOWN if label is None else self.folders.name(label))
            target, taken = self._target(source, folder)
            if taken and self.mode != "move":
                self.left["already"] += 1
            else:
                yield Step(source, target, label or UNKNOWN)

    def _reason_to_leave(self, source: Path, row: Row) -> str | None:
        if row.status in ("failed", "vanished"):
            return row.status
        if not os.path.lexists(source):
            return "in a shard" if any(is_container(str(above)) for above in source.parents) else "vanished"
        return "inside" if Path(os.path.realpath(source.parent)).is_relative_to(self.into) else None

    def _target(self, source: Path, folder: Path) -> tuple[Path, bool]:
        """The first name that nothing else has, and whether an earlier run has put this photo there."""
        for name in file_names(source):
            target, claim = folder / name, hash((folder.name, name_key(name)))
            if claim in self._claimed:
                continue
            taken = os.path.lexists(target)
            if not taken or self._is_there(source, target):
                self._claimed.add(claim)
                return target, taken
        raise AssertionError("names have no end")

    def _is_there(self, source: Path, target: Path) -> bool:
        try:
            if self.mode == "move":
                return move_files.is_half_moved(source, target)
            # in whatever mode it came
            if target.is_symlink():
                return target.readlink() == source
            return target.is_file() and (target.samefile(source) or move_files.same_bytes(source, target))
        except OSError:
            return False


def plan(entries: Iterable[Entry], into: Path, *, mode: Mode, by: By = "label", labels: Iterable[str] = ()) -> Plan:
    """What a sort of these photos would do; touches nothing.

    by: folders are named by the label, or by its WordNet id where there is one.
    labels: all labels and groups of the model; the folders of those with capitals then need no checksum behind their
    names.
    Raises UsageError when there is something else under the folder's name.
    """
    if os.path.lexists(into) and not into.is_dir():
        raise UsageError(f"{into} is not a folder", "photos are sorted into a folder, new or old")
    return Plan(entries, Path(os.path.realpath(into)), mode, by, Folders(labels))


def apply(steps: Iterable[Step], log: Path, mode: Mode, *, roots: Iterable[str] = ()) -> Sorted:
    """Do it, and write the log, which there is only when there was something to do.

    roots: folders that all photos come from, as far as they are known; undoing moves photos back into these alone.

    A photo with which it does not work is counted, and the others go on. Raises UsageError when the log is there,
    OutputError when it cannot be written or the disk is full; what was done until then is done.
    """
    done = Sorted()
    todo = iter(steps)
    group = list(islice(todo, _GROUP))
    if not group:
        return done
    try:
        journal = Log(log, mode, group[0].target.parent.parent, roots)
        try:
            known: set[Path] = set()
            while group:
                _do_group(group, journal, mode, known, done)
                group = list(islice(todo, _GROUP))
            journal.sync()
        finally:
            journal.close()
    except OSError as error:
        _stop(error, done, log, mode)
    return done


def _do_group(group: list[Step], journal: Log, mode: Mode, known: set[Path], done: Sorted) -> None:
    """known: folders that are there or in the log. Raises OSError for what ends the sort."""
    ready = []
    for step in group:
        try:
            record = _record(step, mode)
        except OSError as error:
            _fail(step, error, journal, done)
            continue
        for folder in _new_folders(step.target.parent, known):
            journal.add({"do": "folder", "path": str(folder)})
        journal.add(record.record())
        ready.append(step)
    journal.sync()
    for step in ready:
        try:
            _enter(step.target.parent)
            _DO[mode](step.source, step.target)
        except OSError as error:
            if error.errno in _FULL:
                raise
            _fail(step, error, journal, done)
        else:
            done.placed[step.target.parent.name] += 1


def _record(step: Step, mode: Mode) -> Made:
    status = step.source.lstat() if mode == "move" else step.source.stat()
    if stat.S_ISLNK(status.st_mode):  # a relative one would lead nowhere from its new place
        raise OSError(errno.EINVAL, "is a link, and links are not moved")
    if not stat.S_ISREG(status.st_mode):
        raise OSError(errno.EINVAL, "is not a file")
    return Made(mode, step.source, step.target, status.st_size, status.st_mtime_ns)


def _new_folders(folder: Path, known: set[Path]) -> list[Path]:
    """The folders that have to be made for this one, the outermost first."""
    if folder in known:
        return []
    known.add(folder)
    return [] if os.path.lexists(folder) else [*_new_folders(folder.parent, known), folder]


def _enter(folder: Path) -> None:
    """Have the folder there. Raises OSError, also when it is a link, which would lead out of the sorted tree."""
    if folder.is_symlink():
        raise NotADirectoryError(errno.ENOTDIR, "its folder is a link")
    folder.mkdir(parents=True, exist_ok=True)


def _fail(step: Step, error: OSError, journal: Log, done: Sorted) -> None:
    why = error.strerror or str(error)
    done.failed[why] += 1
    journal.add({"do": "failed", "source": str(step.source), "target": str(step.target), "why": why})


def _stop(error: OSError, done: Sorted, log: Path, mode: Mode) -> NoReturn:
    full, count = error.errno in _FULL, done.placed.total()
    what = "the disk is full" if full else f"{log} cannot be written: {error.strerror or error}"
    photos = "1 photo was" if count == 1 else f"{count or 'no'} photos were"
    again = "free some space and run the same command again" if full else "choose a folder that you may write to"
    back = f", or take it back: convnext label --undo {shlex.quote(str(log))}" if count else ""
    raise OutputError(f"{what}; {photos} {_DONE[mode]}", f"{again}{back}") from error


def _label(row: Row, by: By) -> str | None:
    """What a photo's folder is named after: its answer or else its best label; None when it is not known."""
    if row.status != "ok" or not row.predictions:
        return None
    best = row.predictions[0] if row.answer is None else row.answer
    return best.id if by == "id" and best.id else best.label
