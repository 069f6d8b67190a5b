"""What the readers of cards share: the card's name in a container, and its limits."""

from __future__ import annotations

CARD = "convnext"  # the card is called so in all containers
AGAIN = "fetch or export it again: convnext export"
MOST_BYTES = 16 << 20  # of a card


def decoded(data: bytes) -> str:
    """The text of a card. Raises ValueError when it is too long, or not UTF-8."""
    if len(data) > MOST_BYTES:
        raise ValueError(f"its card has {len(data):,} bytes")
    return data.decode("utf-8")
