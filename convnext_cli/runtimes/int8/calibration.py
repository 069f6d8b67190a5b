"""int8 from a folder of photos: some find the ranges, the others tell what it costs."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np

from convnext_cli.base.errors import PhotoError, UsageError
from convnext_cli.labels import LabelSet
from convnext_cli.model.card import Card
from convnext_cli.photos.decode import decode, read_file
from convnext_cli.photos.find import Finder
from convnext_cli.photos.resize import apply_preprocessing
from convnext_cli.runtimes.int8.build import prepare_int8
from convnext_cli.runtimes.int8.comparison import Comparison
from convnext_cli.runtimes.int8.quantise import FEWEST, MOST

_TESTED = 2000  # photos; enough to tell half a point of accuracy


@dataclass
class Calibration:
    """What came of it. photos: that found the ranges; skipped: that could not be read; labelled: whether the folders
    of the photos are classes of the model, so that accuracy is known."""

    comparison: Comparison
    photos: int
    skipped: int
    labelled: bool
    kept: str | None


def calibrate(path: Path, card: Card, folder: str, *, threads: int, batch_size: int) -> Calibration:
    """Prepare a model in int8 with the photos of a folder, and compare it with float32 on those that it has not seen.

    Where each photo is in a folder that has the id or the name of a class of the model, accuracy is measured too.
    Raises UsageError when the folder has too few photos, ModelError when the model cannot be used.
    """
    calibrating, testing = split(folder)
    paths = calibrating + testing
    classes = _classes(card.label_set())
    labels = {path: classes.get(Path(path).parent.name.casefold()) for path in paths}
    labelled = all(label is not None for label in labels.values())
    held, skipped = list[int](), 0

    def read(some: list[str], *, label: bool) -> Iterator[np.ndarray]:
        nonlocal skipped
        for name in some:
            try:
                photo = decode(read_file(name))
            except PhotoError:
                skipped += 1
                continue
            if label and (known := labels[name]) is not None:
                held.append(known)
            yield apply_preprocessing(card.preprocessing, photo)

    prepared = prepare_int8(
        path,
        read(calibrating, label=False),
        islice(read(testing, label=True), _TESTED),
        held if labelled else None,
        threads=threads,
        batch_size=batch_size,
    )
    return Calibration(prepared.comparison, len(calibrating), skipped, labelled, prepared.kept)


def split(folder: str) -> tuple[list[str], list[str]]:
    """The photos of a folder: those that find the ranges, and those that test it; the same in every run.

    Raises UsageError when there are too few.
    """
    paths = [photo.path for photo in Finder(recursive=True).named([folder]) if photo.problem is None]
    random.Random(0).shuffle(paths)  # folders come class by class
    seen = min(MOST, len(paths) // 2)
    if seen < FEWEST:
        raise UsageError(
            f"{folder} has {len(paths)} photos; int8 takes at least {2 * FEWEST}: half find the ranges, half test it",
            "name a folder of some hundred photos like those that will be labelled",
        )
    return paths[:seen], paths[seen:]


def _classes(labels: LabelSet) -> dict[str, int]:
    """The row of a class by its id and by its name, for folders called so; no name that several classes have."""
    if labels.groups is None:
        named = [name.casefold() for name in labels.names]
        count = Counter(named)
        rows = {name: row for row, name in enumerate(named) if count[name] == 1}
    else:
        rows = {}
    return rows | {name.casefold(): row for row, name in enumerate(labels.ids) if name is not None}
