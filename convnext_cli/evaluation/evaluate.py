"""The verb ``evaluate``: a model's answers on photos whose classes are known, as figures."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, closing, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path

from convnext_cli import zoo
from convnext_cli.base.errors import PhotoError
from convnext_cli.base.files import replacing_folder
from convnext_cli.base.listener import SILENT, Listener
from convnext_cli.base.text import JsonObject
from convnext_cli.datasets import Dataset, LabelledPhoto, folder_drawing, open_data
from convnext_cli.evaluation import answers, document, figures, labelled_data, output_folder, real_labels, truth
from convnext_cli.evaluation.document import Judged
from convnext_cli.evaluation.figures import Share
from convnext_cli.evaluation.labelled_data import Split
from convnext_cli.evaluation.request import EvaluateRequest
from convnext_cli.evaluation.sureness import CalibrationPhotos, Meter, Sureness
from convnext_cli.evaluation.sureness import measure as sureness_of
from convnext_cli.evaluation.truth import Chosen, Truth
from convnext_cli.photos.photo import Photo
from convnext_cli.photos.selection import PhotoSelection
from convnext_cli.predict.calibrated import calibration_of
from convnext_cli.predict.open import open_predictor, remarks
from convnext_cli.predict.predictor import Predictor
from convnext_cli.predict.preprocess import InFlight
from convnext_cli.predict.rows import Row
from convnext_cli.predict.stage_times import Times
from convnext_cli.storage.addresses import check_output, places

MISTAKES = 100  # photos on the page of mistakes
_SHOWN = 10  # names in a message


@dataclass(frozen=True, kw_only=True)
class ModelFigures:
    """How well one model answered; ``EvaluateResult.document`` has more.

    Args:
        model: its name.
        top1: the share of photos whose best guess is right.
        top5: the share whose best five guesses hold the right label; None for a model of five labels or fewer.
        calibration_error: the expected calibration error; None for too few photos.
        times: what the stages took.
        sureness: the figures of calibrated answers and sets; None where neither was asked for.
    """

    model: str
    top1: Share
    top5: Share | None
    calibration_error: float | None
    times: Times
    sureness: Sureness | None = None


@dataclass(frozen=True, kw_only=True)
class EvaluateResult:
    """What came out of an evaluation.

    Args:
        document: every figure as plain values, as ``convnext evaluate --json`` prints them.
        models: the figures of the model, and of the one it was compared with.
        photos: how many photos the models were asked about.
        failures: the photos that could not be read, by path, and why; with ``skip_bad`` they are left out.
        failed: how many photos count as wrong because they could not be read.
        foreign_failures: the foreign photos that could not be read and were left out, by path, and why.
        falls_short: whether the first model's top-1 accuracy is below ``fail_below``.
        output: the folder that was written.
    """

    document: JsonObject
    models: tuple[ModelFigures, ...]
    photos: int
    failures: tuple[tuple[str, PhotoError], ...]
    failed: int
    falls_short: bool
    output: Path | None
    foreign_failures: tuple[tuple[str, PhotoError], ...] = ()


def evaluate(
    request: EvaluateRequest,
    *,
    listener: Listener = SILENT,
    in_flight: Callable[[], AbstractContextManager[InFlight | None]] = nullcontext,
    fetch: Callable[[str | Path | None], object] | None = None,
) -> EvaluateResult:
    """Measure a model's answers on labelled photos.

    Args:
        request: what to do.
        listener: hears notes, and for each model a stage with a step for each photo.
        in_flight: opened while photos are read; is informed of which ones these are.
        fetch: called with each model before it is opened; None where they have to be on this machine.

    Raises:
        ModelError: a model, its labels or the data cannot be used.
        OutputError: the output folder cannot be written.
        UsageError: the output folder holds other things, or an option has no effect.
        UnavailableError: a device or a library is missing.
    """
    output = None if request.output is None else _checked(request.output, overwrite=request.overwrite)
    reassessed = None if request.real is None else real_labels.read(request.real)
    roots = places(request.data, offline=request.offline)
    foreign = _foreign(request)
    with ExitStack() as stack:
        dataset = stack.enter_context(closing(open_data(roots)))
        dataset = labelled_data.as_trained(dataset, request.predictor.model.model, roots, listener)
        split, photos = labelled_data.photos_of_split(dataset, request.split, listener)
        labelled_data.note_problems(dataset, listener)
        predictors = _open_predictors(request, listener, fetch, stack)
        chosen, predictors = _choose(dataset, photos, predictors, reassessed, request, listener)
        notes = stack.enter_context(in_flight())
        predictors = [predictor.noting(notes) for predictor in predictors]
        meters = _meters(request, predictors, chosen)
        return _measure(dataset, chosen, predictors, meters, foreign, split, output, request, listener)


def _foreign(request: EvaluateRequest) -> Callable[[], Iterator[Photo]] | None:
    """Find the foreign photos, once for each model. Raises UsageError at once if they do not exist."""
    if not request.foreign:
        return None
    selection = PhotoSelection(paths=tuple(os.fspath(path) for path in request.foreign), offline=request.offline)
    selection.photos(selection.finder(shards="opened"))
    return lambda: selection.photos(selection.finder(shards="opened"))


def _meters(request: EvaluateRequest, predictors: list[Predictor], chosen: Chosen) -> list[Meter | None]:
    """For each model what records its calibrated answers; None where there are none."""
    meters: list[Meter | None] = []
    for options, predictor, right in zip(request.predictors, predictors, chosen.truths, strict=True):
        if predictor.decider is None:
            meters.append(None)
            continue
        preprocessing = predictor.preprocessor.preprocessing
        path = zoo.resolve(options.model.model)
        calibration = calibration_of(path, predictor.engine, predictor.labels, preprocessing)
        meters.append(Meter(predictor, calibration, right.answers))
    return meters


def _checked(output: str | Path, *, overwrite: bool) -> Path:
    """The output folder, if it may be written. Raises UsageError and OutputError."""
    check_output(os.fspath(output))
    output_folder.check(Path(output), overwrite=overwrite)
    return Path(output)


def _open_predictors(
    request: EvaluateRequest,
    listener: Listener,
    fetch: Callable[[str | Path | None], object] | None,
    stack: ExitStack,
) -> list[Predictor]:
    predictors = []
    for options in request.predictors:
        if fetch is not None:
            fetch(options.model.model)
        predictor = open_predictor(options, job="throughput", prepare=True, say=listener.note, stage=listener.stage)
        stack.callback(predictor.engine.close)
        for remark in remarks(predictor, options):
            listener.note(remark)
        predictors.append(predictor)
    if len({predictor.model for predictor in predictors}) < len(predictors):  # two files of one name
        names = [options.model.model for options in request.predictors]
        predictors = [
            replace(predictor, model=predictor.model if name is None else str(name))
            for predictor, name in zip(predictors, names, strict=True)
        ]
    return predictors


def _choose(
    dataset: Dataset,
    photos: tuple[LabelledPhoto, ...],
    predictors: list[Predictor],
    reassessed: list[list[int]] | None,
    request: EvaluateRequest,
    listener: Listener,
) -> tuple[Chosen, list[Predictor]]:
    """The photos and the right labels of each; the predictors with the labels that count."""
    if reassessed is None:
        folder_drawing.check(dataset)
    models = [
        truth.find(dataset, predictor.labels, by_index=request.by_index, only_these=request.only_these)
        for predictor in predictors
    ]
    chosen = truth.choose(photos, models, skip_unmatched=request.skip_unmatched, reassessed=reassessed)
    if chosen.left_out:
        names = ", ".join(chosen.unmatched[:_SHOWN]) + (", …" if len(chosen.unmatched) > _SHOWN else "")
        listener.note(f"left out: {truth.counted_reasons(chosen.left_out)}{': ' * bool(names)}{names}")
    return chosen, [
        replace(predictor, labels=labels) for predictor, (labels, _) in zip(predictors, models, strict=True)
    ]


def _measure(
    dataset: Dataset,
    chosen: Chosen,
    predictors: list[Predictor],
    meters: list[Meter | None],
    foreign: Callable[[], Iterator[Photo]] | None,
    split: Split | None,
    output: Path | None,
    request: EvaluateRequest,
    listener: Listener,
) -> EvaluateResult:
    with ExitStack() as stack:
        folder = None if output is None else stack.enter_context(replacing_folder(output))
        files = (output_folder.PREDICTIONS, output_folder.AGAINST)
        known = [(meter.predictor.model, meter.calibration) for meter in meters if meter is not None]
        calibrated_on = CalibrationPhotos(known, len(chosen.photos)) if known else None
        judged_all = []
        for right, predictor, meter, name in zip(chosen.truths, predictors, meters, files, strict=False):
            path = folder and folder / name
            judged_all.append(_judge(dataset, chosen, right, predictor, path, listener, meter, calibrated_on))
            if calibrated_on is not None:
                for note in calibrated_on.notes():
                    listener.note(note)
                calibrated_on = None  # the first pass has looked at every photo, for both models
            if foreign is not None and meter is not None:
                listener.stage(f"{predictor.model}: foreign photos")
                meter.ask_foreign(foreign(), lambda row: listener.advance(failed=int(row.error is not None)))
        judged, photos = judged_all, chosen.photos
        if request.skip_bad:
            judged, photos = document.without_failures(judged_all, photos)
        sureness = [_sureness(meter, one, request) for meter, one in zip(meters, judged, strict=True)]
        values = document.build(
            dataset, split, chosen, photos, predictors, judged, sureness, precision=request.precision
        )
        if folder is not None:
            most = MISTAKES if request.mistakes is None else request.mistakes
            if undrawn := output_folder.write(folder, values, judged[0], dataset, photos, most=most):
                listener.note(f"{' and '.join(undrawn)} not drawn: pip install matplotlib")
    errors = {place: error for one in reversed(judged_all) for place, error in one.answers.errors.items()}
    models = tuple(_figures(*one) for one in zip(predictors, judged, sureness, strict=True))
    # both models are asked about the same foreign photos
    foreign_errors = {
        path: error for meter in meters if meter and meter.foreign for path, error in meter.foreign.failures
    }
    return EvaluateResult(
        document=values,
        models=models,
        photos=len(chosen.photos),
        failures=tuple((chosen.photos[place].path, errors[place]) for place in sorted(errors)),
        failed=0 if request.skip_bad else len(errors),
        falls_short=request.fail_below is not None and models[0].top1.is_below(request.fail_below),
        output=output,
        foreign_failures=tuple(foreign_errors.items()),
    )


def _sureness(meter: Meter | None, judged: Judged, request: EvaluateRequest) -> Sureness | None:
    records = judged.answers.records
    if meter is None or records is None:
        return None
    return sureness_of(records, meter.decider, request.predictor.scoring.sets, meter.foreign)


def _judge(
    dataset: Dataset,
    chosen: Chosen,
    right: Truth,
    predictor: Predictor,
    predictions: Path | None,
    listener: Listener,
    meter: Meter | None,
    calibrated_on: CalibrationPhotos | None,
) -> Judged:
    """One model's answers; its rows go into the file of predictions."""
    with ExitStack() as stack:
        rows = output_folder.Predictions(stack.enter_context(predictions.open("wb")), right) if predictions else None
        listener.stage(predictor.model, len(chosen.photos))

        def keep(photo: LabelledPhoto, row: Row) -> None:
            listener.advance(failed=int(row.error is not None))
            if rows is not None:
                rows.keep(photo, row)

        answered = answers.answer(predictor, dataset, chosen.photos, keep, meter=meter, calibrated_on=calibrated_on)
        return Judged(right, answered)


def _figures(predictor: Predictor, judged: Judged, sureness: Sureness | None) -> ModelFigures:
    top, photos = judged.answers.top, len(judged.answers.top)
    top5 = Share.of(int(judged.truth.right(top).sum()), photos)
    return ModelFigures(
        model=predictor.model,
        top1=Share.of(int(judged.right.sum()), photos),
        top5=top5 if figures.means_top5(len(predictor.labels.names)) else None,
        calibration_error=figures.known_calibration_error(judged.reliability()),
        times=predictor.times,
        sureness=sureness,
    )
