"""Tar shards, from front to back: the files in them, in their order."""

from __future__ import annotations

import tarfile
import zlib
from collections.abc import Iterator
from io import BufferedIOBase
from typing import Any, Literal, Self

from convnext_cli.errors import PhotoError
from convnext_cli.photos.decode import MAX_FILE_BYTES
from convnext_cli.photos.shards import Member, broken, checked, cut, opened


class _Header(tarfile.TarInfo):
    """A header that is damaged or not there is an error: by itself tarfile takes it for the end of the tar."""

    @classmethod
    def fromtarfile(cls, tar: tarfile.TarFile) -> Self:
        try:
            return super().fromtarfile(tar)
        except tarfile.EOFHeaderError:  # type: ignore[attr-defined]  # the end mark
            raise
        except tarfile.HeaderError as error:
            raise tarfile.ReadError(str(error)) from None


class _Watched:
    """A stream that notes whether there was anything in it."""

    def __init__(self, stream: BufferedIOBase) -> None:
        self._stream, self.empty = stream, True

    def read(self, size: int) -> bytes:
        data = self._stream.read(size)
        self.empty = self.empty and not data
        return data


def entries(stream: Any, mode: Literal["r|", "r:"]) -> Iterator[tuple[tarfile.TarFile, tarfile.TarInfo]]:
    """What is in a tar, in its order; not compressed. Raises TarError, also where its end is no end."""
    with tarfile.open(fileobj=stream, mode=mode, errorlevel=2, tarinfo=_Header) as tar:
        for entry in tar:
            yield tar, entry
            vars(tar)["members"].clear()  # or the headers of all stay in memory
        # the end mark is of zeros, and so is what fills the last record; a header overwritten with zeros looks like it
        while rest := vars(tar)["fileobj"].read(1 << 20):
            if rest.strip(b"\0"):
                raise tarfile.ReadError("there is more behind its end mark")


def members(path: str) -> Iterator[Member]:
    """See ``shards.members``. Folders, links and devices are left out."""
    last = None
    with opened(path) as stream:
        watched = _Watched(stream)
        try:
            for tar, entry in entries(watched, "r|"):
                name = clean(entry.name)
                if entry.isreg() and name:
                    yield checked(name, entry.size, _data(tar, entry))
                    last = name
        except (tarfile.TarError, EOFError, ValueError, zlib.error):
            if watched.empty:
                raise PhotoError("empty", "the file is empty") from None
            raise cut(_where(last)) from None
        except Exception as error:  # of the disk, or of the store's library
            raise broken(error, _where(last)) from None


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
