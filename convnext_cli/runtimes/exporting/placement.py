"""Where an exported file goes: what may be written over, the room in which it is made, and how it gets its name."""

from __future__ import annotations

import errno
import os
import platform
import re
import shutil
import tempfile
import zlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from convnext_cli.base.errors import OutputError, UsageError
from convnext_cli.base.files import exchange, replacing, sync_folder, unwritten
from convnext_cli.checkpoints import companion_files
from convnext_cli.runtimes.registry import Format

# Temporary files of libraries and compilers go into the room: a killed export leaves nothing anywhere else.
_TEMPORARY = ("TMPDIR", "TMP", "TEMP")
_CACHE = "TORCHINDUCTOR_CACHE_DIR"
# What Core ML's packages are made of: a file, or all in a folder.
_PACKAGE = re.compile(r"Manifest\.json|Data/com\.apple\.CoreML/(weights/)?[\w.-]+\.(mlmodel|bin|json)")
_PACKAGE_FOLDERS = {"Data", "Data/com.apple.CoreML", "Data/com.apple.CoreML/weights"}


def refuse(source: Path, target: Path, form: Format, *, overwrite: bool) -> None:
    """Raise UsageError or OutputError for a place where nothing may be written: see ``refuse_place``.

    source: the weights, which are never written over, nor a file or folder that holds them.
    """
    refuse_place(target, overwrite=overwrite, folder=form.folder)
    for file in form.beside(target):
        refuse_place(file, overwrite=overwrite)
    theirs = companion_files.files(source)
    for file in (target, *form.beside(target), *form.perhaps(target)):
        if any(_is_or_holds(file, their_file) for their_file in theirs):
            raise UsageError(f"{file} is, or holds, what is to be exported", "choose another name for the result")


def refuse_place(place: Path, *, overwrite: bool, folder: bool = False) -> None:
    """Raise UsageError for a place whose content may not be replaced, OutputError for one that cannot be written.

    folder: the result is a package, a folder. Only a package is replaced by one, and no folder by a file.
    """
    if not os.path.isdir(place.absolute().parent):  # noqa: PTH112 - which no name makes raise
        raise OutputError(f"there is no folder {place.parent}", "make it first, or write elsewhere")
    real = Path(os.path.realpath(place))
    if not real.exists():
        if not real.parent.is_dir():  # a link to nowhere
            raise OutputError(f"there is no folder {real.parent}", "make it first, or write elsewhere")
        return
    if not overwrite:
        raise UsageError(f"{place} is there already", "choose another name, or replace it with --overwrite")
    if real.is_dir() != folder:
        what, result = ("a folder", "a file") if real.is_dir() else ("no folder", "one")
        raise UsageError(f"{place} is {what}, and the result is {result}", "choose another name for the result")
    if folder and (strangers := _strangers(real)):
        raise UsageError(
            f"{place} holds other files than a package's, and is not replaced: {', '.join(strangers[:5])}",
            "choose another name for the result",
        )


@contextmanager
def room(target: Path) -> Iterator[Path]:
    """An empty folder beside the target, gone afterwards; temporary files of this process are beside it meanwhile.

    Rooms of exports that were killed go. Raises OutputError when it cannot be made or filled.
    """
    place = Path(os.path.realpath(target))
    folder = place.with_name(f".convnext-{os.getpid()}-{_machine()}-{zlib.crc32(os.fsencode(place.name)):08x}.part")
    _sweep(place.parent)
    try:
        shutil.rmtree(folder, ignore_errors=True)  # of a killed process that had the same number
        (folder / "made").mkdir(parents=True)
        (folder / "temporary").mkdir()
        with _temporary(folder / "temporary"):
            yield folder / "made"
    except OSError as error:
        raise unwritten(target, error) from error
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def put(folder: Path, names: Iterable[str], target: Path, *, overwrite: bool) -> None:
    """Bring what is finished to its place, on the disk first; through links, as the shell's > goes.

    names: of the files in the folder, in the order in which they are put. Another process may have written there
    meanwhile: all places are looked at again before the first is touched.
    """
    places = {name: target.with_name(name) for name in names}
    for name, place in places.items():
        refuse_place(place, overwrite=overwrite, folder=(folder / name).is_dir())
    for name, place in places.items():
        _put(folder / name, Path(os.path.realpath(place)))


