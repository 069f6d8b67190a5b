"""The card in OpenVINO's IR: an attribute in the .xml."""

from __future__ import annotations

from pathlib import Path

from convnext_cli.base.errors import ModelError
from convnext_cli.runtimes.card_text import AGAIN, CARD


def read_card(path: Path) -> str | None:
    """See ``protocol.CardReader``."""
    from xml.etree import ElementTree

    from convnext_cli.runtimes.openvino.ir_file import WEIGHTS, checksum

    weights = path.with_suffix(".bin")
    if not weights.is_file():
        raise ModelError(f"{path.name} has its weights in {weights.name}, which is missing", AGAIN)
    info = ElementTree.parse(path).getroot().find("rt_info")
    if info is None:
        return None
    noted = info.find(WEIGHTS)
    if noted is not None and noted.get("value") != checksum(weights):
        raise ModelError(f"{weights.name} is damaged, or not of {path.name}", AGAIN)
    card = info.find(CARD)
    return None if card is None else card.get("value")
