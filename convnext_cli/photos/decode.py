"""From bytes to the pixels of a photo, or to a PhotoError that says why not.

Only the decoder for the format of the first bytes is started. Safe to call from several threads.
"""

from __future__ import annotations

import errno
import io
import math
import os
import stat
from typing import TYPE_CHECKING, Any, cast

from convnext_cli.base.errors import FailureKind, PhotoError
from convnext_cli.photos.colour import to_eight_bits
from convnext_cli.photos.costs import DEFAULT_MAX_PIXELS, check_memory, check_size, orientation
from convnext_cli.photos.decoder_threads import shared_threads
from convnext_cli.photos.formats import (
    IMAGE_SUFFIXES,
    NOT_PHOTOS,
    REFUSED,
    cut_short,
    describe,
    looks_like_image,
    sniff,
)
from convnext_cli.photos.jpeg import Header, check_scans, read_header
from convnext_cli.photos.large_photos import one_at_a_time, set_blocks
from convnext_cli.photos.photo import Decoded
from convnext_cli.photos.turning import Turn
from convnext_cli.storage.addresses import is_url, plain

if TYPE_CHECKING:
    from PIL import Image, ImageFile

__all__ = [
    "DEFAULT_MAX_PIXELS",
    "IMAGE_SUFFIXES",
    "MAX_FILE_BYTES",
    "Decoded",
    "as_decoded",
    "decode",
    "looks_like_image",
    "pixels_of",
    "read_file",
    "sniff",
]

MAX_FILE_BYTES = 512 * 2**20
# A pixel counts this often where the decoder holds the photo in memory more than once (measured; see docs).
_WEIGHTS = {"webp": 4.0, "avif": 2.0, "heic": 1.25, "progressive": 1.5}


def read_file(path: str) -> bytes:
    """The bytes of a file, or of the object behind a URL. This never waits for a FIFO or a device.

    Raises:
        PhotoError: missing, permission, not_a_file, empty, too_large, corrupt (the disk failed), timeout (the store did
            not answer at any try).
    """
    if is_url(path := plain(path)):
        from convnext_cli.storage.reading import read

        return checked(read(path, MAX_FILE_BYTES + 1))
    try:
        _check_kind(os.stat(path).st_mode)  # noqa: PTH116 - pathlib refuses some names
        # O_NONBLOCK: should a FIFO take the file's place in between, opening it still does not wait.
        handle = os.open(path, os.O_RDONLY | getattr(os, "O_BINARY", 0) | getattr(os, "O_NONBLOCK", 0))
        with os.fdopen(handle, "rb") as file:
            status = os.fstat(handle)
            _check_kind(status.st_mode)
            check_bytes(status.st_size)
            data = file.read(MAX_FILE_BYTES + 1)
    except FileNotFoundError:
        broken = os.path.islink(path)  # noqa: PTH114
        raise PhotoError("missing", "the link points to nothing" if broken else "there is no such file") from None
    except PermissionError:
        raise PhotoError("permission", "this user has no permission to read it") from None
    except NotADirectoryError:
        raise PhotoError("missing", "a part of the path is a file, not a folder") from None
    except ValueError:
        raise PhotoError("missing", "the path contains a NUL byte, so there is no such file") from None
    except OSError as error:
        reason = os.strerror(error.errno) if error.errno else "reading failed"
        kinds: dict[int | None, FailureKind] = {
            errno.ELOOP: "missing",
            errno.ENAMETOOLONG: "missing",
            errno.ENXIO: "not_a_file",
        }
        raise PhotoError(kinds.get(error.errno, "corrupt"), f"it cannot be read: {reason}") from None
    return checked(data)


def checked(data: bytes) -> bytes:
    """Check the number of bytes of a file, and return them.

    Raises:
        PhotoError: empty, or too_large.
    """
    if not data:
        raise PhotoError("empty", "the file is empty")
    check_bytes(len(data))
    return data


def check_bytes(size: int) -> None:
    """Raise PhotoError, too_large, for a file that is too large to be read."""
    if size > MAX_FILE_BYTES:
        raise PhotoError("too_large", f"the file has {size / 2**20:,.0f} MiB; 512 MiB is the limit")


def _check_kind(mode: int) -> None:
    for what, test in (
        ("a folder", stat.S_ISDIR),
        ("a named pipe", stat.S_ISFIFO),
        ("a socket", stat.S_ISSOCK),
        ("a device", stat.S_ISCHR),
        ("a device", stat.S_ISBLK),
    ):
        if test(mode):
            raise PhotoError("not_a_file", f"it is {what}, not a file")


