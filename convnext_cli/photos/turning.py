"""The eight orientations of EXIF: which way stored pixels are turned upright."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    from PIL import Image

    Bytes = np.ndarray[Any, np.dtype[np.uint8]]

Box = tuple[int, int, int, int]
Size = tuple[int, int]


@dataclass(frozen=True, slots=True)
class Turn:
    """How stored pixels become upright.

    Args:
        orientation: the value of EXIF, from 1 to 8.
    """

    orientation: int = 1

    @property
    def swaps(self) -> bool:
        """Whether columns become rows."""
        return self.orientation >= 5

    def mirrors(self, axis: int) -> bool:
        """Whether the stored columns (axis 0) or rows (axis 1) come in the reverse order."""
        return self.orientation in ((2, 3, 7, 8), (3, 4, 6, 7))[axis]

    def stored_axis(self, axis: int) -> int:
        """The stored axis that becomes the upright x (0) or y (1)."""
        return 1 - axis if self.swaps else axis

    def upright_size(self, size: Size) -> Size:
        """(width, height) of the upright photo, from those of the stored one."""
        return (size[1], size[0]) if self.swaps else size

    def stored_box(self, box: Box, size: Size) -> Box:
        """The part of the stored pixels that becomes a part of the upright photo.

        Args:
            box: (left, top, right, bottom) in the upright photo.
            size: (width, height) of the stored pixels.
        """
        spans = [(box[0], box[2]), (box[1], box[3])]
        stored = []
        for axis in (0, 1):
            low, high = spans[self.stored_axis(axis)]
            stored.append((size[axis] - high, size[axis] - low) if self.mirrors(axis) else (low, high))
        (left, right), (top, bottom) = stored
        return left, top, right, bottom

    def upright(self, pixels: Image.Image) -> Image.Image:
        """A turned copy; the same image where nothing is to be turned."""
        if self.orientation == 1:
            return pixels
        from PIL.Image import Transpose

        method = {
            2: Transpose.FLIP_LEFT_RIGHT,
            3: Transpose.ROTATE_180,
            4: Transpose.FLIP_TOP_BOTTOM,
            5: Transpose.TRANSPOSE,
            6: Transpose.ROTATE_270,
            7: Transpose.TRANSVERSE,
            8: Transpose.ROTATE_90,
        }[self.orientation]
        return pixels.transpose(method)

    def upright_view(self, pixels: Bytes) -> Bytes:
        """A view of stored pixels, (height, width, channels), as they are upright."""
        if self.mirrors(0):
            pixels = pixels[:, ::-1]
        if self.mirrors(1):
            pixels = pixels[::-1]
        return pixels.swapaxes(0, 1) if self.swaps else pixels


UPRIGHT = Turn()
