"""Any layout in, any layout out.

``load`` reads a file or folder of any library, and tells by itself whose it is; ``save`` writes the project's own
format; ``build`` makes the network. docs/formats.md is the table of what is read.
"""

from __future__ import annotations

from convnext_cli.checkpoints.checkpoint import Checkpoint
from convnext_cli.checkpoints.loading import load, own_card, read_card
from convnext_cli.checkpoints.saving import build, save

__all__ = ["Checkpoint", "build", "load", "own_card", "read_card", "save"]
