"""Where the weights of each layout can lie: the form of a result, and what may be written over."""

from __future__ import annotations

import os
from pathlib import Path
from typing import NamedTuple

from convnext_cli.base.errors import OutputError, UsageError
from convnext_cli.checkpoints import companion_files
from convnext_cli.zoo.local_files import stem

WEIGHTS, CONFIG, PROCESSOR = "model.safetensors", "config.json", "preprocessor_config.json"


class Form(NamedTuple):
    """What a layout's result is on the disk: a file of one of these suffixes, a folder, or either as its name says."""

    suffixes: tuple[str, ...]
    folder: bool = False


TARGETS: dict[str, Form] = {
    "canonical": Form((".safetensors",)),
    "official": Form((".pth", ".pt", ".safetensors")),
    "timm": Form((".safetensors", ".pth", ".bin"), folder=True),
    "torchvision": Form((".pth", ".safetensors")),
    "hf": Form((), folder=True),
    "mmpretrain": Form((".pth",)),
}


def is_folder(out: Path, layout: str) -> bool:
    """Whether the result is a folder. Raises UsageError for a name that the layout's result cannot have."""
    form = TARGETS[layout]
    if out.name.lower().endswith(form.suffixes) and form.suffixes:
        return False
    if form.folder and str(out) != "-" and stem(out) is None:
        return True
    words = [*(["a folder"] if form.folder else []), *(f"a {suffix} file" for suffix in form.suffixes)]
    name = "weights" if out.name in ("", "..", "-") else stem(out) or out.name
    raise UsageError(
        f"weights of {layout} are {' or '.join(words)}, not {out.name!r}",
        f"name it {out.parent / (name + ('' if form.folder else form.suffixes[0]))}",
    )


def check(source: Path, out: Path, *, folder: bool, overwrite: bool) -> None:
    """Raise UsageError or OutputError for a place where nothing may be written.

    A folder is replaced only when it holds nothing but what such a folder holds.
    """
    if not os.path.isdir(out.absolute().parent):  # noqa: PTH112 - which no name makes raise
        raise OutputError(f"there is no folder {out.parent}", f"make it first: mkdir -p {out.parent}")
    if not os.path.lexists(out):
        return
    place = Path(os.path.realpath(out))
    for file in companion_files.files(source):
        if place in (real := Path(os.path.realpath(file)), *real.parents) or place in file.absolute().parents:
            raise UsageError(f"{out} is, or holds, what is to be converted", "choose another name for the result")
    if not overwrite:
        raise UsageError(f"{out} is there already", "choose another name, or replace it with --overwrite")
    if place.exists() and place.is_dir() != folder:
        raise UsageError(
            f"{out} is {'a folder' if place.is_dir() else 'no folder'}, and the result is {'one' * folder or 'a file'}",
            "choose another name for the result",
        )
    if folder and place.is_dir():
        try:
            strangers = sorted({file.name for file in place.iterdir()} - {WEIGHTS, CONFIG, PROCESSOR})
        except OSError as error:
            raise OutputError(f"{out} cannot be looked into: {error.strerror}", "choose another name") from error
        if strangers:
            raise UsageError(
                f"{out} holds other files than a model's, and is not replaced: {', '.join(strangers[:5])}",
                "choose another name for the result",
            )
