"""Photo: what finding hands on to decoding; and Decoded, what decoding hands on."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from typing import TYPE_CHECKING

from convnext_cli.base.errors import PhotoError
from convnext_cli.storage.listing import Seen

if TYPE_CHECKING:
    from PIL import Image


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


@dataclass(frozen=True)
class Decoded:
    """image: mode RGB, sRGB, upright. width, height: of the upright photo in its file, in pixels. format: sniffed."""

    image: Image.Image
    width: int
    height: int
    format: str
