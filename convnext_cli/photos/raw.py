"""Cameras' raw files, through LibRaw (the extra ``raw``)."""

from __future__ import annotations

import io
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from convnext_cli.base.errors import PhotoError
from convnext_cli.photos.costs import check_size, check_small, orientation
from convnext_cli.photos.large_photos import one_at_a_time
from convnext_cli.photos.photo import Decoded

if TYPE_CHECKING:
    from PIL import Image

_MEMORY = 14  # bytes for each pixel: sensor values, four channels of 16 bits, and the picture


_UPSIDE_DOWN = 3  # for LibRaw, and in EXIF
_TAIL = 4096  # bytes of a preview's end that are looked for in the file; at its beginning LibRaw may have added EXIF
_SAME_SHAPE = 0.02  # by which the aspect ratios of a photo and its preview may differ


def decode_raw(
    data: bytes, max_pixels: int, enough: int | None = None, *, decode_preview: Callable[..., Decoded]
) -> Decoded:
    """Developed with the camera's white balance into 8-bit sRGB, upright.

    enough: pixels that the shorter edge need have. Where the preview that the camera embedded has so many, it is taken,
    and otherwise half the size is developed, if that is enough: quicker, and not what developing the whole photo gives.
    decode_preview: ``decode.decode``.
    Raises PhotoError: unsupported (rawpy is absent, or LibRaw does not know the camera), truncated, corrupt, too_large.
    """
    try:
        import rawpy
    except ImportError:
        raise PhotoError("unsupported", "camera raw files need rawpy: pip install rawpy") from None
    from PIL import Image

    try:
        with rawpy.imread(io.BytesIO(data)) as raw:
            width, height = raw.sizes.width, raw.sizes.height
            check_size(width, height, max_pixels)
            check_small(data, _MEMORY * width * height, max_pixels)
            upright = (height, width) if raw.sizes.flip in (5, 6) else (width, height)
            if (
                enough is not None
                and (preview := _preview(raw, data, upright, max_pixels, enough, decode_preview)) is not None
            ):
                return Decoded(preview, *upright, "raw")
            half = enough is not None and min(upright) // 2 >= enough
            with one_at_a_time(width * height):
                image = Image.fromarray(raw.postprocess(use_camera_wb=True, half_size=half))
            return Decoded(image, *(upright if half else image.size), "raw")
    except rawpy.LibRawFileUnsupportedError:
        raise PhotoError("unsupported", "LibRaw does not know this camera's raw files; convert them to DNG") from None
    except rawpy.LibRawIOError:
        raise PhotoError("truncated", "the camera raw file ends too early") from None


def _preview(
    raw: Any,
    data: bytes,
    size: tuple[int, int],
    max_pixels: int,
    enough: int,
    decode_preview: Callable[..., Decoded],
) -> Image.Image | None:
    """The upright JPEG that the camera put beside the sensor's values; None where it is small, or not surely the same.

    data: the file. size: (width, height) of the upright photo.
    """
    import rawpy

    try:
        thumbnail = raw.extract_thumb()
        if thumbnail.format != rawpy.ThumbFormat.JPEG:
            return None
        # where the file is cut, LibRaw hands over whatever its memory held instead of the missing bytes
        if thumbnail.data[-min(_TAIL, len(thumbnail.data) // 2) :] not in data:
            return None
        preview = decode_preview(thumbnail.data, max_pixels=max_pixels, enough=enough)
    except (rawpy.LibRawError, PhotoError):  # the photo itself may be sound
        return None
    if preview.format != "jpeg" or min(preview.width, preview.height) < enough:
        return None
    # one that was cropped to another shape, or turned otherwise, does not show the same
    ratio = preview.width * size[1] / (preview.height * size[0])
    unsure = raw.sizes.flip == _UPSIDE_DOWN and not _says_so(thumbnail.data)
    return preview.image if abs(ratio - 1) <= _SAME_SHAPE and not unsure else None


def _says_so(preview: bytes) -> bool:
    """Whether a JPEG says that it is upside down; its shape cannot tell."""
    from PIL.JpegImagePlugin import JpegImageFile

    return orientation(JpegImageFile(io.BytesIO(preview))) == _UPSIDE_DOWN
