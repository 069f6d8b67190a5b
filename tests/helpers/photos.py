"""Photos made for tests: known sizes, modes and contents, from a fixed seed, with no file in the repository."""

from __future__ import annotations

import io
import struct
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


def dng(orientation: int = 1) -> bytes:
    """A camera raw file: 400 × 300 linear sensor values that rise from left to right."""
    width, height = 400, 300
    sensor = np.tile(np.linspace(2000, 50000, width), (height, 1)).astype("<u2").tobytes()
    short, long, bytes_, ratio, signed = (3, "H", 1), (4, "L", 1), (1, "B", 1), (5, "L", 2), (10, "l", 2)
    tags: dict[int, tuple[tuple[int, str, int], list[int]]] = {
        254: (long, [0]),
        256: (long, [width]),
        257: (long, [height]),
        258: (short, [16]),
        259: (short, [1]),
        262: (short, [32803]),  # a colour filter array
        273: (long, [0]),  # where the sensor values begin: filled in below
        274: (short, [orientation]),
        277: (short, [1]),
        278: (long, [height]),
        279: (long, [len(sensor)]),
        33421: (short, [2, 2]),
        33422: (bytes_, [0, 1, 1, 2]),
        50706: (bytes_, [1, 4, 0, 0]),  # DNGVersion
        50708: (bytes_, list(b"Made\0")),
        50717: (long, [65535]),
        50721: (signed, [1, 1, 0, 1, 0, 1, 0, 1, 1, 1, 0, 1, 0, 1, 0, 1, 1, 1]),
        50728: (ratio, [1] * 6),
    }
    values = {tag: struct.pack(f"<{len(v)}{kind[1]}", *v) for tag, (kind, v) in tags.items()}
    start = 14 + 12 * len(tags)
    begin = start + sum(len(v) + len(v) % 2 for v in values.values() if len(v) > 4)
    values[273] = struct.pack("<L", begin)
    directory = rest = b""
    for tag, (kind, numbers) in tags.items():
        value = values[tag]
        if len(value) > 4:
            value, rest = struct.pack("<L", start + len(rest)), rest + value + b"\0" * (len(value) % 2)
        directory += struct.pack("<HHL", tag, kind[0], len(numbers) // kind[2]) + value.ljust(4, b"\0")
    return b"II*\0" + struct.pack("<LH", 8, len(tags)) + directory + bytes(4) + rest + sensor


def dng_with_preview(preview: bytes, orientation: int = 1) -> bytes:
    """``dng`` with a JPEG beside its sensor values, as cameras put one there."""
    data = dng(orientation)
    (count,) = struct.unpack_from("<H", data, 8)
    following, place = 10 + 12 * count, len(data) + len(data) % 2
    width, height = Image.open(io.BytesIO(preview)).size
    tags = {254: 1, 256: width, 257: height, 258: 8, 259: 7, 262: 6, 273: 0, 277: 3, 278: height, 279: len(preview)}
    tags[273] = place + 2 + 12 * len(tags) + 4
    directory = struct.pack("<H", len(tags)) + b"".join(struct.pack("<HHLL", tag, 4, 1, v) for tag, v in tags.items())
    whole = data[:following] + struct.pack("<L", place) + data[following + 4 :]
    return whole.ljust(place, b"\0") + directory + bytes(4) + preview
