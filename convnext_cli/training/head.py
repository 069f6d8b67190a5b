"""Only a classifier, on features that are computed once: a convex problem, which is solved instead of trained.

Multinomial logistic regression with a penalty on the weights; L-BFGS in float64 finds the one solution, and val the
penalty. What takes hours otherwise takes the time of looking at each photo once or twice.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from convnext_cli.errors import UsageError
from convnext_cli.model import ConvNextForImageClassification
from convnext_cli.photos.recipe import Recipe
from convnext_cli.training.batches import judged
from convnext_cli.training.folder import RunFolder
from convnext_cli.training.judge import BATCH, normaliser
from convnext_cli.training.loop import DTYPES, Photos
from convnext_cli.training.pixels import Pixels
from convnext_cli.training.processes import Processes
from convnext_cli.training.recipe import TrainingRecipe
from convnext_cli.training.start import Start

PENALTIES = tuple(10.0**power for power in (-6, -5, -4, -3, -2, -1))
_STEPS = 500


@dataclass(frozen=True)
class Fit:
    """Of one penalty. weight: (classes, C); bias: (classes,), both of features as they are. loss: on val."""

    penalty: float
    weight: Tensor
    bias: Tensor
    loss: float
    top1: float


@torch.inference_mode()
def features(
    network: ConvNextForImageClassification,
    pixels: Pixels,
    recipe: Recipe,
    device: torch.device,
    *,
    dtype: torch.dtype,
    workers: int = 0,
    flipped: bool = False,
    progress: Callable[[int], None] = lambda _: None,
) -> Tensor:
    """(N, C) float64 on the CPU: what the classifier reads. flipped: of mirrored photos."""
    apply, found = normaliser(recipe, device), list[Tensor]()
    network.eval()
    for photos in judged(pixels, range(len(pixels)), BATCH, workers):
        x = apply(photos.flip(-1) if flipped else photos)
        with torch.autocast(device.type, dtype, enabled=dtype != torch.float32):
            *_, last = network.hidden_states(x)
            pooled = network.pool(last)
            if network.config.head_hidden_size:
                pooled = F.gelu(network.head_hidden(pooled))
        found.append(pooled.double().cpu())
        progress(sum(map(len, found)))
    return torch.cat(found)


def fits(
    train: Tensor, rows: Tensor, val: Tensor, val_rows: Tensor, weights: Tensor | None, smoothing: float
) -> Iterator[Fit]:
    """One a penalty, the strongest first, each begun where the last one ended.

    train, val: features (N, C). rows: (N,) of the classifier. weights: of classes, (classes,), or None.
    """
    classes = int(rows.max()) + 1 if weights is None else len(weights)
    mean, deviation = train.mean(0), train.std(0) + 1e-6
    x = (train - mean) / deviation
    weight = torch.zeros((classes, x.shape[1]), dtype=torch.float64, requires_grad=True)
    bias = torch.zeros(classes, dtype=torch.float64, requires_grad=True)
    share = None if weights is None else weights.double()
    for penalty in sorted(PENALTIES, reverse=True):
        solver = torch.optim.LBFGS(
            [weight, bias], max_iter=_STEPS, tolerance_grad=1e-7, history_size=20, line_search_fn="strong_wolfe"
        )

        def loss(penalty: float = penalty) -> Tensor:
            found = F.linear(x, weight, bias)
            error = F.cross_entropy(found, rows, weight=share, label_smoothing=smoothing, reduction="sum") / len(x)
            return error + penalty * weight.square().sum()

        def closure() -> Tensor:
            solver.zero_grad()  # noqa: B023 - called within this turn of the loop alone
            value = loss()
            value.backward()  # type: ignore[no-untyped-call]
            return value

        solver.step(closure)  # type: ignore[no-untyped-call]
        with torch.no_grad():
            own = weight / deviation
            shift = bias - (own * mean).sum(1)
            found = F.linear(val, own, shift)
            yield Fit(
                penalty,
                own.float(),
                shift.float(),
                float(F.cross_entropy(found, val_rows)),
                float((found.argmax(1) == val_rows).double().mean()),
            )


def solve(
    recipe: TrainingRecipe,
    start: Start,
    photos: Photos,
    weights: Tensor | None,
    processes: Processes,
    folder: RunFolder,
    teller: Any,
    *,
    dtype: str,
    workers: int,
) -> dict[str, Any]:
    """Put the best classifier into the network; gives its evaluation. weights: of classes.

    Raises UsageError under several processes.
    """
    if processes.world > 1:
        raise UsageError("--freeze needs one process: it takes seconds", "start it without torchrun")
    device = processes.device
    network = start.network.to(device).to(memory_format=torch.channels_last)

    def of(name: str, pixels: Pixels, *, flipped: bool = False) -> Tensor:
        return features(
            network,
            pixels,
            start.recipe,
            device,
            dtype=DTYPES[dtype],
            workers=workers,
            flipped=flipped,
            progress=lambda done: teller.reading(f"features of {name}", done, len(pixels)),
        )

    train, rows, val = of("train", photos.train), photos.train_labels, of("val", photos.val)
    if recipe.flip:
        train, rows = torch.cat([train, of("train, mirrored", photos.train, flipped=True)]), rows.repeat(2)
    if weights is None:
        weights = torch.ones(network.config.num_labels)
    folder.cut_log(-1)
    best: Fit | None = None
    values: dict[str, Any] = {}
    for step, fit in enumerate(fits(train, rows, val, photos.val_labels, weights, recipe.smoothing), 1):
        line = {"step": step, "epoch": 0.0, "penalty": fit.penalty, "val_top1": fit.top1, "val_loss": fit.loss}
        folder.add_to_log(line)
        teller.judged(step / len(PENALTIES), line)
        if best is None or (fit.top1, -fit.loss) > (best.top1, -best.loss):
            best, values = fit, line
    assert best is not None
    with torch.no_grad():
        network.head.weight.copy_(best.weight)
        network.head.bias.copy_(best.bias)
    return values
