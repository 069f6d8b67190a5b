"""A photo as a walk found it, and the keys by which a job knows photos."""

from __future__ import annotations

import os
from dataclasses import dataclass, replace

from convnext_cli.photos.photo import Photo
from convnext_cli.storage.addresses import is_url, plain
from convnext_cli.storage.listing import Seen


@dataclass(frozen=True, slots=True)
class Found:
    """A photo that a walk came by, or a shard of them.

    size, mtime_ns: None where there was no file to look at, or where the tag says more. tag: what a store says of an
    object; of photos in a shard, what the shard was.
    """

    photo: Photo
    size: int | None
    mtime_ns: int | None
    tag: str | None = None

    @property
    def key(self) -> bytes:
        return key_of(self.photo.path)

    def inside(self, photo: Photo) -> Found:
        """A photo of this shard; it is as it was as long as the shard is. The shard's own row stands for the shard."""
        if photo.path == self.photo.path:
            return replace(self, photo=photo)
        size = None if photo.data is None else len(photo.data)
        return Found(photo, size, None, f"{self.size} {self.mtime_ns} {self.tag}")

    def light(self) -> Found:
        """Without the bytes."""
        return replace(self, photo=replace(self.photo, data=None))


def state_of(photo: Photo) -> Found:
    """What a photo was when it was found: taken before it is read, so that a later change is not overlooked."""
    seen = photo.seen
    if photo.problem is None and seen is None:
        if is_url(photo.path):
            from convnext_cli.storage.reading import state

            seen = state(photo.path)
        else:
            try:
                info = os.stat(photo.path)  # noqa: PTH116 - surrogates; follows links
                seen = Seen(info.st_size, info.st_mtime_ns)
            except (OSError, ValueError):  # reading it will say why
                pass
    return Found(photo, None, None) if seen is None else Found(photo, seen.size, seen.mtime_ns, seen.tag)


def key_of(path: str) -> bytes:
    """What a path or URL is known by: no path begins as a URL does."""
    path = plain(path)
    if is_url(path):
        return os.fsencode(path.rstrip("/")).replace(b"/", b"\0")
    return os.fsencode(os.path.abspath(path)).replace(os.fsencode(os.sep), b"\0")  # noqa: PTH100 - surrogates


def file_of(key: bytes) -> str:
    """The path or URL of a key."""
    url = os.fsdecode(key.replace(b"\0", b"/"))
    return url if is_url(url) else os.fsdecode(key.replace(b"\0", os.fsencode(os.sep)))


def text(words: str) -> str:
    """Text as SQLite takes it, which is UTF-8."""
    return words.encode("utf-8", "backslashreplace").decode()
