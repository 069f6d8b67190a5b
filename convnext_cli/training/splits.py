"""The splits that a training run made of data without any: what a model is judged on should not be what it learned."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from convnext_cli.base.text import json_value
from convnext_cli.datasets.labelled import SPLITS, Dataset


def parted(dataset: Dataset, roots: Sequence[str], run: Path) -> Dataset | None:
    """The dataset with the splits that the run in a folder made of it; None when it made none, or of other photos.

    roots: what was named as the data; photos are known by their places below it, wherever it lies now.
    """
    try:
        former = [str(root) for root in json_value((run / "run.json").read_text("utf-8"))["data"]]
        with (run / "splits.csv").open(encoding="utf-8", errors="surrogateescape", newline="") as file:
            rows = {_below(row["path"], former): row["split"] for row in csv.DictReader(file)}
    except (OSError, ValueError, KeyError, TypeError):
        return None
    photos = [(photo, _below(photo.path, roots)) for photo in dataset.photos]
    if dataset.splits() or not rows or not rows.keys() <= {place for _, place in photos}:
        return None
    known = {place: split for place, split in rows.items() if split in SPLITS}
    return replace(dataset, photos=tuple(replace(photo, split=known.get(place)) for photo, place in photos))


def _below(path: str, roots: Sequence[str]) -> str:
    for root in roots:
        rest = path.removeprefix(root.rstrip("/\\"))
        if rest != path and rest.startswith(("/", "\\")):
            return rest.lstrip("/\\")
    return path
