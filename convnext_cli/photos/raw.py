"""Cameras' raw files, through LibRaw (the extra ``raw``)."""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from convnext_cli.base.errors import PhotoError
from convnext_cli.photos.costs import check_size, check_small, orientation
from convnext_cli.photos.large_photos import one_at_a_time
from convnext_cli.photos.photo import Decoded

_MEMORY = 14  # bytes for each pixel: sensor values, four channels of 16 bits, and the picture


_UPSIDE_DOWN = 3  # for LibRaw, and in EXIF
_TAIL = 4096  # bytes at the end of a preview that must be in the file; LibRaw may have added EXIF at its beginning
_SAME_SHAPE = 0.02  # how far the aspect ratios of a photo and its preview may differ


def decode_raw(
    data: bytes, max_pixels: int, enough: int | None = None, *, decode_preview: Callable[..., Decoded]
) -> Decoded:
    """Develop a camera raw file with the camera's white balance into 8-bit sRGB, upright.

    Args:
        data: the bytes of the file.
        max_pixels: a photo of more pixels is too large.
        enough: pixels that the shorter edge needs. The camera's embedded preview is taken if it has as many; otherwise
            the photo is developed at half its size, if that is enough. This is quicker, and not exact.
        decode_preview: ``decode.decode``.

    Raises:
        PhotoError: unsupported (rawpy is absent, or LibRaw does not know the camera), truncated, corrupt, too_large.
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
                return replace(preview, width=upright[0], height=upright[1], format="raw")
            half = enough is not None and min(upright) // 2 >= enough
            with one_at_a_time(width * height):
                image = Image.fromarray(raw.postprocess(use_camera_wb=True, half_size=half))
            return Decoded(image, *(upright if half else image.size), "raw")
    except rawpy.LibRawFileUnsupportedError:
        raise PhotoError(
            "unsupported", "LibRaw does not support raw files of this camera; convert them to DNG"
        ) from None
    except rawpy.LibRawIOError:
        raise PhotoError("truncated", "the camera raw file ends too early") from None


def _preview(
    raw: Any,
    data: bytes,
    size: tuple[int, int],
    max_pixels: int,
    enough: int,
    decode_preview: Callable[..., Decoded],
) -> Decoded | None:
    """The JPEG that the camera embedded; None if it is too small, or may not show the same.

    Args:
        raw: LibRaw's open file.
        data: the bytes of the file.
        size: (width, height) of the upright photo.
        max_pixels: a preview of more pixels is too large.
        enough: pixels that the shorter edge needs.
        decode_preview: ``decode.decode``.
    """
    import rawpy

    try:
        thumbnail = raw.extract_thumb()
        if thumbnail.format != rawpy.ThumbFormat.JPEG:
            return None
        # of a truncated file, LibRaw returns whatever its memory held instead of the missing bytes
        if thumbnail.data[-min(_TAIL, len(thumbnail.data) // 2) :] not in data:
            return None
        preview = decode_preview(thumbnail.data, max_pixels=max_pixels, enough=enough)
    except (rawpy.LibRawError, PhotoError):  # the photo itself may be sound
        return None
    if preview.format != "jpeg" or min(preview.width, preview.height) < enough:
        return None
    # a preview of another shape or orientation does not show the same
    ratio = preview.width * size[1] / (preview.height * size[0])
    unsure = raw.sizes.flip == _UPSIDE_DOWN and not _is_upside_down(thumbnail.data)
    return preview if abs(ratio - 1) <= _SAME_SHAPE and not unsure else None


def _is_upside_down(preview: bytes) -> bool:
    """Whether the EXIF of a JPEG says that it is upside down; its shape does not show it."""
    from PIL.JpegImagePlugin import JpegImageFile

    return orientation(JpegImageFile(io.BytesIO(preview))) == _UPSIDE_DOWN
