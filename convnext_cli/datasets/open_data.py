"""Detects the form of data, mostly by content, hardly by name."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from convnext_cli.base.errors import ModelError, UsageError
from convnext_cli.datasets import folders, hf_parquet, table, tar_shards, zip_file
from convnext_cli.datasets.labelled import Dataset, split_of
from convnext_cli.photos.containers.shards import is_shard
from convnext_cli.photos.decode import looks_like_image
from convnext_cli.storage.addresses import expanded, is_url, plain
from convnext_cli.storage.failures import command_error
from convnext_cli.storage.filesystems import locate
from convnext_cli.storage.listing import below, look
from convnext_cli.storage.reading import opened_file

_ZIP, _PARQUET = (b"PK\x03\x04", b"PK\x05\x06"), b"PAR1"
_HINT = "name a folder of class folders, a CSV or parquet of path and label, image parquet files, tar shards, or a zip"


def open_data(paths: str | Sequence[str]) -> Dataset:
    """Open labelled photos: a folder, a table, a zip, or one or more parquet files or tar shards; also by URL.

    The list of photos is read now, and their bytes when they are used. Close the dataset after that.

    Raises:
        UsageError: a path does not exist.
        ModelError: the data cannot be used.
        UnavailableError: a library is missing.
        NetworkError: a store does not answer.
    """
    named = [one for path in map(plain, [paths] if isinstance(paths, str) else paths) for one in _expanded(path)]
    for path in named:
        if not is_url(path) and not os.path.lexists(path):
            raise UsageError(f"'{path}' does not exist", "check the spelling")
    folders_ = [path for path in named if _is_folder(path)]
    if len(named) > 1:
        together = f"{named[0]} and {len(named) - 1} more"
        if not folders_ and all(_head(path).startswith(_PARQUET) for path in named):
            return hf_parquet.read(named, together)
        if not folders_ and all(is_shard(path) for path in named):
            return tar_shards.read(named, together)
        raise UsageError("only parquet files and tar shards can be given several at a time", _HINT)
    (path,) = named
    if folders_:
        inside = _parquet_files(path)
        return hf_parquet.read(inside, path) if inside else folders.read(path)
    head = _head(path)
    # a file with the suffix .parquet or .zip is meant to be one, and its reader reports what is wrong
    suffix = Path(path).suffix.lower() if head else ""
    if head.startswith(_PARQUET) or suffix == ".parquet":
        return hf_parquet.read([path], path)
    if is_shard(path):
        return tar_shards.read([path], path)
    if head.startswith(_ZIP) or suffix == ".zip":
        return zip_file.read(path)
    if looks_like_image(head):
        raise ModelError(f"{path} is a single photo without a class", _HINT)
    if not head or b"\0" in head:
        raise ModelError(f"{path} is {'not labelled data' if head else 'empty'}", _HINT)
    return table.read_text(path)


def _expanded(path: str) -> list[str]:
    return [path] if os.path.lexists(path) else expanded(path)


def _is_folder(path: str) -> bool:
    """Whether a path is a folder.

    Raises:
        ConvNextError: a URL cannot be read.
    """
    if not is_url(path):
        return Path(path).is_dir()
    place = locate(path)
    try:
        return look(place) is None
    except Exception as error:
        raise command_error(error, path) from error


def _head(path: str) -> bytes:
    if is_url(path):
        with opened_file(path) as stream:
            return stream.read(512)
    try:
        if not Path(path).is_file():
            raise ModelError(f"{path} is neither a file nor a folder", _HINT)
        with Path(path).open("rb") as file:
            return file.read(512)
    except OSError as error:
        raise ModelError(f"{path} cannot be read: {error.strerror}", "check its permissions") from error


def _parquet_files(folder: str) -> list[str]:
    """The parquet files in a folder, in its folder ``data``, and in its folders that have names of splits."""
    if is_url(folder):
        place = locate(folder)
        try:
            files = [item.name for item in below(place) if item.name.endswith(".parquet")]
        except Exception as error:
            raise command_error(error, folder) from error
        inside_of = [(place.below(name).split("/")[:-1], name) for name in files]
        return [
            place.url_of(name)
            for parts, name in sorted(inside_of)
            if not parts or (len(parts) == 1 and (parts[0] == "data" or split_of(parts[0])))
        ]
    inner = sorted(entry.name for entry in os.scandir(folder) if entry.is_dir())
    places = ["", *(name for name in inner if name == "data" or split_of(name))]
    return [str(file) for place in places for file in sorted(Path(folder, place).glob("*.parquet"))]
