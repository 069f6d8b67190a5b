"""mixup (arXiv 1710.09412) and cutmix (arXiv 1905.04899): neighbours in a batch are laid over each other.

The order of photos is random, so a neighbour is as good as any other partner; and however a batch is split among
processes in even parts, partners stay together.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from convnext_cli.training.seeds import numpy
from convnext_cli.training.settings import TrainingSettings


@dataclass(frozen=True)
class Mix:
    """Of one batch. share: how much of each photo stays its own. box: (top, left, side) as shares of the edge, of the
    square that comes from the neighbour; None where all pixels are mixed."""

    share: float
    box: tuple[float, float, float] | None

    def pixels(self, edge: int) -> tuple[int, int, int, int] | None:
        """The box as (top, bottom, left, right) in photos of this edge."""
        if self.box is None:
            return None
        top, left, side = (round(edge * part) for part in self.box)
        return top, min(edge, top + side), left, min(edge, left + side)

    def blended(self, values: Tensor, edge: int) -> Tensor:
        """Probabilities (N, classes) of photos of this edge as they are mixed: by pixels, which are whole."""
        share = self.share
        if (box := self.pixels(edge)) is not None:
            share = 1 - (box[1] - box[0]) * (box[3] - box[2]) / edge**2
        return share * values + (1 - share) * neighbours(values)


def draw(recipe: TrainingSettings, step: int, done: float) -> Mix | None:
    """What is done to the batch of a step; None for nothing."""
    if not (recipe.mixup or recipe.cutmix) or done >= recipe.mix_until:
        return None
    random = numpy(recipe.seed, "mix", step)
    if random.random() >= recipe.mix_share:
        return None
    cut = recipe.cutmix and (not recipe.mixup or random.random() < 0.5)
    if not cut:
        return Mix(float(random.beta(recipe.mixup, recipe.mixup)), None)
    share = float(random.beta(recipe.cutmix, recipe.cutmix))
    side = math.sqrt(1 - share)
    return Mix(share, (float(random.random()) * (1 - side), float(random.random()) * (1 - side), side))


def neighbours(values: Tensor) -> Tensor:
    """Pairs of a batch with their places changed. Raises ValueError for an odd number."""
    if len(values) % 2:
        raise ValueError(f"a batch of {len(values)} photos has no pairs")
    return values.view(-1, 2, *values.shape[1:]).flip(1).reshape(values.shape)


def apply(mix: Mix, x: Tensor) -> Tensor:
    """x: (N, 3, H, H); N is even."""
    other = neighbours(x)
    if (box := mix.pixels(x.shape[-1])) is None:
        return mix.share * x + (1 - mix.share) * other
    top, bottom, left, right = box
    x = x.clone()
    x[:, :, top:bottom, left:right] = other[:, :, top:bottom, left:right]
    return x


def one_hot(labels: Tensor, classes: int, smoothing: float) -> Tensor:
    """(N, classes) probabilities of (N,) rows: 1 - smoothing more for the true one than for each other."""
    return torch.nn.functional.one_hot(labels, classes).float() * (1 - smoothing) + smoothing / classes
