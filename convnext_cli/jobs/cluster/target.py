"""Target: the folder that a cluster's job writes to, on a disk that all share or in a store."""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import IO, Protocol, TypeVar

from convnext_cli.base.errors import ConvNextError, NetworkError, OutputError, UsageError
from convnext_cli.base.files import replacing
from convnext_cli.storage.addresses import LOCAL, is_url, scheme, scrub
from convnext_cli.storage.failures import command_error
from convnext_cli.storage.filesystems import locate
from convnext_cli.storage.retry import patience

T = TypeVar("T")

_PROOF = "_can_be_written"  # an object of a moment


class Target(Protocol):
    """Files of one folder, by their names. All methods raise OutputError, and NetworkError for a store that is away."""

    def names(self) -> list[str]: ...
    def prove(self) -> None:
        """See that a file can be written, before there is one; leaves nothing behind."""

    def write(self, name: str, data: bytes) -> None: ...
    def opened(self, name: str) -> IO[bytes]: ...
    def remove(self, names: list[str]) -> None: ...
    def tidy(self) -> None:
        """Take away what a killed run left half written."""


class _Local:
    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def names(self) -> list[str]:
        try:
            return [path.name for path in self._folder.iterdir()]
        except FileNotFoundError:
            return []
        except OSError as error:
            raise OutputError(f"{self._folder} cannot be listed: {error.strerror}", "name another folder") from error

    def prove(self) -> None:
        folder = self._folder if self._folder.exists() else self._folder.absolute().parent
        if not folder.exists():
            raise OutputError(f"there is no folder {folder}", "create it, or name a folder inside one that exists")
        if not os.access(folder, os.W_OK | os.X_OK):
            raise OutputError(f"nothing can be written to {folder}", "name another folder with -o")

    def write(self, name: str, data: bytes) -> None:
        try:
            self._folder.mkdir(exist_ok=True)
        except OSError as error:
            raise OutputError(
                f"{self._folder} cannot be created: {error.strerror}", "name a folder inside one that exists"
            ) from error
        with replacing(self._folder / name) as stream:
            stream.write(data)

    def opened(self, name: str) -> IO[bytes]:
        return (self._folder / name).open("rb")

    def remove(self, names: list[str]) -> None:
        for name in names:
            try:
                (self._folder / name).unlink(missing_ok=True)
            except OSError as error:
                raise OutputError(f"{name} cannot be removed: {error.strerror}", "remove it by hand") from error

    def tidy(self) -> None:
        for path in self._folder.glob(".convnext-*.part"):
            with suppress(OSError):
                path.unlink()


class _Remote:
    """An object appears when its last byte was sent: nothing is ever half written there."""

    def __init__(self, url: str) -> None:
        if scheme(url) in LOCAL | {"http", "https"} or "::" in url:
            raise UsageError(f"nothing can be written to {scrub(url)}", "name a folder, or one of a bucket")
        self._place = locate(url)
        self._url = scrub(url)

    def _path(self, name: str) -> str:
        return f"{self._place.path}/{name}"

    def _try(self, work: Callable[[], T]) -> T:
        try:
            return patience(work)
        except Exception as error:
            raise _told(command_error(error, self._url, writing=True)) from error

    def names(self) -> list[str]:
        fs, path = self._place.fs, self._place.path
        try:
            entries = patience(partial(fs.ls, path, detail=False))
        except FileNotFoundError:
            bucket = path.split("/")[0]
            if not self._try(partial(fs.exists, bucket)):
                raise OutputError(f"there is no bucket {bucket}", "make it, or check the spelling of -o") from None
            return []
        except Exception as error:
            raise _told(command_error(error, self._url)) from error
        return [entry.rpartition("/")[2] for entry in entries]

    def prove(self) -> None:
        self.write(_PROOF, b"")
        self.remove([_PROOF])

    def write(self, name: str, data: bytes) -> None:
        self._try(partial(self._place.fs.pipe_file, self._path(name), data))

    def opened(self, name: str) -> IO[bytes]:
        stream: IO[bytes] = patience(partial(self._place.fs.open, self._path(name), "rb"))
        return stream

    def remove(self, names: list[str]) -> None:
        def gone(name: str) -> None:
            with suppress(FileNotFoundError):
                self._place.fs.rm_file(self._path(name))

        for name in names:
            self._try(partial(gone, name))

    def tidy(self) -> None:
        self.remove([_PROOF])


def _told(error: ConvNextError) -> ConvNextError:
    kind = NetworkError if isinstance(error, NetworkError) else OutputError
    return kind(f"the result cannot be written: {error.message}", error.hint)


def open_target(target: str) -> Target:
    """A folder's path or URL. Raises UsageError for URLs that nothing can be written to."""
    return _Remote(target) if is_url(target) else _Local(Path(target))
