"""Tar shards, from front to back: the files in them, in their order."""

from __future__ import annotations

import tarfile
import zlib
from collections.abc import Iterator
from io import BufferedIOBase

from convnext_cli.errors import PhotoError
from convnext_cli.photos.decode import MAX_FILE_BYTES
from convnext_cli.photos.shards import Member, broken, checked, cut, opened


class _Watched:
    """A stream that notes whether it was read to its end: a whole tar ends in an end mark before that."""

    def __init__(self, stream: BufferedIOBase) -> None:
        self._stream, self.ended, self.empty = stream, False, True

    def read(self, size: int) -> bytes:
        data = self._stream.read(size)
        self.ended = self.ended or not data
        self.empty = self.empty and not data
        return data


def members(path: str) -> Iterator[Member]:
    """See ``shards.members``. Folders, links and devices are left out."""
    last = None
    with opened(path) as stream:
        watched = _Watched(stream)
        try:
            with tarfile.open(fileobj=watched, mode="r|", errorlevel=2) as tar:  # type: ignore[call-overload]
                for entry in tar:
                    name = clean(entry.name)
                    if not entry.isreg() or not name:
                        continue
                    data = _data(tar, entry)
                    vars(tar)["members"].clear()  # or the headers of all stay in memory
                    yield checked(name, entry.size, data)
                    last = name
        except (tarfile.TarError, EOFError, ValueError, zlib.error):
            if watched.empty:
                raise PhotoError("empty", "the file is empty") from None
            raise cut(_where(last)) from None
        except Exception as error:  # of the disk, or of the store's library
            raise broken(error, _where(last)) from None
        if watched.ended:
            raise cut(_where(last))


def _where(last: str | None) -> str:
    return f"after {last}" if last else "at its beginning"


def _data(tar: tarfile.TarFile, entry: tarfile.TarInfo) -> bytes | None:
    if entry.size > MAX_FILE_BYTES:
        return None
    file = tar.extractfile(entry)
    data = b"" if file is None else file.read()
    if len(data) < entry.size:
        raise tarfile.ReadError("unexpected end of data")
    return data


def clean(name: str) -> str:
    """A member's name without parts that lead elsewhere."""
    return "/".join(part for part in name.split("/") if part not in ("", ".", ".."))
