"""Which form of data this is; told by what is there, hardly by names."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from convnext_cli.datasets import folders, hf_parquet, table, zipped
from convnext_cli.datasets.labelled import Dataset, split_of
from convnext_cli.errors import ModelError, UsageError
from convnext_cli.photos.decode import looks_like_image

_ZIP, _PARQUET = (b"PK\x03\x04", b"PK\x05\x06"), b"PAR1"
_HINT = "name a folder of class folders, a CSV or parquet of path and label, image parquet files, or a zip"


def open_data(paths: str | Sequence[str]) -> Dataset:
    """The labelled photos of a folder, a table or a zip, or of one or more parquet files.

    Where photos are is read now, photos when they are asked for; close it after that. Raises UsageError when something
    is not there, ModelError when it is no such data, UnavailableError for parquet without pyarrow.
    """
    named = [paths] if isinstance(paths, str) else list(paths)
    for path in named:
        if not os.path.lexists(path):
            raise UsageError(f"'{path}' does not exist", "check the spelling")
    if len(named) > 1:
        if not all(Path(path).is_file() and _head(path).startswith(_PARQUET) for path in named):
            raise UsageError("only parquet files can be several", _HINT)
        return hf_parquet.read(named, f"{named[0]} and {len(named) - 1} more")
    (path,) = named
    if Path(path).is_dir():
        inside = _parquet_files(path)
        return hf_parquet.read(inside, path) if inside else folders.read(path)
    head = _head(path)
    if head.startswith(_PARQUET):
        return hf_parquet.read([path], path)
    if head.startswith(_ZIP):
        return zipped.read(path)
    if looks_like_image(head):
        raise ModelError(f"{path} is a photo, and says no class", _HINT)
    if not head or b"\0" in head:
        raise ModelError(f"{path} is {'no data that is known' if head else 'empty'}", _HINT)
    return table.read_text(path)


def _head(path: str) -> bytes:
    try:
        if not Path(path).is_file():
            raise ModelError(f"{path} is neither a file nor a folder", _HINT)
        with Path(path).open("rb") as file:
            return file.read(512)
    except OSError as error:
        raise ModelError(f"{path} cannot be read: {error.strerror}", "mend that first") from error


def _parquet_files(folder: str) -> list[str]:
    """The parquet files of a folder, of its folder ``data``, and of its folders that are called as splits."""
    inner = sorted(entry.name for entry in os.scandir(folder) if entry.is_dir())
    places = ["", *(name for name in inner if name == "data" or split_of(name))]
    return [str(file) for place in places for file in sorted(Path(folder, place).glob("*.parquet"))]
