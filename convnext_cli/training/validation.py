"""What a network answers on photos that it does not learn from."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from convnext_cli.certainty.temperature import fit_temperature
from convnext_cli.evaluation import figures
from convnext_cli.model.preprocessing import Preprocessing
from convnext_cli.training.batches import judged
from convnext_cli.training.distributed import Processes
from convnext_cli.training.photo_cache import Pixels
from convnext_cli.training.records import Figures

BATCH = 128  # photos that go through the network at once


def normaliser(preprocessing: Preprocessing, device: torch.device) -> Callable[[Tensor], Tensor]:
    """Bytes (N, 3, H, W) to what the network takes, as ``apply_preprocessing`` does it."""
    mean, std = np.array(preprocessing.mean), np.array(preprocessing.std)
    scale = torch.from_numpy((preprocessing.rescale / std).astype(np.float32)).view(-1, 1, 1).to(device)
    shift = torch.from_numpy((mean / std).astype(np.float32)).view(-1, 1, 1).to(device)

    def apply(photos: Tensor) -> Tensor:
        return (photos.to(device).float() * scale - shift).contiguous(memory_format=torch.channels_last)

    return apply


@torch.inference_mode()
def logits(
    forward: torch.nn.Module,
    pixels: Pixels,
    preprocessing: Preprocessing,
    processes: Processes,
    *,
    dtype: torch.dtype = torch.float32,
    workers: int = 0,
    progress: Callable[[int], None] = lambda _: None,
) -> Tensor:
    """(N, classes) float32 on the CPU, in every process, each of which does its part. dtype: of the products.
    progress: called with how many photos of the part are done."""
    apply, device = normaliser(preprocessing, processes.device), processes.device
    answers, done = [], 0
    for photos in judged(pixels, range(processes.rank, len(pixels), processes.world), BATCH, workers):
        with torch.autocast(device.type, dtype, enabled=dtype != torch.float32):
            answers.append(forward(apply(photos)).logits.float().cpu())
        done += len(photos)
        progress(done)
    if processes.world == 1:
        return torch.cat(answers)
    parts = processes.gathered(torch.cat(answers) if answers else None)
    gathered = torch.empty((len(pixels), next(part for part in parts if part is not None).shape[1]))
    for rank, part in enumerate(parts):
        if part is not None:
            gathered[rank :: processes.world] = part
    return gathered


def judge(logits: Tensor, labels: Tensor, temperature: float = 1.0) -> Figures:
    """The figures of logits (N, classes) of one photo or more, by their labels (N,), which are rows of the classifier.

    The calibration error has 15 bins, and is None for fewer photos.
    """
    logits = logits / temperature
    ranks = (logits > logits.gather(1, labels[:, None])).sum(1)
    scores, answers = logits.softmax(1).max(1)
    bins = figures.reliability(scores.double().numpy(), (answers == labels).numpy())
    return {
        "top1": float((answers == labels).double().mean()),
        "top5": float((ranks < figures.TOP).double().mean()) if figures.means_top5(logits.shape[1]) else None,
        "loss": float(torch.nn.functional.cross_entropy(logits, labels)),
        "ece": figures.known_calibration_error(bins),
    }


@dataclass(frozen=True)
class FittedTemperature:
    """What logits are divided by, and the figures of val that decided it.

    temperature: that is used. fitted: the one of the least loss, None where there are too few photos to judge one.
    before, after: figures (``judge``) at 1 and at ``fitted``.
    """

    temperature: float
    fitted: float | None
    before: Figures
    after: Figures

    @property
    def used(self) -> Figures:
        """The figures at the temperature that is used."""
        return self.after if self.temperature == self.fitted else self.before


def calibrate(logits: Tensor, labels: Tensor) -> FittedTemperature:
    """Fit a temperature, and use it where scores are then right as often as they say, or more nearly so.

    A fit lowers the loss on the photos that it is fitted to, even if it spoils the scores of best guesses: the
    calibration error decides. Of so few photos that there is none, nothing can be decided, and logits stay as they are.
    """
    before = judge(logits, labels)
    if before["ece"] is None:
        return FittedTemperature(1.0, None, before, before)
    fitted = fit_temperature(logits.numpy(), labels.numpy())
    after = judge(logits, labels, fitted)
    assert after["ece"] is not None
    return FittedTemperature(fitted if after["ece"] <= before["ece"] else 1.0, fitted, before, after)
