"""Labels as keywords of photo managers: in sidecars beside the photos, or in the photos themselves (docs/metadata.md).

Each function goes through a job's entries once and holds none of them. What an earlier run wrote is replaced, what
people wrote stays, and a photo that fails is reported and skipped.
"""

from __future__ import annotations

import errno
import os
import shutil
import stat
from collections import Counter
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from convnext_cli.base.errors import OutputError
from convnext_cli.base.files import remove_stale_parts_in, replacing, sync_folder
from convnext_cli.jobs.entry import Entry
from convnext_cli.jobs.keywords.exiftool import ExifTool
from convnext_cli.jobs.keywords.packet import EMPTY, alike, photo_of, put
from convnext_cli.jobs.keywords.rdf import MetadataError
from convnext_cli.jobs.keywords.words import ROOT, Keywords, clean, keywords, root_of

Naming = Literal["append", "replace"]
State = tuple[int, int]  # of a file: its size, and its time of change in ns
Progress = Callable[[Entry], None]
Touched = Callable[[str, State, State], None]

_Outcome = Literal["changed", "removed", "unchanged", "shared", "skipped", "failed"]
_NOTHING = Keywords()
_TOLD = 100  # failures that are kept; the others are counted
_MOST_BYTES = 64 << 20  # of a sidecar; Lightroom's with many masks have a few million
_SECOND = 10**9  # ns
_MEANWHILE = "another program has changed it meanwhile"


@dataclass(frozen=True, slots=True)
class Failure:
    """A photo whose keywords could not be written or removed. file: as in its entry."""

    file: str
    message: str


@dataclass(frozen=True, slots=True)
class Written:
    """What was done. failures: the first hundred of them. counts: photos by what came of them:

    changed: other keywords of ours are in it now, or none. removed: its sidecar held nothing but ours, and is gone.
    unchanged: there was nothing to change. shared: its sidecar has the keywords of another photo of the same name.
    skipped: it failed or vanished, and was left as it is. failed: it could not be done.
    """

    counts: Counter[_Outcome] = field(default_factory=Counter)
    failures: list[Failure] = field(default_factory=list)


def sidecar_of(file: str, naming: Naming = "append") -> str:
    """The sidecar of a photo: photo.jpg.xmp (append), or photo.xmp (replace)."""
    return f"{file}.xmp" if naming == "append" else f"{os.path.splitext(file)[0]}.xmp"  # noqa: PTH122 - surrogates


def write_sidecars(
    entries: Iterable[Entry],
    *,
    naming: Naming = "append",
    top: int = 1,
    root: str = ROOT,
    tree: bool = True,
    progress: Progress = lambda _: None,
) -> Written:
    """Write the keywords of each photo into its sidecar, which is made where there is none.

    Where photos share a sidecar, the first one keeps it for as long as that photo exists.

    Args:
        entries: photos with their rows.
        naming: how a sidecar is named.
        top: guesses for each photo.
        root: of the paths; everything below it is ours.
        tree: write paths as well as flat words.
        progress: called with each entry that is done.

    Returns:
        How many were written, and how many failed.

    Raises:
        UsageError: the root is not a keyword.
        OutputError: the disk is full.
    """
    root = root_of(root)

    def write(entry: Entry) -> _Outcome:
        if entry.row.status in ("failed", "vanished"):
            return "skipped"
        words = keywords(entry.row, top=top, root=root, tree=tree)
        path = Path(sidecar_of(entry.file, naming))
        if naming == "append":
            return _write_sidecar(path, words, root)
        stem, suffix = os.path.splitext(entry.file)  # noqa: PTH122
        taken = photo_of(_read(path) or EMPTY)
        if taken not in (None, clean(suffix)) and os.path.lexists(f"{stem}{taken}"):
            return "shared"
        return _write_sidecar(path, words, root, clean(suffix))

    return _each(entries, write, progress)


def remove_sidecars(entries: Iterable[Entry], *, root: str = ROOT, progress: Progress = lambda _: None) -> Written:
    """Take our keywords out of the sidecars of each photo, whichever way they are named and whatever its row says.

    Returns and raises what ``write_sidecars`` does.
    """
    root = root_of(root)

    def remove(entry: Entry) -> _Outcome:
        appended = _write_sidecar(Path(sidecar_of(entry.file, "append")), _NOTHING, root)
        replaced = _write_sidecar(Path(sidecar_of(entry.file, "replace")), _NOTHING, root)
        return replaced if appended == "unchanged" else appended

    return _each(entries, remove, progress)


def embed(
    entries: Iterable[Entry],
    *,
    top: int = 1,
    root: str = ROOT,
    tree: bool = True,
    touched: Touched = lambda *_: None,
    progress: Progress = lambda _: None,
) -> Written:
    """Write the keywords of each photo into the photo itself; its pixels and its other metadata stay as they are.

    Args:
        entries, top, root, tree, progress: as for ``write_sidecars``.
        touched: called with each file that was written, its state before and its state now, so that it is not taken for
            another photo.

    Raises:
        UnavailableError: exiftool is missing.
        UsageError, OutputError: as for ``write_sidecars``.
    """
    root = root_of(root)
    with ExifTool() as tool:

        def write(entry: Entry) -> _Outcome:
            if entry.row.status in ("failed", "vanished"):
                return "skipped"
            words = keywords(entry.row, top=top, root=root, tree=tree)
            return _embed(tool, entry.file, words, root, touched)

        return _each(entries, write, progress)


