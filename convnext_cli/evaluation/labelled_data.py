"""The labelled photos that a model is measured on: which split, and never what the model learned without a word."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from convnext_cli.base.errors import UsageError
from convnext_cli.base.listener import Listener
from convnext_cli.datasets import Dataset, LabelledPhoto, problems
from convnext_cli.evaluation.run_splits import with_splits_of

Split = Literal["train", "val", "test", "all"]


def as_trained(dataset: Dataset, model: str | Path | None, roots: tuple[str, ...], listener: Listener) -> Dataset:
    """The dataset with the splits of the run that trained the model, where the run split the same photos."""
    if model is None or not Path(model).exists():  # a name of the zoo
        return dataset
    path = Path(model)
    dataset_of_run = with_splits_of(path if path.is_dir() else path.parent, dataset, roots)
    if dataset_of_run is None:
        return dataset
    if dataset_of_run.splits() == ("train",):
        listener.note(f"{model} was trained on all of these photos, so these figures say little about other photos")
    else:
        listener.note(f"{model} was trained on a part of these photos; its splits.csv lists which")
    return dataset_of_run


def photos_of_split(
    dataset: Dataset, split: Split | None, listener: Listener, *, preferred: tuple[Split, ...] = ("test", "val")
) -> tuple[Split | None, tuple[LabelledPhoto, ...]]:
    """The photos of a split.

    Args:
        dataset: has the photos.
        split: that was asked for; None for the first preferred one that has labels, or else all photos.
        listener: receives a note where the data has several splits.
        preferred: splits, the best first.

    Returns:
        The split, None for all photos, and its photos.

    Raises:
        UsageError: the data does not have this split.
    """
    splits = dataset.splits()
    if split is None:
        # the test photos of public data often have no classes
        labelled = {photo.split for photo in dataset.photos if photo.label is not None}
        split = next((name for name in preferred if name in labelled), "all")
        if len(splits) > 1:
            listener.note(f"of the splits {', '.join(splits)} this is {split}; --split takes another")
    if split == "all":
        return None, dataset.photos
    if split not in splits:
        known = f"its splits are {', '.join(splits)}" if splits else "it is not split"
        raise UsageError(
            f"the data has no split {split}: {known}",
            "name one of these, or --split all" if splits else "leave --split out",
        )
    return split, dataset.of(split)


def note_problems(dataset: Dataset, listener: Listener) -> None:
    """Report problems of the data that do not keep it from being used."""
    for problem in problems.by_name(dataset):
        if problem.kind != "one_photo_class":  # which is enough to be tested on
            listener.note(str(problem))
    if dataset.passed_over:
        kinds = ", ".join(f"{count:,} {kind}" for kind, count in dataset.passed_over.most_common(10))
        listener.note(f"left out files that are not photos: {kinds}")
