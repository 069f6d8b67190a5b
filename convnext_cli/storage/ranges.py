"""A file in a store as a seekable stream: it is read in ranges, and each range is retried by itself."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING

from convnext_cli.storage import retry

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer
    from fsspec import AbstractFileSystem

BLOCK = 4 * 2**20  # bytes a request


class Ranges(io.RawIOBase):
    """A seekable stream. A broken connection costs one range, not the file.

    Args:
        fs: the file system.
        path: the path in it.
        size: of the file, in bytes.
    """

    def __init__(self, fs: AbstractFileSystem, path: str, size: int) -> None:
        self._fs, self._path, self._size, self._at = fs, path, size, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        self._at = max(0, offset + {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._size}[whence])
        return self._at

    def tell(self) -> int:
        return self._at

    def readinto(self, buffer: WriteableBuffer) -> int:
        room = memoryview(buffer).cast("B")
        start, end = self._at, min(self._at + len(room), self._size)
        if start >= end:
            return 0
        data = retry.patience(lambda: self._fs.cat_file(self._path, start=start, end=end))
        if len(data) > end - start:  # the store ignores ranges
            data = data[start:end]
        room[: len(data)] = data
        self._at += len(data)
        return len(data)


def opened(fs: AbstractFileSystem, path: str, block: int = BLOCK) -> io.BufferedReader:
    """Open a file as a buffered stream. Errors of the file system are passed on."""
    size = retry.patience(lambda: fs.info(path)).get("size")
    return io.BufferedReader(Ranges(fs, path, int(size or 0)), block)
