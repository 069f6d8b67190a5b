"""From the paths that a user typed to photos: files, folders, URLs, globs, lists, standard input.

Paths are ``str`` as Python gives them: bytes that are not UTF-8 are surrogate escapes (PEP 383). URLs are found in
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
    """Finds photos lazily. ``passed_over`` counts, by type, the files that were skipped because they are not images.

    Args:
        recursive: walk folders that a list or a glob names. Folders that the user names are always walked, and are
            added to ``looked_into``.
        depth: the deepest level of a walk; 1 for the files of the named folder alone; None for all levels.
        hidden: include names that begin with a dot.
        links: follow links to folders, never in a circle.
        include, exclude: globs. One without a slash is matched with names, another with paths from the named folder,
            where * matches slashes. Excluded folders are not walked.
        skip: absolute paths of folders that are left out.
        shards: whether tar shards and image parquet files are "opened" as folders of photos, "kept" as they are for
            ``members``, or "ignored", that is, treated as any other file.
        offline: do not read URLs of lists that need a connection.
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

        Raises:
            UsageError: none of the paths exists, no file matches a glob, or no URL is accepted; raised at once.
            UnavailableError: a library for a URL is missing.
            NetworkError: a store does not answer.
        """
        asked = [one for path in map(plain, paths) for one in ([path] if exists(path) else expanded(path))]
        remote = iter(remote_photos.looked_at([path for path in asked if is_url(path)]))
        targets: list[str | remote_photos.RemoteLocation] = []
        folders: set[int] = set()  # positions of the folders that the user named themselves
        any_exists = False
        for path in asked:
            if is_url(path):
                named = next(remote)
                any_exists = any_exists or named.exists
                if named.folder is not None:
                    folders.add(len(targets))
                    self.looked_into.append(named.shown)
                targets.append(named)
                continue
            if path != "-" and os.path.isdir(path):
                folders.add(len(targets))
                self.looked_into.append(path)
            matches = [] if path == "-" or exists(path) else globbed(path)
            any_exists = any_exists or bool(matches) or path == "-" or exists(path)
            targets += matches or [path]
        if targets and not any_exists:
            raise _nothing(targets)
        return self._photos((path, place in folders) for place, path in enumerate(targets))

    def listed(self, stream: IO[bytes], *, null: bool = False) -> Iterator[Photo]:
        """The photos of a list of paths, one a line, or ended by NUL bytes; read as it comes.

        URLs in it are not checked before they are read.
        """
        lines = (plain(os.fsdecode(line)) for line in split(stream, b"\0" if null else b"\n") if line)
        paths = (remote_photos.listed(line, offline=self.offline) if is_url(line) else line for line in lines)
        return self._photos((path, False) for path in paths)

    def _photos(self, paths: Iterable[tuple[str | remote_photos.RemoteLocation, bool]]) -> Iterator[Photo]:
        """The photos of paths; each path comes with whether it is walked if it is a folder."""
        for path, walked in paths:
            if isinstance(path, remote_photos.RemoteLocation):
                yield from self._remote(path, walked=walked or self.recursive)
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
                yield Photo(path, problem=PhotoError("not_a_file", "it is a folder; -r labels the photos in it"))

    def _remote(self, named: remote_photos.RemoteLocation, *, walked: bool) -> Iterator[Photo]:
        """The photos of a URL."""
        if named.folder is not None and not walked:
            yield Photo(named.shown, problem=PhotoError("not_a_file", "it is a folder; -r labels the photos in it"))
            return
        for photo in named.photos(self._way, self.passed_over, with_shards=self.shards != "ignored"):
            yield from self._shard(photo) if photo.shard else (photo,)

    def _way(self, root: str, parts: list[str]) -> tuple[int, str] | None:
        """The first part of a path below a folder that a walk would skip, by its level, and why; None for none."""
        start = len(root)
        for level, name in enumerate(parts, 1):
            above = root + "/".join(parts[:level])
            is_folder = level < len(parts)
            # a shard counts as a folder where its photos are read
            is_folder = is_folder or (self.shards != "ignored" and shards.is_shard(name))
            if why := self._unwanted(above, name, level, start, is_folder=is_folder):
                return level, why
        return None

    def left_out(self, root: str, path: str) -> bool:
        """Whether a walk from one URL skips another below it because of its name."""
        root = f"{root.rstrip('/')}/"
        return path.startswith(root) and self._way(root, path.removeprefix(root).split("/")) is not None

    def _shard(self, shard: Photo) -> Iterator[Photo]:
        """Yield a shard itself, or the photos in it."""
        if self.shards == "kept":
            yield shard
        else:
            yield from self.members(shard)

    def members(self, shard: Photo) -> Iterator[Photo]:
        """The photos in a shard, with their bytes, and at the end a failed photo for the shard if it is damaged.

        Files in it that are not images are counted, as in a folder.

        Raises:
            UnavailableError: the user named a parquet file, and pyarrow is missing.
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
        """The photos of a path that appeared below a watched folder; none where a walk would skip it."""
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
        """Why a walk skips a file or folder; None if it does not.

        Args:
            path: of the file or folder.
            name: its last part.
            level: 1 for entries of the named folder itself.
            start: index in ``path`` where the part below the named folder begins.
            is_folder: whether it is walked as a folder.
        """
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
        """Walk depth first, by name, and count the files that are skipped.

        Args:
            folder: where to start.
            start: index in a path where the part below the named folder begins.
            level: the level of ``folder`` below the named folder.
        """
        todo: list[Iterator[os.DirEntry[str]]] = []  # our own stack: folders can be nested deeper than Python's
        inside: list[tuple[int, int]] = []  # the folders above, by device and inode: links may lead back
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
        """Push a folder's entries onto the stack, or return a failed photo that says why it cannot be listed."""
        try:
            seen = os.stat(folder)
            if (seen.st_dev, seen.st_ino) in inside:
                self.passed_over["link in a circle"] += 1
                return None
            with os.scandir(folder) as entries:
                todo.append(iter(sorted(entries, key=lambda entry: entry.name)))
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


def _nothing(paths: list[str | remote_photos.RemoteLocation]) -> ConvNextError:
    errors = [path.error for path in paths if isinstance(path, remote_photos.RemoteLocation) and path.error is not None]
    if len(errors) == len(paths) and (len(errors) == 1 or len({str(error) for error in errors}) == 1):
        return errors[0]
    if len(paths) > 1:
        return UsageError(f"none of the {len(paths)} paths exists", errors[0].message if errors else _SPELLING)
    path = str(paths[0])
    if glob.has_magic(path):
        return UsageError(f"no file matches '{path}'", "check the pattern; ** matches folders at any depth")
    return UsageError(f"'{path}' does not exist", _SPELLING)
