"""What changes over a run: learning rate, edge of the photos, mixing. ``done`` is the share of the run, 0 to 1."""

from __future__ import annotations

import math

from convnext_cli.training.settings import TrainingSettings


def lr_factor(recipe: TrainingSettings, done: float) -> float:
    """The learning rate as a share of the highest: a straight rise, then half a cosine (appendix A of the paper)."""
    if done < recipe.warmup:
        return done / recipe.warmup
    rest = min(1.0, (done - recipe.warmup) / (1 - recipe.warmup)) if recipe.warmup < 1 else 0.0
    return recipe.min_lr + (1 - recipe.min_lr) * 0.5 * (1 + math.cos(math.pi * rest))


def size_at(recipe: TrainingSettings, done: float) -> int:
    """The edge of the photos in pixels."""
    return next((size for until, size in recipe.sizes if done < until), recipe.size)


def ema_decay(recipe: TrainingSettings, step: int) -> float:
    """How much the average keeps at a step: little at first, so that the first weights are soon forgotten."""
    return min(recipe.ema, (1 + step) / (10 + step))
