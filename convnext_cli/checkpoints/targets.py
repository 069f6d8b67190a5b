"""The targets of ``convnext convert``: a file or a folder for each layout, and what may be overwritten."""

from __future__ import annotations

import os
from pathlib import Path

from convnext_cli.base.errors import OutputError, UsageError
from convnext_cli.checkpoints import companion_files
from convnext_cli.checkpoints.companion_files import CONFIG, PROCESSOR, WEIGHTS
from convnext_cli.checkpoints.layouts.registry import TARGETS
from convnext_cli.zoo.local_files import stem


def is_folder(out: Path, layout: str) -> bool:
    """Whether the target is a folder.

    Args:
        out: the target.
        layout: a key of ``TARGETS``.

    Raises:
        UsageError: a target of this layout cannot have this name.
    """
    form = TARGETS[layout]
    if out.name.lower().endswith(form.suffixes) and form.suffixes:
        return False
    if form.folder and str(out) != "-" and stem(out) is None:
        return True
    words = [*(["a folder"] if form.folder else []), *(f"a {suffix} file" for suffix in form.suffixes)]
    name = "weights" if out.name in ("", "..", "-") else stem(out) or out.name
    raise UsageError(
        f"{layout} weights are {' or '.join(words)}, not {out.name!r}",
        f"name it {out.parent / (name + ('' if form.folder else form.suffixes[0]))}",
    )


def check(source: Path, out: Path, *, folder: bool, overwrite: bool) -> None:
    """Check that the target may be written.

    A folder is replaced only if it contains nothing but the files of a model.

    Args:
        source: the weights to convert.
        out: the target.
        folder: whether the target is a folder.
        overwrite: whether an existing target may be replaced.

    Raises:
        UsageError: the target exists, or is the source.
        OutputError: its folder is missing or cannot be read.
    """
    if not os.path.isdir(out.absolute().parent):  # noqa: PTH112 - which no name makes raise
        raise OutputError(f"the folder {out.parent} does not exist", f"mkdir -p {out.parent}")
    if not os.path.lexists(out):
        return
    place = Path(os.path.realpath(out))
    for file in companion_files.files(source):
        if place in (real := Path(os.path.realpath(file)), *real.parents) or place in file.absolute().parents:
            raise UsageError(f"{out} is, or contains, the weights to convert", "choose another name for the result")
    if not overwrite:
        raise UsageError(f"{out} already exists", "choose another name, or replace it with --overwrite")
    if place.exists() and place.is_dir() != folder:
        raise UsageError(
            f"{out} is a {'folder' if place.is_dir() else 'file'}, and the result a {'folder' if folder else 'file'}",
            "choose another name for the result",
        )
    if folder and place.is_dir():
        try:
            strangers = sorted({file.name for file in place.iterdir()} - {WEIGHTS, CONFIG, PROCESSOR})
        except OSError as error:
            raise OutputError(f"{out} cannot be read: {error.strerror}", "choose another name") from error
        if strangers:
            raise UsageError(
                f"{out} contains files that are not part of a model, so it is not replaced: {', '.join(strangers[:5])}",
                "choose another name for the result",
            )
