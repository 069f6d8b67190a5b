"""Rows of earlier parts in another view: they are derived from the guesses that the parts hold."""

from __future__ import annotations

import json
from hashlib import sha256
from typing import TYPE_CHECKING

from convnext_cli.jobs.job import differences
from convnext_cli.jobs.settings import stored
from convnext_cli.jobs.view import Kept, View
from convnext_cli.predict.rows import Prediction
from convnext_cli.predict.writers import arrow_schema

if TYPE_CHECKING:
    import pyarrow as pa

    from convnext_cli.base.text import JsonObject
    from convnext_cli.labels import LabelSet

_DERIVED = ("model", "labels", "groups", "top", "min_score", "floors")  # settings that need no network


def digest_of_groups(labels: LabelSet) -> str | None:
    """A short name for which classes make up each label; None if each class is a label."""
    groups = labels.groups
    return None if groups is None else sha256(json.dumps(groups).encode()).hexdigest()[:12]


def kept_in(before: JsonObject, now: JsonObject, view: View) -> Kept | None:
    """What the parts of other settings hold; None where they hold scores of classes that nobody knows any more.

    Args:
        before, now: settings, as ``stages.described`` returns them.
        view: what rows show now.
    """
    # earlier releases noted the labels alone
    has_same_classes = before.get("groups", "unknown") == now["groups"] or before.get("labels") == now["labels"]
    if not has_same_classes and before.get("groups", "unknown") is not None:
        return None
    classes, groups = len(view.labels), view.labels.groups if has_same_classes else None
    names = classes if groups is None else len(groups)
    return Kept(min(before.get("top") or names, names), classes, groups, now["scores"])


def obstacles(before: JsonObject, now: JsonObject, view: View) -> list[str]:
    """Why rows cannot be derived from those of other settings, in words; empty if they can.

    An answer for another precision needs the scores of all classes and the features, which parts do not hold.

    Args:
        before, now: settings, as ``stages.described`` returns them.
        view: what rows show now.
    """
    network = {name: value for name, value in now.items() if name not in _DERIVED}
    reasons = differences({name: stored(before, name) for name in network}, network)
    kept = kept_in(before, now, view)
    if kept is None:
        return reasons + differences(before, {"labels": now["labels"]})
    obstacle = view.obstacle(kept)
    return [*reasons, obstacle] if obstacle else reasons


def derived(table: pa.Table, view: View, kept: Kept, model: str) -> pa.Table:
    """The rows of a part as a view shows them.

    Args:
        table: the rows.
        view: the labels, thresholds and number of guesses.
        kept: what the rows hold.
        model: the name of the model.

    Raises:
        IndexError: a row has a class that the model does not have.
    """
    import pyarrow as pa

    statuses, predictions = [], []
    has_answers = "answer" in table.column_names  # which decide the status
    for status, guesses in zip(table["status"].to_pylist(), table["predictions"].to_pylist(), strict=True):
        shown = view.shown(tuple(Prediction(**guess) for guess in guesses), kept) if guesses else ()
        statuses.append(view.status(shown) if status in ("ok", "unknown") and not has_answers else status)
        predictions.append([{name: getattr(guess, name) for name in Prediction.__slots__} for guess in shown])
    columns = {"status": statuses, "predictions": predictions, "model": [model] * len(table)}
    for name, values in columns.items():
        field = arrow_schema().field(name)
        table = table.set_column(table.column_names.index(name), field, pa.array(values, field.type))
    return table
