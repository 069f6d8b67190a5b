"""Zip files of photos, read in place: nothing is unpacked, and class folders are ordinary folders."""

from __future__ import annotations

import io
import os
import struct
import zipfile
import zlib
from collections.abc import Iterator

from convnext_cli.base.errors import PhotoError
from convnext_cli.photos.containers.member import Member, broken, checked, opened
from convnext_cli.photos.containers.tar import clean
from convnext_cli.photos.decode import IMAGE_SUFFIXES, MAX_FILE_BYTES, check_bytes, looks_like_image
from convnext_cli.photos.formats import HEAD, is_readable

_ENCRYPTED = 0x1  # bit of a member's flags
# A file of more bytes that expands by more than this factor is not a photo: these hardly shrink.
_MUCH, _FACTOR = 32 * 2**20, 100
_PIECE = 1 << 20  # bytes that are expanded at once


def members(path: str) -> Iterator[Member]:
    """See ``shards.members``; in the order of the zip's directory. Files that macOS adds are left out."""
    with opened(path) as stream:
        try:
            file = zipfile.ZipFile(stream)
        except (zipfile.BadZipFile, struct.error, ValueError, OverflowError, EOFError, NotImplementedError):
            if not stream.seek(0, os.SEEK_END):
                raise PhotoError("empty", "the file is empty") from None
            raise PhotoError("corrupt", "the zip is truncated or damaged; create it again") from None
        except Exception as error:  # of the disk, or of the store's library
            raise broken(error, "at its beginning") from None
        with file:
            for entry in file.infolist():
                name = clean(entry.filename)
                if name and not entry.is_dir() and not name.startswith("__MACOSX/"):
                    yield _member(file, entry, name)


def _member(file: zipfile.ZipFile, entry: zipfile.ZipInfo, name: str) -> Member:
    """A file with its bytes; only the first of them if these and its name show that it is not a photo."""
    is_called_image = os.path.splitext(name)[1].lower() in IMAGE_SUFFIXES  # noqa: PTH122
    try:
        if is_called_image or looks_like_image(head := read_head(file, entry)):
            return checked(name, entry.file_size, read_photo(file, entry))
        return Member(name, head)
    except PhotoError as problem:
        return Member(name, problem=problem)


def read_photo(file: zipfile.ZipFile, member: zipfile.ZipInfo) -> bytes:
    """The bytes of a file in a zip; only the first of them if they are not those of a readable photo.

    Raises:
        PhotoError: the file cannot be read.
    """
    check_bytes(member.file_size)
    head = read_head(file, member)
    # a few bytes may expand to gigabytes, which are not read when the first ones are not those of a photo
    if not is_readable(head):
        return head
    if member.file_size > max(_MUCH, _FACTOR * member.compress_size):
        expands = f"it expands from {member.compress_size:,} bytes to {member.file_size / 2**20:,.0f} MiB"
        raise PhotoError("too_large", f"{expands}, as photos never do")
    return _read(file, member, MAX_FILE_BYTES)


def read_head(file: zipfile.ZipFile, member: zipfile.ZipInfo) -> bytes:
    """The first bytes of a file in a zip, which show its format.

    Raises:
        PhotoError: the file cannot be read.
    """
    return _read(file, member, HEAD)


def _read(file: zipfile.ZipFile, member: zipfile.ZipInfo, most: int) -> bytes:
    """The first bytes of a file, at most ``most``, expanded piece by piece."""
    if member.flag_bits & _ENCRYPTED:
        raise PhotoError("permission", "it is encrypted in the zip")
    # zipfile expands other methods all at once, and 200 bytes may become gigabytes
    if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise PhotoError(
            "unsupported", "it is compressed by a method other than deflate; create the zip again with deflate"
        )
    data = io.BytesIO()
    try:
        with file.open(member) as stream:
            while (room := most - data.tell()) and (piece := stream.read(min(_PIECE, room))):
                data.write(piece)
    except NotImplementedError:
        raise PhotoError("unsupported", "it is compressed by a method that is not supported") from None
    except (zipfile.BadZipFile, zlib.error, struct.error, EOFError, OSError, ValueError, RuntimeError):
        raise PhotoError("corrupt", "the zip is damaged at this file") from None
    if not data.tell():
        raise PhotoError("empty", "the file is empty")
    return data.getvalue()
