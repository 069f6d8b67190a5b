"""Export: write a model in another program's format, check it, and only then give it its name."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np

from convnext_cli import __version__, checkpoints
from convnext_cli.base.errors import ModelError, PhotoError, UnavailableError, UsageError
from convnext_cli.checkpoints.checkpoint import Checkpoint
from convnext_cli.model.card import Card, Export
from convnext_cli.photos.decode import decode, read_file
from convnext_cli.photos.find import Finder
from convnext_cli.photos.resize import apply_preprocessing
from convnext_cli.photos.samples import samples
from convnext_cli.runtimes.exporting import placement
from convnext_cli.runtimes.exporting.check import Check, check
from convnext_cli.runtimes.exporting.plan import Plan
from convnext_cli.runtimes.int8 import calibration
from convnext_cli.runtimes.registry import FORMATS, Format
from convnext_cli.runtimes.select import open_engine

_SYSTEMS = {"darwin": "macOS"}


@dataclass(frozen=True)
class Exported:
    """What became of it. card: of the file. files: what was written. check: None when it was not asked for.
    runtime: what ran the check. notes: of the weights' loader, and more that a user should know.
    """

    card: Card
    files: list[Path]
    check: Check | None
    runtime: str
    notes: list[str]


def format_of(target: Path, given: str | None) -> Format:
    """The format by its name, or by the suffix of the file. Raises UsageError when that says none."""
    if given is not None:
        found = FORMATS[given]
        if target.suffix.lower() != found.suffix:
            raise UsageError(
                f"a file of {given} is called …{found.suffix}, not {target.name!r}",
                f"-o {target.stem}{found.suffix}: by the suffix it is known again",
            )
        return found
    for found in FORMATS.values():
        if found.suffix == target.suffix.lower():
            return found
    known = ", ".join(f"{f.suffix} ({f.name})" for f in FORMATS.values())
    raise UsageError(f"the format cannot be told from the name {target.name!r}", f"name it: --to, or -o with {known}")


def export(
    path: Path,
    form: Format,
    plan: Plan,
    target: Path,
    *,
    size: tuple[int, int] | None = None,
    calibrate: str | None = None,
    check_on: str | None = None,
    checked: bool = True,
    overwrite: bool = False,
    say: Callable[[str], None] = lambda _: None,
) -> Exported:
    """Export a model and check it.

    path: the weights. plan: its size is taken from the card, unless it is None for any. size: another one than the
    card's. calibrate: a folder of photos for int8, half of which test it. check_on: a folder of photos to check with,
    besides the samples. checked: False leaves the check out. say: told what goes on.
    A file that does not pass is not left under its name; ``Exported.check.against`` says why.
    Raises UsageError for what the format cannot do, UnavailableError when a library or the runtime is not there,
    ModelError when the weights cannot be used or the file does not run, OutputError when it cannot be written.
    """
    if (plan.dtype == "int8") != (calibrate is not None):
        raise UsageError("--dtype int8 and --calibrate FOLDER go together", "name a folder of a hundred photos or more")
    placement.refuse(path, target, form, overwrite=overwrite)
    writer = form.load_writer()
    testing: list[str] = []
    if calibrate is not None:
        calibrating, testing = calibration.split(calibrate)
        plan = replace(plan, calibration=lambda: _tensors(calibrating, card))
        _refuse_unreadable(testing, f"the testing half of {calibrate}")
    if check_on is not None:
        testing = [photo.path for photo in Finder(recursive=True).named([check_on]) if photo.problem is None]
        if not testing:
            raise UsageError(f"there are no photos in {check_on}", "name a folder of photos: --check-on FOLDER")
        _refuse_unreadable(testing, check_on)
    checkpoint = checkpoints.load(path)
    card = checkpoint.card if size is None else checkpoint.card.replace(recipe=checkpoint.card.recipe.at_size(size))
    if plan.size is not None:
        plan = replace(plan, size=card.recipe.size)
    notes = list(checkpoint.notes)
    if card.task != "classification":
        notes.append(f"the model is for {card.task}: its output is called {_output(plan)} and holds an embedding")
    _check_plan(card, plan, checkpoint.path)
    writer.refuse(card, plan)
    if checked and form.system not in ("", sys.platform):
        raise UnavailableError(
            f"{form.name} files run on {_SYSTEMS[form.system]} alone: the file cannot be checked here",
            "--no-check leaves it unproven; or export it there, or take --to tflite or onnx",
        )
    card = card.replace(
        temperature=None if plan.scores else card.temperature,
        export=Export(
            form.name,
            plan.dtype,
            plan.batch,
            plan.size,
            plan.preprocessing,
            _output(plan),
            plan.features,
            {"convnext-cli": __version__, **writer.made_with()},
        ),
    )
    with placement.room(target) as folder:
        made = folder / target.name
        say(f"writing {target.name}")
        writer.write(checkpoint, card, plan, made)
        for file in folder.iterdir():  # what a format puts beside its file is not replaced unasked either
            placement.refuse_place(target.with_name(file.name), overwrite=overwrite, folder=file.is_dir())
        found, runtime = None, ""
        if checked:
            say(f"checking {target.name} in its own runtime")
            found, runtime = _checked(checkpoint, made, plan, [*testing, *samples()])
        # the file that names the others comes last
        names = sorted((file.name for file in folder.iterdir()), key=lambda name: name == target.name)
        if found is None or not found.against:
            placement.put(folder, names, target, overwrite=overwrite)
    return Exported(card, [target.with_name(name) for name in reversed(names)], found, runtime, notes)


def _output(plan: Plan) -> Literal["logits", "scores"]:
    return "scores" if plan.scores else "logits"


def _refuse_unreadable(paths: list[str], where: str) -> None:
    """Raise UsageError when none of the photos can be read; the first that can ends the search."""
    for path in paths:
        with suppress(PhotoError):
            decode(read_file(path))
            return
    photos = "the one photo" if len(paths) == 1 else f"none of the {len(paths)} photos"
    can = "cannot" if len(paths) == 1 else "can"
    raise UsageError(
        f"{photos} in {where} {can} be read", "name a folder of photos: convnext classify says what is wrong"
    )


def _check_plan(card: Card, plan: Plan, path: Path) -> None:
    """Raise UsageError for what makes no sense in any format, ModelError for a network of other things than photos."""
    if (channels := card.config.num_channels) != 3:
        raise ModelError(
            f"{path.name} takes {channels}-channel photos; exported files take RGB, 3 channels",
            "use weights for RGB photos",
        )
    if plan.scores and (card.problem == "regression" or card.task != "classification"):
        raise UsageError("this model's outputs are no scores of classes", "leave --with-softmax out")
    if plan.preprocessing and plan.size is None:
        raise UsageError("the preprocessing inside brings all photos to one size", "leave --size any out")
    stride = card.config.stride
    if plan.size is not None and min(plan.size) < stride:
        raise UsageError(f"the network needs photos of at least {stride} pixels", f"--size {stride} or more")


def _tensors(paths: list[str], card: Card) -> Iterator[np.ndarray]:
    for path in paths:
        with suppress(PhotoError):
            yield apply_preprocessing(card.recipe, decode(read_file(path)).image)


def _checked(checkpoint: Checkpoint, made: Path, plan: Plan, photos: list[str]) -> tuple[Check, str]:
    try:
        engine = open_engine(made, device="cpu", threads=plan.threads)
    except UnavailableError as error:
        raise UnavailableError(
            f"{error.message}: the file cannot be checked here",
            "--no-check leaves it unproven; or " + (error.hint or ""),
        ) from error
    try:
        files = [file for file in made.parent.rglob("*") if file.is_file()]
        return check(checkpoint, engine, files, photos, dtype=plan.dtype, threads=plan.threads), engine.name  # type: ignore[arg-type]
    finally:
        engine.close()
