"""Draws class folders, for users whose photos are not in class folders."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import PurePath

from convnext_cli.base.errors import ModelError
from convnext_cli.datasets.labelled import Dataset, LabelledPhoto, split_of

_EXAMPLES = ("NAME-OF-A-CLASS", "NAME-OF-ANOTHER")
HINT = "move the photos into one folder for each class, or name a CSV of path,label"


def class_folders(dataset: Dataset, photos: Sequence[LabelledPhoto]) -> str:
    """A tree of two class folders in several lines, with the names of the user's own folder and photos."""
    names = [PurePath(photo.path).name for photo in photos]
    outer = PurePath(dataset.path).name or dataset.path
    lines = [f"    {outer if dataset.form == 'zip' else outer.rstrip('/') + '/'}"]
    for number, example in enumerate(_EXAMPLES):
        last = number == len(_EXAMPLES) - 1
        photo = names[number] if number < len(names) else f"{number + 1}.jpg"
        lines += [f"    {'└' if last else '├'}── {example}/", f"    {' ' if last else '│'}   └── {photo}, …"]
    return "\n".join(["put the photos of each class into a folder with its name:", *lines])


def check(dataset: Dataset) -> None:
    """Raise ModelError for photos none of which is in a class folder, with a drawing of class folders."""
    if dataset.form not in ("folders", "zip"):
        return
    labels = {photo.label for photo in dataset.photos}
    if labels == {None}:
        message = f"none of the {len(dataset.photos):,} photos in {dataset.path} is in a class folder"
    elif _are_splits(dataset.classes) and None not in labels:
        places = " and ".join(dataset.classes)
        message = f"the photos in {dataset.path} are directly in {places}, not in class folders"
    else:
        return
    raise ModelError(f"{message}\n{class_folders(dataset, dataset.photos)}", HINT)


def _are_splits(classes: Sequence[str]) -> bool:
    """Whether all classes have names of splits, such as train and val with photos directly in them."""
    splits = {split_of(name) for name in classes}
    return len(splits) > 1 and None not in splits
