"""From what the user named to photos: files, folders, globs, lists of paths, standard input. Nothing is read twice.

Paths are ``str`` as Python gives them: bytes that are not UTF-8 stand as surrogate escapes (PEP 383).
"""

from __future__ import annotations

import glob
import os
import stat
import sys
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

from convnext_cli.errors import FailureKind, PhotoError, UsageError


@dataclass(frozen=True, slots=True)
class Photo:
    """path: as it is reported. data: the bytes, when they did not come from a file. problem: found while walking."""

    path: str
    data: bytes | None = None
    problem: PhotoError | None = None


@dataclass
class Finder:
    """Walks and lists lazily. ``passed_over`` counts, by type, the files of walked folders that say no image."""

    recursive: bool = False
    passed_over: Counter[str] = field(default_factory=Counter)
    _stdin_was_read: bool = False

    def named(self, paths: Iterable[str]) -> Iterator[Photo]:
        """The photos of the paths that a user typed; each yields at least one.

        Raises UsageError at once when there is none of them: no such file, no file that a glob matches, only URLs.
        """
        found: list[str] = []
        there = False
        for path in paths:
            matches = [] if path == "-" or _exists(path) else _globbed(path)
            there = there or bool(matches) or path == "-" or _exists(path)
            found += matches or [path]
        if found and not there:
            raise _nothing(found)
        return self._photos(found)

    def listed(self, stream: IO[bytes], *, null: bool = False) -> Iterator[Photo]:
        """The photos of a list of paths, one a line, or ended by NUL bytes; read as it comes."""
        return self._photos(os.fsdecode(line) for line in _split(stream, b"\0" if null else b"\n") if line)

    def _photos(self, paths: Iterable[str]) -> Iterator[Photo]:
        for path in paths:
            if path == "-":
                yield self._standard_input()
            elif _is_url(path):
                yield Photo(path, problem=PhotoError("missing", "is a URL; photos are never fetched"))
            elif not os.path.isdir(path):
                yield Photo(path)
            elif self.recursive:
                yield from self._walk(path)
            elif not _may_list(path):
                yield Photo(path, problem=PhotoError("permission", "the folder cannot be listed"))
            else:
                yield Photo(path, problem=PhotoError("not_a_file", "is a folder; -r labels the photos in it"))

    def _standard_input(self) -> Photo:
        from convnext_cli.photos.decode import MAX_FILE_BYTES

        if self._stdin_was_read or sys.stdin is None:
            why = "was read already" if self._stdin_was_read else "is closed"
            return Photo("-", problem=PhotoError("empty", f"standard input {why}"))
        self._stdin_was_read = True
        data = sys.stdin.buffer.read(MAX_FILE_BYTES + 1)
        if len(data) > MAX_FILE_BYTES:
            return Photo("-", problem=PhotoError("too_large", f"it has more than {MAX_FILE_BYTES >> 20} MiB"))
        return Photo("-", data)

    def _walk(self, folder: str) -> Iterator[Photo]:
        """Depth first, by name. Hidden entries are counted; links to folders are not followed: no loops."""
        from convnext_cli.photos.decode import IMAGE_SUFFIXES

        todo: list[Iterator[os.DirEntry[str]]] = []  # a stack of our own: folders can be deeper than Python's
        problem = self._enter(folder, todo)
        if problem:
            yield problem
        while todo:
            entry = next(todo[-1], None)
            if entry is None:
                todo.pop()
            elif entry.name.startswith("."):
                self.passed_over["hidden"] += 1
            elif entry.is_dir(follow_symlinks=False):
                if problem := self._enter(entry.path, todo):
                    yield problem
            elif os.path.splitext(entry.name)[1].lower() in IMAGE_SUFFIXES:
                yield Photo(entry.path)
            elif (reason := _no_image(entry)) is not None:
                self.passed_over[reason] += 1
            else:
                yield Photo(entry.path)

    def _enter(self, folder: str, todo: list[Iterator[os.DirEntry[str]]]) -> Photo | None:
        """Put a folder's entries onto the stack, or return the row that says why it cannot be listed."""
        try:
            with os.scandir(folder) as found:
                todo.append(iter(sorted(found, key=lambda entry: entry.name)))
        except OSError as error:
            kind: FailureKind = "permission" if isinstance(error, PermissionError) else "corrupt"
            return Photo(folder, problem=PhotoError(kind, f"the folder cannot be listed: {error.strerror}"))
        return None


def _exists(path: str) -> bool:
    """Whether something has this name; what lies behind a forbidden folder may, and becomes a row that says so."""
    try:
        os.lstat(path)
    except PermissionError:
        return True
    except (OSError, ValueError):
        return False
    return True


def _is_url(path: str) -> bool:
    return path.lower().startswith(("http://", "https://"))


def _globbed(pattern: str) -> list[str]:
    """What a quoted glob matches, sorted. As in a shell, a wildcard matches no hidden name, and ** follows no link.

    Folders on the way that may not be looked into are among the answers, so that a row can say so.
    """
    if _is_url(pattern) or not glob.has_magic(pattern):
        return []
    parts = Path(pattern).parts
    plain = next(i for i, part in enumerate(parts) if glob.has_magic(part))
    start, wild = Path(*parts[:plain]), parts[plain:]
    dots = any(part.startswith(".") for part in wild)
    try:
        closed = {
            folder
            for depth in range(len(wild))
            for folder in ([start] if depth == 0 else start.glob(str(Path(*wild[:depth]))))
            if folder.is_dir() and not _may_list(str(folder))
        }
        found = closed | {
            path
            for path in start.glob(str(Path(*wild)))
            if dots or not any(part.startswith(".") for part in path.relative_to(start).parts)
        }
    except (OSError, ValueError):
        return []
    return sorted(str(path) for path in found)


def _may_list(folder: str) -> bool:
    return os.access(folder, os.R_OK | os.X_OK)


def _nothing(paths: list[str]) -> UsageError:
    if len(paths) > 1:
        return UsageError(f"none of the {len(paths)} named paths exists", "check the spelling")
    (path,) = paths
    if _is_url(path):
        return UsageError(
            f"{path} is a URL; photos are never fetched", "download it first, or pipe it: curl … | convnext classify -"
        )
    if glob.has_magic(path):
        return UsageError(f"no file matches '{path}'", "check the pattern; ** goes into folders")
    return UsageError(f"'{path}' does not exist", "check the spelling")


def _no_image(entry: os.DirEntry[str]) -> str | None:
    """What a file without an image's suffix is called in the summary, or None when its bytes say image."""
    from convnext_cli.photos.decode import looks_like_image

    try:
        mode = entry.stat().st_mode
    except OSError:
        return "broken link" if entry.is_symlink() else "unreadable"
    if stat.S_ISDIR(mode):
        return "linked folder"
    if not stat.S_ISREG(mode):
        return "special file"
    try:
        with open(entry.path, "rb") as file:
            head = file.read(64)
    except OSError:
        return "unreadable"
    if looks_like_image(head):
        return None
    return os.path.splitext(entry.name)[1].lower() or "no suffix"


def _split(stream: IO[bytes], end: bytes) -> Iterator[bytes]:
    # read1 gives what is there; read would wait until a slow producer has filled the block
    read = getattr(stream, "read1", stream.read)
    rest = b""
    while block := read(1 << 16):
        *lines, rest = (rest + block).split(end)
        yield from (line.rstrip(b"\r") if end == b"\n" else line for line in lines)
    if rest:
        yield rest
