"""From the options that several commands share to an open pipeline."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from convnext_cli.cli import options, render, types

if TYPE_CHECKING:
    from convnext_cli.model.preprocessing_changes import PreprocessingChanges
    from convnext_cli.predict.predictor import Predictor
    from convnext_cli.runtimes import Job


def predictor(
    given: dict[str, Any], *, job: Job, prepare: bool, photos: int | None = None, thumbnail: int = 0
) -> Predictor:
    """Open what the options of a command ask for, and say what is remarkable about it.

    job, prepare, photos: as for ``open_predictor``. Raises what that raises.
    """
    from convnext_cli import zoo

    changes = _changes(given)
    if given["pull"]:
        from convnext_cli.cli.models import pull_if_missing

        pull_if_missing(given["model"], offline=given["offline"])
    model = given["model"] or zoo.default_model()
    zoo.resolve(model)  # what is not there is said before torch is loaded
    from convnext_cli.predict.predictor import open_predictor

    made = open_predictor(
        model,
        labels=given["labels"],
        classes=given["classes"],
        engine=given["engine"],
        compiled=given["compiled"],
        job=job,
        photos=photos,
        prepare=prepare,
        device=given["device"],
        dtype=given["dtype"],
        threads=given["threads"],
        k=given["top"],
        scores=scores(given),
        min_score=given["min_score"],
        floors=given["floors"],
        batch_size=given["batch_size"],
        workers=given["workers"],
        max_pixels=given["max_pixels"],
        fast_decode=given["fast_decode"],
        timeout=given["timeout"],
        thumbnail=thumbnail,
        changes=changes,
        say=lambda text: render.note(f"note: {text}"),
    )
    if made.scores == "logits":
        _refuse_percentages()
    if (given["workers"] or 0) > made.workers:
        render.note(f"note: {made.workers} threads decode, as many as --threads allows")
    for note in made.engine.notes:
        render.note(f"note: {note}")
    return made


def places(given: dict[str, Any], name: str = "paths") -> tuple[str, ...]:
    """What the user named, ``file://`` URLs as paths. Raises UsageError for others where --offline forbids them."""
    from convnext_cli.base.errors import UsageError
    from convnext_cli.storage.addresses import is_url, opens_connection, plain, scrub

    paths = tuple(plain(path) for path in given[name])
    for path in paths:
        if given["offline"] and is_url(path) and opens_connection(path):
            raise UsageError(f"{scrub(path)} is not on this machine", "leave --offline out, or copy the photos here")
    return paths


def check(given: dict[str, Any]) -> None:
    """Refuse, before anything is opened, options that exclude each other. Raises UsageError."""
    scores(given)
    _changes(given)
    if given["logits"]:
        _refuse_percentages()
    options.not_offline(given)
    if given["threads"] and (given["workers"] or 0) > given["threads"]:
        raise click.UsageError(
            f"--workers {given['workers']} is more than --threads {given['threads']}: no more threads than that decode."
        )


def scores(given: dict[str, Any]) -> str | None:
    wished = [kind for kind in ("softmax", "sigmoid", "logits") if given[kind]]
    if len(wished) > 1:
        raise click.UsageError(f"--{wished[0]} and --{wished[1]} exclude each other.")
    return wished[0] if wished else None


def _refuse_percentages() -> None:
    """Logits are not shares of anything."""
    ctx = click.get_current_context(silent=True)
    if ctx is not None and "min_score" in ctx.meta.get(types.PERCENTAGES, ()):
        raise click.UsageError("--min-score is a percentage, and logits are not: write it as a number.")


def _changes(given: dict[str, Any]) -> PreprocessingChanges:
    """What the user wants otherwise than the card's recipe."""
    from convnext_cli.model.preprocessing_changes import PreprocessingChanges

    size = given["size"]
    if size not in (None, "test"):
        if not (size.isascii() and size.isdecimal() and len(size) < 10):
            raise click.BadParameter(f"{size!r} is neither `test` nor a number of pixels", param_hint="--size")
        size = int(size)
    return PreprocessingChanges(
        size=size,
        crop_pct=given["crop_pct"],
        resize_mode=given["resize_mode"],
        interpolation=given["interpolation"],
        mean=options.numbers(given["mean"], "--mean"),
        std=options.numbers(given["std"], "--std", positive=True),
    )