def probe(folder: Path, size: int) -> None:
    """Raise the OSError that writing so many bytes into a folder raises, for writers that do not say why they failed.

    What they left of a file goes first.
    """
    for left in folder.rglob("*"):
        if left.is_file():
            left.unlink()
    trial, part = folder / "trial", bytes(2**20)
    try:
        with trial.open("wb") as stream:
            for _ in range(size // len(part) + 1):
                stream.write(part)
            stream.flush()
            os.fsync(stream.fileno())
    finally:
        trial.unlink(missing_ok=True)


def _put(source: Path, target: Path) -> None:
    for file in [source, *source.rglob("*")]:
        if file.is_file():
            with file.open("rb") as stream:
                os.fsync(stream.fileno())
    former = source.parents[1].with_suffix(".former")  # not within the room, which goes
    try:
        if source.is_dir():
            if target.exists() and exchange(source, target):  # a kill leaves one or the other, and never none
                sync_folder(target.parent)
                return
            if target.exists():
                target.rename(former)
            try:
                source.rename(target)
            except BaseException:  # even when interrupted: the former folder comes back
                if former.exists() and not target.exists():
                    former.rename(target)
                raise
            shutil.rmtree(former, ignore_errors=True)
        else:
            if target.exists():
                source.chmod(target.stat().st_mode & 0o7777)
            source.replace(target)
    except OSError as error:
        if error.errno != errno.EXDEV or source.is_dir():
            raise
        with source.open("rb") as stream, replacing(target) as copy:  # a link led to another disk
            shutil.copyfileobj(stream, copy)
    sync_folder(target.parent)


def _is_or_holds(place: Path, file: Path) -> bool:
    """Whether writing ``place`` would take the file away, under any of its names."""
    real_place, real = Path(os.path.realpath(place)), Path(os.path.realpath(file))
    if real_place == real or real_place in real.parents or real_place in file.absolute().parents:
        return True
    return real_place.exists() and real.exists() and real_place.samefile(real)


def _strangers(folder: Path) -> list[str]:
    """What of a folder no package of Core ML has."""
    try:
        files = {file.relative_to(folder).as_posix(): file for file in folder.rglob("*")}
    except OSError as error:
        raise OutputError(f"{folder} cannot be looked into: {error.strerror}", "choose another name") from error
    return sorted(
        name
        for name, file in files.items()
        if not (name in _PACKAGE_FOLDERS if file.is_dir() and not file.is_symlink() else _PACKAGE.fullmatch(name))
    )


def _machine() -> str:
    """Numbers of processes mean something on their own machine alone, and a folder may be shared by several."""
    return f"{zlib.crc32(platform.node().encode()):08x}"


def _sweep(folder: Path) -> None:
    """Remove what exports that were killed left in a folder."""
    if os.name == "nt":  # where asking for a process would end it
        return
    for left in folder.glob(f".convnext-*-{_machine()}-*.part"):
        number = left.name.split("-")[1]
        if number.isdecimal() and not _lives(int(number)):
            shutil.rmtree(left, ignore_errors=True)


def _lives(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except (OSError, OverflowError):  # somebody else's
        return True
    return True


@contextmanager
def _temporary(folder: Path) -> Iterator[None]:
    values = dict.fromkeys(_TEMPORARY, str(folder)) | {_CACHE: str(folder / "inductor")}
    before, former = {name: os.environ.get(name) for name in values}, tempfile.tempdir
    os.environ.update(values)
    tempfile.tempdir = str(folder)
    try:
        yield
    finally:
        tempfile.tempdir = former
        for name, value in before.items():
            if value is None:
                with suppress(KeyError):
                    del os.environ[name]
            else:
                os.environ[name] = value
