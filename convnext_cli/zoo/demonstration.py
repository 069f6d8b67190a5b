"""The bundled model is a small demonstration: whether it is the one that answers, and what should take its place."""

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
    """Whether the bundled model answers.

    Args:
        model: as ``-m`` has it; None for the default, which may be another one (``models use``).
    """
    try:
        path = zoo.resolve(model)
    except ModelError:  # a missing model is reported when it is opened, or pulled before
        return False
    bundled = local_files.bundled()
    return bundled is not None and path.is_file() and path.samefile(bundled)


def sentence() -> str:
    """What the bundled model is, with its accuracy as its card has it."""
    bundled = local_files.bundled()
    card = None if bundled is None else local_files.embedded_card(bundled)
    known = "" if card is None else f": it knows {card.config.num_labels} everyday classes{_accuracy(card)}"
    return f"the bundled model is a small demonstration{known}; for real work: {stronger()}"


def stronger() -> str:
    """The command that fetches, or chooses, the model that is recommended."""
    name = for_real_work()
    entry = zoo.find(name)
    assert entry is not None
    return f"convnext models use {name}" if local_files.find(entry) else f"convnext models pull {name}"


def _accuracy(card: Card) -> str:
    """How often it is right; "" where its card does not say so."""
    shares = [value for name, value in card.metrics.items() if name.endswith(_TOP1)]
    return f" and is right on {round(shares[0] / 10)} of 10 photos of them" if shares else ""
