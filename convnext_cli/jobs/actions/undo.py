"""The undo log of a sort, and what takes the sort back.

JSON lines: a header, then what was going to be done, each line on the disk before its action. Whether it was done is
seen from the files: so a log is of use whenever its sort was killed, and undoing twice does no harm. Paths that are not
UTF-8 stand with JSON's escapes for lone surrogates, as Python gives them.
"""

from __future__ import annotations

import errno
import json
import os
import stat
from array import array
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

from convnext_cli.base.errors import UsageError
from convnext_cli.base.text import JsonObject
from convnext_cli.jobs.actions import move_files

Mode = Literal["copy", "link", "hardlink", "move"]
VERSION = 1
_KIND = "convnext sort"
_BEGINNING = f'{{"log": "{_KIND}", "version": '.encode()
# What file systems keep of times: NTFS, UDF, exFAT, ext3 and HFS+, FAT.
_GRAINS = (1, 100, 1_000, 10_000_000, 1_000_000_000, 2_000_000_000)
_BROKEN = (ValueError, KeyError, TypeError, RecursionError, OverflowError)
_CHANGED = "has changed since"


@dataclass(frozen=True, slots=True)
class Kept:
    """Something that undoing left as it is, and why."""

    path: str
    why: str


@dataclass(slots=True)
class Undone:
    """removed: copies and links. moved_back: photos. folders: removed ones. kept: what was left as it is."""

    removed: int = 0
    moved_back: int = 0
    folders: int = 0
    kept: list[Kept] = field(default_factory=list)


class Log:
    """Where a sort writes what it is going to do.

    into: the folder that photos are sorted into. roots: folders that they come from; ``undo`` stays inside of these.
    Raises UsageError when there is something of that name, OSError when it cannot be written.
    """

    def __init__(self, path: Path, mode: Mode, into: Path | None = None, roots: Iterable[str] = ()) -> None:
        try:
            self._stream = path.open("xb")
        except FileExistsError as error:
            hint = "choose another name; that log can still be undone"
            raise UsageError(f"{path} already exists", hint) from error
        try:
            date = datetime.now(UTC).isoformat(" ", "seconds")
            folders = {} if into is None else {"into": str(into), "from": sorted(roots) or None}
            self.add({"log": _KIND, "version": VERSION, "mode": mode, "date": date, **folders})
            self.sync()
            move_files.settle(path.parent)
        except OSError:
            self.close()
            path.unlink()  # nothing was done yet
            raise

    def add(self, record: Mapping[str, object]) -> None:
        """Note something; it is on the disk after ``sync``."""
        self._stream.write(json.dumps(record).encode() + b"\n")

    def sync(self) -> None:
        """What was noted stays, also when the power goes."""
        self._stream.flush()
        os.fsync(self._stream.fileno())

    def close(self) -> None:
        """Write what is left, if that is possible: only remarks on what failed are not on the disk yet."""
        with suppress(OSError):
            self._stream.close()


@dataclass(frozen=True, slots=True)
class Made:
    """A photo that was copied, linked or moved. size, mtime_ns: the photo's at that time."""

    mode: Mode
    source: Path
    target: Path
    size: int
    mtime_ns: int

    def is_as_made(self, path: Path) -> bool:
        """Whether a file, links followed, has the size and time; the time as its file system keeps it."""
        try:
            status = path.stat()
        except OSError:
            return False
        apart = abs(status.st_mtime_ns - self.mtime_ns)
        same_time = any(apart < grain and status.st_mtime_ns % grain == 0 for grain in _GRAINS)
        return stat.S_ISREG(status.st_mode) and status.st_size == self.size and same_time

    def record(self) -> dict[str, object]:
        """As it stands in a log."""
        paths = {"source": str(self.source), "target": str(self.target)}
        return {"do": self.mode, **paths, "size": self.size, "mtime_ns": self.mtime_ns}


