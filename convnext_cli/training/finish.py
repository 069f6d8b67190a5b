"""What is made of the best weights: a size, a temperature, figures, pictures, and the model with its card."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
import torch.nn.functional as F

from convnext_cli import checkpoints
from convnext_cli.base.errors import PhotoError, UnavailableError
from convnext_cli.certainty.calibration import Calibration
from convnext_cli.datasets import LabelledPhoto
from convnext_cli.evaluation import figures
from convnext_cli.evaluation import plots as pictures
from convnext_cli.evaluation.calibrate import fit_on
from convnext_cli.model.preprocessing import Preprocessing
from convnext_cli.predict.open import open_predictor
from convnext_cli.predict.options import PredictorOptions
from convnext_cli.predict.predictor import Predictor
from convnext_cli.training import model_file, plots
from convnext_cli.training.data import TrainingData
from convnext_cli.training.distributed import Processes
from convnext_cli.training.features import Features
from convnext_cli.training.job import Job
from convnext_cli.training.listener import TrainListener
from convnext_cli.training.loop import Photos
from convnext_cli.training.photo_cache import Judged, Pixels, load
from convnext_cli.training.records import Evaluation, Figures, Results
from convnext_cli.training.run_folder import RunFolder
from convnext_cli.training.settings import TrainingSettings
from convnext_cli.training.setup import Prepared
from convnext_cli.training.validation import FittedTemperature, calibrate, judge, logits

LARGER = (1.0, 1.125, 1.25, 1.5)  # times the edge of training, that are tried


def finish(
    job: Job, ready: Prepared, processes: Processes, folder: RunFolder, listener: TrainListener, best: Evaluation
) -> Results:
    """Write the model and its pictures; gives the results for run.json. In the first process alone."""
    recipe, start, data, photos = ready.recipe, ready.start, ready.data, ready.photos
    alone = Processes(0, 1, processes.device)
    network = checkpoints.build(checkpoints.load(folder.best)).requires_grad_(False)
    network = network.to(alone.device).to(memory_format=torch.channels_last)

    def of(split: str, preprocessing: Preprocessing) -> tuple[torch.Tensor, set[str]]:
        """Logits in float32, as ``convnext evaluate`` computes them; and paths that cannot be read any more."""
        some: Sequence[LabelledPhoto] = getattr(data, split)
        pixels, bad = photos.val, list[tuple[LabelledPhoto, PhotoError]]()
        if split != "val" or preprocessing != start.preprocessing:
            pixels, bad = load(
                data.dataset,
                job.paths,
                some,
                Judged(preprocessing),
                threads=job.threads,
                timeout=job.timeout,
                memory=job.memory,
                progress=lambda done: listener.progress(
                    f"reading {split} at {preprocessing.size[0]} pixels", done, len(some)
                ),
            )
        gone = {photo.path for photo, _ in bad}
        if gone:
            listener.note(f"{len(gone)} photos of {split} can no longer be read, such as {min(gone)}")
        return logits_of(pixels, preprocessing, split) if len(pixels) else torch.empty(0, 0), gone

    engines: dict[Preprocessing, Features] = {}

    def logits_of(pixels: Pixels, preprocessing: Preprocessing, split: str) -> torch.Tensor:
        def tell(done: int) -> None:
            listener.progress(f"computing the answers for {split} at {preprocessing.size[0]} pixels", done, len(pixels))

        tell(0)
        if not recipe.freeze:
            return logits(network, pixels, preprocessing, alone, workers=job.workers, progress=tell)
        if preprocessing not in engines:  # the fastest engine, as for the features that the classifier was fitted to
            engines[preprocessing] = Features(network, preprocessing, alone.device, threads=job.threads)
        features, _ = engines[preprocessing].of(pixels, progress=tell)
        return F.linear(features.float(), network.head.weight.cpu(), network.head.bias.cpu())

    preprocessing = start.preprocessing
    results: Results = {"best_step": best["step"], "best_epoch": best["epoch"]}
    if "penalty" in best:
        results["penalty"] = best["penalty"]
    metrics: dict[str, float] = {}
    temperature, answers_of_val = None, None
    if data.val:
        preprocessing, answers_of_val, sizes = _size(
            recipe, start.preprocessing, photos.val_labels, network.config.stride, of
        )
        fitted = calibrate(answers_of_val, photos.val_labels)
        temperature = fitted.temperature
        results["val"] = fitted.used
        results["temperature_fitted"] = fitted.fitted
        results["val_ece_before"] = fitted.before["ece"]
        results["val_ece_fitted"] = fitted.after["ece"]
        results["val_loss_before"] = fitted.before["loss"]
        results["val_loss_fitted"] = fitted.after["loss"]
        if len(sizes) > 1:
            results["val_top1_by_size"] = {str(edge): top1 for edge, top1 in sizes.items()}
        metrics |= _percent("val", fitted.used) | _errors(fitted)
    results["size"], results["temperature"] = preprocessing.size[0], temperature
    if data.test:
        rows, (answers, gone) = data.rows, of("test", preprocessing)
        labels = torch.tensor([rows[photo.label] for photo in data.test if photo.path not in gone])
        if len(labels):
            results["test"] = judge(answers, labels, temperature or 1.0)
            metrics |= _percent("test", results["test"])
    name = folder.path.resolve().name
    card = model_file.card(name, start, data, recipe)
    card = card.replace(preprocessing=preprocessing, temperature=temperature, metrics=metrics)
    model_file.write(folder.model, network, card)
    if data.val:
        # the engine that computed the features of frozen weights, if any: it gives the network's own answers
        engine = engines[preprocessing].engine if preprocessing in engines else "torch"
        calibration = _limits(job, ready, alone.device, folder, temperature, engine, listener)
        model_file.write(folder.model, network, card, calibration)
    _draw(
        folder,
        None if answers_of_val is None else answers_of_val / (temperature or 1.0),
        photos,
        data,
        results,
        listener,
    )
    return results


def _limits(
    job: Job,
    ready: Prepared,
    device: torch.device,
    folder: RunFolder,
    temperature: float | None,
    engine: str,
    listener: TrainListener,
) -> Calibration:
    """The calibration of the model that was written, on the photos for val: as ``convnext calibrate`` fits it."""

    def opened(engine: str) -> Predictor:
        options = PredictorOptions.of(
            model=folder.model, engine=engine, device=str(device), threads=job.threads, timeout=job.timeout
        )
        return open_predictor(options, job="throughput")

    try:
        predictor = opened(engine)
    except UnavailableError:  # it gives the features of this network, but not closely enough its answers
        predictor = opened("torch")
    try:
        data = ready.data
        rows = np.array([data.rows[photo.label] for photo in data.val], np.int64)
        calibration, _ = fit_on(predictor, data.dataset, data.val, rows, listener, temperature=temperature)
    finally:
        predictor.engine.close()
    return calibration


def _size(
    recipe: TrainingSettings,
    preprocessing: Preprocessing,
    labels: torch.Tensor,
    stride: int,
    of: Callable[[str, Preprocessing], tuple[torch.Tensor, set[str]]],
) -> tuple[Preprocessing, torch.Tensor, dict[int, float]]:
    """The preprocessing with the most correct answers on val, its logits, and the share of correct answers by size.

    Args:
        recipe: of the run.
        preprocessing: of photos as large as those that the network was trained on.
        labels: of val.
        stride: of the network; sizes are multiples of it.
        of: gives the logits of a split, and the photos that cannot be read any more.
    """
    answers, _ = of("val", preprocessing)
    sizes = {preprocessing.size[0]: judge(answers, labels)["top1"]}
    best = preprocessing
    for factor in LARGER[1:] if recipe.search_size else ():
        edge = round(recipe.size * factor / stride) * stride
        if edge in sizes:
            continue
        larger = preprocessing.at_size(edge)
        other, gone = of("val", larger)
        if gone:  # what is left says nothing beside the whole
            break
        sizes[edge] = judge(other, labels)["top1"]
        if sizes[edge] <= sizes[best.size[0]]:
            break
        best, answers = larger, other
    return best, answers, sizes


def _errors(calibration: FittedTemperature) -> dict[str, float]:
    """The calibration errors of val for the card, with the fitted temperature and without; none where none is known."""
    if calibration.fitted is None:
        return {}
    both = {"without temperature": calibration.before["ece"], "with fitted temperature": calibration.after["ece"]}
    return {f"val ece {name}": round(ece, 4) for name, ece in both.items() if ece is not None}


def _percent(split: str, answers: Figures) -> dict[str, float]:
    """For the card, without figures that say nothing."""
    rounded = {
        f"{split} top-1": (100, answers["top1"], 3),
        f"{split} top-5": (100, answers["top5"], 3),
        f"{split} ece": (1, answers["ece"], 4),
    }
    return {
        name: round(factor * value, digits) for name, (factor, value, digits) in rounded.items() if value is not None
    }


def _draw(
    folder: RunFolder,
    logits: torch.Tensor | None,
    photos: Photos,
    data: TrainingData,
    results: Results,
    listener: TrainListener,
) -> None:
    if not plots.available():
        listener.note("plots are not drawn: pip install matplotlib")
        return
    if "penalty" not in results:  # a solved classifier has no course
        plots.curves(folder.read_log(), folder.curves)
    if logits is None:
        return
    answers, labels = logits.argmax(1).numpy(), photos.val_labels.numpy()
    counts = np.zeros((len(data.classes), len(data.classes)), np.int64)
    np.add.at(counts, (labels, answers), 1)
    pictures.confusion(counts, data.label_set().names, folder.confusion)
    bins = figures.reliability(logits.softmax(1).max(1).values.double().numpy(), answers == labels)
    pictures.reliability([vars(share) for share in bins], results["val"]["ece"], folder.reliability)
