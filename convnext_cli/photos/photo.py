"""Photo, the result of finding; and Decoded, the result of decoding."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from typing import TYPE_CHECKING, Literal

from convnext_cli.base.errors import PhotoError
from convnext_cli.photos.colour import in_srgb
from convnext_cli.photos.large_photos import one_at_a_time
from convnext_cli.photos.turning import UPRIGHT, Turn
from convnext_cli.storage.listing import Seen

if TYPE_CHECKING:
    from PIL import Image, ImageCms

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


@dataclass
class Decoded:
    """A decoded photo, which is turned and converted to sRGB late, when little of it is left.

    Args:
        pixels: as they are stored: mode RGB or L, not turned, and in the colours of ``transform``.
        width, height: of the upright photo at full size, in pixels.
        format: as the first bytes tell it: a key of ``formats.READABLE``.
        turn: how the pixels become upright.
        transform: to sRGB; None where the pixels are in sRGB.
    """

    pixels: Image.Image
    width: int
    height: int
    format: str
    turn: Turn = UPRIGHT
    transform: ImageCms.ImageCmsTransform | None = None

    @classmethod
    def upright(cls, image: Image.Image) -> Decoded:
        """A photo that is upright and in sRGB already.

        Args:
            image: mode RGB.

        Raises:
            ValueError: the image is not in mode RGB.
        """
        if image.mode != "RGB":
            raise ValueError(f"the image must be in mode RGB, not {image.mode}")
        return cls(image, *image.size, "")

    @property
    def size(self) -> tuple[int, int]:
        """(width, height) of the upright pixels, which may be fewer than those of the file."""
        return self.turn.upright_size(self.pixels.size)

    def apply_profile(self) -> None:
        """Convert the pixels to sRGB now."""
        if self.transform is not None:
            with one_at_a_time(self.pixels.width * self.pixels.height):
                self.pixels, self.transform = in_srgb(self.pixels, self.transform), None

    @property
    def image(self) -> Image.Image:
        """All pixels: mode RGB, in sRGB, upright. They take the place of the stored ones."""
        if self.pixels.mode != "RGB" or self.transform is not None or self.turn != UPRIGHT:
            with one_at_a_time(self.pixels.width * self.pixels.height):
                self.pixels = in_srgb(self.pixels, self.transform)
                self.transform = None
                self.pixels = self.turn.upright(self.pixels)
                self.turn = UPRIGHT
        return self.pixels

    def thumbnail(self, edge: int) -> Image.Image:
        """A small picture: mode RGB, in sRGB, upright. It takes the place of the pixels."""
        self.pixels.thumbnail((edge, edge))
        return self.image
