"""Delete models from the weights folder: pulled ones and the user's own. Other libraries' copies stay."""

from __future__ import annotations

import shutil
from pathlib import Path

from convnext_cli.base.errors import ModelError, OutputError
from convnext_cli.zoo import find, local_files, record
from convnext_cli.zoo.catalogue import Entry
from convnext_cli.zoo.pull import BESIDE, FolderLock
from convnext_cli.zoo.settings import folders


def targets(name: str) -> list[Path]:
    """The paths that ``remove`` deletes for a name: a pulled folder, complete or not, and loose weights files."""
    entry = find(name)
    if entry is None:
        own = local_files.own(name)
        return [own] if own else []
    weights = folders().weights
    place = weights / entry.name
    loose = [path for path in local_files.find(entry) if path.parent == weights]
    return ([place] if place.is_dir() else []) + loose


def remove(name: str) -> list[Path]:
    """Delete the ``targets`` of a name and return them.

    Raises:
        ModelError: a pulled folder holds files that were not pulled.
        OutputError: another process is pulling the model, or a file cannot be deleted.
    """
    entry, gone = find(name), targets(name)
    for path in gone:
        try:
            if entry and path.is_dir() and not path.is_symlink():
                _empty(path, entry)
            elif path.is_dir() and not path.is_symlink():
                shutil.rmtree(path)
            else:
                path.unlink()
        except OSError as error:
            raise OutputError(f"cannot delete {path}: {error.strerror}", "check its permissions") from error
    return gone


def _empty(place: Path, entry: Entry) -> None:
    """Delete the files of a pulled folder under its lock; the folder is removed with the lock."""
    own_names = {record.RECORD, *BESIDE, *local_files.WEIGHT_FILES, *entry.files}
    with FolderLock(place):
        paths = [path for path in place.iterdir() if path.name != ".lock"]
        foreign = [path.name for path in paths if path.name not in own_names and not path.name.startswith(".")]
        if foreign:
            raise ModelError(
                f"{place} contains files that were not pulled: {', '.join(sorted(foreign))}",
                "move them to another folder",
            )
        for path in paths:
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path)
            else:
                path.unlink()
