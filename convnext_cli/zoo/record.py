"""The record of a pull in the model's folder: name, licence, date, and the sha256, size and source of each file.

``pulled.json`` is written last and makes the pull complete.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, TypedDict

from convnext_cli.base.files import replacing, unwritten
from convnext_cli.base.text import JsonObject, json_value

if TYPE_CHECKING:
    from convnext_cli.zoo.catalogue import Entry

RECORD = "pulled.json"


class FileRecord(TypedDict):
    """The record of one file; ``checked`` is how much of its checksum the publisher gave: "whole", "start", "none"."""

    sha256: str
    size: int
    checked: str
    source: str


def read(place: Path) -> JsonObject | None:
    """The record in a folder, with the weights as the first of its ``files``; None if it is missing or damaged."""
    try:
        values = json_value((place / RECORD).read_text("utf-8"))
        return values if isinstance(values["files"], dict) and values["files"] else None
    except (OSError, ValueError, KeyError, TypeError):
        return None


def write(place: Path, entry: Entry, files: Mapping[str, FileRecord]) -> None:
    """Write the record of a pull, and delete the files that only an earlier pull had fetched.

    Raises:
        OutputError: the record cannot be written.
    """
    former = (read(place) or {"files": {}})["files"]
    record = {
        "name": entry.name,
        "license": entry.license,
        "terms": entry.terms,
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "files": {name: {**noted, "mtime": _mtime(place / name)} for name, noted in files.items()},
    }
    try:
        for name in former.keys() - files.keys():
            if Path(name).name == name:
                (place / name).unlink(missing_ok=True)
        with replacing(place / RECORD) as file:
            file.write((json.dumps(record, indent=2) + "\n").encode())
    except OSError as error:
        raise unwritten(place / RECORD, error) from error


def complete(place: Path) -> Path | None:
    """The weights file of a complete pull, all of whose files have their sizes; None for anything else."""
    values = read(place)
    try:
        if values is None or any(_size(place / name) != noted["size"] for name, noted in values["files"].items()):
            return None
    except (OSError, KeyError, TypeError):
        return None
    return place / str(next(iter(values["files"])))


def intact(place: Path) -> Path | None:
    """Like ``complete``, and no file has changed: one that was written since the pull is hashed again."""
    here = complete(place)
    for name, noted in (read(place) or {"files": {}})["files"].items() if here else ():
        if noted.get("mtime") != _mtime(place / name) and noted.get("sha256") != sha256(place / name):
            return None
    return here


def sha256(path: Path) -> str:
    """The sha256 of a file in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _size(path: Path) -> int:
    return path.stat().st_size


def _mtime(path: Path) -> int:
    return path.stat().st_mtime_ns