def undo(log: Path) -> Undone:
    """Undo a sort, in reverse order, but leave files that have changed since.

    A file is removed only while its content is elsewhere too. After a kill, the same call continues. Undo the latest
    of several logs first.

    Raises:
        UsageError: the file is not the log of a sort.
    """
    done = Undone()
    failed: set[str] = set()
    bounds = _bounds(log)
    for line in _backwards(log):
        try:
            record = json.loads(line)
            what = record["do"]
            if what == "undone":  # what has these names now is another sort's
                return done
            path = _text(record["path" if what == "folder" else "target"])
            step = None if what in ("folder", "failed") else _made(record)
        except _BROKEN:
            done.kept.append(Kept(str(log), f"cannot be read: {line[:80]!r}"))
            continue
        try:
            if what == "failed":
                failed.add(path)
            elif step is None:
                bounds.check_folder(Path(path))
                done.folders += _remove_folder(Path(path))
            elif path in failed:
                failed.discard(path)
            elif _take_back(bounds.checked(step)):
                done.moved_back += step.mode == "move"
                done.removed += step.mode != "move"
        except _Keep as kept:
            done.kept.append(Kept(kept.path, kept.why))
        except (OSError, ValueError) as error:
            done.kept.append(Kept(path, getattr(error, "strerror", None) or str(error)))
    if not done.kept and done != Undone():
        with suppress(OSError), log.open("ab") as stream:  # a log that may not be written is undone again, without harm
            stream.write(b'{"do": "undone"}\n')
    return done


class _Keep(Exception):
    def __init__(self, path: Path, why: str) -> None:
        super().__init__(why)
        self.path, self.why = str(path), why


@dataclass
class _Bounds:
    """The folders that a log was made for. into: None in logs of earlier releases, until a line names it."""

    into: Path | None
    roots: tuple[Path, ...] | None

    def checked(self, step: Made) -> Made:
        """A step that stays inside. Raises _Keep for one that leads elsewhere, by a link too."""
        if self.into is None:
            self.into = _real(step.target.parent.parent)
        if not _real(step.target.parent).is_relative_to(self.into):
            raise _Keep(step.target, f"is not in {self.into}, which the log is for")
        source = _real(step.source.parent)
        # logs of earlier releases do not say where photos came from
        if step.mode == "move" and self.roots is not None and not any(map(source.is_relative_to, self.roots)):
            raise _Keep(step.target, f"came from {step.source}, which is not in a folder that the log is for")
        return step

    def check_folder(self, folder: Path) -> None:
        """Raises _Keep for a folder that the sort cannot have made: it is neither in the sorted one nor above it."""
        real = _real(folder.parent) / folder.name
        if self.into is not None and not (real.is_relative_to(self.into) or self.into.is_relative_to(real)):
            raise _Keep(folder, f"is not in {self.into}, which the log is for")


def _real(path: Path) -> Path:
    return Path(os.path.realpath(path))


def _bounds(log: Path) -> _Bounds:
    """What the header of a log says. Raises UsageError where it is damaged."""
    try:
        with log.open("rb") as stream:
            values = json.loads(stream.readline(1 << 20))
        into, roots = values.get("into"), values.get("from")
        return _Bounds(
            None if into is None else _real(Path(_text(into))),
            None if roots is None else tuple(_real(Path(_text(root))) for root in roots),
        )
    except (OSError, UnicodeDecodeError, json.JSONDecodeError, AttributeError, RecursionError):
        return _Bounds(None, ())  # ``_backwards`` says what is wrong with it
    except _BROKEN as error:
        raise UsageError(f"{log} is damaged in its first line", "nothing was undone") from error


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise TypeError
    return value


def _number(value: object) -> int:
    if type(value) is not int:
        raise TypeError
    return value


def _made(record: JsonObject) -> Made:
    if record["do"] not in _TAKE_BACK:
        raise ValueError
    source, target = Path(_text(record["source"])), Path(_text(record["target"]))
    return Made(record["do"], source, target, _number(record["size"]), _number(record["mtime_ns"]))


