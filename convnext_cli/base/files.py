"""Files and folders that are never seen half written."""

from __future__ import annotations

import errno
import os
import re
import shutil
import sys
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path
from typing import IO

from convnext_cli.base.errors import OutputError, UsageError
from convnext_cli.base.text import JsonValue, is_well_formed, json_value

_MOST_JSON = 16 << 20  # bytes; the longest lists of labels have 3 MB

_HERE, _EXCHANGE = -100, 2  # AT_FDCWD, RENAME_EXCHANGE: linux/fcntl.h, linux/fs.h


@contextmanager
def replacing(path: Path) -> Iterator[IO[bytes]]:
    """Write a file that takes its name only when it is complete and on the disk; until then the old file stays.

    Args:
        path: the file to replace or create; a symlink is followed.

    Raises:
        OutputError: the file cannot be written.
    """
    path = Path(os.path.realpath(path))  # follow a symlink, as > does in a shell
    part = _part(path)
    try:
        with part.open("wb") as stream:  # overwrite the part of a killed process with the same id
            yield stream
            stream.flush()
            os.fsync(stream.fileno())
        if path.exists():
            part.chmod(path.stat().st_mode & 0o7777)
        part.replace(path)
        sync_folder(path.parent)
    except OSError as error:
        part.unlink(missing_ok=True)
        raise unwritten(path, error) from error
    except BaseException:
        part.unlink(missing_ok=True)
        raise


@contextmanager
def replacing_folder(path: Path) -> Iterator[Path]:
    """Fill a folder that takes its name only when all its files are on the disk; the old folder is removed then.

    Args:
        path: the folder to replace or create.

    Raises:
        OutputError: the folder cannot be written.
    """
    path = Path(os.path.realpath(path))
    part = _part(path)
    former = part.with_suffix(".former")
    try:
        part.mkdir()
        yield part
        for file in part.iterdir():
            with file.open("rb") as stream:
                os.fsync(stream.fileno())
        sync_folder(part)
        try:
            if path.exists() and exchange(part, path):  # a kill leaves the old folder or the new one, never neither
                sync_folder(path.parent)
                return
            if path.exists():
                path.rename(former)
            part.rename(path)
        except BaseException:  # even when interrupted, the old folder comes back
            if former.exists() and not path.exists():
                former.rename(path)
            raise
        sync_folder(path.parent)
        shutil.rmtree(former, ignore_errors=True)
    except OSError as error:
        raise unwritten(path, error) from error
    finally:
        shutil.rmtree(part, ignore_errors=True)


def exchange(one: Path, other: Path) -> bool:
    """Swap the names of two files or folders in one step, as Linux can; False where that is not possible."""
    call = _renameat2()
    return call is not None and call(_HERE, os.fsencode(one), _HERE, os.fsencode(other), _EXCHANGE) == 0


@cache
def _renameat2() -> Callable[..., int] | None:
    if not sys.platform.startswith("linux"):
        return None
    import ctypes

    try:
        call = ctypes.CDLL(None).renameat2
    except AttributeError:  # not in every C library
        return None
    call.argtypes = [ctypes.c_int, ctypes.c_char_p, ctypes.c_int, ctypes.c_char_p, ctypes.c_uint]
    return call


def crc32(path: Path, length: int | None = None) -> int:
    """The CRC-32 of a file, or of its first bytes. It detects accidents, not malice.

    Args:
        path: the file.
        length: how many bytes to read; None for all.
    """
    checksum, left = 0, path.stat().st_size if length is None else length
    with path.open("rb") as stream:
        while left and (part := stream.read(min(left, 1 << 22))):
            checksum, left = zlib.crc32(part, checksum), left - len(part)
    return checksum


def read_json(path: Path) -> JsonValue:
    """The value in a small JSON file.

    Raises:
        ValueError: the file is not JSON, is too large or is nested too deeply.
        OSError: the file cannot be read.
    """
    with path.open("rb") as stream:
        text = stream.read(_MOST_JSON + 1)
    if len(text) > _MOST_JSON:
        raise ValueError(f"it has more than {_MOST_JSON >> 20} MB")
    return json_value(text.decode("utf-8"))


def _part(path: Path) -> Path:
    """The temporary name beside a file. It is short, since the file's own name may be as long as a name can be."""
    return path.with_name(f".convnext-{os.getpid()}-{zlib.crc32(os.fsencode(path.name)):08x}.part")


def remove_stale_parts(path: Path) -> None:
    """Remove the temporary files that dead processes left beside a file or folder that they were writing."""
    path = Path(os.path.realpath(path))
    # the second form holds rows that are written as they come (``cli.output``)
    names = rf"\.convnext-(\d+)-{zlib.crc32(os.fsencode(path.name)):08x}\.part|{re.escape(path.name)}\.(\d+)\.part"
    _remove_stale(path.parent, re.compile(names))


def remove_stale_parts_in(folder: Path) -> None:
    """Remove the temporary files that dead processes left in a folder."""
    _remove_stale(folder, re.compile(r"\.convnext-(\d+)-[0-9a-f]{8}\.part"))


def _remove_stale(folder: Path, name: re.Pattern[str]) -> None:
    with suppress(OSError), os.scandir(folder) as entries:
        for entry in entries:
            match = name.fullmatch(entry.name)
            if match and entry.is_file(follow_symlinks=False) and not is_running(int(match[match.lastindex or 1])):
                with suppress(OSError):
                    Path(entry.path).unlink()


def is_running(process: int) -> bool:
    """Whether a process with this id runs on this machine; True where that cannot be known."""
    if os.name == "nt" or process == os.getpid():
        return True
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except (OSError, OverflowError):
        return True
    return True


def unwritten(path: Path | str, error: OSError, more: str = "") -> OutputError:
    """The error for a file that cannot be written.

    Args:
        path: the file.
        error: the reason.
        more: text to append to the message.
    """
    full = error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
    return OutputError(
        f"{path} cannot be written: {error.strerror or error}{more}",
        "free some space, or write elsewhere" if full else "choose a folder that you may write to",
    )


def user_path(text: str | Path) -> Path:
    """Expand ``~`` as a shell does: an unknown user's name stays as it is."""
    return Path(os.path.expanduser(text))  # noqa: PTH111 - Path.expanduser raises RuntimeError


def check_utf8(path: Path | str) -> None:
    """Raise UsageError for a path that is not UTF-8: the libraries that read and write models cannot open it."""
    if not is_well_formed(os.path.abspath(path)):  # noqa: PTH100 - surrogates
        raise UsageError(
            f"the path {path} is not valid UTF-8, and a model cannot be opened there", "choose another path"
        )


def sync_folder(folder: Path) -> None:
    """Make the names in a folder survive a power cut, where the system can do that."""
    if os.name == "nt":
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
