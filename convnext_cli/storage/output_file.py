"""Checks of a file that a verb is asked to write, before any work begins."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

from convnext_cli.base.errors import OutputError, UsageError
from convnext_cli.base.files import replacing, unwritten
from convnext_cli.storage.addresses import check_output


def check(target: str, *, overwrite: bool, inputs: Iterable[str | None]) -> None:
    """Refuse a file that cannot be written.

    Args:
        target: the file to write.
        overwrite: whether an existing file may be replaced.
        inputs: files that are read; none of them may be the output.

    Raises:
        UsageError: it is a URL, one of the inputs, or an existing file.
        OutputError: its folder is missing or cannot be written to.
    """
    check_output(target)
    path = Path(target)
    if is_special(path):
        return
    for name in inputs:
        if name and Path(name).exists() and path.exists() and Path(name).samefile(path):
            raise UsageError(f"{target} is one of the inputs", "choose another name for the output")
    if path.exists() and not overwrite:
        raise UsageError(f"{target} already exists", "choose another name, or replace it with --overwrite")
    if not path.absolute().parent.is_dir():
        raise OutputError(f"the folder of {target} does not exist", f"mkdir -p {path.parent}")
    if not os.access(path.absolute().parent, os.W_OK | os.X_OK):
        raise OutputError(f"the folder of {target} cannot be written to", "choose a folder that you may write to")


def write(target: Path, content: bytes) -> None:
    """Write a file that takes its name only when it is complete; pipes and devices are written to directly.

    Raises:
        OutputError: it cannot be written.
    """
    try:
        with target.open("wb") if is_special(target) else replacing(target) as stream:
            stream.write(content)
    except OSError as error:
        raise unwritten(target, error) from error


def is_special(path: Path) -> bool:
    """Whether it is a pipe or a device, even where /dev/stdout leads to a file."""
    return path.is_relative_to("/dev") or (path.exists() and not path.is_file())
