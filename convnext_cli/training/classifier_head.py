"""Only a classifier, on features that are computed once: a convex problem, which is solved instead of trained.

Multinomial logistic regression with a penalty on the weights; L-BFGS in float64 finds the one solution, and val the
penalty. What takes hours otherwise takes the time of looking at each photo once or twice.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from convnext_cli.base.errors import UsageError
from convnext_cli.model.network import ConvNextForImageClassification
from convnext_cli.training.distributed import Processes
from convnext_cli.training.features import Features
from convnext_cli.training.initial_network import Start
from convnext_cli.training.listener import TrainListener
from convnext_cli.training.loop import Photos
from convnext_cli.training.records import Evaluation
from convnext_cli.training.run_folder import RunFolder
from convnext_cli.training.settings import TrainingSettings

POWERS = range(-1, -7, -1)  # of ten: the penalties that are always tried
# How far the search goes on where the best penalty is the last one on its side.
WEAKEST, STRONGEST = -9, 3
UNJUDGED = -2  # where no val says which is best
_STEPS = 500


@dataclass(frozen=True)
class Fit:
    """Of one penalty. weight: (classes, C); bias: (classes,), both of features as they are. loss, top1: on val, NaN
    without val."""

    penalty: float
    weight: Tensor
    bias: Tensor
    loss: float
    top1: float

    @property
    def merit(self) -> tuple[float, float]:
        """The larger, the better."""
        return self.top1, -self.loss


class Solver:
    """Fits a classifier for one penalty after the other, each begun where the last one ended.

    train, val: features (N, C), of one photo or more. rows: (N,) of the classifier. weights: of classes, (classes,), or
    None. smoothing: of labels.
    """

    def __init__(
        self, train: Tensor, rows: Tensor, val: Tensor, val_rows: Tensor, weights: Tensor | None, smoothing: float
    ) -> None:
        classes = int(rows.max()) + 1 if weights is None else len(weights)
        self._mean, self._deviation = train.mean(0), train.std(0) + 1e-6
        self._x, self._rows = (train - self._mean) / self._deviation, rows
        self._val, self._val_rows = val, val_rows
        self._weight = torch.zeros((classes, train.shape[1]), dtype=torch.float64, requires_grad=True)
        self._bias = torch.zeros(classes, dtype=torch.float64, requires_grad=True)
        self._share = None if weights is None else weights.double()
        self._smoothing, self._last = smoothing, 0.0

    def __call__(self, penalty: float) -> Fit:
        weight, bias = self._weight, self._bias
        if penalty > self._last:  # the weights of a strong penalty are near zero, and far from those of a weak one
            with torch.no_grad():
                weight.zero_()
                bias.zero_()
        self._last = penalty
        solver = torch.optim.LBFGS(
            [weight, bias], max_iter=_STEPS, tolerance_grad=1e-7, history_size=20, line_search_fn="strong_wolfe"
        )

        def loss() -> Tensor:
            error = F.cross_entropy(
                F.linear(self._x, weight, bias),
                self._rows,
                weight=self._share,
                label_smoothing=self._smoothing,
                reduction="sum",
            )
            return error / len(self._x) + penalty * weight.square().sum()

        def closure() -> Tensor:
            solver.zero_grad()
            value = loss()
            value.backward()  # type: ignore[no-untyped-call]
            return value

        solver.step(closure)  # type: ignore[no-untyped-call]
        with torch.no_grad():
            own = weight / self._deviation
            shift = bias - (own * self._mean).sum(1)
            val_loss, top1 = math.nan, math.nan
            if len(self._val):
                answers = F.linear(self._val, own, shift)
                val_loss = float(F.cross_entropy(answers, self._val_rows))
                top1 = float((answers.argmax(1) == self._val_rows).double().mean())
            return Fit(penalty, own.float(), shift.float(), val_loss, top1)


def search(fit: Callable[[float], Fit]) -> Iterator[Fit]:
    """The fits of all penalties, the strongest first; and of more, as long as the best one has no neighbour on a side.

    A best penalty at the end of the list says that a better one may lie beyond it.
    """
    merits: dict[int, tuple[float, float]] = {}
    waiting = list(POWERS)
    while waiting:
        power = waiting.pop(0)
        fitted = fit(10.0**power)
        merits[power] = fitted.merit
        yield fitted
        best = max(merits, key=lambda power: merits[power])
        if not waiting and best == max(merits) < STRONGEST:
            waiting = [best + 1]
        elif not waiting and best == min(merits) > WEAKEST:
            waiting = [best - 1]


def solve(
    recipe: TrainingSettings,
    start: Start,
    photos: Photos,
    weights: Tensor | None,
    processes: Processes,
    folder: RunFolder,
    listener: TrainListener,
    *,
    dtype: str,
    threads: int,
) -> Evaluation:
    """Put the best classifier into the network; gives its evaluation. weights: of classes.

    Raises UsageError under several processes.
    """
    check_alone(processes.world)
    network = start.network.to(processes.device).to(memory_format=torch.channels_last)
    features = Features(network, start.preprocessing, processes.device, dtype=dtype, threads=threads, say=listener.note)

    def counted(name: str, total: int) -> Callable[[int], None]:
        return lambda done: listener.progress(f"computing the features of {name}", done, total)

    plain, mirrored = features.of(photos.train, mirrored=recipe.flip, progress=counted("train", len(photos.train)))
    val = plain[:0]
    if len(photos.val):
        val, _ = features.of(photos.val, progress=counted("val", len(photos.val)))
    train, rows = plain, photos.train_labels
    if mirrored is not None:
        train, rows = torch.cat([plain, mirrored]), rows.repeat(2)
    if weights is None:
        weights = torch.ones(network.config.num_labels)
    folder.cut_log(-1)
    listener.note("fitting the classifier to these features")
    solver = Solver(train, rows, val, photos.val_labels, weights, recipe.smoothing)
    if not len(photos.val):
        only = solver(10.0**UNJUDGED)
        _put(network, only)
        return {"step": 1, "epoch": 0.0, "penalty": only.penalty}
    best: Fit | None = None
    best_line: Evaluation | None = None
    for step, fit in enumerate(search(solver), 1):
        line = Evaluation(step=step, epoch=0.0, penalty=fit.penalty, val_top1=fit.top1, val_loss=fit.loss)
        folder.add_to_log(line)
        listener.evaluated(min(1.0, step / len(POWERS)), line)
        if best is None or fit.merit > best.merit:
            best, best_line = fit, line
    assert best is not None and best_line is not None
    _put(network, best)
    return best_line


def check_alone(processes: int) -> None:
    """Raise UsageError where several processes were started to fit a classifier."""
    if processes > 1:
        raise UsageError("--freeze needs one process", "start it without torchrun")


@torch.no_grad()
def _put(network: ConvNextForImageClassification, fit: Fit) -> None:
    """Make a fit the classifier of the network."""
    network.head.weight.copy_(fit.weight)
    network.head.bias.copy_(fit.bias)
