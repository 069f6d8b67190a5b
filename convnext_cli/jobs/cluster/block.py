"""Block: the photos that make one part of the result, and where the cuts between blocks are.

A block is known by what is in it. So the same photos make the same parts in every run, and what is there already is not
made again. Cuts depend on the photos beside them alone, so that one more photo changes its own block and not all that
come after it.
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
    """photos: in the order of the walk, without bytes."""

    photos: tuple[Found, ...]

    @cached_property
    def name(self) -> str:
        """Of what is in it: paths, sizes, times, tags."""
        digest = blake2b(digest_size=10)
        for each in self.photos:
            problem = each.photo.problem
            known = (each.photo.path, each.size, each.mtime_ns, each.tag, problem and (problem.kind, problem.message))
            digest.update(repr(known).encode("utf-8", "surrogateescape"))
        return digest.hexdigest()

    @cached_property
    def reach(self) -> tuple[bytes, bytes]:
        """From which key to which."""
        keys = [each.key for each in self.photos]
        # what is in a shard lies below it
        return min(keys), max(each.key + b"\1" if each.photo.shard else each.key for each in self.photos)


def cut(found: Iterable[Found], size: int = PHOTOS) -> Iterator[Block]:
    """The blocks of a walk. size: photos, on average."""
    kept: list[Found] = []
    for each in found:
        if each.photo.shard:
            if kept:
                yield Block(tuple(kept))
                kept = []
            yield Block((each,))
            continue
        kept.append(each)
        is_cut = zlib.crc32(each.key) % max(size // 2, 1) == 0
        if len(kept) >= 2 * size or (is_cut and len(kept) >= size // 2):
            yield Block(tuple(kept))
            kept = []
    if kept:
        yield Block(tuple(kept))
