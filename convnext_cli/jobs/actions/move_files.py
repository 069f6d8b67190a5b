"""A file to another place: never over another file, and whole or not at all."""

from __future__ import annotations

import ctypes
import errno
import os
import shutil
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import cache
from hashlib import blake2b
from pathlib import Path
from typing import IO

from convnext_cli.base.files import sync_folder

_BLOCK = 1 << 20
# What file systems without hard links say, and those that have no rename that refuses a taken name.
_NO_LINKS = {errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK}
_NO_RENAME = {errno.EINVAL, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS}
_AT_FDCWD, _RENAME_NOREPLACE = -100, 1  # linux/fcntl.h, linux/fs.h


def state(path: Path) -> os.stat_result | None:
    """What stands under a name, links not followed; None when nothing does. Raises OSError."""
    try:
        return path.lstat()
    except (FileNotFoundError, NotADirectoryError):
        return None


def part_of(source: Path, target: Path) -> Path:
    """The name that a copy has until it is whole: the same in every run, so that what a killed one left is found."""
    return target.with_name(f".convnext-{blake2b(os.fsencode(source), digest_size=8).hexdigest()}.part")


def copy(source: Path, target: Path) -> None:
    """Copy bytes and times, have them on the disk, and only then take the name. Raises OSError, leaving nothing."""
    part = part_of(source, target)
    _write(source, part)
    try:
        rename(part, target)
    except OSError:
        part.unlink(missing_ok=True)
        raise


def link(source: Path, target: Path) -> None:
    """Make a link; absolute, so that it leads to the photo also when the sorted tree goes elsewhere. Raises OSError."""
    target.symlink_to(source)


def hardlink(source: Path, target: Path) -> None:
    """Give the photo, not the link that may lead to it, a second name. Raises OSError."""
    try:
        os.link(os.path.realpath(source), target)
    except OSError as error:
        if error.errno == errno.EXDEV:
            raise OSError(errno.EXDEV, "is on another disk, where no hard link leads") from error
        raise


def move(source: Path, target: Path, mtime_ns: int | None = None) -> None:
    """Move a file; onto another file system by a copy that is compared before the original goes.

    mtime_ns: the time it gets when it is copied, else its own. At every moment one of the two names has all of it.
    Raises OSError; then it is where it was.
    """
    part = part_of(source, target)
    if not is_half_moved(source, target):
        try:
            rename(source, target)
            return
        except OSError as error:
            if error.errno != errno.EXDEV:
                raise
        if not os.access(source.parent, os.W_OK):  # before all is copied in vain
            raise PermissionError(errno.EACCES, "may not be taken from its folder")
        _write(source, part, mtime_ns)
        try:
            _name(part, target)
        except OSError:
            part.unlink(missing_ok=True)
            raise
    with _leaving(source, target, part):
        if not same_bytes(source, target):
            raise OSError(errno.EIO, "was not written as it was read")
        settle(target.parent)
        source.unlink()
    part.unlink(missing_ok=True)


def is_half_moved(source: Path, target: Path) -> bool:
    """Whether ``target`` is the copy that a killed move made of ``source``: the temporary name still tells."""
    part, copied = state(part_of(source, target)), state(target)
    return part is not None and copied is not None and os.path.samestat(part, copied) and same_bytes(source, target)


def rename(source: Path, target: Path) -> None:
    """Give a file a new name. Raises OSError, FileExistsError where something has that name."""
    if os.name == "nt":
        source.rename(target)  # refuses a taken name there
    elif not _renamed_at_once(source, target):
        try:
            os.link(source, target, follow_symlinks=False)
        except OSError as error:
            if error.errno not in _NO_LINKS:
                raise
            _name_looking(source, target)
        else:
            with _leaving(source, target):
                source.unlink()


def same_bytes(one: Path, other: Path) -> bool:
    """Whether two files have the same content. Raises OSError."""
    with one.open("rb") as first, other.open("rb") as second:
        if os.fstat(first.fileno()).st_size != os.fstat(second.fileno()).st_size:
            return False
        while (block := first.read(_BLOCK)) == second.read(_BLOCK):
            if not block:
                return True
        return False


def settle(folder: Path) -> None:
    """Have the names in a folder on the disk, where its file system can do that. Raises OSError."""
    try:
        sync_folder(folder)
    except OSError as error:
        if error.errno != errno.EINVAL:
            raise


@contextmanager
def _leaving(source: Path, *copies: Path) -> Iterator[None]:
    """What ends with the old name going. When it fails, the new ones go; not if the old one went all the same."""
    try:
        yield
    except OSError:
        if state(source) is not None:
            for path in copies:
                path.unlink(missing_ok=True)
            raise


def _write(source: Path, part: Path, mtime_ns: int | None = None) -> None:
    part.unlink(missing_ok=True)  # a killed run's
    try:
        with source.open("rb") as original, part.open("xb") as stream:
            before = os.fstat(original.fileno())
            shutil.copyfileobj(original, stream, _BLOCK)
            stream.flush()
            _describe(source, part, before, mtime_ns)
            os.fsync(stream.fileno())
            if _changed(original, before) or os.fstat(stream.fileno()).st_size != before.st_size:
                raise OSError(errno.EBUSY, "was changed while it was copied")
    except BaseException:
        part.unlink(missing_ok=True)
        raise


def _describe(source: Path, part: Path, before: os.stat_result, mtime_ns: int | None) -> None:
    """Owner and rights as far as allowed, the time of the last change surely."""
    if hasattr(os, "chown"):
        with suppress(OSError):
            os.chown(part, before.st_uid, before.st_gid)
    with suppress(OSError):
        shutil.copystat(source, part)
    os.utime(part, ns=(before.st_atime_ns, before.st_mtime_ns if mtime_ns is None else mtime_ns))


def _changed(original: IO[bytes], before: os.stat_result) -> bool:
    now = os.fstat(original.fileno())
    return (now.st_size, now.st_mtime_ns) != (before.st_size, before.st_mtime_ns)


def _name(part: Path, target: Path) -> None:
    """Take the name and, where there are hard links, keep the temporary one: it tells a later run whose copy it is."""
    try:
        os.link(part, target)
    except OSError as error:
        if error.errno not in _NO_LINKS:
            raise
        rename(part, target)


def _name_looking(source: Path, target: Path) -> None:
    """For file systems that can do neither of the two: a look before, and a name that comes up in between is lost."""
    if state(target) is not None:
        raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(target))
    source.rename(target)


def _renamed_at_once(source: Path, target: Path) -> bool:
    """Rename as Linux can, without replacing and in one go; False where that is not known. Raises OSError."""
    call = _renameat2()
    if call is None:
        return False
    if call(_AT_FDCWD, os.fsencode(source), _AT_FDCWD, os.fsencode(target), _RENAME_NOREPLACE) == 0:
        return True
    number = ctypes.get_errno()
    if number in _NO_RENAME:
        return False
    raise OSError(number, os.strerror(number), str(source), None, str(target))


@cache
def _renameat2() -> Callable[..., int] | None:
    if not sys.platform.startswith("linux"):
        return None
    try:
        call = ctypes.CDLL(None, use_errno=True).renameat2
    except AttributeError:  # not in every C library
        return None
    call.argtypes = [ctypes.c_int, ctypes.c_char_p, ctypes.c_int, ctypes.c_char_p, ctypes.c_uint]
    return call
