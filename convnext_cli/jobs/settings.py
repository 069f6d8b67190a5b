"""The settings behind the rows of a job, and whether a run can reuse the rows.

The network's answers depend on these settings: weights, preprocessing, kind of score, data type, calibration with the
precision of answers and the coverage of sets, and the part of each row that is kept (``view.Kept``). A ``View`` is
derived from that part, so it is not a setting.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, TypedDict

from convnext_cli.base.text import JsonObject
from convnext_cli.jobs import view as views
from convnext_cli.jobs.job import differences
from convnext_cli.jobs.view import Kept, View
from convnext_cli.labels import LabelSet
from convnext_cli.photos import pillow_check
from convnext_cli.predict.predictor import Predictor
from convnext_cli.predict.scoring import ScoreKind

if TYPE_CHECKING:
    from convnext_cli.jobs.store import Store


@dataclass(frozen=True)
class Reusable:
    """Rows from which a view can be derived, by the numbers of their settings, and those that it cannot be derived
    from, with the reason. with_whole_profiles: those of ``kept`` that ``Preprocessor.whole_profiles`` describes."""

    kept: dict[int, Kept]
    obstacles: dict[int, str]
    with_whole_profiles: set[int]


class Network(TypedDict):
    """The settings that the network's answers depend on, as JSON."""

    recipe: JsonObject
    scores: ScoreKind
    temperature: float
    dtype: str
    pixels: str
    pillow: str
    profiles: str
    sure: float | None
    sets: float | None
    calibration: str | None
    answer_labels: str | None


def network_of(predictor: Predictor) -> Network:
    """The settings that the network's answers depend on, besides the weights."""
    decider = predictor.decider
    threshold = None if decider is None else decider.threshold
    return {
        "recipe": predictor.preprocessor.preprocessing.to_dict(),
        "scores": predictor.scores,
        "temperature": predictor.temperature,
        "dtype": predictor.engine.dtype,
        "pixels": predictor.preprocessor.pixels,
        "pillow": pillow_check.kind(),
        "profiles": predictor.preprocessor.profiles,
        "sure": None if threshold is None else threshold.precision,
        "sets": None if decider is None else decider.coverage,
        "calibration": None if decider is None else decider.calibration,
        # an answer is kept by name alone, and cannot be shown under another one
        "answer_labels": None if decider is None else views.name_of(predictor.labels),
    }


def reusable(
    store: Store, predictor: Predictor, view: View, known: Iterable[LabelSet], *, earlier: bool = True
) -> Reusable:
    """Which rows of a job this view can be derived from.

    known: sets that the rows of earlier releases may have. earlier: where all rows have colour profiles applied before
    the resize, as earlier versions did, a run goes on so.
    Raises ModelError for a job that is damaged.
    """
    now = {"model_sha256": predictor.engine.card.sha256, **network_of(predictor)}
    used = store.settings_used()
    whole_profiles = {number for number, values in used.items() if stored(values, "profiles") == "whole"}
    if not earlier or now["profiles"] == "whole" or len(whole_profiles) < len(used):
        whole_profiles = set()
    rows = Reusable({}, {}, whole_profiles)
    for number, values in used.items():
        expected = {**now, "profiles": "whole"} if number in whole_profiles else now
        differs = differences({name: stored(values, name) for name in now}, expected)
        kept = _kept(values, predictor, (view.labels, *known))
        if kept is None:
            differs.append(f"labels {values.get('labels')} → {view.names}")
        elif obstacle := view.obstacle(kept):
            differs.append(obstacle)
        if differs:
            rows.obstacles[number] = "; ".join(differs)
        elif kept is not None:
            rows.kept[number] = kept
    return rows


def stored(values: Mapping[str, object], name: str) -> object:
    """A setting that made stored rows.

    Releases without ``--pixels`` noted whether ``--fast-decode`` was asked for, which resized in another way then. They
    did not check Pillow, and applied colour profiles before the resize.
    """
    if name == "pixels" and name not in values:
        return "fast, by an earlier release" if values.get("fast_decode") else "exact"
    return values.get(name, {"pillow": "exact", "profiles": "whole"}.get(name))


def _kept(values: JsonObject, predictor: Predictor, known: Iterable[LabelSet]) -> Kept | None:
    """What a job keeps. Earlier releases noted a checksum of the labels instead of the classes; None where it is that
    of no known set."""
    if "classes" in values:
        return views.from_json(values)
    for labels in known:
        if views.name_of(labels) == values["labels"]:
            names = len(labels.names)
            return Kept(min(values["top"] or names, names), len(labels), labels.groups, values["scores"])
    return None


def new(store: Store, predictor: Predictor, view: View) -> tuple[int, Kept]:
    """The number of the settings that rows of this run have where no others can be gone on with."""
    labels = view.labels
    kept = Kept(view.k, len(labels), labels.groups, predictor.scores)
    made_with = {**network_of(predictor), **views.to_json(kept)}
    return store.settings(predictor.model, predictor.engine.card.sha256, made_with), kept


def keeping(predictor: Predictor, kept: Kept, view: View, *, whole_profiles: bool = False) -> Predictor:
    """The pipeline whose rows hold what is to be kept; the view is derived from them.

    whole_profiles: as for ``Preprocessor``.
    """
    preprocessor = replace(predictor.preprocessor, whole_profiles=whole_profiles)
    return replace(predictor, preprocessor=preprocessor, labels=kept.labels(view), k=kept.k, min_score=None, floors={})
