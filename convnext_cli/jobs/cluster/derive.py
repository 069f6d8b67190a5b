"""Rows of earlier parts with other thresholds or names: they are derived from the guesses that the parts hold."""

from __future__ import annotations

import json
from collections.abc import Mapping
from hashlib import sha256
from typing import TYPE_CHECKING

from convnext_cli.jobs.job import differences
from convnext_cli.jobs.settings import stored
from convnext_cli.jobs.view import Kept, View
from convnext_cli.predict.rows import Prediction
from convnext_cli.predict.writers import arrow_schema

if TYPE_CHECKING:
    import pyarrow as pa

    from convnext_cli.labels import LabelSet

_DERIVED = ("model", "labels", "min_score", "floors")  # settings that need no network


def digest_of_groups(labels: LabelSet) -> str | None:
    """A short name for which classes make up each label; None if each class is a label."""
    groups = labels.groups
    return None if groups is None else sha256(json.dumps(groups).encode()).hexdigest()[:12]


def obstacles(before: Mapping[str, object], now: Mapping[str, object]) -> list[str]:
    """Why rows cannot be derived from those of other settings, in words; empty if they can.

    Parts hold only the guesses that they show, so a smaller -k or other classes would lose guesses.

    Args:
        before, now: settings, as ``stages.described`` returns them.
    """
    network = {name: value for name, value in now.items() if name not in (*_DERIVED, "groups")}
    reasons = differences({name: stored(before, name) for name in network}, network)
    has_other_classes = before.get("groups", "unknown") != now["groups"]  # earlier releases did not note them
    if before.get("labels") != now["labels"] and has_other_classes:
        reasons += differences(before, {"labels": now["labels"]})
    return reasons


def derived(table: pa.Table, view: View, kept: Kept, model: str) -> pa.Table:
    """The rows of a part as a view shows them.

    Args:
        table: the rows.
        view: the labels and thresholds.
        kept: what the rows hold.
        model: the name of the model.

    Raises:
        IndexError: a row has a class that the model does not have.
    """
    import pyarrow as pa

    statuses, predictions = [], []
    for status, guesses in zip(table["status"].to_pylist(), table["predictions"].to_pylist(), strict=True):
        shown = view.shown(tuple(Prediction(**guess) for guess in guesses), kept)
        statuses.append(view.status(shown) if status in ("ok", "unknown") else status)
        predictions.append([{name: getattr(guess, name) for name in Prediction.__slots__} for guess in shown])
    columns = {"status": statuses, "predictions": predictions, "model": [model] * len(table)}
    for name, values in columns.items():
        field = arrow_schema().field(name)
        table = table.set_column(table.column_names.index(name), field, pa.array(values, field.type))
    return table