def _backwards(log: Path) -> Iterator[bytes]:
    """The lines behind the header, the last first. One that was not written to its end was followed by no action."""
    hint = "the log is the file that the sort named when it ended"
    starts = array("Q")
    try:
        with log.open("rb") as stream:
            header = stream.readline(1 << 20)
            if not header.endswith(b"\n") and _BEGINNING.startswith(header[: len(_BEGINNING)]):
                return  # killed at its very beginning
            _check(log, header, hint)
            starts.append(stream.tell())
            starts.extend(stream.tell() for line in iter(stream.readline, b"") if line.endswith(b"\n"))
            for start in reversed(starts[:-1]):
                stream.seek(start)
                yield stream.readline()
    except OSError as error:
        raise UsageError(f"{log} cannot be read: {error.strerror or error}", hint) from error


def _check(log: Path, header: bytes, hint: str) -> None:
    try:
        values = json.loads(header)
        kind, version = values["log"], values["version"]
    except _BROKEN:
        kind = version = None
    if kind != _KIND:
        raise UsageError(f"{log} is not the log of a sort", hint)
    if version != VERSION:
        raise UsageError(
            f"{log} was written by another release of convnext (version {version})", "undo it with that release"
        )


def _remove_folder(folder: Path) -> bool:
    try:
        folder.rmdir()
    except FileNotFoundError:
        return False
    except OSError as error:
        if error.errno in (errno.ENOTEMPTY, errno.EEXIST):
            raise _Keep(folder, "is not empty") from error
        raise
    return True


def _take_back(step: Made) -> bool:
    """Undo one; whether there was something to undo. Raises _Keep and OSError."""
    source, target = step.source, step.target
    for part in (
        move_files.part_of(source, target),
        move_files.part_of(target, source),
    ):  # of a killed sort, of a killed undo
        if move_files.state(part) is not None:
            if not any(step.is_as_made(path) or _same_file(part, path) for path in (source, target)):
                raise _Keep(part, "is part of a copy, and no whole one exists")
            part.unlink()
    if move_files.state(target) is not None:
        _TAKE_BACK[step.mode](step)
        return True
    if step.mode == "move" and move_files.state(source) is None:
        raise _Keep(source, f"no longer exists, and neither does {target}")
    return False


def _unlink(step: Made) -> None:
    if not step.target.is_symlink() or step.target.readlink() != step.source:
        raise _Keep(step.target, _CHANGED)
    step.target.unlink()


def _remove_hardlink(step: Made) -> None:
    if not _same_file(step.source, step.target) or not _have_two_places(step):
        raise _Keep(step.target, "or its original has changed since")
    step.target.unlink()


def _remove_copy(step: Made) -> None:
    if step.target.is_symlink() or not step.is_as_made(step.target):
        raise _Keep(step.target, _CHANGED)
    if not _have_two_places(step) or not (
        step.is_as_made(step.source) or move_files.same_bytes(step.source, step.target)
    ):
        raise _Keep(step.target, "is the only copy: its original is gone or has changed since")
    step.target.unlink()


def _move_back(step: Made) -> None:
    source, target = step.source, step.target
    if target.is_symlink() or not step.is_as_made(target):
        raise _Keep(target, _CHANGED)
    original = move_files.state(source)
    if original is None:
        source.parent.mkdir(parents=True, exist_ok=True)
        move_files.move(target, source, step.mtime_ns)
    elif stat.S_ISREG(original.st_mode) and _have_two_places(step) and move_files.same_bytes(source, target):
        target.unlink()  # a move, or an undo, was killed between its copy and the end
    else:
        raise _Keep(target, "something else is in its old place")


def _same_file(one: Path, other: Path) -> bool:
    try:
        return one.samefile(other)
    except OSError:
        return False


def _have_two_places(step: Made) -> bool:
    """Whether the original is there and under a name of its own, no link that leads to what was made of it."""
    return step.source.exists() and os.path.realpath(step.source) != os.path.realpath(step.target)


_TAKE_BACK: dict[Mode, Callable[[Made], None]] = {
    "copy": _remove_copy,
    "link": _unlink,
    "hardlink": _remove_hardlink,
    "move": _move_back,
}
