"""What is made of the best weights: a size, a temperature, figures, pictures, and the model with its card."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from convnext_cli import checkpoints
from convnext_cli.evaluation import figures
from convnext_cli.evaluation import plots as pictures
from convnext_cli.photos.recipe import Recipe
from convnext_cli.training import plots, product
from convnext_cli.training.data import TrainingData
from convnext_cli.training.folder import RunFolder
from convnext_cli.training.job import Job, Teller
from convnext_cli.training.judge import Calibration, calibrate, judge, logits
from convnext_cli.training.loop import Photos
from convnext_cli.training.pixels import Judged, load
from convnext_cli.training.prepare import Prepared
from convnext_cli.training.processes import Processes

LARGER = (1.0, 1.125, 1.25, 1.5)  # times the edge of training, that are tried


def finish(
    job: Job, ready: Prepared, processes: Processes, folder: RunFolder, teller: Teller, best: dict[str, Any]
) -> dict[str, Any]:
    """Write the model and its pictures; gives {"results": …} for run.json. In the first process alone."""
    recipe, start, data, photos = ready.recipe, ready.start, ready.data, ready.photos
    alone = Processes(0, 1, processes.device)
    network = checkpoints.build(checkpoints.load(folder.best)).requires_grad_(False)
    network = network.to(alone.device).to(memory_format=torch.channels_last)

    def of(split: str, rule: Recipe) -> tuple[torch.Tensor, set[str]]:
        """Logits in float32, as ``convnext evaluate`` computes them; and paths that cannot be read any more."""
        some, pixels, bad = getattr(data, split), photos.val, list[Any]()
        if split != "val" or rule != start.recipe:
            pixels, bad = load(
                data.dataset,
                job.paths,
                some,
                Judged(rule),
                threads=job.threads,
                timeout=job.timeout,
                memory=job.memory,
                progress=lambda done: teller.progress(f"reading {split} at {rule.size[0]} pixels", done, len(some)),
            )
        gone = {photo.path for photo, _ in bad}
        if gone:
            teller.say(f"{len(gone)} photos of {split} cannot be read any more, such as {min(gone)}")
        return logits(network, pixels, rule, alone, workers=job.workers) if len(pixels) else torch.empty(0, 0), gone

    rule, (found, _) = start.recipe, of("val", start.recipe)
    sizes = {rule.size[0]: judge(found, photos.val_labels)}
    if recipe.search_size:
        for factor in LARGER[1:]:
            stride = network.config.stride
            edge = round(recipe.size * factor / stride) * stride
            if edge in sizes:
                continue
            larger = start.recipe.at_size(edge)
            other, gone = of("val", larger)
            if gone:  # what is left says nothing beside the whole
                break
            sizes[edge] = judge(other, photos.val_labels)
            if _top1(sizes[edge]) <= _top1(sizes[rule.size[0]]):
                break
            rule, found = larger, other
    calibration = calibrate(found, photos.val_labels)
    temperature, val = calibration.temperature, calibration.used
    results: dict[str, Any] = {
        "best_step": best["step"],
        "best_epoch": best["epoch"],
        **({"penalty": best["penalty"]} if "penalty" in best else {}),
        "size": rule.size[0],
        "temperature": temperature,
        "val": val,
        **_calibration(calibration),
    }
    if len(sizes) > 1:
        results["val_top1_by_size"] = {str(edge): value["top1"] for edge, value in sizes.items()}
    metrics = _percent("val", val)
    for name, ece in (("without temperature", calibration.before), ("with fitted temperature", calibration.after)):
        if calibration.fitted is not None and ece["ece"] is not None:
            metrics[f"val ece {name}"] = round(ece["ece"], 4)
    if data.test:
        rows, (answers, gone) = data.rows, of("test", rule)
        labels = torch.tensor([rows[photo.label] for photo in data.test if photo.path not in gone])
        if len(labels):
            results["test"] = judge(answers, labels, temperature)
            metrics |= _percent("test", results["test"])
    name = folder.path.resolve().name
    card = product.card(name, start, data, recipe, recipe=rule, temperature=temperature, metrics=metrics)
    product.write(folder.model, network, card)
    _draw(folder, found / temperature, photos, data, val["ece"], best, teller)
    return {"results": results}


def _top1(found: dict[str, float | None]) -> float:
    assert found["top1"] is not None
    return found["top1"]


def _calibration(calibration: Calibration) -> dict[str, float | None]:
    """The temperature that was fitted, used or not, and what it does to the figures of val."""
    return {
        "temperature_fitted": calibration.fitted,
        "val_ece_before": calibration.before["ece"],
        "val_ece_fitted": calibration.after["ece"],
        "val_loss_before": calibration.before["loss"],
        "val_loss_fitted": calibration.after["loss"],
    }


def _percent(split: str, found: dict[str, float | None]) -> dict[str, float]:
    """For the card, without figures that say nothing."""
    figures = {
        f"{split} top-1": (100, found["top1"], 3),
        f"{split} top-5": (100, found["top5"], 3),
        f"{split} ece": (1, found["ece"], 4),
    }
    return {
        name: round(factor * value, digits) for name, (factor, value, digits) in figures.items() if value is not None
    }


def _draw(
    folder: RunFolder,
    found: torch.Tensor,
    photos: Photos,
    data: TrainingData,
    ece: float | None,
    best: dict[str, Any],
    teller: Teller,
) -> None:
    if not plots.available():
        teller.say("pictures are not drawn: pip install matplotlib")
        return
    if "penalty" not in best:  # a solved classifier has no course
        plots.curves(folder.read_log(), folder.curves)
    answers, labels = found.argmax(1).numpy(), photos.val_labels.numpy()
    counts = np.zeros((len(data.classes), len(data.classes)), np.int64)
    np.add.at(counts, (labels, answers), 1)
    pictures.confusion(counts, data.label_set().names, folder.confusion)
    bins = figures.reliability(found.softmax(1).max(1).values.double().numpy(), answers == labels)
    pictures.reliability([vars(each) for each in bins], ece, folder.reliability)
