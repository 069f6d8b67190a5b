"""The verb ``calibrate``: what a model knows about its own limits, measured on photos whose classes are known."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, ExitStack, closing, nullcontext
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from convnext_cli import zoo
from convnext_cli.base.errors import ModelError, PhotoError, UsageError
from convnext_cli.base.listener import SILENT, Listener
from convnext_cli.certainty.calibration import Calibration, fit_calibration
from convnext_cli.certainty.probabilities import softmax
from convnext_cli.certainty.temperature import fit_temperature
from convnext_cli.checkpoints import calibration_file, targets
from convnext_cli.datasets import Dataset, LabelledPhoto, folder_drawing, open_data
from convnext_cli.evaluation import figures, labelled_data, truth
from convnext_cli.evaluation.labelled_data import Split
from convnext_cli.predict.calibrated import made_for
from convnext_cli.predict.open import open_predictor, remarks
from convnext_cli.predict.options import PredictorOptions, Scoring
from convnext_cli.predict.predictor import Predictor
from convnext_cli.predict.preprocess import InFlight
from convnext_cli.storage.addresses import check_output, places


@dataclass(frozen=True, kw_only=True)
class CalibrateRequest:
    """What ``calibrate`` is asked for.

    Args:
        data: photos whose classes are known, and that the model was not trained on: a folder, a zip, a table, parquet
            files, tar shards, or URLs of these.
        predictor: the model, and how its photos are prepared.
        split: which photos; None for val, or else test, or else all.
        by_index: the data's classes are numbers of the model's labels, whatever these are called.
        skip_unmatched: leave out photos of classes that the model does not have.
        output: a new canonical file of the weights with the calibration inside; None for a file beside the weights.
        overwrite: replace that file.
        offline: refuse data that a connection is needed for.

    Raises:
        UsageError: an option has no effect.
    """

    data: tuple[str | Path, ...]
    predictor: PredictorOptions = field(default_factory=PredictorOptions)
    split: Split | None = None
    by_index: bool = False
    skip_unmatched: bool = False
    output: str | Path | None = None
    overwrite: bool = False
    offline: bool = False

    def __post_init__(self) -> None:
        if isinstance(self.data, str | Path) or not self.data:
            raise UsageError(f"data must be a tuple of paths, not {self.data!r}", 'such as data=("photos/",)')
        if self.predictor.scoring != Scoring():
            raise UsageError("a calibration is of all classes and scores of a model", "leave options of scores out")
        if self.output is not None and getattr(self.predictor.preprocessing, "options", None):
            raise UsageError(
                "a new file keeps the model's own preprocessing",
                "leave out -o to calibrate the model with other preprocessing, or leave out the preprocessing options",
            )


@dataclass(frozen=True)
class CalibrateResult:
    """What came out of a calibration.

    Args:
        calibration: what was fitted.
        model: the model's name.
        output: the file that was written.
        failures: photos that could not be read, and were left out, by path.
    """

    calibration: Calibration
    model: str
    output: Path
    failures: tuple[tuple[str, PhotoError], ...]


def calibrate(
    request: CalibrateRequest,
    *,
    listener: Listener = SILENT,
    in_flight: Callable[[], AbstractContextManager[InFlight | None]] = nullcontext,
    fetch: Callable[[str | Path | None], object] | None = None,
) -> CalibrateResult:
    """Fit a model's limits on labelled photos, and keep them beside its weights or in a new file.

    Args:
        request: what to do.
        listener: receives notes, and a stage with a step for each photo.
        in_flight: opened while photos are read; is informed of which ones these are.
        fetch: called with the model before it is opened; None where it has to be on this machine.

    Raises:
        ModelError: the model or the data cannot be used.
        OutputError: the calibration cannot be written.
        UsageError: an option has no effect, or a file is in the way.
        UnavailableError: a device or a library is missing.
    """
    options = request.predictor
    name = options.model.model
    if fetch is not None:
        fetch(name)
    model = zoo.resolve(zoo.default_model() if name is None else name)
    output = _target(model, request)
    roots = places(request.data, offline=request.offline)
    with ExitStack() as stack:
        dataset = stack.enter_context(closing(open_data(roots)))
        dataset = labelled_data.as_trained(dataset, name, roots, listener)
        _, photos = labelled_data.photos_of_split(dataset, request.split, listener, preferred=("val", "test"))
        labelled_data.note_problems(dataset, listener)
        folder_drawing.check(dataset)
        predictor = open_predictor(options, job="throughput", prepare=True, say=listener.note, stage=listener.stage)
        stack.callback(predictor.engine.close)
        for remark in remarks(predictor, options):
            listener.note(remark)
        if predictor.scores != "softmax":
            raise ModelError("this model gives no scores of one class a photo", "calibrate a single-label classifier")
        if predictor.labels.groups is not None:
            raise UsageError("these labels stand for several classes of the model", "leave labels out")
        match = truth.find(dataset, predictor.labels, by_index=request.by_index, only_these=False)
        chosen = truth.choose(photos, [match], skip_unmatched=request.skip_unmatched)
        if chosen.left_out:
            listener.note(f"left out: {truth.counted_reasons(chosen.left_out)}")
        predictor = predictor.noting(stack.enter_context(in_flight()))
        calibration, failures = fit_on(predictor, dataset, chosen.photos, chosen.truths[0].answers, listener)
    if output is None:
        written = calibration_file.write_beside(model, calibration)
    else:
        written = _write_canonical(model, output, calibration)
    return CalibrateResult(calibration, predictor.model, written, failures)


def _target(model: Path, request: CalibrateRequest) -> Path | None:
    """The new file, if there is to be one. Raises UsageError if it cannot be."""
    if request.output is None:
        if model == zoo.local_files.bundled():
            raise UsageError("the bundled model is a part of this program", "name a new file: -o FILE.safetensors")
        if request.overwrite:
            raise UsageError("--overwrite is for -o FILE", "leave it out: a calibration beside weights is replaced")
        return None
    check_output(str(request.output))
    output = Path(request.output)
    if output.suffix.lower() != ".safetensors":
        raise UsageError(f"{output} is not a .safetensors file", "such as -o calibrated.safetensors")
    targets.check(model, output, folder=False, overwrite=request.overwrite)
    return output


def fit_on(
    predictor: Predictor,
    dataset: Dataset,
    photos: Sequence[LabelledPhoto],
    rows: np.ndarray,
    listener: Listener,
    *,
    temperature: float | None = None,
) -> tuple[Calibration, tuple[tuple[str, PhotoError], ...]]:
    """Run photos through a model, and fit its limits.

    Args:
        predictor: the model.
        dataset: has the photos.
        photos: those to fit on.
        rows: (N,) of the classifier: the true one of each photo.
        listener: receives a stage with a step for each photo.
        temperature: that logits are divided by; None to fit it too.

    Returns:
        The calibration, and the photos that could not be read, by path.

    Raises:
        ModelError: no photo could be read.
    """
    labels, engine = predictor.labels, predictor.engine
    predictor = replace(predictor, preprocessor=replace(predictor.preprocessor, content=True))
    logits = np.empty((len(photos), len(labels)), np.float32)
    features = np.empty((len(photos), engine.card.config.hidden_sizes[-1]), np.float32)
    keys, known, failures = (
        np.zeros(len(photos), np.uint64),
        np.zeros(len(photos), bool),
        list[tuple[str, PhotoError]](),
    )
    listener.stage(predictor.model, len(photos))
    outputs = predictor.outputs(dataset.stream(photos), features=engine.has_features)
    for place, (photo, (ready, output)) in enumerate(zip(photos, outputs, strict=True)):
        failed = ready.error is not None or output is None or not np.isfinite(output.logits).all()
        if ready.error is not None:
            failures.append((photo.path, ready.error))
        elif output is None or failed:
            failures.append((photo.path, PhotoError("not_finite", "the network gave no finite scores")))
        else:
            logits[place] = output.logits
            if output.features is not None:
                features[place] = output.features
            assert ready.content is not None
            keys[place], known[place] = np.uint64(int(ready.content[:16], 16)), True
        listener.advance(failed=int(failed))
    return (
        fit_calibration(
            logits[known],
            features[known] if engine.has_features else None,
            rows[known],
            labels,
            temperature=temperature or _temperature(logits[known], rows[known]),
            made_for=made_for(engine, labels, predictor.preprocessor.preprocessing),
            keys=keys[known],
        ),
        tuple(failures),
    )


def _temperature(logits: np.ndarray, rows: np.ndarray) -> float:
    """The fitted temperature, where scores are then right as often as they say, or more nearly so; otherwise 1."""
    fitted = fit_temperature(logits, rows)
    errors = []
    for temperature in (1.0, fitted):
        scores = softmax(logits, temperature)
        best = scores.argmax(1)
        bins = figures.reliability(scores.max(1).astype(np.float64), best == rows)
        errors.append(figures.known_calibration_error(bins))
    before, after = errors
    return fitted if before is not None and after is not None and after <= before else 1.0


def _write_canonical(model: Path, output: Path, calibration: Calibration) -> Path:
    from convnext_cli import checkpoints
    from convnext_cli.checkpoints import canonical

    checkpoint = checkpoints.load(model, dtype="stored")
    canonical.write(
        output, checkpoint.tensors, checkpoint.card.replace(temperature=calibration.temperature), calibration
    )
    return output
