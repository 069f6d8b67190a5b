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

    def named(self, paths: Iterable[str]) -> Iterator[Photo]:
        """The photos of the paths that a user typed; each yields at least one.

        Raises UsageError at once for a URL, a glob that matches nothing, or when none of the paths exists.
        """
        expanded: list[str] = []
        for path in paths:
            if path.lower().startswith(("http://", "https://")):
                raise UsageError(
                    f"{path} is a URL; photos are never fetched",
                    "download it first, or pipe it: curl … | convnext classify -",
                )
            if path != "-" and not os.path.lexists(path) and glob.has_magic(path):
                matches = sorted(glob.glob(path, recursive=True))
                if not matches:
                    raise UsageError(f"no file matches {path}", "check the pattern; ** goes into folders")
                expanded += matches
            else:
                expanded.append(path)
        if expanded and not any(path == "-" or os.path.lexists(path) for path in expanded):
            what = expanded[0] if len(expanded) == 1 else f"none of the {len(expanded)} named paths"
            raise UsageError(f"{what} does not exist" if len(expanded) == 1 else f"{what} exists", "check the spelling")
        return self._photos(expanded)

    def listed(self, stream: IO[bytes], *, null: bool = False) -> Iterator[Photo]:
        """The photos of a list of paths, one a line, or ended by NUL bytes; read as it comes."""
        return self._photos(os.fsdecode(line) for line in _split(stream, b"\0" if null else b"\n") if line)

    def _photos(self, paths: Iterable[str]) -> Iterator[Photo]:
        for path in paths:
            if path == "-":
                yield Photo("-", sys.stdin.buffer.read())
            elif not os.path.isdir(path):
                yield Photo(path)
            elif self.recursive:
                yield from self._walk(path)
            else:
                yield Photo(path, problem=PhotoError("not_a_file", "is a folder; -r labels the photos in it"))

    def _walk(self, folder: str) -> Iterator[Photo]:
        """Depth first, by name. Hidden entries are counted; links to folders are not followed: no loops."""
        from convnext_cli.photos.decode import IMAGE_SUFFIXES

        try:
            with os.scandir(folder) as found:
                entries = sorted(found, key=lambda entry: entry.name)
        except OSError as error:
            kind: FailureKind = "permission" if isinstance(error, PermissionError) else "corrupt"
            yield Photo(folder, problem=PhotoError(kind, f"the folder cannot be listed: {error.strerror}"))
            return
        for entry in entries:
            suffix = os.path.splitext(entry.name)[1].lower()
            if entry.name.startswith("."):
                self.passed_over["hidden"] += 1
            elif entry.is_dir(follow_symlinks=False):
                yield from self._walk(entry.path)
            elif suffix in IMAGE_SUFFIXES:
                yield Photo(entry.path)
            elif (reason := _no_image(entry)) is not None:
                self.passed_over[reason] += 1
            else:
                yield Photo(entry.path)


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
