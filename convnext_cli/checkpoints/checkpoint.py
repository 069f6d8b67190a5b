"""Checkpoint: weights under canonical names, with their card."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from convnext_cli.model.card import Card

if TYPE_CHECKING:
    from torch import Tensor


@dataclass
class Checkpoint:
    """Weights that were read.

    Args:
        tensors: by canonical name, with canonical shapes (``card.config.shapes()``); views of the mapped file unless
            they were cast.
        card: config, preprocessing, labels; its sha256 is the fingerprint of the tensors in the file.
        layout: the layout of the file: a key of ``layouts.registry.LAYOUTS``, or "canonical".
        path: the weights file.
        notes: what was inferred, chosen or left out, in one sentence each, for the user.
    """

    tensors: dict[str, Tensor]
    card: Card
    layout: str
    path: Path
    notes: list[str] = field(default_factory=list)
