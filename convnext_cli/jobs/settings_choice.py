"""Which settings the rows of a run have, and what becomes of rows that have others."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from convnext_cli.jobs import settings
from convnext_cli.jobs.store import Store
from convnext_cli.jobs.view import View
from convnext_cli.labels import LabelSet
from convnext_cli.predict.predictor import Predictor


def choose(
    store: Store,
    predictor: Predictor,
    view: View,
    known: Iterable[LabelSet],
    *,
    relabel: bool,
    mix: bool,
    ask: Callable[[str], bool],
) -> tuple[int, Predictor, bool]:
    """Show a view of a job's rows, and choose what new ones are made with.

    known: as for ``settings.reusable``. relabel, mix: label the rows that other settings made again, or keep them.
    ask: called, where neither was given now or before, with the difference in words; whether they stay.
    Gives the number of the settings, the pipeline that makes such rows, and whether rows of others stay.
    """
    decided = store.value("decided") or {}
    is_relabelling = decided.get("for") not in (None, *store.settings_used())  # and was ended before the first row
    rows = settings.reusable(store, predictor, view, known, earlier=not (relabel or is_relabelling))
    kept = dict(rows.kept)
    if kept:
        number = max(kept)
    else:
        number, kept[number] = settings.new(store, predictor, view)
    if relabel or mix:
        decided = {"for": number, "mix": mix}
    elif rows.obstacles and decided.get("for") != number:
        decided = {"for": number, "mix": ask(rows.obstacles[max(rows.obstacles)])}
    elif not rows.obstacles:
        decided = {"for": number, "mix": False}
    store.note(decided=decided)
    store.views.show(view, kept, predictor.model)
    keeping = settings.keeping(predictor, kept[number], view, whole_profiles=number in rows.with_whole_profiles)
    return number, keeping, bool(decided["mix"])
