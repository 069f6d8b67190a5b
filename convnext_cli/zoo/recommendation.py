"""Recommends checkpoints by their published figures alone."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any

from convnext_cli.model.config import ConvNextConfig
from convnext_cli.zoo.catalogue import Entry, entries

# Points of top-1 accuracy that twice the download, and twice the work for a photo, have to gain each.
# Below half a point the largest networks win, above two the smallest.
_WORTH = {"small": 1.25, "accurate": 0.75}
_COMPARABLE = "imagenet-1k"  # accuracies on other labels cannot be compared
_BYTES = 4  # of a parameter in the files that are published, all of them float32


def recommended(rows: Iterable[Mapping[str, Any]]) -> dict[str, str]:
    """The names of the rows with the best accuracy for their size and work, by "small" and "accurate".

    "small" is missing where it is the same row; the result is empty where no row can be compared.

    Args:
        rows: with ``name``, ``labels``, ``terms``, ``top1``, ``size`` and ``gmacs``. Rows with restricting terms are
            never recommended.
    """
    candidates = [row for row in rows if _is_comparable(row)]
    if not candidates:
        return {}
    names = {kind: max(candidates, key=lambda row: _balance(row, worth))["name"] for kind, worth in _WORTH.items()}
    if names["small"] == names["accurate"]:
        del names["small"]
    return names


def for_real_work() -> str:
    """The name of the known checkpoint that is recommended as the accurate one."""
    return recommended(_row(entry) for entry in entries() if entry.hub or entry.url)["accurate"]


def download_size(config: ConvNextConfig) -> int:
    """The size of a download in bytes, computed from the number of parameters."""
    return config.num_parameters * _BYTES


def _row(entry: Entry) -> dict[str, Any]:
    return {
        "name": entry.name,
        "labels": entry.labels,
        "terms": entry.terms,
        "top1": entry.top1,
        "size": download_size(entry.config),
        "gmacs": entry.gmacs,
    }


def _is_comparable(row: Mapping[str, Any]) -> bool:
    return row["labels"] == _COMPARABLE and not row["terms"] and all(row[key] for key in ("top1", "size", "gmacs"))


def _balance(row: Mapping[str, Any], worth: float) -> float:
    return float(row["top1"]) - worth * (math.log2(row["size"]) + math.log2(row["gmacs"]))
