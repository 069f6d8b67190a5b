"""Tar shards, from front to back: the files in them, in their order."""

from __future__ import annotations

import io
import os
import tarfile
import zlib
from collections.abc import Iterator
from io import BufferedIOBase
from typing import Any, Literal, Self, cast

from convnext_cli.base.errors import PhotoError
from convnext_cli.photos.containers.member import Member, broken, checked, cut, opened
from convnext_cli.photos.decode import IMAGE_SUFFIXES, MAX_FILE_BYTES, looks_like_image

_EXTENSIONS = frozenset(
    (
        tarfile.XHDTYPE,
        tarfile.XGLTYPE,
        tarfile.SOLARIS_XHDTYPE,
        tarfile.GNUTYPE_LONGNAME,
        tarfile.GNUTYPE_LONGLINK,
    )
)
_LONGEST_HEADER = 1 << 20  # bytes of a long name or of extended attributes; longer ones are damaged, or a bomb
_HEAD = 64  # bytes that say whether a file is a photo


class _Header(tarfile.TarInfo):
    """A header that raises an error when it is damaged or missing; tarfile alone takes that for the end of the tar."""

    @classmethod
    def frombuf(cls, buf: bytes | bytearray, encoding: str | None, errors: str) -> Self:
        header = super().frombuf(buf, encoding, errors)  # type: ignore[arg-type]  # may be None
        # tarfile reads these whole, and goes backwards where a size is below 0
        if header.size < 0 or (header.type in _EXTENSIONS and header.size > _LONGEST_HEADER):
            raise tarfile.ReadError("a header with an impossible size")
        return header

    @classmethod
    def fromtarfile(cls, tar: tarfile.TarFile) -> Self:
        try:
            return super().fromtarfile(tar)
        except tarfile.EOFHeaderError:  # type: ignore[attr-defined]  # the end mark
            raise
        except tarfile.HeaderError as error:
            raise tarfile.ReadError(str(error)) from None


class _Watched:
    """A stream that raises an error when it is read again and again after its end."""

    def __init__(self, stream: BufferedIOBase) -> None:
        self._stream, self._ends = stream, 0

    def read(self, size: int) -> bytes:
        data = self._stream.read(size)
        self._ends += not data
        # tarfile reads a last header and what follows the end mark; to skip a file it would read on
        if self._ends > 8:
            raise tarfile.ReadError("unexpected end of data")
        return data


def entries(stream: Any, mode: Literal["r|", "r:"]) -> Iterator[tuple[tarfile.TarFile, tarfile.TarInfo]]:
    """The entries of an uncompressed tar, in its order.

    Raises:
        TarError: the tar is damaged, its end mark is missing, or a file is longer than the rest of the tar.
    """
    size = _size(stream)
    file: Any = _Watched(stream) if mode == "r|" else stream
    try:
        with tarfile.open(fileobj=file, mode=mode, errorlevel=2, tarinfo=_Header) as tar:
            for entry in tar:
                if entry.size < 0 or (size is not None and _end(entry) > size):
                    raise tarfile.ReadError("unexpected end of data")
                yield tar, entry
                vars(tar)["members"].clear()  # or the headers of all stay in memory
            # the end mark and the padding of the last record are zeros; an overwritten header looks the same
            while rest := vars(tar)["fileobj"].read(1 << 20):
                if rest.strip(b"\0"):
                    raise tarfile.ReadError("there is more data after its end mark")
    except (ValueError, OverflowError, EOFError, zlib.error) as error:  # such as malformed numbers
        raise tarfile.ReadError(str(error)) from None


def _size(stream: BufferedIOBase) -> int | None:
    """The size of a file in bytes; None for a stream whose end is not known."""
    if not stream.seekable():
        return None
    here = stream.tell()
    size = stream.seek(0, io.SEEK_END)
    stream.seek(here)
    return size


def _end(entry: tarfile.TarInfo) -> int:
    """The offset at which the data of an entry end; a sparse file takes less than its size."""
    has_data = entry.isreg() or entry.type not in tarfile.SUPPORTED_TYPES
    return entry.offset_data + (entry.size if has_data and not entry.issparse() else 0)


def members(path: str) -> Iterator[Member]:
    """See ``shards.members``. Folders, links and devices are left out."""
    last = None
    with opened(path) as stream:
        empty = _size(stream) == 0
        try:
            for tar, entry in entries(stream, "r|"):
                name = clean(entry.name)
                if entry.isreg() and name:
                    yield _member(name, tar, entry)
                    last = name
        except tarfile.TarError:
            if empty:
                raise PhotoError("empty", "the file is empty") from None
            raise cut(_where(last)) from None
        except Exception as error:  # of the disk, or of the store's library
            raise broken(error, _where(last)) from None


def _member(name: str, tar: tarfile.TarFile, entry: tarfile.TarInfo) -> Member:
    """A file with its bytes; only the first of them if these and its name show that it is not a photo."""
    if entry.issparse():  # a few bytes of it can stand for gigabytes
        return Member(name, problem=PhotoError("unsupported", "it is a sparse file; pack the shard without --sparse"))
    if entry.size > MAX_FILE_BYTES:
        return checked(name, entry.size, None)
    file = cast("io.BufferedReader", tar.extractfile(entry))
    head = file.peek(_HEAD)[:_HEAD]
    is_image = os.path.splitext(name)[1].lower() in IMAGE_SUFFIXES or looks_like_image(head)  # noqa: PTH122
    data = file.read(entry.size) if is_image else head
    if len(data) < (entry.size if is_image else min(entry.size, 1)):
        raise tarfile.ReadError("unexpected end of data")
    return checked(name, entry.size, data)


def _where(last: str | None) -> str:
    return f"after {last}" if last else "at its beginning"


def clean(name: str) -> str:
    """A member's name without empty parts and parts that lead upwards."""
    return "/".join(part for part in name.split("/") if part not in ("", ".", ".."))
