"""The verb ``export``: a model in another program's format, checked before its file takes its name."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Literal, get_args

import numpy as np

from convnext_cli import __version__, checkpoints, zoo
from convnext_cli.base.errors import ModelError, PhotoError, UnavailableError, UsageError
from convnext_cli.base.files import check_utf8, user_path
from convnext_cli.base.libraries import libraries_said
from convnext_cli.base.listener import SILENT, Listener
from convnext_cli.base.machine import version_of
from convnext_cli.base.threads import usable_threads
from convnext_cli.checkpoints import calibration_file
from convnext_cli.checkpoints.checkpoint import Checkpoint
from convnext_cli.model.card import Card, Export
from convnext_cli.photos.decode import decode, read_file
from convnext_cli.photos.find import Finder
from convnext_cli.photos.resize import apply_preprocessing
from convnext_cli.photos.samples import samples
from convnext_cli.runtimes.exporting import placement
from convnext_cli.runtimes.exporting.plan import Dtype, Plan
from convnext_cli.runtimes.exporting.target import choose_format, default_target
from convnext_cli.runtimes.registry import FORMATS, Format, format_of
from convnext_cli.runtimes.select import open_engine
from convnext_cli.storage.addresses import check_output

if TYPE_CHECKING:
    from convnext_cli.runtimes.exporting.check import Check

_SYSTEMS = {"darwin": "macOS"}
MOST = 4096  # photos a call, and pixels an edge


@dataclass(frozen=True, kw_only=True)
class ExportRequest:
    """What ``export`` is asked for.

    Args:
        model: a name, a file or a folder; None for the user's default.
        output: the file to write; None for the model's name, with the format's suffix, in the current folder.
        format: a key of ``registry.FORMATS``; None for the one that the suffix of the output means, or ONNX.
        batch: photos in each call, 1 to 4,096, or "any".
        size: edge of the input in pixels, 1 to 4,096, or "any"; None for the model's own size.
        dtype: precision of the file; norms stay in float32.
        calibrate: for int8, a folder of photos: half find its ranges, half test it.
        preprocessing: take photos of any size, as bytes: resize, crop and scale are inside.
        scores: give scores instead of logits.
        features: give the pooled features as a second output.
        opset: of ONNX, from 17; None for the newest that ONNX Runtime takes here.
        simplify: have onnxslim look for parts that ONNX can do without.
        check: run the file in its own runtime against the network before it takes its name.
        check_on: a folder of photos to check with, besides three samples.
        threads: processor threads for the check and for int8; None for all that this process may use.
        overwrite: replace the output.

    Raises:
        UsageError: a value is out of range, or two of them contradict each other.
    """

    model: str | Path | None = None
    output: str | Path | None = None
    format: str | None = None
    batch: int | Literal["any"] = "any"
    size: int | Literal["any"] | None = None
    dtype: Dtype = "float32"
    calibrate: str | Path | None = None
    preprocessing: bool = False
    scores: bool = False
    features: bool = False
    opset: int | None = None
    simplify: bool = False
    check: bool = True
    check_on: str | Path | None = None
    threads: int | None = None
    overwrite: bool = False

    def __post_init__(self) -> None:
        if self.format is not None and self.format not in FORMATS:
            raise UsageError(f"format must be one of {', '.join(FORMATS)}, not {self.format!r}")
        if self.dtype not in get_args(Dtype):
            raise UsageError(f"dtype must be one of {', '.join(get_args(Dtype))}, not {self.dtype!r}")
        _check_extent("batch", self.batch)
        if self.size is not None:
            _check_extent("size", self.size)
        if self.threads is not None and self.threads < 1:
            raise UsageError(f"threads must be a whole number from 1, not {self.threads!r}")
        if not self.check and self.threads and self.dtype != "int8":
            raise UsageError("--threads is for the check, which --no-check leaves out", "leave one of the two out")
        if not self.check and self.check_on is not None:
            raise UsageError("--check-on and --no-check exclude each other", "leave one of the two out")
        form = FORMATS[self.format] if self.format else format_of(Path(self.output)) if self.output else None
        if self.dtype == "int8" and form is not None and not form.int8:
            able = ", ".join(entry.name for entry in FORMATS.values() if entry.int8)
            raise UsageError(f"{form.name} files cannot be in int8", f"take --dtype float16, or --to one of {able}")
        if (self.dtype == "int8") != (self.calibrate is not None):
            raise UsageError(
                "--dtype int8 and --calibrate FOLDER go together", "name a folder of a hundred photos or more"
            )


@dataclass(frozen=True)
class ExportResult:
    """The outcome of an export.

    Args:
        card: of the file.
        files: the file, then those beside it; they were written only if it passed its check.
        check: of the file beside the network; None when it was not asked for.
        runtime: the name of the runtime that ran the check.
        notes: of the weights' loader, and more that a user should know.
    """

    card: Card
    files: tuple[Path, ...]
    check: Check | None
    runtime: str
    notes: tuple[str, ...]

    @property
    def passed(self) -> bool:
        """Whether the files were written: the check found nothing against them, or was not asked for."""
        return self.check is None or not self.check.against

    def to_dict(self) -> dict[str, object]:
        """The JSON object of ``export --json``."""
        return {
            "files": [str(file) for file in self.files],
            "card": json.loads(self.card.to_json()),
            "runtime": self.runtime,
            "check": self.check and self.check.to_dict(),
        }


@libraries_said()
def export(request: ExportRequest, listener: Listener = SILENT) -> ExportResult:
    """Write a model in another program's format, and check the file.

    A file that does not pass its check is not left under its name; ``ExportResult.check.against`` says why.

    Args:
        request: the model, the format and what the file shall take and give.
        listener: hears what is being written and checked.

    Raises:
        UsageError: the format cannot do this, or something is in the way of the output.
        UnavailableError: a library or the runtime is missing.
        ModelError: the weights cannot be used, or the file does not run.
        OutputError: the file cannot be written.
    """
    if request.output is not None:
        check_output(str(request.output))
    source = zoo.resolve(request.model)
    if request.output is None:
        target = default_target(request.model, request.format or "onnx")
        listener.note(f"this writes {target}; -o names another file")
    else:
        target = user_path(request.output)
    check_utf8(target)
    form = choose_format(target, request.format)
    if form.name != "onnx" and (request.opset or request.simplify):
        raise UsageError("--opset and --simplify are for --to onnx", "leave them out, or export to a .onnx file")
    placement.refuse(source, target, form, overwrite=request.overwrite)
    writer = form.load_writer()
    calibrating, testing = _photos(request)
    checkpoint = checkpoints.load(source)
    card = checkpoint.card
    if isinstance(request.size, int):
        card = card.replace(preprocessing=card.preprocessing.at_size((request.size, request.size)))
    plan = _plan(request, card)
    if request.dtype == "int8":
        plan = replace(plan, calibration=lambda: _tensors(calibrating, card))
    notes = [*checkpoint.notes, *calibration_file.left_out(source)]
    if card.task != "classification":
        notes.append(f"the model is for {card.task}: its output is called {_output(plan)} and holds an embedding")
    _check_plan(card, plan, checkpoint.path)
    writer.refuse(card, plan)
    if request.check and form.system not in ("", sys.platform):
        raise UnavailableError(
            f"{form.name} files run on {_SYSTEMS[form.system]} alone: the file cannot be checked here",
            "--no-check leaves it unproven; or export it there, or take --to tflite or onnx",
        )
    card = _card(card, plan, form)
    with placement.room(target) as folder:
        file = folder / target.name
        listener.stage(f"writing {target.name}")
        writer.write(checkpoint, card, plan, file)
        for written in folder.iterdir():  # a file that a format puts beside its own is not replaced unasked either
            placement.refuse_place(target.with_name(written.name), overwrite=request.overwrite, folder=written.is_dir())
        check, runtime = None, ""
        if request.check:
            listener.stage(f"checking {target.name} in its own runtime")
            check, runtime = _checked(checkpoint, file, plan, [*testing, *samples()])
        # the file that names the others comes last
        names = sorted((written.name for written in folder.iterdir()), key=lambda name: name == target.name)
        if check is None or not check.against:
            placement.put(folder, names, target, overwrite=request.overwrite)
    files = tuple(target.with_name(name) for name in reversed(names))
    return ExportResult(card, files, check, runtime, tuple(notes))


def _photos(request: ExportRequest) -> tuple[list[str], list[str]]:
    """The photos that calibrate int8, and those that the file is checked on. Raises UsageError for unusable folders."""
    # imported in any case: formats round with its help, and a missing library is reported before anything is begun
    from convnext_cli.runtimes.int8 import calibration

    calibrating: list[str] = []
    testing: list[str] = []
    if request.calibrate is not None:
        folder = str(request.calibrate)
        calibrating, testing = calibration.split(folder)
        _refuse_unreadable(testing, f"the testing half of {folder}")
    if request.check_on is not None:
        folder = str(request.check_on)
        testing = [photo.path for photo in Finder(recursive=True).named([folder]) if photo.problem is None]
        if not testing:
            raise UsageError(f"there are no photos in {folder}", "name a folder of photos: --check-on FOLDER")
        _refuse_unreadable(testing, folder)
    return calibrating, testing


def _plan(request: ExportRequest, card: Card) -> Plan:
    return Plan(
        dtype=request.dtype,
        batch=None if request.batch == "any" else request.batch,
        size=None if request.size == "any" else card.preprocessing.size,
        preprocessing=request.preprocessing,
        scores=request.scores,
        features=request.features,
        opset=request.opset,
        simplify=request.simplify,
        threads=request.threads or usable_threads(),
    )


def _card(card: Card, plan: Plan, form: Format) -> Card:
    """The card that goes into the file."""
    libraries = filter(None, (form.library, form.also))
    versions = {"convnext-cli": __version__} | {library: _version(library) for library in libraries}
    return card.replace(
        temperature=None if plan.scores else card.temperature,
        export=Export(
            *(form.name, plan.dtype, plan.batch, plan.size, plan.preprocessing, _output(plan), plan.features, versions)
        ),
    )


def _version(library: str) -> str:
    known = version_of(library)
    if known is not None and library != "torch":
        return known
    # torch's own version names its build; and another package may bring the module, as onnxruntime-gpu does
    return str(getattr(import_module(library), "__version__", "unknown"))


def _check_extent(name: str, value: int | str) -> None:
    if value != "any" and (not isinstance(value, int) or isinstance(value, bool) or not 1 <= value <= MOST):
        raise UsageError(f'{name} must be "any" or a whole number from 1 to {MOST}, not {value!r}')


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
        raise UsageError("this model's outputs are not scores of classes", "leave --with-softmax out")
    if plan.preprocessing and plan.size is None:
        raise UsageError("the preprocessing inside brings all photos to one size", "leave --size any out")
    stride = card.config.stride
    if plan.size is not None and min(plan.size) < stride:
        raise UsageError(f"the network needs photos of at least {stride} pixels", f"--size {stride} or more")


def _tensors(paths: list[str], card: Card) -> Iterator[np.ndarray]:
    for path in paths:
        with suppress(PhotoError):
            yield apply_preprocessing(card.preprocessing, decode(read_file(path)))


def _checked(checkpoint: Checkpoint, file: Path, plan: Plan, photos: list[str]) -> tuple[Check, str]:
    from convnext_cli.runtimes.exporting.check import check

    try:
        engine = open_engine(file, device="cpu", threads=plan.threads)
    except UnavailableError as error:
        raise UnavailableError(
            f"{error.message}: the file cannot be checked here",
            "--no-check leaves it unproven; or " + (error.hint or ""),
        ) from error
    try:
        files = [path for path in file.parent.rglob("*") if path.is_file()]
        return check(checkpoint, engine, files, photos, dtype=plan.dtype, threads=plan.threads), engine.name  # type: ignore[arg-type]
    finally:
        engine.close()
