"""Converts the pixels of any mode that Pillow opens to 8-bit sRGB in mode RGB.

docs/preprocessing.md explains the decisions.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from PIL import Image, ImageCms

# A profile that moves no test colour by more than this many of 255 levels is sRGB under another name.
SRGB_TOLERANCE = 2
# Pictures of more pixels that need a conversion are converted in bands of about BAND_PIXELS.
WHOLE_BELOW = 24_000_000
BAND_PIXELS = 1_000_000
_LARGEST_KEPT = 1 << 20  # bytes of a profile whose transform is kept


def in_srgb(pixels: Image.Image, transform: ImageCms.ImageCmsTransform | None) -> Image.Image:
    """The pixels of ``to_eight_bits`` in sRGB, in mode RGB."""
    if transform is not None:
        return transform.apply(pixels)
    return pixels if pixels.mode == "RGB" else pixels.convert("RGB")


def to_eight_bits(image: Image.Image) -> tuple[Image.Image, ImageCms.ImageCmsTransform | None]:
    """Convert a picture of any mode to 8 bits of RGB or grey.

    Large pictures are converted band by band, so that no intermediate copy is as large as the picture. An image that
    needs no conversion is returned unchanged.

    Returns:
        The pixels in mode RGB or L, and the transform to sRGB that is still to be applied to them: None where there is
        no profile, or where it had to be applied to all pixels (CMYK, Lab, and under alpha).
    """
    levels = _levels(image)
    if levels is None and image.has_transparency_data:
        return _in_bands(image, "RGB", _opaque_srgb), None
    profile = image.info.get("icc_profile")
    if levels is not None:
        black, white = levels
        pixels = _in_bands(image, "L", lambda band: _eight_bits(band, black, white))
    elif image.mode in ("RGB", "L"):
        pixels = image
    elif image.mode in ("CMYK", "LAB"):
        return _in_bands(image, "RGB", lambda band: _converted(band, profile)), None
    else:
        pixels = _in_bands(image, "RGB", lambda band: band.convert("RGB"))
    return pixels, _transform_of(profile, pixels.mode)


def _in_bands(image: Image.Image, mode: str, convert: Callable[[Image.Image], Image.Image]) -> Image.Image:
    """Convert a picture to a mode, a large one band by band."""
    if image.width * image.height <= WHOLE_BELOW:
        return convert(image)
    from PIL import Image as pil

    result = pil.new(mode, image.size)
    for top, band in _bands(image):
        result.paste(convert(band), (0, top))
    return result


def _opaque_srgb(image: Image.Image) -> Image.Image:
    """A picture with transparency, over white and in sRGB."""
    rgba = image if image.mode == "RGBA" else image.convert("RGBA")
    alpha = rgba.getchannel("A")
    # the profile of a grey picture is of its one channel
    opaque = image.getchannel("L") if image.mode in ("L", "LA") else rgba.convert("RGB")
    rgb = _converted(opaque, image.info.get("icc_profile"))
    if alpha.getextrema() == (255, 255):
        return rgb
    from PIL import Image as pil

    white = pil.new("RGB", rgb.size, "white")
    white.paste(rgb, mask=alpha)
    return white


def _bands(image: Image.Image) -> Iterator[tuple[int, Image.Image]]:
    """The first row and the picture of each band."""
    rows = max(1, BAND_PIXELS // image.width)
    for top in range(0, image.height, rows):
        yield top, image.crop((0, top, image.width, min(top + rows, image.height)))


def _levels(image: Image.Image) -> tuple[float, float] | None:
    """The values of black and of white in a grey picture of more than 8 bits; None for all other pictures.

    16 bits: 0 and 65535. 32-bit integers and floats have no agreed white: floats within 0 … 1 have it at 1, values
    within 0 … 255 at 255, integers within 0 … 65535 at 65535; all others are stretched from their least finite value
    to their greatest.
    """
    if image.mode.startswith("I;16"):
        return 0, 65535
    if image.mode not in ("I", "F"):
        return None
    import numpy as np

    low, high = float("inf"), -float("inf")
    for _, band in _bands(image):
        values = np.asarray(band)
        values = values[np.isfinite(values)]
        if values.size:
            low, high = min(low, float(values.min())), max(high, float(values.max()))
    if low > high:  # no finite value at all
        return 0, 1
    if low >= 0:
        for white in (1, 255) if image.mode == "F" else (255, 65535):
            if high <= white:
                return 0, white
    return (low, high) if low < high else (low - 1, high)


def _eight_bits(image: Image.Image, low: float, high: float) -> Image.Image:
    """Mode L, with ``low`` at 0 and ``high`` at 255. NaN and -infinity become black, +infinity white."""
    import numpy as np
    from PIL import Image as pil

    values = np.nan_to_num(np.asarray(image, np.float32), nan=low, posinf=high, neginf=low)
    values -= low
    values *= 255 / (high - low)
    return pil.fromarray((values + 0.5).clip(0, 255).astype(np.uint8))


def _converted(image: Image.Image, profile: bytes | None) -> Image.Image:
    """Convert through the profile if it is valid and fits the pixels, otherwise by Pillow's plain conversion."""
    return in_srgb(image, _transform_of(profile, image.mode))


def _transform_of(profile: bytes | None, mode: str) -> ImageCms.ImageCmsTransform | None:
    if not profile:
        return None
    # the small profiles of cameras are cached; one of megabytes would waste memory
    make = _transform if len(profile) <= _LARGEST_KEPT else _transform.__wrapped__
    return make(profile, mode)


@functools.lru_cache(maxsize=32)
def _transform(profile: bytes, mode: str) -> ImageCms.ImageCmsTransform | None:
    """From this profile to sRGB (perceptual intent), or None: damaged, of other pixels, or sRGB itself.

    A folder's photos come from few cameras, so the transforms are cached. Threads may share littlecms' transforms.
    """
    space = {"RGB": "RGB", "L": "GRAY", "CMYK": "CMYK", "LAB": "Lab"}.get(mode)
    if space is None or profile[16:20].decode("latin-1").strip() != space:
        return None
    import io

    from PIL import ImageCms

    try:
        source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        transform = ImageCms.buildTransform(source, _srgb(), mode, "RGB", ImageCms.Intent.PERCEPTUAL)
        return None if _is_identity(transform, mode) else transform
    except Exception:  # a damaged profile must not cost the photo; littlecms raises several kinds
        return None


@functools.lru_cache(maxsize=1)
def _srgb() -> ImageCms.ImageCmsProfile:
    from PIL import ImageCms

    return ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB"))


def _is_identity(transform: ImageCms.ImageCmsTransform, mode: str) -> bool:
    """Whether a transform changes no colour of a grid of 9 × 9 × 9, or no grey, by more than the tolerance."""
    import numpy as np
    from PIL import Image as pil

    if mode == "L":
        before = np.arange(256, dtype=np.uint8)[None]
        expected = np.repeat(before[..., None], 3, axis=2)
    elif mode == "RGB":
        steps = np.linspace(0, 255, 9).astype(np.uint8)
        before = expected = np.stack(np.meshgrid(steps, steps, steps), axis=-1).reshape(1, -1, 3)
    else:
        return False
    after = np.asarray(transform.apply(pil.fromarray(before)))
    return bool(np.abs(after.astype(int) - expected.astype(int)).max() <= SRGB_TOLERANCE)
