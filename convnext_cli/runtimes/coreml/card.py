"""The card in a Core ML package: the metadata of the model's description."""

from __future__ import annotations

from pathlib import Path

from convnext_cli.base.errors import UnavailableError
from convnext_cli.runtimes.card_text import CARD


def read_card(path: Path) -> str | None:
    """See ``protocol.CardReader``."""
    from convnext_cli.runtimes.silence import quiet

    try:
        with quiet():
            from coremltools.models.utils import load_spec
    except ImportError as error:
        raise UnavailableError(f"coremltools cannot be loaded: {error}", "pip install coremltools") from error
    card = load_spec(str(path)).description.metadata.userDefined.get(CARD)
    return str(card) if card else None
