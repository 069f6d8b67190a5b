"""The bundled model is a demonstration: it says so, and its answers move, sort or tag no photo without a yes."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from convnext_cli.cli import render

if TYPE_CHECKING:
    from convnext_cli.model.card import Card

_TOP1 = " top-1"  # the end of the name of its accuracy in percent
_MODES = {
    "copy": "copy photos into folders below {into}",
    "link": "link photos into folders below {into}",
    "hardlink": "link photos into folders below {into}",
    "move": "move photos into folders below {into}",
}
_KEYWORDS = {"sidecar": "write keywords beside photos", "embed": "write keywords into photos"}


def is_used(model: str | None) -> bool:
    """Whether the bundled model answers.

    Args:
        model: as ``-m`` has it; None for the default, which may be another one (``models use``).
    """
    from convnext_cli import zoo
    from convnext_cli.base.errors import ModelError

    try:
        path = zoo.resolve(model)
    except ModelError:  # a missing model is reported when it is opened, or pulled before
        return False
    bundled = zoo.local_files.bundled()
    return bundled is not None and path.is_file() and path.samefile(bundled)


def introduce(model: str | None) -> None:
    """Say on standard error, unless ``-q``, what the bundled model is; nothing of other models."""
    if is_used(model):
        render.note(_sentence())


def confirm(given: dict[str, Any]) -> bool:
    """Ask before photos are sorted or tagged as the bundled model answers; whether its sentence was shown for that.

    Nothing is asked with ``--yes``, ``--dry-run`` or another model, and where keywords are only taken out.

    Args:
        given: the options of ``convnext label``.

    Raises:
        UsageError: the answer is no, or nobody is there to answer.
    """
    from convnext_cli.base.errors import UsageError

    actions = _actions(given)
    if not actions or given["yes"] or not is_used(given["model"]):
        return False
    stronger = _real_work()
    if not (sys.stdin and sys.stdin.isatty() and sys.stderr.isatty()):
        raise UsageError(
            f"the bundled model, a small demonstration, would {actions}",
            f"add --yes to let it, or take a stronger model: {stronger}",
        )
    render.remark(_sentence())
    if not click.confirm(render.plain(f"Let it {actions}?"), err=True):
        raise UsageError("nothing was labelled, and no photo was touched", f"take a stronger model: {stronger}")
    return True


def _actions(given: dict[str, Any]) -> str:
    """Words for all that would be done with photos; "" for nothing."""
    actions = []
    if given["sort_into"] and not given["dry_run"]:
        actions.append(_MODES[given["mode"]].format(into=Path(given["sort_into"])))
    if given["xmp"] and not given["xmp_remove"]:
        actions.append(_KEYWORDS[given["xmp"]])
    return " and ".join(actions)


def _sentence() -> str:
    from convnext_cli import zoo

    bundled = zoo.local_files.bundled()
    card = None if bundled is None else zoo.local_files.embedded_card(bundled)
    known = "" if card is None else f": it knows {card.config.num_labels} everyday classes{_accuracy(card)}"
    return f"the bundled model is a small demonstration{known}; for real work: {_real_work()}"


def _accuracy(card: Card) -> str:
    """How often it is right, as its card says; "" where it does not."""
    shares = [value for name, value in card.metrics.items() if name.endswith(_TOP1)]
    return f" and is right on {round(shares[0] / 10)} of 10 photos of them" if shares else ""


def _real_work() -> str:
    """The command that brings, or takes, the model that is recommended."""
    from convnext_cli import zoo
    from convnext_cli.zoo.recommendation import for_real_work

    name = for_real_work()
    entry = zoo.find(name)
    assert entry is not None
    return f"convnext models use {name}" if zoo.local_files.find(entry) else f"convnext models pull {name}"