def remove_embedded(
    entries: Iterable[Entry],
    *,
    root: str = ROOT,
    touched: Touched = lambda *_: None,
    progress: Progress = lambda _: None,
) -> Written:
    """Take our keywords out of each photo that is there, whatever its row says.

    Returns and raises what ``embed`` does.
    """
    root = root_of(root)
    with ExifTool() as tool:

        def remove(entry: Entry) -> _Outcome:
            exists = os.path.exists(entry.file)  # noqa: PTH110
            return _embed(tool, entry.file, _NOTHING, root, touched) if exists else "skipped"

        return _each(entries, remove, progress)


def _each(entries: Iterable[Entry], do: Callable[[Entry], _Outcome], progress: Progress) -> Written:
    written, folder = Written(), None
    for entry in entries:
        if os.path.dirname(entry.file) != folder:  # noqa: PTH120 - surrogates
            folder = os.path.dirname(entry.file)  # noqa: PTH120
            remove_stale_parts_in(Path(folder))
        try:
            outcome = do(entry)
        except (MetadataError, OSError, OutputError) as error:
            _raise_if_full(entry.file, error)
            outcome = "failed"
            if len(written.failures) < _TOLD:
                written.failures.append(Failure(entry.file, _told(error)))
        written.counts[outcome] += 1
        progress(entry)
    return written


def _told(error: Exception) -> str:
    if isinstance(error, OSError) and error.filename is not None:
        return f"{error.filename}: {error.strerror}"
    return str(error)


def _raise_if_full(file: str, error: Exception) -> None:
    """Raises OutputError when the disk is full: all later photos would fail too."""
    cause = error.__cause__ if isinstance(error, OutputError) else error
    if isinstance(cause, OSError) and cause.errno in (errno.ENOSPC, errno.EDQUOT):
        raise OutputError(
            f"the keywords of {file} cannot be written: {cause.strerror}",
            "free some space and run the same command again",
        ) from error


def _write_sidecar(path: Path, words: Keywords, root: str, photo: str | None = None) -> _Outcome:
    """Have a sidecar hold these keywords of ours. One that we made, and that holds nothing without them, goes."""
    before = _read(path)
    base = EMPTY if before is None else before
    after = put(base, words, root, photo)
    if after == base:
        return "unchanged"
    if path.is_symlink():  # what it leads to may lie anywhere, and be read by others
        raise MetadataError(f"{path.name} is a link; what it leads to is left as it is")
    if before is not None:
        _refuse_protected(path)
    if after == EMPTY:
        path.unlink()
        sync_folder(path.parent)
        return "removed"
    with replacing(path) as stream:
        stream.write(after)
        stream.flush()
        if before is not None:
            _become(stream.name, path)
            os.utime(stream.name)
        if _read(path) != before:
            raise MetadataError(_MEANWHILE)
    return "changed"


def _embed(tool: ExifTool, file: str, words: Keywords, root: str, touched: Touched) -> _Outcome:
    """Have a photo hold these keywords of ours: in a copy, which then takes its name in one step."""
    if os.path.islink(file):  # noqa: PTH114 - what it leads to may lie outside of the folder
        raise MetadataError("it is a link; the photo that it leads to is left as it is")
    path = Path(os.path.realpath(file))
    seen = path.stat()
    base = tool.read(path) or EMPTY
    after = put(base, words, root)
    if after == base:
        return "unchanged"
    _refuse_protected(path)
    new = tool.write(path, None if alike(after, EMPTY) else after)
    with replacing(path) as stream, new.open("rb") as copy:
        shutil.copyfileobj(copy, stream)
        stream.flush()
        _become(stream.name, path)
        # The date that photos without another one are sorted by stays, and programs that look for changes see one.
        os.utime(stream.name, ns=(seen.st_atime_ns, seen.st_mtime_ns + _SECOND))
        if _state(path.stat()) != _state(seen):
            raise MetadataError(_MEANWHILE)
    touched(file, _state(seen), _state(path.stat()))
    return "changed"


def _read(path: Path) -> bytes | None:
    """The bytes of a sidecar; None without one."""
    try:
        status = path.stat()
    except FileNotFoundError:
        return None
    if not stat.S_ISREG(status.st_mode) or status.st_size > _MOST_BYTES:
        raise MetadataError(f"{path.name} is not a sidecar")
    return path.read_bytes()


def _refuse_protected(path: Path) -> None:
    """A new file could take the place of one that may not be written to; but that is not what its owner meant."""
    if not os.access(path, os.W_OK):
        raise MetadataError(f"{path.name} is write-protected")


def _become(part: str, path: Path) -> None:
    """Give a file that will take the place of another its owner, its permissions and its other attributes."""
    status = path.stat()
    with suppress(OSError):  # only root can give files away
        os.chown(part, status.st_uid, status.st_gid)
    shutil.copystat(path, part)


def _state(status: os.stat_result) -> State:
    return status.st_size, status.st_mtime_ns
