"""The memory that decoding takes, computed from a photo's header: a small file may ask for gigabytes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from convnext_cli.base.errors import PhotoError
from convnext_cli.photos.jpeg import Header

if TYPE_CHECKING:
    from PIL import Image

# Phones make photos of 200 megapixels; what is larger than this is a bomb, or for another program.
DEFAULT_MAX_PIXELS = 200_000_000
# Bytes of a file below which its memory is bounded: a photo of so few that takes more is flat colour, or a bomb.
_SMALL = 10_000_000
# Bytes for each pixel of the most that are decoded (``--max-pixels``): 1 GB for 200 megapixels.
_ALLOWED = 5.1
_PIXEL = 4  # bytes of a pixel of Pillow's RGB, and of most other modes
_STORED = {"1": 1, "L": 1, "P": 1, "I;16": 2, "I;16B": 2, "I;16L": 2}
# Bytes for each pixel that decoders hold beside the picture.
_BESIDE = {"heic": 4.5, "avif": 4.5, "webp": 4.0}
_BESIDE_RUNS = 4.5  # the same for run-length coded BMP, of which Pillow's decoder also takes the time of each pixel
_LEAST_TILES = 1 << 24  # pixels that the tiles of a TIFF may have, however small it is
_TILE_WIDTH, _TILE_HEIGHT, _ROWS, _BITS, _SAMPLES, _COMPRESSION = 322, 323, 278, 258, 277, 259


def check_memory(name: str, image: Image.Image, data: bytes, max_pixels: int, jpeg: Header) -> None:
    """Check the memory that decoding takes.

    Args:
        name: the format, as ``formats.sniff`` gives it.
        image: Pillow's image, of which only the header is read.
        data: the file.
        max_pixels: the limit that the user set.
        jpeg: the header of a JPEG; an empty one for other formats.

    Raises:
        PhotoError: too_large: the file is small, and decoding it would take much memory.
    """
    pixels = image.width * image.height
    beside = pixels * (jpeg.coefficients if jpeg.scans_follow else _BESIDE.get(name, 0.0))
    if name == "tiff":
        beside = _largest_tile(image, max_pixels)
    if name == "bmp" and any(tile[0] == "bmp_rle" for tile in getattr(image, "tile", ())):
        beside = pixels * _BESIDE_RUNS
    plain = image.mode == "RGB" and "icc_profile" not in image.info
    memory = beside + pixels * (_STORED.get(image.mode, _PIXEL) + (0 if plain else _PIXEL))
    check_small(data, memory, max_pixels)
    memory += pixels * _PIXEL  # should it be turned
    if _is_too_much(data, memory, max_pixels) and orientation(image) > 1:
        check_small(data, memory, max_pixels)


def check_size(width: int, height: int, max_pixels: int) -> None:
    """Raise PhotoError, too_large, for a photo of more than ``max_pixels``."""
    if width * height > max_pixels:
        raise PhotoError(
            "too_large",
            f"{width:,} × {height:,} pixels are more than the limit of {max_pixels:,}; raise it with --max-pixels",
        )


def check_small(data: bytes, memory: float, max_pixels: int) -> None:
    """Check the memory that decoding takes.

    Args:
        data: the file.
        memory: bytes that decoding would take.
        max_pixels: the limit that the user set.

    Raises:
        PhotoError: too_large: the file is small, and decoding it would take much memory.
    """
    if _is_too_much(data, memory, max_pixels):
        raise PhotoError(
            "too_large",
            f"a file of {len(data):,} bytes would take {memory / 1e9:,.1f} GB of memory to decode; "
            "--max-pixels raises the limit",
        )


def _is_too_much(data: bytes, memory: float, max_pixels: int) -> bool:
    return len(data) < _SMALL and memory > _ALLOWED * max(max_pixels, DEFAULT_MAX_PIXELS)


def orientation(image: Image.Image) -> int:
    """The orientation that a file's EXIF (or XMP) asks for, from 1 to 8; damaged EXIF asks for nothing."""
    try:
        value = image.getexif().get(0x0112)
    except Exception:  # damaged EXIF makes Pillow raise several kinds
        return 1
    return value if isinstance(value, int) and 1 <= value <= 8 else 1


def _largest_tile(image: Any, max_pixels: int) -> float:
    """The bytes of a TIFF's largest tile or strip.

    Raises:
        PhotoError: the tiles are far larger than the picture.
    """
    tags = image.tag_v2
    width, height = image.size
    across, down = _number(tags, _TILE_WIDTH), _number(tags, _TILE_HEIGHT)
    if across > 0 and down > 0:
        covered = -(-width // across) * across * -(-height // down) * down
        if covered > max(_LEAST_TILES, 2 * width * height) or across * down > max_pixels:
            tile = f"{across:,} × {down:,}"
            raise PhotoError("too_large", f"its tiles of {tile} pixels are far larger than its {width:,} × {height:,}")
    else:
        across, down = width, min(height, max(0, _number(tags, _ROWS)) or height)
    if _number(tags, _COMPRESSION) in (0, 1):  # read where it stands
        return 0.0
    bits = tags.get(_BITS)
    bits_of_pixel = (
        sum(bits) if isinstance(bits, tuple) and len(bits) > 1 else _number(tags, _BITS) * _number(tags, _SAMPLES)
    )
    return float(across * down * max(1, bits_of_pixel) / 8)


def _number(tags: Any, tag: int) -> int:
    """A tag's first value; 0 where it is missing or is not a number."""
    value = tags.get(tag, 0)
    value = value[0] if isinstance(value, tuple) and value else value
    return int(value) if isinstance(value, int) else 0
