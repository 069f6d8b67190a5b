"""From what the user named to photos: files, folders, URLs, globs, lists, standard input. Nothing is read twice.

Paths are ``str`` as Python gives them: bytes that are not UTF-8 stand as surrogate escapes (PEP 383). URLs are found in
``remote_photos.py``; ``file://`` is another spelling of a path.
"""

from __future__ import annotations

import glob
import os
import sys
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import IO, Literal

from convnext_cli.base.errors import ConvNextError, FailureKind, PhotoError, UnavailableError, UsageError
from convnext_cli.photos import remote_photos
from convnext_cli.photos.containers import shards
from convnext_cli.photos.containers.member import NoPhotosError
from convnext_cli.photos.local_photos import exists, globbed, in_any_case, may_list, no_image, split
from convnext_cli.photos.photo import Photo, Shard
from convnext_cli.storage.addresses import expanded, is_url, plain

__all__ = ["Finder", "Photo"]
_SPELLING = "check the spelling"


@dataclass
class Finder:
    """Walks and lists lazily. ``passed_over`` counts, by type, the files of walked folders that say no image.

    recursive: go into folders that a list or a glob names; those that are named themselves are walked in any case, and
    stand in ``looked_into``. A walk goes ``depth`` levels at most (1: their own files). hidden: names that begin with a
    dot too. links: into linked folders too, never in a circle. include, exclude: globs; one without a slash is for
    names, another for paths from the named folder, where * goes over slashes. Excluded folders are not gone into. skip:
    absolute paths of folders that are left out. shards: tar shards and image parquet files are folders of photos, which
    are "opened", or "kept" as they are for ``members``; or "ignored", and then files as others. offline: URLs of lists
    that need a connection are not read.
    """

    recursive: bool = False
    depth: int | None = None
    hidden: bool = False
    links: bool = False
    include: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()
    skip: frozenset[str] = frozenset()
    shards: Literal["opened", "kept", "ignored"] = "ignored"
    offline: bool = False
    passed_over: Counter[str] = field(default_factory=Counter)
    looked_into: list[str] = field(default_factory=list)
    _stdin_was_read: bool = False

    def named(self, paths: Iterable[str]) -> Iterator[Photo]:
        """The photos of the paths that a user typed; each yields at least one.

        Raises UsageError at once when there is none of them: no such file, no file that a glob matches, only URLs that
        are not taken; and what ``far.Named`` raises.
        """
        asked = [one for path in map(plain, paths) for one in ([path] if exists(path) else expanded(path))]
        remote = iter(remote_photos.looked_at([path for path in asked if is_url(path)]))
        found: list[str | remote_photos.Named] = []
        folders: set[int] = set()  # those that were named as they are, by their place
        there = False
        for path in asked:
            if is_url(path):
                named = next(remote)
                there = there or named.there
                if named.folder is not None:
                    folders.add(len(found))
                    self.looked_into.append(named.shown)
                found.append(named)
                continue
            if path != "-" and os.path.isdir(path):
                folders.add(len(found))
                self.looked_into.append(path)
            matches = [] if path == "-" or exists(path) else globbed(path)
            there = there or bool(matches) or path == "-" or exists(path)
            found += matches or [path]
        if found and not there:
            raise _nothing(found)
        return self._photos((path, place in folders) for place, path in enumerate(found))

    def listed(self, stream: IO[bytes], *, null: bool = False) -> Iterator[Photo]:
        """The photos of a list of paths, one a line, or ended by NUL bytes; read as it comes.

        URLs in it are not looked at before they are read.
        """
        lines = (plain(os.fsdecode(line)) for line in split(stream, b"\0" if null else b"\n") if line)
        paths = (remote_photos.listed(line, offline=self.offline) if is_url(line) else line for line in lines)
        return self._photos((path, False) for path in paths)

    def _photos(self, paths: Iterable[tuple[str | remote_photos.Named, bool]]) -> Iterator[Photo]:
        """The photos of paths, each with whether it is walked where it is a folder."""
        for path, walked in paths:
            if isinstance(path, remote_photos.Named):
                yield from self._far(path, walked=walked or self.recursive)
            elif path == "-":
                yield self._standard_input()
            elif self._is_shard(path):
                yield from self._shard(Photo(path, shard=Shard.NAMED))
            elif not os.path.isdir(path):
                yield Photo(path)
            elif walked or self.recursive:
                yield from self._walk(path)
            elif not may_list(path):
                yield Photo(path, problem=PhotoError("permission", "the folder cannot be listed"))
            else:
                yield Photo(path, problem=PhotoError("not_a_file", "is a folder; -r labels the photos in it"))

    def _far(self, named: remote_photos.Named, *, walked: bool) -> Iterator[Photo]:
        """The photos of a URL."""
        if named.folder is not None and not walked:
            yield Photo(named.shown, problem=PhotoError("not_a_file", "is a folder; -r labels the photos in it"))
            return
        for photo in named.photos(self._way, self.passed_over, with_shards=self.shards != "ignored"):
            yield from self._shard(photo) if photo.shard else (photo,)

    def _way(self, root: str, parts: list[str]) -> tuple[int, str] | None:
        """The first part of a way below a folder that a walk would not go, by its place, and why; None for none."""
        start = len(root)
        for level, name in enumerate(parts, 1):
            above = root + "/".join(parts[:level])
            is_folder = level < len(parts)
            # a shard is a folder, for those who have its photos in mind
            is_folder = is_folder or (self.shards != "ignored" and shards.is_shard(name))
            if why := self._unwanted(above, name, level, start, is_folder=is_folder):
                return level, why
        return None

    def left_out(self, root: str, path: str) -> bool:
        """Whether a walk from one URL passes another below it by, for its name."""
        root = f"{root.rstrip('/')}/"
        return path.startswith(root) and self._way(root, path.removeprefix(root).split("/")) is not None

    def _shard(self, shard: Photo) -> Iterator[Photo]:
        """A shard itself, or the photos in it."""
        if self.shards == "kept":
            yield shard
        else:
            yield from self.members(shard)

    def members(self, shard: Photo) -> Iterator[Photo]:
        """The photos in a shard, with their bytes, and at the end a row for the shard where it is damaged.

        What in it is no image is counted, as in a folder. Raises UnavailableError for a named parquet file without
        pyarrow.
        """
        from convnext_cli.photos.decode import IMAGE_SUFFIXES, looks_like_image

        root = f"{shard.path}/"
        try:
            for member in shards.members(shard.path):
                unwanted = self._way(root, member.name.split("/"))
                kind = os.path.splitext(member.name)[1].lower()
                if unwanted is None and (kind in IMAGE_SUFFIXES or looks_like_image((member.data or b"")[:64])):
                    yield Photo(root + member.name, member.data, member.problem)
                else:
                    self.passed_over[unwanted[1] if unwanted else kind or "no suffix"] += 1
        except (NoPhotosError, UnavailableError) as error:
            if shard.shard is Shard.FOUND:
                self.passed_over[".parquet"] += 1
                return
            if isinstance(error, UnavailableError):
                raise
            yield Photo(shard.path, problem=PhotoError("not_an_image", "this parquet file has no column of photos"))
        except PhotoError as problem:
            yield Photo(shard.path, problem=problem)

    def _standard_input(self) -> Photo:
        from convnext_cli.photos.decode import MAX_FILE_BYTES

        if self._stdin_was_read or sys.stdin is None:
            why = "was read already" if self._stdin_was_read else "is closed"
            return Photo("-", problem=PhotoError("empty", f"standard input {why}"))
        self._stdin_was_read = True
        data = sys.stdin.buffer.read(MAX_FILE_BYTES + 1)
        if len(data) > MAX_FILE_BYTES:
            return Photo("-", problem=PhotoError("too_large", f"it has more than {MAX_FILE_BYTES >> 20} MiB"))
        return Photo("-", data)

    def arrived(self, path: str, folder: str) -> Iterator[Photo]:
        """The photos of a path that appeared below a folder while it was watched; none where a walk would pass it."""
        start = len(os.path.join(folder, ""))
        parts = path[start:].split(os.sep)
        for level, name in enumerate(parts, 1):
            above = os.path.join(folder, *parts[:level])
            is_folder = level < len(parts) or os.path.isdir(path)
            if os.path.abspath(above) in self.skip or self._unwanted(above, name, level, start, is_folder=is_folder):
                return
        if os.path.isdir(path):
            yield from self._walk(path, start, len(parts))
        elif os.path.lexists(path) and shards.is_shard(path) and self._is_shard(path):
            yield from self._shard(Photo(path, shard=Shard.FOUND))
        elif os.path.lexists(path) and no_image(path) is None:
            yield Photo(path)

    def _is_shard(self, path: str) -> bool:
        return self.shards != "ignored" and shards.is_container(path) and os.path.isfile(path)

    def _unwanted(self, path: str, name: str, level: int, start: int, *, is_folder: bool) -> str | None:
        """Why a walk passes something by, or None. level: 1 for what lies in the named folder itself."""
        if name.startswith(".") and not self.hidden:
            return "hidden"
        if _matches(path, name, start, self.exclude):
            return "excluded"
        if is_folder:
            return "deeper folder" if self.depth is not None and level >= self.depth else None
        if self.include and not _matches(path, name, start, self.include):
            return "not included"
        return None

    def _walk(self, folder: str, start: int | None = None, level: int = 0) -> Iterator[Photo]:
        """Depth first, by name; what is not wanted is counted.

        start: where in a path the part below the named folder begins. level: of this folder below that one.
        """
        todo: list[Iterator[os.DirEntry[str]]] = []  # a stack of our own: folders can be deeper than Python's
        inside: list[tuple[int, int]] = []  # the folders on the way, by device and number: links may lead back
        start = len(os.path.join(folder, "")) if start is None else start
        problem = self._enter(folder, todo, inside)
        if problem:
            yield problem
        while todo:
            entry = next(todo[-1], None)
            if entry is None:
                todo.pop()
                inside.pop()
                continue
            is_folder = entry.is_dir(follow_symlinks=False) or (self.links and os.path.isdir(entry.path))
            is_shard = not is_folder and shards.is_shard(entry.name) and self._is_shard(entry.path)
            below = level + len(todo)
            why = self._unwanted(entry.path, entry.name, below, start, is_folder=is_folder or is_shard)
            if why is None and not is_folder and not is_shard:
                why = no_image(entry.path, entry)
            if why is not None:
                self.passed_over[why] += 1
            elif is_shard:
                yield from self._shard(Photo(entry.path, shard=Shard.FOUND))
            elif not is_folder:
                yield Photo(entry.path)
            elif os.path.abspath(entry.path) not in self.skip and (problem := self._enter(entry.path, todo, inside)):
                yield problem

    def _enter(
        self, folder: str, todo: list[Iterator[os.DirEntry[str]]], inside: list[tuple[int, int]]
    ) -> Photo | None:
        """Put a folder's entries onto the stack, or return the row that says why it cannot be listed."""
        try:
            seen = os.stat(folder)
            if (seen.st_dev, seen.st_ino) in inside:
                self.passed_over["link in a circle"] += 1
                return None
            with os.scandir(folder) as found:
                todo.append(iter(sorted(found, key=lambda entry: entry.name)))
            inside.append((seen.st_dev, seen.st_ino))
        except OSError as error:
            kind: FailureKind = "permission" if isinstance(error, PermissionError) else "corrupt"
            return Photo(folder, problem=PhotoError(kind, f"the folder cannot be listed: {error.strerror}"))
        return None


def _matches(path: str, name: str, start: int, patterns: tuple[str, ...]) -> bool:
    return any(
        fnmatchcase(path[start:] if "/" in pattern else name, in_any_case(pattern.removeprefix("/")))
        for pattern in patterns
    )


def _nothing(paths: list[str | remote_photos.Named]) -> ConvNextError:
    errors = [path.error for path in paths if isinstance(path, remote_photos.Named) and path.error is not None]
    if len(errors) == len(paths) and (len(errors) == 1 or len({str(error) for error in errors}) == 1):
        return errors[0]
    if len(paths) > 1:
        return UsageError(f"none of the {len(paths)} named paths exists", errors[0].message if errors else _SPELLING)
    path = str(paths[0])
    if glob.has_magic(path):
        return UsageError(f"no file matches '{path}'", "check the pattern; ** goes into folders")
    return UsageError(f"'{path}' does not exist", _SPELLING)
