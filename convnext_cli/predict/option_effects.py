"""Whether each option of a predictor can take effect on the engine that it was given to; one that cannot is refused."""

from __future__ import annotations

import math
from collections.abc import Mapping

from convnext_cli.base.errors import UsageError
from convnext_cli.model.preprocessing import Preprocessing
from convnext_cli.model.preprocessing_changes import PreprocessingChanges
from convnext_cli.predict.preprocess import Preprocessor
from convnext_cli.runtimes.protocol import Engine


def check_changes(changes: PreprocessingChanges | Preprocessing, engine: Engine) -> None:
    """Raises UsageError for changes that are asked for, where the preprocessing is inside the model file."""
    if engine.photos and isinstance(changes, PreprocessingChanges) and changes.options:
        raise UsageError(
            f"the preprocessing is inside this model file: {' and '.join(changes.options)} cannot change it",
            "leave it out, or export the model again without --with-preprocessing",
        )


def check_preprocessing(preprocessor: Preprocessor, engine: Engine) -> None:
    """Raises UsageError for preprocessing that the engine cannot take, or that it would not look at."""
    recipe = preprocessor.preprocessing
    if engine.photos:
        if recipe != engine.card.recipe:
            raise UsageError("the preprocessing is inside this model file: other preprocessing cannot change it")
    elif recipe.resize != "none" and not engine.fixed.takes(recipe.size):
        takes = "×".join("any" if edge is None else str(edge) for edge in engine.fixed.size)
        raise UsageError(
            f"this model file takes photos of {takes} pixels, not {recipe.size[0]}×{recipe.size[1]}",
            "leave --size out, or export the model again with --size any",
        )
    if preprocessor.fast_decode and recipe.enough is None:
        raise UsageError(
            "this model takes photos as large as they are: --fast-decode would change nothing", "leave it out"
        )


def check_batch(batch_size: int | None, engine: Engine) -> None:
    """Raises UsageError for a batch that was asked for, where the file has decided on another."""
    fixed = engine.fixed.batch
    if batch_size is not None and fixed is not None and batch_size % fixed:
        raise UsageError(
            f"this model file takes {fixed} photo{'s' * (fixed != 1)} in each call: a batch of {batch_size} is not "
            "possible",
            "leave --batch-size out, or export the model again with --batch any",
        )


def check_scores(scores: str, engine: Engine, *, min_score: float | None, floors: Mapping[str, float]) -> None:
    """Raises UsageError for scores that the engine cannot give, and for thresholds that no score can have."""
    if engine.fixed.ends == "softmax" and scores != "softmax":
        raise UsageError(
            f"this model file gives probabilities that add up to 1, of which --{scores} cannot be computed",
            f"leave --{scores} out",
        )
    if engine.fixed.ends == "sigmoid" and scores != "sigmoid":
        raise UsageError(
            f"this model file gives scores of single labels, from 0 to 1, of which --{scores} cannot be computed",
            f"leave --{scores} out",
        )
    for name, value in (("--min-score", min_score), *((f"the floor of {label!r}", x) for label, x in floors.items())):
        check_threshold(name, value, scores)


def check_threshold(name: str, value: float | None, scores: str) -> None:
    """Raises UsageError for a threshold that no score of this kind can be compared with."""
    if value is None:
        return
    if not isinstance(value, int | float) or isinstance(value, bool) or not math.isfinite(value):
        raise UsageError(f"{name} must be a number, not {value!r}", "for example 0.5")
    if scores != "logits" and not 0 <= value <= 1:
        share = f"{value:g}% or {value / 100:g}" if 1 < value <= 100 else "0.5 or 50%"
        raise UsageError(f"{name} is {value:g}, but scores are from 0 to 1", f"for example {share}")
