"""Files on this machine: names, globs, and whether a file may be a photo."""

from __future__ import annotations

import glob
import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from convnext_cli.base.errors import UsageError

_LONGEST_PATH = 1 << 20  # bytes; systems take some thousand, stores a few thousand more


def exists(path: str) -> bool:
    """Whether the name exists. A name in a folder that may not be read counts, and becomes a failed row."""
    try:
        os.lstat(path)
    except PermissionError:
        return True
    except (OSError, ValueError):
        return False
    return True


def in_any_case(pattern: str) -> str:
    """A glob whose suffix matches both cases: cameras and phones write .JPG and .HEIC."""
    stem, dot, suffix = pattern.rpartition(".")
    if not dot or any(sign in suffix for sign in "/[]"):
        return pattern
    return stem + dot + "".join(f"[{c.lower()}{c.upper()}]" if c.isascii() and c.isalpha() else c for c in suffix)


def globbed(pattern: str) -> list[str]:
    """The paths that a quoted glob matches, sorted. As in a shell, a wildcard matches no hidden name, and ** no link.

    Folders on the way that may not be listed are included, so that a failed row can report them.
    """
    if not glob.has_magic(pattern):
        return []
    parts = Path(in_any_case(pattern)).parts
    plain = next(i for i, part in enumerate(parts) if glob.has_magic(part))
    start, wild = Path(*parts[:plain]), parts[plain:]
    dots = any(part.startswith(".") for part in wild)
    try:
        closed = {
            folder
            for depth in range(len(wild))
            for folder in ([start] if depth == 0 else start.glob(str(Path(*wild[:depth]))))
            if folder.is_dir() and not may_list(str(folder))
        }
        matches = closed | {
            path
            for path in start.glob(str(Path(*wild)))
            if dots or not any(part.startswith(".") for part in path.relative_to(start).parts)
        }
    except (OSError, ValueError):
        return []
    return sorted(str(path) for path in matches)


def may_list(folder: str) -> bool:
    """Whether this user may list a folder."""
    return os.access(folder, os.R_OK | os.X_OK)


def no_image(path: str, entry: os.DirEntry[str] | None = None) -> str | None:
    """The type that the summary shows for a file that is not an image; None for an image.

    Args:
        path: of the file.
        entry: the directory entry of the path, where a walk has one.
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


def split(stream: IO[bytes], end: bytes) -> Iterator[bytes]:
    """Split a list of paths.

    Raises:
        UsageError: a path is longer than any path can be: this is not a list, or its paths end in another character.
    """
    # read1 returns the bytes that have arrived; read would wait until a slow producer has filled the block
    read = getattr(stream, "read1", stream.read)
    begun: list[
        bytes
    ] = []  # of a path whose end has not come yet; joined once, or a long one would be copied each time
    size = 0
    while block := read(1 << 16):
        lines = block.split(end)
        begun.append(lines[0])
        if (size := size + len(lines[0])) > _LONGEST_PATH:
            hint = "leave -0 out if paths end with lines" if end == b"\0" else "add -0 if paths end with NUL bytes"
            raise UsageError(f"the list of files holds a path of more than {_LONGEST_PATH >> 20} MiB", hint)
        if len(lines) > 1:
            lines[0] = b"".join(begun)
            begun, size = [lines[-1]], len(lines[-1])
            yield from (line.rstrip(b"\r") if end == b"\n" else line for line in lines[:-1])
    if rest := b"".join(begun):
        yield rest
