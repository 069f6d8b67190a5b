"""The card in an ExecuTorch program, which has no directory: a text with its length before it."""

from __future__ import annotations

import mmap
from pathlib import Path

from convnext_cli.runtimes.card_text import decoded

_START = b'{"schema_version"'  # how a card begins, as ``Card.to_json`` writes it


def read_card(path: Path) -> str | None:
    """See ``protocol.CardReader``."""
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        at = data.find(_START)
        while at >= 4:
            length = int.from_bytes(data[at - 4 : at], "little")
            if len(_START) < length <= len(data) - at:
                return decoded(data[at : at + length])
            at = data.find(_START, at + 1)
    return None
