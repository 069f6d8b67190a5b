"""The bundled model is a small demonstration: whether it is used, and which model is better."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from convnext_cli import zoo
from convnext_cli.base.errors import ModelError
from convnext_cli.zoo import local_files
from convnext_cli.zoo.recommendation import for_real_work

if TYPE_CHECKING:
    from convnext_cli.model.card import Card

_TOP1 = " top-1"  # the end of the name of its accuracy in percent


def is_used(model: str | Path | None) -> bool:
    """Whether the bundled model is used.

    Args:
        model: the value of ``-m``; None for the default model, which the user may have changed.
    """
    try:
        path = zoo.resolve(model)
    except ModelError:  # a missing model is reported when it is opened, or pulled before
        return False
    bundled = local_files.bundled()
    return bundled is not None and path.is_file() and path.samefile(bundled)


def sentence() -> str:
    """A sentence that describes the bundled model, with the accuracy in its card."""
    bundled = local_files.bundled()
    card = None if bundled is None else local_files.embedded_card(bundled)
    classes = "" if card is None else f": it knows {card.config.num_labels} everyday classes{_accuracy(card)}"
    return f"the bundled model is a small demonstration{classes}; for real work: {stronger()}"


def stronger() -> str:
    """The command that pulls, or chooses, the recommended model."""
    name = for_real_work()
    entry = zoo.find(name)
    assert entry is not None
    return f"convnext models use {name}" if local_files.find(entry) else f"convnext models pull {name}"


def _accuracy(card: Card) -> str:
    """A clause with the accuracy; "" if the card does not have it."""
    shares = [value for name, value in card.metrics.items() if name.endswith(_TOP1)]
    return f" and is right on {round(shares[0] / 10)} of 10 photos of them" if shares else ""
