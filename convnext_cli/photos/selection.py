"""The photos that a user selects, as a frozen value that can be sent to other processes."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import IO, Literal

from convnext_cli.base.errors import UsageError
from convnext_cli.photos.containers.shards import is_container
from convnext_cli.photos.find import Finder
from convnext_cli.photos.photo import Photo
from convnext_cli.storage.addresses import is_url, places


@dataclass(frozen=True, kw_only=True)
class PhotoSelection:
    """Paths of photos, and how folders are walked.

    Args:
        paths: photos, folders, URLs, globs, and tar, zip and parquet files of photos; "-" for one on standard input.
            ``file://`` URLs become paths.
        files_from: a file with more paths, one a line; "-" for standard input.
        null: whether the paths in it end with a NUL byte instead of a line feed.
        recursive: walk folders that a list or a glob names, too.
        depth: levels of folders to walk; 1 for the folder's own files; None for all.
        hidden: include hidden files and folders.
        follow: follow links to folders.
        include: globs; only files that match one are used.
        exclude: globs; files and folders that match one are left out.
        offline: never open a connection.

    Raises:
        UsageError: two options contradict each other, or a URL needs a connection that ``offline`` forbids.
    """

    paths: tuple[str, ...] = ()
    files_from: str | None = None
    null: bool = False
    recursive: bool = False
    depth: int | None = None
    hidden: bool = False
    follow: bool = False
    include: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()
    offline: bool = False

    def __post_init__(self) -> None:
        if isinstance(self.paths, str | os.PathLike):
            raise UsageError("paths must be a tuple, not a single path", 'for example ("photos",)')
        paths = places(self.paths, offline=self.offline)
        object.__setattr__(self, "paths", paths)
        if self.null and self.files_from is None:
            raise UsageError(
                "-0 only applies to --files-from", "name a list of paths with --files-from, or leave -0 out"
            )
        if "-" in paths and self.files_from == "-":
            raise UsageError(
                "standard input can be a photo or a list of paths, not both", "use - for only one of the two"
            )

    def __bool__(self) -> bool:
        """Whether there are any paths."""
        return bool(self.paths) or self.files_from is not None

    def finder(self, *, shards: Literal["opened", "kept"], skip: frozenset[str] = frozenset()) -> Finder:
        """A finder for these photos.

        Args:
            shards: whether files that contain photos are opened, or kept for ``Finder.members``.
            skip: absolute paths of folders that are left out.
        """
        return Finder(
            recursive=self.recursive,
            depth=self.depth,
            hidden=self.hidden,
            links=self.follow,
            include=self.include,
            exclude=self.exclude,
            skip=skip,
            shards=shards,
            offline=self.offline,
        )

    def photos(self, finder: Finder) -> Iterator[Photo]:
        """The photos, which are found lazily.

        Raises:
            UsageError: none of the paths exists, or the list of paths cannot be read; raised at once.
        """
        self.check_list()
        named = finder.named(self.paths)
        return named if self.files_from is None else chain(named, self._listed(finder))

    def check_walking(self) -> None:
        """Raise UsageError for options of walks if no folder is walked."""
        walking = {
            "--include": self.include,
            "--exclude": self.exclude,
            "--hidden": self.hidden,
            "--follow": self.follow,
            "--depth": self.depth,
        }
        asked = [name for name, value in walking.items() if value]
        if asked and self.files_from is None and self.paths and not any(map(_is_walked, self.paths)):
            raise UsageError(
                f"{' and '.join(asked)} only applies to folders, and no folder is named",
                "leave the option out, or name a folder",
            )

    def check_list(self) -> None:
        """Raise UsageError for a list of paths that cannot be read."""
        if self.files_from is None:
            return
        if self.files_from == "-":
            if sys.stdin is None:
                raise UsageError("standard input is closed", "name a file with --files-from")
            return
        listing = Path(self.files_from)
        try:
            listing.stat()
        except OSError as error:
            raise self._unreadable(error.strerror) from error
        if listing.is_dir():
            raise self._unreadable("it is a folder")
        if not os.access(listing, os.R_OK):  # it is not opened: a pipe can be read only once
            raise self._unreadable("permission denied")

    def read_list(self) -> bytes | None:
        """The content of the list of paths, for another machine; None if there is no list.

        Raises:
            UsageError: the list cannot be read.
        """
        if self.files_from is None:
            return None
        with self._opened_list() as stream:
            return stream.read()

    def _listed(self, finder: Finder) -> Iterator[Photo]:
        with self._opened_list() as stream:
            yield from finder.listed(stream, null=self.null)

    @contextmanager
    def _opened_list(self) -> Iterator[IO[bytes]]:
        assert self.files_from is not None
        if self.files_from == "-":
            yield sys.stdin.buffer
            return
        try:
            stream = Path(self.files_from).open("rb")  # noqa: SIM115 - closed below
        except OSError as error:
            raise self._unreadable(error.strerror) from error
        with stream:
            yield stream

    def _unreadable(self, reason: str | None) -> UsageError:
        return UsageError(
            f"the list of paths '{self.files_from}' cannot be read: {reason}",
            "name a file with --files-from, or - for standard input",
        )


def _is_walked(path: str) -> bool:
    # a name that is not a file may be a glob of folders
    return is_url(path) or is_container(path) or not os.path.isfile(path)  # noqa: PTH113 - surrogates
