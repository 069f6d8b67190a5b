"""From the options that several commands share to typed requests, and to an open predictor."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, Literal

import click

from convnext_cli.cli import options, render, types

if TYPE_CHECKING:
    from convnext_cli.model.preprocessing_changes import PreprocessingChanges
    from convnext_cli.predict.options import PredictorOptions, Scoring
    from convnext_cli.predict.predictor import Predictor
    from convnext_cli.predict.scoring import ScoreKind
    from convnext_cli.runtimes.protocol import Job


def predictor_options(given: dict[str, Any]) -> PredictorOptions:
    """The request that the options of a command make. Raises UsageError for a value that is out of range."""
    from convnext_cli.predict.options import Decoding, ModelOptions, PredictorOptions

    return PredictorOptions(
        model=ModelOptions(
            model=given["model"],
            labels=given["labels"],
            engine=given["engine"],
            device=given["device"],
            dtype=given["dtype"],
            compiled=given["compiled"],
            threads=given["threads"],
            batch_size=given["batch_size"],
        ),
        scoring=_scoring(given),
        preprocessing=preprocessing_changes(given),
        decoding=Decoding(
            workers=given["workers"],
            max_pixels=given["max_pixels"],
            fast_decode=given["fast_decode"],
            timeout=given["timeout"],
        ),
    )


def _scoring(given: dict[str, Any]) -> Scoring:
    """What the options of a command say of scores; not every command has more of them than --classes."""
    from convnext_cli.predict.options import Scoring

    if "top" not in given:
        return Scoring(classes=given["classes"])
    return Scoring(
        k=given["top"],
        scores=score_kind(given),
        classes=given["classes"],
        min_score=given["min_score"],
        floors=given["floors"] or {},
    )


def pull_missing(models: Iterable[PredictorOptions], *, offline: bool) -> None:
    """Fetch the models of a request that are not on this machine. Raises what ``pull_if_missing`` raises."""
    from convnext_cli.cli.models import pull_if_missing

    for request in models:
        name = request.model.model
        pull_if_missing(None if name is None else str(name), offline=offline)


def predictor(
    given: dict[str, Any], *, job: Job, prepare: bool, photos: int | None = None, thumbnail: int = 0
) -> Predictor:
    """Open the predictor that the options of a command ask for, and print its notes.

    job, prepare, photos, thumbnail: as for ``open_predictor``. Raises what that raises.
    """
    from convnext_cli import zoo

    if given["pull"]:
        from convnext_cli.cli.models import pull_if_missing

        pull_if_missing(given["model"], offline=given["offline"])
    zoo.resolve(given["model"] or zoo.default_model())  # a missing model is reported before torch is loaded
    return open_predictor(predictor_options(given), job=job, prepare=prepare, photos=photos, thumbnail=thumbnail)


def open_predictor(
    request: PredictorOptions, *, job: Job, prepare: bool, photos: int | None = None, thumbnail: int = 0
) -> Predictor:
    """Open a predictor, and print its notes. Raises what ``predict.open.open_predictor`` raises."""
    from convnext_cli.predict import open as opening

    opened = opening.open_predictor(
        request,
        job=job,
        prepare=prepare,
        photos=photos,
        thumbnail=thumbnail,
        say=lambda text: render.note(f"note: {text}"),
    )
    if opened.scores == "logits":
        _refuse_percentages()
    for remark in opening.remarks(opened, request):
        render.note(f"note: {remark}")
    return opened


def places(given: dict[str, Any], name: str = "paths") -> tuple[str, ...]:
    """What the user named, ``file://`` URLs as paths. Raises UsageError for others where --offline forbids them."""
    from convnext_cli.storage import addresses

    return addresses.places(given[name], offline=given["offline"])


def check(given: dict[str, Any]) -> None:
    """Refuse, before anything is opened, options that exclude each other. Raises UsageError."""
    score_kind(given)
    preprocessing_changes(given)
    if given["logits"]:
        _refuse_percentages()
    options.not_offline(given)
    if given["threads"] and (given["workers"] or 0) > given["threads"]:
        raise click.UsageError(
            f"--workers {given['workers']} is more than --threads {given['threads']}: no more threads than that decode."
        )


def score_kind(given: dict[str, Any]) -> ScoreKind | None:
    """The kind of score that was asked for; None for the model's own."""
    kinds: tuple[ScoreKind, ...] = ("softmax", "sigmoid", "logits")
    asked = [kind for kind in kinds if given[kind]]
    if len(asked) > 1:
        raise click.UsageError(f"--{asked[0]} and --{asked[1]} exclude each other.")
    return asked[0] if asked else None


def preprocessing_changes(given: dict[str, Any]) -> PreprocessingChanges:
    """The changes to the model's preprocessing that were asked for."""
    from convnext_cli.model.preprocessing_changes import PreprocessingChanges

    return PreprocessingChanges(
        size=_size(given["size"]),
        crop_pct=given["crop_pct"],
        resize_mode=given["resize_mode"],
        interpolation=given["interpolation"],
        mean=options.numbers(given["mean"], "--mean"),
        std=options.numbers(given["std"], "--std", positive=True),
    )


def _size(text: str | None) -> int | Literal["test"] | None:
    if text is None:
        return None
    if text == "test":
        return "test"
    if not (text.isascii() and text.isdecimal() and len(text) < 10):
        raise click.BadParameter(f"{text!r} is neither `test` nor a number of pixels", param_hint="--size")
    return int(text)


def _refuse_percentages() -> None:
    """Logits are not shares of anything."""
    ctx = click.get_current_context(silent=True)
    if ctx is not None and "min_score" in ctx.meta.get(types.PERCENTAGES, ()):
        raise click.UsageError("--min-score is a percentage, and logits are not: write it as a number.")
