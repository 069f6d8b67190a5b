"""Checkpoint: weights under canonical names, and the card that says what they are."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from convnext_cli.model.card import Card

if TYPE_CHECKING:
    from torch import Tensor


@dataclass
class Checkpoint:
    """tensors: canonical names and shapes (``card.config.shapes()``), views of the mapped file where nothing had to
        be cast.
    card: config, recipe, labels; its sha256 is the fingerprint of the tensors as they are in the file.
    layout: whose names the file has: a key of ``sniff.LAYOUTS``, or "canonical".
    notes: what was inferred, chosen or left out, one sentence each, for stderr.
    path: the weights file.
    """

    tensors: dict[str, Tensor]
    card: Card
    layout: str
    path: Path
    notes: list[str] = field(default_factory=list)