def decode(
    data: bytes, *, max_pixels: int = DEFAULT_MAX_PIXELS, enough: int | None = None, threads: int = 1
) -> Decoded:
    """The photo in the bytes of a file; of animations and multi-page files the first image.

    Args:
        data: the bytes of the file.
        max_pixels: a photo of more pixels is too large.
        enough: pixels that the shorter edge needs. Where that is enough, a JPEG is decoded at 1/2, 1/4 or 1/8 of its
            size, a HEIC photo by its embedded preview, and a camera raw file by its preview or at half its size. This
            is quicker, and not exact. None decodes at full size.
        threads: that the decoders of all photos of this process may start together.

    Raises:
        PhotoError: empty, not_an_image, unsupported, truncated, corrupt, out_of_memory, or too_large: more than
            ``max_pixels`` by its header. The pixels of WebP count four times, of AVIF twice, of HEIC 1.25 times and of
            progressive JPEG 1.5 times, since their decoders need that much more memory.
    """
    if not data:
        raise PhotoError("empty", "the file is empty")
    name = sniff(data)
    if name is None:
        raise PhotoError("not_an_image", "its first bytes are not those of a known image format")
    if name in ("html", "lfs"):
        raise PhotoError("not_an_image", f"this is a {describe(name)}, not an image")
    if name in REFUSED or name in NOT_PHOTOS:
        article = "an" if describe(name)[0] in "AOi" or name in ("svg", "sgi") else "a"
        file = "" if name in NOT_PHOTOS else " file"
        raise PhotoError("unsupported", f"this is {article} {describe(name)}{file}; convert it to JPEG or PNG")
    try:
        with shared_threads(name, threads):
            return _decode(name, data, max_pixels, enough)
    except PhotoError:
        raise
    except MemoryError:
        raise PhotoError("out_of_memory", f"there is not enough memory to decode this {describe(name)} file") from None
    except Exception as error:  # Pillow's decoders raise SyntaxError, struct.error, zlib.error, EOFError and more
        raise _failure(name, data, error) from None
    except SystemExit:  # a library that exits must not end the job
        raise PhotoError("corrupt", f"the {describe(name)} file made its decoder give up") from None


def pixels_of(data: bytes) -> int:
    """The pixels of the image that these bytes say that they hold, from its header; 0 where that cannot be read."""
    name = sniff(data)
    if name is None or name == "raw":
        return 0
    try:
        width, height = _open(name, data).size
    except Exception:  # which decoding reports
        return 0
    return width * height


def _failure(name: str, data: bytes, error: Exception) -> PhotoError:
    """The error for a decoder's exception. Its message is kept only where Pillow names a missing feature."""
    words = str(error)
    if type(error).__name__ == "DecompressionBombError":  # of a frame or tile; the photo's own size is checked before
        return PhotoError(
            "too_large", f"the {describe(name)} file claims to hold far more pixels than it has bytes for"
        )
    if isinstance(error, NotImplementedError) or words.startswith("Unsupported"):
        return PhotoError("unsupported", f"a rare kind of {describe(name)} ({words}); convert it to JPEG or PNG")
    if "truncated" in words.lower() or isinstance(error, EOFError) or cut_short(name, data):
        return PhotoError("truncated", f"the {describe(name)} file ends too early")
    return PhotoError("corrupt", f"the {describe(name)} file is damaged")


def _decode(name: str, data: bytes, max_pixels: int, enough: int | None) -> Decoded:
    set_blocks()
    if name == "raw":
        from convnext_cli.photos.raw import decode_raw

        return decode_raw(data, max_pixels, enough, decode_preview=decode)
    header = read_header(data) if name == "jpeg" else Header()
    image = _open(name, data)
    full_size = width, height = image.size
    weight = _WEIGHTS.get("progressive" if header.scans_follow else name, 1.0)
    check_size(width, height, int(max_pixels / weight))
    check_scans(data, header)
    check_memory(name, image, data, max_pixels, header)
    if enough is not None and name == "jpeg":
        edge = min(width, height)
        scale = next((scale for scale in (8, 4, 2) if edge // scale >= enough), 1)
        image.draft(None, (width // scale, height // scale))  # keeps the mode
    elif enough is not None and name == "heic" and enough < (edge := min(width, height)):
        image.draft(None, (math.ceil(width * enough / edge), math.ceil(height * enough / edge)))
    smaller = image.size != full_size
    with one_at_a_time(image.width * image.height):
        image.load()
        decoded = as_decoded(image, name)
    if smaller:
        decoded.width, decoded.height = decoded.turn.upright_size((width, height))
    return decoded


def as_decoded(image: Image.Image, name: str = "") -> Decoded:
    """An image that Pillow opened, as a decoded photo.

    Args:
        image: of any mode, with its EXIF and profile. Pillow has already turned a TIFF, and the HEIC decoder its photo;
            both then remove the tag. Damaged EXIF is ignored.
        name: its format, as ``formats.sniff`` gives it.
    """
    pixels, transform = to_eight_bits(image)
    turn = Turn(orientation(image))
    return Decoded(pixels, *turn.upright_size(pixels.size), name, turn, transform)


def _open(name: str, data: bytes) -> ImageFile.ImageFile:
    """Open a file with the decoder of its format, which reads the header; ``Image.open`` has limits of its own."""
    file = io.BytesIO(data)
    if name == "jpeg":  # of a multi-picture file (MPO) the first picture
        from PIL.JpegImagePlugin import JpegImageFile

        return JpegImageFile(file)
    if name == "png":
        from PIL.PngImagePlugin import PngImageFile

        return PngImageFile(file)
    if name == "gif":
        from PIL.GifImagePlugin import GifImageFile

        return GifImageFile(file)
    if name == "tiff":
        from PIL.TiffImagePlugin import TiffImageFile

        return TiffImageFile(file)
    if name == "bmp":
        from PIL.BmpImagePlugin import BmpImageFile

        return BmpImageFile(file)
    if name == "heic":
        try:
            from pillow_heif.as_plugin import HeifImageFile
        except ImportError:
            raise PhotoError("unsupported", "HEIC photos need pillow-heif: pip install pillow-heif") from None
        opener: Any = HeifImageFile
        return cast("ImageFile.ImageFile", opener(file))
    from PIL import features

    if not features.check(name):
        raise PhotoError(
            "unsupported", f"this version of Pillow cannot read {describe(name)}: pip install --upgrade pillow"
        )
    if name == "webp":
        from PIL.WebPImagePlugin import WebPImageFile

        return WebPImageFile(file)
    from PIL.AvifImagePlugin import AvifImageFile

    return AvifImageFile(file)
