"""Checks that each option of a predictor can take effect on its engine; one that cannot is refused."""

from __future__ import annotations

import math
from collections.abc import Mapping

from convnext_cli.base.errors import UsageError
from convnext_cli.model.preprocessing import Preprocessing
from convnext_cli.model.preprocessing_changes import PreprocessingChanges
from convnext_cli.photos.close_resize import no_kernel
from convnext_cli.predict.preprocess import Preprocessor
from convnext_cli.runtimes.protocol import Engine


def check_changes(changes: PreprocessingChanges | Preprocessing, engine: Engine) -> None:
    """Raise UsageError for changes of the preprocessing, if that is inside the model file."""
    if engine.photos and isinstance(changes, PreprocessingChanges) and changes.options:
        raise UsageError(
            f"the preprocessing is inside this model file: {' and '.join(changes.options)} cannot change it",
            "leave the option out, or export the model again without --with-preprocessing",
        )


def check_preprocessing(preprocessor: Preprocessor, engine: Engine) -> None:
    """Raise UsageError for preprocessing that the engine cannot use, or would ignore."""
    preprocessing = preprocessor.preprocessing
    if engine.photos:
        if preprocessing != engine.card.preprocessing:
            raise UsageError("the preprocessing is inside this model file, and cannot be replaced")
    elif preprocessing.resize != "none" and not engine.fixed.takes(preprocessing.size):
        takes = "×".join("any" if edge is None else str(edge) for edge in engine.fixed.size)
        raise UsageError(
            f"this model file takes photos of {takes} pixels, not {preprocessing.size[0]}×{preprocessing.size[1]}",
            "leave --size out, or export the model again with --size any",
        )
    if preprocessor.pixels == "fast" and preprocessing.enough is None:
        raise UsageError(
            "this model takes photos at their own size: --pixels fast would change nothing", "leave it out"
        )
    inside = "the preprocessing is inside this model file" if engine.photos else None
    if preprocessor.pixels == "close" and (obstacle := inside or no_kernel(preprocessing)):
        raise UsageError(f"--pixels close would change nothing: {obstacle}", "use --pixels exact, or --pixels fast")


def check_batch(batch_size: int | None, engine: Engine) -> None:
    """Raise UsageError for a batch size that a model file with a fixed batch cannot use."""
    fixed = engine.fixed.batch
    if batch_size is not None and fixed is not None and batch_size % fixed:
        raise UsageError(
            f"this model file takes {fixed} photo{'s' * (fixed != 1)} in each call: a batch of {batch_size} is not "
            "possible",
            "leave --batch-size out, or export the model again with --batch any",
        )


def check_scores(scores: str, engine: Engine, *, min_score: float | None, floors: Mapping[str, float]) -> None:
    """Raise UsageError for scores that the engine cannot give, and for thresholds outside the range of the scores."""
    if engine.fixed.ends == "softmax" and scores != "softmax":
        raise UsageError(
            f"this model file gives probabilities that add up to 1, and --{scores} cannot be computed from them",
            f"leave --{scores} out",
        )
    if engine.fixed.ends == "sigmoid" and scores != "sigmoid":
        raise UsageError(
            f"this model file gives one score from 0 to 1 for each label, and --{scores} cannot be computed from them",
            f"leave --{scores} out",
        )
    for name, value in (("--min-score", min_score), *((f"the floor of {label!r}", x) for label, x in floors.items())):
        check_threshold(name, value, scores)


def check_threshold(name: str, value: float | None, scores: str) -> None:
    """Raise UsageError for a threshold outside the range of this kind of score.

    Args:
        name: of the option, for the message.
        value: the threshold; None for none.
        scores: the kind of score.
    """
    if value is None:
        return
    if not isinstance(value, int | float) or isinstance(value, bool) or not math.isfinite(value):
        raise UsageError(f"{name} must be a number, not {value!r}", "for example 0.5")
    if scores != "logits" and not 0 <= value <= 1:
        share = f"{value:g}% or {value / 100:g}" if 1 < value <= 100 else "0.5 or 50%"
        raise UsageError(f"{name} is {value:g}, but scores are between 0 and 1", f"for example {share}")
