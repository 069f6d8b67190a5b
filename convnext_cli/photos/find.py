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
from fnmatch import fnmatchcase
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
    """Walks and lists lazily. ``passed_over`` counts, by type, the files of walked folders that say no image.

    recursive: go into named folders, at most ``depth`` levels (1: their own files). hidden: names that begin with a dot
    too. links: into linked folders too, never in a circle. include, exclude: globs; one without a slash is for names,
    another for paths from the named folder, where * goes over slashes. Excluded folders are not gone into. skip:
    absolute paths of folders that are left out.
    """

    recursive: bool = False
    depth: int | None = None
    hidden: bool = False
    links: bool = False
    include: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()
    skip: frozenset[str] = frozenset()
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

    def arrived(self, path: str, folder: str) -> Iterator[Photo]:
        """The photos of a path that appeared below a folder while it was watched; none where a walk would pass it."""
        start = len(os.path.join(folder, ""))
        parts = path[start:].split(os.sep)
        for level, name in enumerate(parts, 1):
            above = os.path.join(folder, *parts[:level])
            is_folder = level < len(parts) or os.path.isdir(path)
            if os.path.abspath(above) in self.skip or self._unwanted(above, name, level, start, is_folder=is_folder):
                return
        if os.path.isdir(path):
            yield from self._walk(path, start, len(parts))
        elif os.path.lexists(path) and _no_image(path) is None:
            yield Photo(path)

    def _unwanted(self, path: str, name: str, level: int, start: int, *, is_folder: bool) -> str | None:
        """Why a walk passes something by, or None. level: 1 for what lies in the named folder itself."""
        if name.startswith(".") and not self.hidden:
            return "hidden"
        if _matches(path, name, start, self.exclude):
            return "excluded"
        if is_folder:
            return "deeper folder" if self.depth is not None and level >= self.depth else None
        if self.include and not _matches(path, name, start, self.include):
            return "not included"
        return None

    def _walk(self, folder: str, start: int | None = None, level: int = 0) -> Iterator[Photo]:
        """Depth first, by name; what is not wanted is counted.

        start: where in a path the part below the named folder begins. level: of this folder below that one.
        """
        todo: list[Iterator[os.DirEntry[str]]] = []  # a stack of our own: folders can be deeper than Python's
        inside: list[tuple[int, int]] = []  # the folders on the way, by device and number: links may lead back
        start = len(os.path.join(folder, "")) if start is None else start
        problem = self._enter(folder, todo, inside)
        if problem:
            yield problem
        while todo:
            entry = next(todo[-1], None)
            if entry is None:
                todo.pop()
                inside.pop()
                continue
            is_folder = entry.is_dir(follow_symlinks=False) or (self.links and os.path.isdir(entry.path))
            why = self._unwanted(entry.path, entry.name, level + len(todo), start, is_folder=is_folder)
            if why is None and not is_folder:
                why = _no_image(entry.path, entry)
            if why is not None:
                self.passed_over[why] += 1
            elif not is_folder:
                yield Photo(entry.path)
            elif os.path.abspath(entry.path) not in self.skip and (problem := self._enter(entry.path, todo, inside)):
                yield problem

    def _enter(
        self, folder: str, todo: list[Iterator[os.DirEntry[str]]], inside: list[tuple[int, int]]
    ) -> Photo | None:
        """Put a folder's entries onto the stack, or return the row that says why it cannot be listed."""
        try:
            seen = os.stat(folder)
            if (seen.st_dev, seen.st_ino) in inside:
                self.passed_over["link in a circle"] += 1
                return None
            with os.scandir(folder) as found:
                todo.append(iter(sorted(found, key=lambda entry: entry.name)))
            inside.append((seen.st_dev, seen.st_ino))
        except OSError as error:
            kind: FailureKind = "permission" if isinstance(error, PermissionError) else "corrupt"
            return Photo(folder, problem=PhotoError(kind, f"the folder cannot be listed: {error.strerror}"))
        return None


def _matches(path: str, name: str, start: int, patterns: tuple[str, ...]) -> bool:
    return any(fnmatchcase(path[start:] if "/" in pattern else name, pattern.removeprefix("/")) for pattern in patterns)


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


def _no_image(path: str, entry: os.DirEntry[str] | None = None) -> str | None:
    """What a file is called in the summary when neither its suffix nor its bytes say image, or None.

    entry: of the path, where a walk has one.
    """
    from convnext_cli.photos.decode import IMAGE_SUFFIXES, looks_like_image

    suffix = os.path.splitext(path)[1].lower()
    if suffix in IMAGE_SUFFIXES:
        return None
    try:
        mode = (entry.stat() if entry else os.stat(path)).st_mode
    except OSError:
        return "broken link" if os.path.islink(path) else "unreadable"
    if stat.S_ISDIR(mode):
        return "linked folder"
    if not stat.S_ISREG(mode):
        return "special file"
    try:
        with open(path, "rb") as file:
            head = file.read(64)
    except OSError:
        return "unreadable"
    return None if looks_like_image(head) else suffix or "no suffix"


def _split(stream: IO[bytes], end: bytes) -> Iterator[bytes]:
    # read1 gives what is there; read would wait until a slow producer has filled the block
    read = getattr(stream, "read1", stream.read)
    rest = b""
    while block := read(1 << 16):
        *lines, rest = (rest + block).split(end)
        yield from (line.rstrip(b"\r") if end == b"\n" else line for line in lines)
    if rest:
        yield rest
