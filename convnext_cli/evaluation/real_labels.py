"""ReaL: several labels for each photo of ImageNet's validation set, or none.

L. Beyer et al., Are we done with ImageNet? (2020). ``real.json`` is a list of 50,000 lists of class numbers of
ImageNet-1k, in the order of the photos' own numbers, ILSVRC2012_val_00000001 first.
"""

from __future__ import annotations

import re
from pathlib import Path

from convnext_cli import labels as label_sets
from convnext_cli.base.errors import ModelError
from convnext_cli.base.text import json_value
from convnext_cli.evaluation.class_matching import answers_by_id
from convnext_cli.labels import LabelSet

PHOTOS = 50_000
LACKING = -2  # no label, and not the -1 that stands for no answer
_NAME = re.compile(r"ILSVRC2012_val_([0-9]{8})(?:\D|$)")
HINT = "name the real.json of github.com/google-research/reassessed-imagenet"


def read(path: str | Path) -> list[list[int]]:
    """Class numbers of ImageNet-1k by photo. Raises ModelError for a file that is none of these."""
    try:
        lists = json_value(Path(path).read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise ModelError(f"{path} cannot be read as ReaL labels: {error}", HINT) from error
    if not (
        isinstance(lists, list)
        and len(lists) == PHOTOS
        and all(
            isinstance(classes, list) and all(type(n) is int and 0 <= n < 1000 for n in classes) for classes in lists
        )
    ):
        raise ModelError(f"{path} is not a list of {PHOTOS:,} lists of numbers from 0 to 999", HINT)
    return lists


def number(path: str) -> int | None:
    """The number of a validation photo, from 1, by its file's name; None for another file."""
    match = _NAME.match(Path(path).name)
    return int(match[1]) if match and 1 <= int(match[1]) <= PHOTOS else None


def answers(real: list[list[int]], labels: LabelSet) -> list[frozenset[int]]:
    """By photo, the model's labels that are right; classes that the model lacks are LACKING."""
    known = answers_by_id(labels)
    ids = label_sets.load("imagenet-1k").ids
    return [frozenset(known.get(ids[row], LACKING) for row in photo) for photo in real]
