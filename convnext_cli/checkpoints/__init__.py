"""Weights in any layout, in and out.

``load`` reads a file or folder of any library, and detects its layout; ``save`` writes the project's own format;
``build`` makes the network. docs/formats.md lists the layouts.

Names are imported when they are used: a prepared engine needs only ``companion_files``.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from convnext_cli.checkpoints.checkpoint import Checkpoint
    from convnext_cli.checkpoints.loading import load, own_card, read_card
    from convnext_cli.checkpoints.saving import build, save

__all__ = ["Checkpoint", "build", "load", "own_card", "read_card", "save"]

_HOME = {
    "Checkpoint": "checkpoint",
    "build": "saving",
    "load": "loading",
    "own_card": "loading",
    "read_card": "loading",
    "save": "saving",
}


def __getattr__(name: str) -> object:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOME[name]}"), name)
