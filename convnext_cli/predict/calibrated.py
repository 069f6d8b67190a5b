"""The calibration of an open model, and the answers that it promises."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path

from convnext_cli import zoo
from convnext_cli.base.errors import ModelError, UsageError
from convnext_cli.certainty.calibration import Calibration, MadeFor
from convnext_cli.certainty.decider import Decider
from convnext_cli.certainty.tree import Tree
from convnext_cli.checkpoints.calibration_file import read_calibration
from convnext_cli.labels import LabelSet
from convnext_cli.model.preprocessing import Preprocessing
from convnext_cli.predict.options import Scoring
from convnext_cli.predict.scoring import ScoreKind
from convnext_cli.runtimes.protocol import Engine

_WORDS = {"weights": "other weights", "labels": "other labels", "preprocessing": "other preprocessing"}


def made_for(engine: Engine, labels: LabelSet, preprocessing: Preprocessing) -> MadeFor:
    """What a calibration of this model holds for."""
    steps = json.dumps(preprocessing.to_dict(), sort_keys=True)
    # an exported file may give scores: the logits of these were divided by a temperature already
    ends = f" {engine.fixed.ends}" if engine.fixed.ends else ""
    return MadeFor(
        weights=engine.card.sha256 + ends,
        labels=Tree.of(labels).fingerprint(),
        preprocessing=hashlib.sha256(steps.encode()).hexdigest(),
    )


def calibration_of(model: Path, engine: Engine, labels: LabelSet, preprocessing: Preprocessing) -> Calibration:
    """The calibration of an open model.

    Args:
        model: the path that the engine was opened from.
        engine: the model.
        labels: the names of its rows, as they are used.
        preprocessing: as it is used.

    Raises:
        ModelError: the model has no calibration, or one that was made for something else.
        UsageError: the calibration needs pooled features, which this file does not give.
    """
    calibration = read_calibration(model)
    command = f"convnext calibrate -m {model} DATA    (labelled photos that it was not trained on)"
    if calibration is None:
        raise ModelError(f"{engine.card.name or model.name} was never calibrated", command)
    if differs := calibration.made_for.differences(made_for(engine, labels, preprocessing)):
        what = " and ".join(_WORDS[part] for part in differs)
        raise ModelError(f"the calibration of {engine.card.name or model.name} was made for {what}", command)
    if calibration.channels is not None and not engine.has_features:
        raise UsageError(
            f"{model.name} gives no pooled features, which its calibration reads", "export the model with --features"
        )
    return calibration


def open_decider(
    scoring: Scoring,
    model: str | Path | None,
    engine: Engine,
    labels: LabelSet,
    preprocessing: Preprocessing,
    scores: ScoreKind,
    say: Callable[[str], None],
) -> Decider | None:
    """What makes answers and sets; None where neither is asked for.

    Args:
        scoring: asks for them.
        model: a name, a file or a folder; None for the user's default.
        engine: the model.
        labels: the names of its rows, as they are used.
        preprocessing: as it is used.
        scores: the kind of score.
        say: called with each note for the user.

    Raises:
        ModelError: as for ``calibration_of``.
        UsageError: the calibration cannot promise that much, or the scores are not those of one class a photo.
    """
    if scoring.sure is None and scoring.sets is None:
        return None
    option = "--sure" if scoring.sure is not None else "--sets"
    if scores != "softmax":
        raise UsageError(f"{option} is for scores that add up to 1", f"leave --{scores} out")
    calibration = calibration_of(zoo.resolve(model), engine, labels, preprocessing)
    decider = calibration.decider(labels, sure=scoring.sure, sets=scoring.sets)
    if calibration.doubts:
        say(calibration.doubts)
    return decider
