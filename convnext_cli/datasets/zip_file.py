"""A zip of class folders, read in place: nothing is unpacked."""

from __future__ import annotations

import struct
import zipfile
from collections import Counter
from pathlib import Path

from convnext_cli.base.errors import ModelError, PhotoError
from convnext_cli.datasets.folders import Layout, Parts, layout
from convnext_cli.datasets.labelled import Dataset, Key, LabelledPhoto, sorted_classes
from convnext_cli.photos.containers.zip_files import read_head, read_photo
from convnext_cli.photos.decode import IMAGE_SUFFIXES, MAX_FILE_BYTES, looks_like_image
from convnext_cli.storage.addresses import is_url
from convnext_cli.storage.reading import opened_file

_HINT = "create the zip again, or unpack it and name the folder"


class ZipSource:
    """Photos by their number in the zip's directory; several threads may read."""

    def __init__(self, file: zipfile.ZipFile) -> None:
        self._file, self._members = file, file.infolist()

    def read(self, key: Key) -> bytes:
        return read_photo(self._file, self._members[key[0]])

    def size(self, key: Key) -> int:
        return min(self._members[key[0]].file_size, MAX_FILE_BYTES)

    def close(self) -> None:
        self._file.close()


def read(path: str) -> Dataset:
    """The photos of a zip. A single folder around everything is ignored.

    Raises:
        ModelError: the zip is damaged, or has no photos.
    """
    try:
        file = zipfile.ZipFile(opened_file(path) if is_url(path) else path)
    except (zipfile.BadZipFile, struct.error, NotImplementedError, OverflowError, OSError, ValueError) as error:
        raise ModelError(f"{path} cannot be read as a zip: {error}", _HINT) from error
    passed_over: Counter[str] = Counter()
    members: dict[Parts, int] = {}  # their numbers in the directory
    folders: set[Parts] = set()
    for number, member in enumerate(file.infolist()):
        parts = tuple(part for part in member.filename.split("/") if part)
        # files that packing programs and systems add
        if not parts or "__MACOSX" in parts or any(part.startswith(".") for part in parts):
            continue
        # one around everything, the split and the class; a name can have thousands of parts
        folders |= {parts[:depth] for depth in range(1, min(len(parts) + member.is_dir(), 4))}
        if member.is_dir():
            continue
        if _is_photo(file, member):
            members[parts] = number
        else:
            passed_over[Path(parts[-1]).suffix.lower() or "no suffix"] += 1
    if not members:
        file.close()
        raise ModelError(f"there are no photos in {path}", "name a zip that has a folder of photos for each class")
    outer = _around(list(members))
    how = layout(parts[outer:] for parts in members)
    photos = tuple(
        LabelledPhoto(f"{path}/{'/'.join(parts)}", *how.place(parts[outer:]), (number,))
        for parts, number in sorted(members.items())
        if parts[outer] not in how.aside
    )
    classes = sorted_classes(photos, _class_folders({parts[outer:] for parts in folders}, how))
    aside = tuple(sorted(how.aside))
    return Dataset(path, "zip", classes, photos, ZipSource(file), passed_over=passed_over, aside=aside)


def _is_photo(file: zipfile.ZipFile, member: zipfile.ZipInfo) -> bool:
    if Path(member.filename).suffix.lower() in IMAGE_SUFFIXES:
        return True
    try:
        return looks_like_image(read_head(file, member))
    except PhotoError:
        return False


def _around(paths: list[Parts]) -> int:
    """How many folders are around everything, not counting the classes."""
    if len({parts[0] for parts in paths}) > 1 or min(map(len, paths)) < 3:
        return 0
    return 0 if layout(paths).split else 1


def _class_folders(folders: set[Parts], how: Layout) -> list[str]:
    """The classes by their folders, which may be empty."""
    depth = 2 if how.split else 1
    return [parts[-1] for parts in folders if len(parts) == depth and parts[0] not in how.aside]
