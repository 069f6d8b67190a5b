"""Zip files of photos, read in place: nothing is unpacked, and class folders are folders as others."""

from __future__ import annotations

import os
import zipfile
import zlib
from collections.abc import Iterator

from convnext_cli.errors import PhotoError
from convnext_cli.photos.decode import IMAGE_SUFFIXES, MAX_FILE_BYTES, looks_like_image
from convnext_cli.photos.shards import Member, broken, checked, opened
from convnext_cli.photos.tar import clean

_ENCRYPTED = 0x1  # bit of a member's flags
_HEAD = 64  # bytes, which say whether it is an image
_DAMAGED = PhotoError("corrupt", "the zip is damaged where it lies")


def members(path: str) -> Iterator[Member]:
    """See ``shards.members``, in the order of the zip's directory. What macOS packs along is left out."""
    with opened(path) as stream:
        try:
            file = zipfile.ZipFile(stream)
        except (zipfile.BadZipFile, ValueError, EOFError, NotImplementedError):
            if not stream.seek(0, os.SEEK_END):
                raise PhotoError("empty", "the file is empty") from None
            raise PhotoError("corrupt", "the zip is cut or damaged; pack it again, or unpack it") from None
        except Exception as error:  # of the disk, or of the store's library
            raise broken(error, "at its beginning") from None
        with file:
            for entry in file.infolist():
                name = clean(entry.filename)
                if name and not entry.is_dir() and not name.startswith("__MACOSX/"):
                    yield _member(file, entry, name)


def _member(file: zipfile.ZipFile, entry: zipfile.ZipInfo, name: str) -> Member:
    """A file with its bytes; with its first bytes alone where these and its name say that it is not a photo."""
    is_called_image = os.path.splitext(name)[1].lower() in IMAGE_SUFFIXES  # noqa: PTH122
    try:
        if entry.flag_bits & _ENCRYPTED:
            raise PhotoError("permission", "it is encrypted in the zip")
        if entry.file_size > MAX_FILE_BYTES:
            return checked(name, entry.file_size, None)
        with file.open(entry) as stream:
            head = stream.read(_HEAD)
            if not is_called_image and not looks_like_image(head):
                return Member(name, head)
            return checked(name, entry.file_size, head + stream.read(MAX_FILE_BYTES - len(head)))
    except PhotoError as problem:
        return Member(name, problem=problem)
    except NotImplementedError:
        return Member(name, problem=PhotoError("unsupported", "the zip packed it by a method that is not known here"))
    except (zipfile.BadZipFile, zlib.error, EOFError, OSError, ValueError, RuntimeError):
        return Member(name, problem=_DAMAGED)
