"""Photo: what finding hands on to decoding."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum

from convnext_cli.base.errors import PhotoError
from convnext_cli.storage.listing import Seen


class Shard(IntEnum):
    """NAMED: by the user, who wants a row whatever is wrong. FOUND: in a folder, where it may be something else."""

    NONE = 0
    NAMED = 1
    FOUND = 2


@dataclass(frozen=True, slots=True)
class Photo:
    """path: as it is reported. data: the bytes, when they did not come from a file. problem: found while walking.

    seen: what its store said of it when it was listed. shard: whether it is a file that holds photos.
    """

    path: str
    data: bytes | None = None
    problem: PhotoError | None = None
    seen: Seen | None = None
    shard: Shard = Shard.NONE
