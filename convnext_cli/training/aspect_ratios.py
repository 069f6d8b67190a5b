"""How photos are fitted into squares, by their shapes: what a crop of the middle would cut away."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from convnext_cli.base.errors import PhotoError
from convnext_cli.datasets import Dataset, LabelledPhoto
from convnext_cli.datasets.decoding import sizes
from convnext_cli.model.card import Card
from convnext_cli.model.preprocessing import Fit

_MEASURED = 64  # photos, evenly spread over the data
_ENOUGH = 32  # pixels of the shorter edge: the size in the file's header is what is read
# Sides of the typical photo above which a square of its middle lacks more than a quarter of it: 4:3 is just that.
CROPPED_TO = 1.34
# Above it shapes that are squashed are hard to know again, and a border is the smaller harm.
SQUASHED_TO = 2.0


@dataclass(frozen=True)
class Fitting:
    """resize: how photos are fitted into squares. reason: one line for people, "" where nothing is remarkable."""

    resize: Fit
    reason: str = ""


def suggest(
    dataset: Dataset,
    photos: Sequence[LabelledPhoto],
    card: Card | None,
    *,
    progress: Callable[[str, int, int], None] = lambda *_: None,
) -> Fitting:
    """What suits the shapes of some photos. card: of the weights, whose own way is kept where it loses nothing."""
    own = card.preprocessing.resize if card is not None else "shortest"
    if own in ("squash", "longest"):
        return Fitting(own)
    return by_ratios(ratios(dataset, photos, progress=progress))


def ratios(
    dataset: Dataset,
    photos: Sequence[LabelledPhoto],
    *,
    progress: Callable[[str, int, int], None] = lambda *_: None,
) -> list[float]:
    """The longer side over the shorter one, of some of the photos; those that cannot be decoded are left out."""
    count = min(_MEASURED, len(photos))
    some = [photos[number * len(photos) // count] for number in range(count)]
    shapes = []
    for number, (_, size) in enumerate(sizes(dataset, some, enough=_ENOUGH), 1):
        if not isinstance(size, PhotoError):  # which is reported when it is read
            shapes.append(max(size) / min(size))
        progress("measuring the shapes of photos", number, count)
    return shapes


def by_ratios(ratios: Sequence[float]) -> Fitting:
    """For the ratios of sides of some photos, each at least 1."""
    typical = statistics.median(ratios) if ratios else 1.0
    if typical <= CROPPED_TO:
        return Fitting("shortest")
    resize: Fit = "squash" if typical <= SQUASHED_TO else "longest"
    how = "squashed into squares" if resize == "squash" else "fitted into squares with a border"
    return Fitting(
        resize,
        f"half of the photos are {typical:.2f} times as long as wide or more: a crop of the middle would lose "
        f"{100 * (1 - 1 / typical):.0f} % of them, so they are {how} (--resize-mode {resize}; others: shortest, "
        f"{'longest' if resize == 'squash' else 'squash'})",
    )
