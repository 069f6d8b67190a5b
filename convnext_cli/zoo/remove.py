"""Delete models from the weights folder: what was pulled, and the user's own. Other libraries' copies stay."""

from __future__ import annotations

import shutil
from pathlib import Path

from convnext_cli.base.errors import ModelError, OutputError
from convnext_cli.zoo import find, local_files, record
from convnext_cli.zoo.catalogue import Entry
from convnext_cli.zoo.pull import BESIDE, alone
from convnext_cli.zoo.settings import folders


def targets(name: str) -> list[Path]:
    """What ``remove`` deletes under a name: a pulled folder, unfinished ones too, and files in the weights folder."""
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

    Raises ModelError when a pulled folder holds files that were not pulled; OutputError when a pull is at work in it,
    or something cannot be deleted.
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
    """Delete the content of a pulled folder while no other process pulls into it; the folder goes with the lock."""
    known = {record.RECORD, *BESIDE, *local_files.WEIGHT_FILES, *entry.files}
    with alone(place):
        paths = [path for path in place.iterdir() if path.name != ".lock"]
        foreign = [path.name for path in paths if path.name not in known and not path.name.startswith(".")]
        if foreign:
            raise ModelError(
                f"{place} holds files that were not pulled: {', '.join(sorted(foreign))}", "move them away"
            )
        for path in paths:
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path)
            else:
                path.unlink()
