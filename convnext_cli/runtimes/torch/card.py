"""The card in torch's archives: TorchScript, torch.export's programs and AOTInductor's packages."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path

from convnext_cli.base.errors import ModelError
from convnext_cli.runtimes.card_text import AGAIN, CARD, MOST_BYTES, decoded


def read_card(path: Path) -> str | None:
    """See ``protocol.CardReader``."""
    with zipfile.ZipFile(path) as archive:
        if bad := archive.testzip():
            raise ModelError(f"{path.name} is damaged: {bad} has another checksum", AGAIN)
        for entry in archive.infolist():
            name = entry.filename.partition("/")[2]
            if entry.file_size > MOST_BYTES:
                continue
            if name == f"extra/{CARD}":
                return decoded(archive.read(entry))
            if name.startswith("data/aotinductor/") and name.endswith("_metadata.json"):
                card = json.loads(archive.read(entry)).get(CARD)
                return None if card is None else str(card)
    return None
