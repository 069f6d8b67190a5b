"""The rows of ``convnext models list``: the zoo's checkpoints, and the models on this machine."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from convnext_cli.cli import model_facts
from convnext_cli.cli.model_facts import ModelRow

if TYPE_CHECKING:
    from convnext_cli.model.card import Card


def rows() -> Iterator[ModelRow]:
    """The bundled model, the user's own models, a default model elsewhere, and all checkpoints of the zoo."""
    from convnext_cli import zoo

    chosen = default_path()
    own = zoo.owned()
    copies = {entry.name: zoo.local_files.find(entry) for entry in zoo.entries()}
    bundled = zoo.local_files.bundled()
    if bundled:
        yield model_facts.row("default", _card(bundled), "bundled", bundled, chosen == bundled)
    if chosen and chosen not in (bundled, *own.values(), *(path for paths in copies.values() for path in paths)):
        own = {str(chosen): chosen, **own}
    for name, path in own.items():
        yield model_facts.row(name, _card(path), "local", path, chosen == path)
    awaited = zoo.find(zoo.default_model()) if chosen is None else None
    for entry in zoo.entries():
        paths = copies[entry.name]
        where = "local" if paths else "pull" if entry.hub or entry.url else "-"
        first = paths[0] if paths else None
        yield model_facts.row(entry.name, entry, where, first, chosen in paths or awaited is entry)


def mark_recommended(rows: Sequence[ModelRow]) -> None:
    """Mark the recommended rows of a list as "small" or "accurate".

    Nothing is recommended in a list of one.
    """
    from convnext_cli.zoo.recommendation import Candidate, recommended

    candidates = [
        Candidate(row["name"], row["labels"], row["terms"] or "", row["top1"], row["size"], row["gmacs"])
        for row in rows
    ]
    kinds = {name: kind for kind, name in recommended(candidates).items()} if len(rows) > 1 else {}
    for row in rows:
        row["recommended"] = kinds.get(row["name"])


def default_path() -> Path | None:
    """The path of the default model; None if it does not exist any more."""
    from convnext_cli import zoo
    from convnext_cli.base.errors import ModelError

    try:
        return zoo.resolve()
    except ModelError:
        return None


def _card(path: Path) -> Card | None:
    """The card of one of the project's own files; None for other files, damaged ones and folders with several."""
    from convnext_cli import zoo
    from convnext_cli.base.errors import ModelError

    files = list(path.glob("*.safetensors")) if path.is_dir() else [path]
    try:
        return zoo.local_files.embedded_card(files[0]) if len(files) == 1 else None
    except ModelError:
        return None
