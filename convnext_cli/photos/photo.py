"""Photo, the result of finding; and Decoded, the result of decoding."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from typing import TYPE_CHECKING, Literal

from convnext_cli.base.errors import PhotoError
from convnext_cli.storage.listing import Seen

if TYPE_CHECKING:
    from PIL import Image

# How exactly photos become the pixels that a network takes. "exact": as by the code of the model's authors. "close":
# decoded completely, and resized by a quicker kernel that rounds differently. "fast": also decoded at a fraction of
# their size where they are large.
PixelLevel = Literal["exact", "close", "fast"]


class Shard(IntEnum):
    """Whether a file holds photos.

    NAMED: the user named it, and gets a row whatever is wrong with it. FOUND: it was found in a folder, where it may be
    something else.
    """

    NONE = 0
    NAMED = 1
    FOUND = 2


@dataclass(frozen=True, slots=True)
class Photo:
    """A photo that was found, and is not yet read.

    Args:
        path: as it is reported.
        data: its bytes, when they do not come from a file.
        problem: why it cannot be read, if the walk knows.
        seen: its state in the store when it was listed.
        shard: whether it is a file that holds photos.
    """

    path: str
    data: bytes | None = None
    problem: PhotoError | None = None
    seen: Seen | None = None
    shard: Shard = Shard.NONE


@dataclass(frozen=True)
class Decoded:
    """A decoded photo.

    Args:
        image: mode RGB, in sRGB, upright.
        width, height: of the upright photo at full size, in pixels.
        format: as the first bytes tell it: a key of ``formats.READABLE``.
    """

    image: Image.Image
    width: int
    height: int
    format: str
