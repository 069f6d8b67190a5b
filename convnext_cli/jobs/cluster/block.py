"""Block: the photos of one part of the result, and where one block ends and the next begins.

A block is named after its contents. So the same photos make the same parts in every run, and parts that exist already
are not made again. Where a block ends depends only on the photos around that place: a new photo changes its own block
and none of the later ones.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from hashlib import blake2b

from convnext_cli.jobs.photo_state import Found

PHOTOS = 2000  # of a block, on average; a shard is a block of its own


@dataclass(frozen=True)
class Block:
    """Photos that are labelled together.

    Args:
        photos: in the order of the walk, without their bytes.
    """

    photos: tuple[Found, ...]

    @cached_property
    def name(self) -> str:
        """A digest of the paths, sizes, times and tags of its photos."""
        digest = blake2b(digest_size=10)
        for entry in self.photos:
            problem = entry.photo.problem
            state = (entry.photo.path, entry.size, entry.mtime_ns, entry.tag)
            digest.update(
                repr((*state, problem and (problem.kind, problem.message))).encode("utf-8", "surrogateescape")
            )
        return digest.hexdigest()

    @cached_property
    def reach(self) -> tuple[bytes, bytes]:
        """Its first and its last key."""
        keys = [entry.key for entry in self.photos]
        # the photos in a shard have keys below the shard's own
        return min(keys), max(entry.key + b"\1" if entry.photo.shard else entry.key for entry in self.photos)


def cut(photos: Iterable[Found], size: int = PHOTOS) -> Iterator[Block]:
    """The blocks of a walk. size: photos, on average."""
    kept: list[Found] = []
    for state in photos:
        if state.photo.shard:
            if kept:
                yield Block(tuple(kept))
                kept = []
            yield Block((state,))
            continue
        kept.append(state)
        is_cut = zlib.crc32(state.key) % max(size // 2, 1) == 0
        if len(kept) >= 2 * size or (is_cut and len(kept) >= size // 2):
            yield Block(tuple(kept))
            kept = []
    if kept:
        yield Block(tuple(kept))
