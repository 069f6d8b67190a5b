"""Recommends checkpoints by their published figures alone."""

from __future__ import annotations

import math
from collections.abc import Iterable
from functools import cache
from typing import NamedTuple

from convnext_cli.model.config import ConvNextConfig
from convnext_cli.zoo.catalogue import Entry, entries

# Points of top-1 accuracy that twice the download, and twice the work for a photo, have to gain each.
# Below half a point the largest networks win, above two the smallest.
_WORTH = {"small": 1.25, "accurate": 0.75}
_COMPARABLE = "imagenet-1k"  # accuracies on other labels cannot be compared
_BYTES = 4  # of a parameter in the files that are published, all of them float32


class Candidate(NamedTuple):
    """The published figures of a checkpoint; None or 0 for those that are not known."""

    name: str
    labels: str | None
    terms: str
    top1: float | None
    size: int | None
    gmacs: float | None

    def balance(self, worth: float) -> float:
        """Its accuracy, less the points that its size and its work for a photo have to gain."""
        assert self.top1 and self.size and self.gmacs
        return self.top1 - worth * (math.log2(self.size) + math.log2(self.gmacs))


def recommended(rows: Iterable[Candidate]) -> dict[str, str]:
    """The names of the rows with the best accuracy for their size and work, by "small" and "accurate".

    "small" is missing where it is the same row; the result is empty where no row can be compared.

    Args:
        rows: those to choose from. Rows with restricting terms are never recommended.
    """
    candidates = [
        row for row in rows if row.labels == _COMPARABLE and not row.terms and row.top1 and row.size and row.gmacs
    ]
    if not candidates:
        return {}
    names = {kind: max(candidates, key=lambda row: row.balance(worth)).name for kind, worth in _WORTH.items()}
    if names["small"] == names["accurate"]:
        del names["small"]
    return names


@cache
def for_real_work() -> str:
    """The name of the known checkpoint that is recommended as the accurate one."""
    return recommended(_row(entry) for entry in entries() if entry.hub or entry.url)["accurate"]


def download_size(config: ConvNextConfig) -> int:
    """The size of a download in bytes, computed from the number of parameters."""
    return config.num_parameters * _BYTES


def _row(entry: Entry) -> Candidate:
    return Candidate(entry.name, entry.labels, entry.terms, entry.top1, download_size(entry.config), entry.gmacs)
