"""From the options that several commands share to the typed options of a predictor."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from inspect import signature
from typing import TYPE_CHECKING, Literal, TypeVar, cast

import click

from convnext_cli.cli import options, types

if TYPE_CHECKING:
    from convnext_cli.model.preprocessing import Interpolation, Resize
    from convnext_cli.photos.photo import PixelLevel
    from convnext_cli.predict.options import PredictorOptions
    from convnext_cli.predict.predictor import Predictor
    from convnext_cli.predict.scoring import ScoreKind


def predictor_options(
    *,
    model: str | None,
    device: str,
    threads: int | None,
    size: str | None,
    crop_pct: float | None,
    resize_mode: Resize | None,
    interpolation: Interpolation | None,
    mean: str | None,
    std: str | None,
    max_pixels: int | None,
    pixels: PixelLevel | None,
    fast_decode: bool,
    timeout: float | None,
    engine: str = "auto",
    dtype: str | None = None,
    compiled: bool = False,
    batch_size: int | None = None,
    workers: int | None = None,
    labels: str | None = None,
    classes: str | None = None,
    top: int = 5,
    min_score: float | None = None,
    floors: str | None = None,
    sure: float | None = None,
    sets: str | None = None,
    softmax: bool = False,
    sigmoid: bool = False,
    logits: bool = False,
) -> PredictorOptions:
    """The typed options of a predictor, from those of a command. Some commands do not have all of them.

    Raises:
        UsageError: options exclude each other, or a value is out of range.
    """
    from convnext_cli.model.preprocessing_changes import PreprocessingChanges
    from convnext_cli.predict.options import Decoding, ModelOptions, PredictorOptions, Scoring

    if logits:
        _refuse_percentages()
    return PredictorOptions(
        model=ModelOptions(
            model=model,
            labels=labels,
            engine=engine,
            device=device,
            dtype=dtype,
            compiled=compiled,
            threads=threads,
            batch_size=batch_size,
        ),
        scoring=Scoring(
            k=top,
            scores=_score_kind(softmax=softmax, sigmoid=sigmoid, logits=logits),
            classes=classes,
            min_score=min_score,
            floors=floors or {},
            sure=sure,
            sets=None if sets is None else float(sets),
        ),
        preprocessing=PreprocessingChanges(
            size=_size(size),
            crop_pct=crop_pct,
            resize_mode=resize_mode,
            interpolation=interpolation,
            mean=options.numbers(mean, "--mean"),
            std=options.numbers(std, "--std", positive=True),
        ),
        decoding=Decoding(
            workers=workers, max_pixels=max_pixels, pixels=_pixels(pixels, fast=fast_decode), timeout=timeout
        ),
    )


def _pixels(level: PixelLevel | None, *, fast: bool) -> PixelLevel:
    """The level that ``--pixels`` or its older name ``--fast-decode`` asks for."""
    if fast and level not in (None, "fast"):
        raise click.UsageError(f"--fast-decode is --pixels fast, and excludes --pixels {level}.")
    return "fast" if fast else level or "exact"


R = TypeVar("R")


def with_predictor(command: Callable[..., R]) -> Callable[..., R]:
    """Call a command with the options of its predictor as one value, ``predictor``; the others as they are."""
    names = signature(predictor_options).parameters

    @wraps(command)
    def call(**values: types.ClickValue) -> R:
        own = {name: values.pop(name) for name in names if name in values}
        return command(predictor=predictor_options(**own), **values)

    return call


def check_opened(predictor: Predictor) -> None:
    """Raises UsageError where the model's scores are logits, and the lowest score was typed as a percentage."""
    if predictor.scores == "logits":
        _refuse_percentages()


def _score_kind(**kinds: bool) -> ScoreKind | None:
    """The kind of score of the options; None for the model's own."""
    asked = [kind for kind, is_asked in kinds.items() if is_asked]
    if len(asked) > 1:
        raise click.UsageError(f"--{asked[0]} and --{asked[1]} exclude each other.")
    return cast("ScoreKind", asked[0]) if asked else None


def _size(text: str | None) -> int | Literal["test"] | None:
    if text is None:
        return None
    if text == "test":
        return "test"
    if not (text.isascii() and text.isdecimal() and len(text) < 10):
        raise click.BadParameter(f"{text!r} is neither `test` nor a number of pixels", param_hint="--size")
    return int(text)


def _refuse_percentages() -> None:
    """Raise UsageError for a threshold in percent: logits are not percentages."""
    ctx = click.get_current_context(silent=True)
    if ctx is not None and "min_score" in ctx.meta.get(types.PERCENTAGES, ()):
        raise click.UsageError("--min-score is a percentage, but logits are not percentages. Write a number.")
