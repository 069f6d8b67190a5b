"""The splits that a training run made of data without any: a model must not be evaluated on what it learned."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from convnext_cli.base.text import json_value
from convnext_cli.datasets.labelled import SPLITS, Dataset


def with_splits_of(run: Path, dataset: Dataset, roots: Sequence[str]) -> Dataset | None:
    """The dataset with the splits that a training run made of it; None when the run made none, or of other photos.

    Args:
        run: the run's folder.
        dataset: data without splits.
        roots: the names under which the data was opened; photos are compared by their paths below these, so that the
            data may have moved.
    """
    try:
        former_roots = [str(root) for root in json_value((run / "run.json").read_text("utf-8"))["data"]]
        with (run / "splits.csv").open(encoding="utf-8", errors="surrogateescape", newline="") as file:
            rows = {_below(row["path"], former_roots): row["split"] for row in csv.DictReader(file)}
    except (OSError, ValueError, KeyError, TypeError):
        return None
    photos = [(photo, _below(photo.path, roots)) for photo in dataset.photos]
    if dataset.splits() or not rows or not rows.keys() <= {path for _, path in photos}:
        return None
    splits = {path: split for path, split in rows.items() if split in SPLITS}
    return replace(dataset, photos=tuple(replace(photo, split=splits.get(path)) for photo, path in photos))


def _below(path: str, roots: Sequence[str]) -> str:
    for root in roots:
        rest = path.removeprefix(root.rstrip("/\\"))
        if rest != path and rest.startswith(("/", "\\")):
            return rest.lstrip("/\\")
    return path
