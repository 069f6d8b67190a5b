"""Which of several checkpoints to take, when nothing but its figures is known of them."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any

# In points of top-1 accuracy: what twice the bytes to download, and twice the work for a photo, have to gain each.
# Below half a point the largest networks win, above one the smallest.
_WORTH = 0.75
_COMPARABLE = "imagenet-1k"  # accuracies on other labels say something else


def recommended(rows: Iterable[Mapping[str, Any]]) -> str | None:
    """The name of the row that gives most accuracy for its size and its work; None where no row can be compared.

    rows: with ``name``, ``labels``, ``terms``, ``top1``, ``size`` and ``gmacs``. Licences that ask for something count
    as not to be had.
    """
    best = max((row for row in rows if _comparable(row)), key=_balance, default=None)
    return None if best is None else best["name"]


def _comparable(row: Mapping[str, Any]) -> bool:
    return row["labels"] == _COMPARABLE and not row["terms"] and all(row[key] for key in ("top1", "size", "gmacs"))


def _balance(row: Mapping[str, Any]) -> float:
    return float(row["top1"]) - _WORTH * (math.log2(row["size"]) + math.log2(row["gmacs"]))
