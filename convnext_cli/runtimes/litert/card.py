"""The card in a .tflite file: a buffer of the model."""

from __future__ import annotations

from pathlib import Path

from convnext_cli.model.card import METADATA_KEY
from convnext_cli.runtimes.litert import tflite_file


def read_card(path: Path) -> str | None:
    """See ``protocol.CardReader``."""
    return tflite_file.metadata(path).get(METADATA_KEY)
