"""Cameras' raw files, through LibRaw (the extra ``raw``)."""

from __future__ import annotations

import io

from convnext_cli.errors import PhotoError
from convnext_cli.photos import decode
from convnext_cli.photos.costs import check_small

_MEMORY = 14  # bytes for each pixel: sensor values, four channels of 16 bits, and the picture


def decode_raw(data: bytes, max_pixels: int) -> decode.Decoded:
    """Developed with the camera's white balance into 8-bit sRGB, upright.

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
            decode.check_size(width, height, max_pixels)
            check_small(data, _MEMORY * width * height, max_pixels)
            with decode.one_at_a_time(width * height):
                image = Image.fromarray(raw.postprocess(use_camera_wb=True))
            return decode.Decoded(image, image.width, image.height, "raw")
    except rawpy.LibRawFileUnsupportedError:
        raise PhotoError("unsupported", "LibRaw does not know this camera's raw files; convert them to DNG") from None
    except rawpy.LibRawIOError:
        raise PhotoError("truncated", "the camera raw file ends too early") from None
