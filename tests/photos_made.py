"""Photos made for tests: known sizes, modes and contents, from a fixed seed, with no file in the repository."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
from PIL import Image

# (width, height): single pixels, threads, exact sizes, shorter than the crop, each excess from 0 to 7 over 224 after
# the short side has become 256, and ordinary photos.
ODD_SIZES = [
    *((1, 1), (2, 1), (1, 7), (3, 50), (90, 17), (224, 224), (256, 256), (256, 224), (224, 256)),
    *((255, 257), (257, 255), (100, 90), (223, 225), (384, 384), (640, 480), (480, 640), (333, 500), (375, 500)),
    *((256, 256 + excess) for excess in range(1, 9)),
    *((256 + excess, 256) for excess in (1, 3, 5, 7, 11, 15)),
    *((451, 300), (300, 451), (601, 599), (199, 201), (512, 200), (230, 341), (347, 232), (236, 353), (97, 211)),
]
MODES = ["RGB", "L", "P", "1", "CMYK"]
# Dear to resize, so only in RGB.
THREADS = [(3, 500), (500, 3), (17, 1000)]


def picture(width: int, height: int, mode: str = "RGB", *, seed: int = 0) -> Image.Image:
    """Smooth colours under coarse and fine noise, so that each filter, offset and rounding shows."""
    rng = np.random.default_rng([seed, width, height])
    y, x = np.mgrid[0:height, 0:width] / max(width, height)
    smooth = np.stack([np.sin(7 * x + 3 * y), np.cos(5 * y - x), np.sin(9 * x * y + 1)], axis=-1) * 90 + 128
    noise = rng.integers(-60, 61, (height, width, 3)) + rng.integers(-60, 61, (height, width, 1))
    image = Image.fromarray((smooth + noise).clip(0, 255).astype(np.uint8))
    if mode == "P":
        return image.quantize(64, Image.Quantize.FASTOCTREE, dither=Image.Dither.NONE)
    return image if mode == "RGB" else image.convert(mode)


def encoded(image: Image.Image, form: str = "PNG", **options: Any) -> bytes:
    """The bytes of a file of this format."""
    file = io.BytesIO()
    image.save(file, form, **options)
    return file.getvalue()


def parity_photos() -> list[bytes]:
    """Files of every odd size in every mode that all libraries read alike."""
    kinds = [(size, mode) for size in ODD_SIZES for mode in MODES] + [(size, "RGB") for size in THREADS]
    return [encoded(picture(*size, mode), "TIFF" if mode == "CMYK" else "BMP") for size, mode in kinds]


def exif_orientation(value: int) -> bytes:
    """An EXIF block with nothing but the orientation."""
    exif = Image.Exif()
    exif[0x0112] = value
    return exif.tobytes()
