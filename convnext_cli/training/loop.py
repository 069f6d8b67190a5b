"""The loop: batches, loss, optimiser, average, evaluations, checkpoints."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.parallel import DistributedDataParallel

from convnext_cli.base.errors import ModelError
from convnext_cli.model.preprocessing import Preprocessing
from convnext_cli.training import augment, mixup, schedule
from convnext_cli.training import optimiser as optimise
from convnext_cli.training.batches import Batches, Plan
from convnext_cli.training.depthwise import replace_depthwise
from convnext_cli.training.distributed import Processes
from convnext_cli.training.initial_network import KeptPaths, Start
from convnext_cli.training.listener import TrainListener
from convnext_cli.training.photo_cache import Pixels
from convnext_cli.training.records import Evaluation, Step
from convnext_cli.training.run_folder import RunFolder, State
from convnext_cli.training.settings import TrainingSettings
from convnext_cli.training.teacher import divergence
from convnext_cli.training.validation import judge, logits, normaliser

SAVED_EVERY = 60.0  # seconds; what a kill costs at most
LOGGED_EVERY = 50  # steps
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}


class Teacher(Protocol):
    """What another model says of photos. of_photos: whether of photos as they are, not as they were mixed. columns: the
    classes that it knows, as rows of the network's classifier; None for all."""

    of_photos: bool
    columns: Tensor | None

    def __call__(self, x: Tensor, numbers: Tensor) -> Tensor:
        """Logits (N, columns) of normalised photos (N, 3, H, W), whose numbers in train are given too."""
        ...


@dataclass
class Photos:
    """train, val: pixels; their labels as rows of the classifier, (N,) int64."""

    train: Pixels
    train_labels: Tensor
    val: Pixels
    val_labels: Tensor


@dataclass
class Progress:
    """Where a run stands.

    Args:
        step: steps that were done.
        spent: seconds of training, in all its parts; reading photos and compiling do not count.
        best: the best evaluation so far; None before the first.
        worse: evaluations since then.
        history: all evaluations.
        summed: the loss of the steps that were not logged yet.
        since: the number of these steps.
    """

    step: int = 0
    spent: float = 0.0
    best: Evaluation | None = None
    worse: int = 0
    history: list[Evaluation] = field(default_factory=list)
    summed: float = 0.0
    since: int = 0


class Trainer:
    """One run.

    dtype: of the products. write: makes a model of the network as it is, at a path.
    """

    def __init__(
        self,
        recipe: TrainingSettings,
        start: Start,
        photos: Photos,
        processes: Processes,
        folder: RunFolder,
        listener: TrainListener,
        *,
        dtype: str,
        workers: int,
        write: Callable[[Path], None],
        weights: Tensor | None = None,
        teacher: Teacher | None = None,
    ) -> None:
        self.recipe, self.photos, self.processes, self.folder, self.listener = (
            recipe,
            photos,
            processes,
            folder,
            listener,
        )
        device = processes.device
        self.network = start.network.to(device).to(memory_format=torch.channels_last).train()
        if device.type == "cpu":
            replace_depthwise(self.network)
        self.plan = Plan(len(photos.train), recipe.batch_size, recipe.seed)
        self.micro = recipe.batch_size // processes.world // recipe.accumulate
        self.total = None if recipe.epochs is None else max(1, round(recipe.epochs * self.plan.steps))
        self.optimisers = optimise.optimisers(self.network, recipe)
        self.average = optimise.Average(self.network) if recipe.ema else None
        self.paths = KeptPaths(self.network, self.micro, device)
        self.state = Progress()
        self.stop = False  # asked to end, by a signal
        self.stopped = False  # ended so, as the first process was asked to
        self._preprocessing: Preprocessing = start.preprocessing
        self._normalise = normaliser(start.preprocessing, device)
        self._labels = photos.train_labels.to(device)
        self._dtype, self._workers, self._write = DTYPES[dtype], workers, write
        self._weights = None if weights is None else weights.to(device)
        self._teacher = teacher
        self._done = 0.0
        self._compiled: set[int] = set()  # edges that torch has compiled the network for
        self._running = torch.zeros((), device=device)  # loss of the steps that were not logged yet
        self._noted = 0.0
        self._parallel = None
        if processes.world > 1:
            self._parallel = DistributedDataParallel(self.network, [device.index] if device.type == "cuda" else None)
        forward = self._parallel or self.network
        self._forward = torch.compile(forward, dynamic=False) if recipe.compile else forward
        logging.getLogger("torch.utils.cpp_extension").setLevel(logging.ERROR)  # it misses CUDA on machines without

    # ------------------------------------------------------------------ going on

    def resume(self, values: State) -> None:
        """Take up what ``_save`` left. Raises ModelError when it is of another network."""
        try:
            self.network.load_state_dict(values["network"])
            for optimiser, saved in zip(self.optimisers, values["optimisers"], strict=True):
                optimiser.load_state_dict(saved)
            if self.average is not None:
                for value, saved in zip(self.average.values, values["average"], strict=True):
                    value.copy_(saved)
            self.state = Progress(**values["progress"])
            self._running.fill_(self.state.summed)
        except (KeyError, ValueError, RuntimeError, TypeError) as error:
            raise ModelError(
                f"{self.folder.last} belongs to another run", "start again with --overwrite, or in another folder"
            ) from error

    def _save(self) -> None:
        if not self.processes.first:
            return
        self.state.summed = float(self._running)
        self.folder.write_state(
            {
                "network": self.network.state_dict(),
                "optimisers": [optimiser.state_dict() for optimiser in self.optimisers],
                "average": [] if self.average is None else self.average.values,
                "progress": vars(self.state),
            }
        )

    # ------------------------------------------------------------------ the run

    def run(self) -> Progress:
        """Train until the budget is spent, it gets no better, or ``stop`` is set; then save its state."""
        state, recipe = self.state, self.recipe
        begun, before = time.perf_counter(), state.spent
        saved = self._noted = begun
        batches = iter(
            Batches(
                self.photos.train,
                recipe,
                self.plan,
                self._size_at,
                first=state.step,
                rank=self.processes.rank,
                world=self.processes.world,
                workers=self._workers,
                device=self.processes.device,
            )
        )
        while True:
            state.spent = before + time.perf_counter() - begun
            spent, stop = self.processes.shared(state.spent, self.stop)
            self._done = self._share(state.step, spent)
            over = self._done >= 1 or (recipe.patience > 0 and state.worse >= recipe.patience)
            if over or stop:
                self.stopped = not over
                break
            photos, numbers = next(batches)
            if self._compiles():
                # the budget and the learning rate follow the clock, which training alone moves
                waited = time.perf_counter()
                self._running += self._step(photos, numbers)
                begun += time.perf_counter() - waited
            else:
                self._running += self._step(photos, numbers)
            state.step += 1
            state.since += 1
            looks = self._is_time_to_judge()
            if looks or state.step % LOGGED_EVERY == 0 or state.step in (1, 10):
                self._log_step()
            if looks:
                self._judge()
                self._save()
                saved = self._noted = time.perf_counter()
            elif time.perf_counter() - saved > SAVED_EVERY:
                self._save()
                saved = time.perf_counter()
        if over and (not state.history or state.history[-1]["step"] < state.step):
            if state.since:
                self._log_step()
            self._judge()
        self._save()
        return state

    def _compiles(self) -> bool:
        """Whether torch compiles the network in the step to come: once for each edge of the photos."""
        size = self._size_at(self.state.step)
        if not self.recipe.compile or size in self._compiled:
            return False
        self._compiled.add(size)
        return True

    def _share(self, step: int, spent: float) -> float:
        """How much of the run is done at a step, 0 to 1."""
        by_steps = 0.0 if self.total is None else step / self.total
        by_time = 0.0 if self.recipe.minutes is None else spent / 60 / self.recipe.minutes
        return min(1.0, max(by_steps, by_time))

    def _size_at(self, step: int) -> int:
        """The edge for a step to come; by the clock, the batches that are made ahead have that of now."""
        by_steps = 0.0 if self.total is None else step / self.total
        return schedule.size_at(self.recipe, max(by_steps, self._done if self.recipe.minutes else 0.0))

    def _is_time_to_judge(self) -> bool:
        """After every epoch; where there are hundreds, often enough for a curve."""
        every = self.plan.steps * max(1, math.ceil((self.recipe.epochs or 0) / 100))
        return self.state.step % every == 0 and self.state.step != self.total

    def _step(self, photos: Tensor, numbers: Tensor) -> Tensor:
        """One step of the optimiser on this process's part of a batch; gives its mean loss."""
        recipe, step, batch = self.recipe, self.state.step, self.recipe.batch_size
        local, rank = len(numbers), self.processes.rank
        size = self._size_at(step)
        if recipe.augment == "affine":
            drawn = augment.draw(recipe, batch, step)[rank * local : (rank + 1) * local]
        kept = self.paths.draw(recipe.seed, step, batch)[:, rank * local : (rank + 1) * local]
        blend = mixup.draw(recipe, step, self._done)
        total = torch.zeros((), device=self.processes.device)
        for part in range(recipe.accumulate):
            some = slice(part * self.micro, (part + 1) * self.micro)
            if recipe.augment == "affine":
                x = self._normalise(255 * augment.affine(photos[some], drawn[some], size, recipe))
            else:
                x = self._normalise(photos[some])
            rows = self._labels[numbers[some].to(self._labels.device)]
            self.paths.use(kept[:, some])
            waits = part + 1 < recipe.accumulate
            with self._parallel.no_sync() if self._parallel is not None and waits else nullcontext():
                loss = self._loss(x, rows, numbers[some], blend) / recipe.accumulate
                loss.backward()  # type: ignore[no-untyped-call]
            total += loss.detach()
        if recipe.clip:
            torch.nn.utils.clip_grad_norm_(self.network.parameters(), recipe.clip)
        done = self._share(step + 1, self.state.spent) if self.recipe.minutes is None else self._done
        optimise.set_rate(self.optimisers, recipe.lr * schedule.lr_factor(recipe, done))
        for optimiser in self.optimisers:
            optimiser.step()
            optimiser.zero_grad(set_to_none=True)
        if self.average is not None:
            self.average.update(schedule.ema_decay(recipe, step))
        return total

    def _loss(self, x: Tensor, rows: Tensor, numbers: Tensor, blend: mixup.Mix | None) -> Tensor:
        recipe = self.recipe
        target = mixup.one_hot(rows, self.network.config.num_labels, recipe.smoothing)
        if blend is not None:
            x, target = mixup.apply(blend, x), blend.blended(target, x.shape[-1])
        x = x.contiguous(memory_format=torch.channels_last)
        with torch.autocast(x.device.type, self._dtype, enabled=self._dtype != torch.float32):
            answers = self._forward(x).logits
        answers = answers.float()
        # rare classes count for more, but a batch of rare ones does not: the mean is over photos
        losses = F.cross_entropy(answers, target, weight=self._weights, reduction="none")
        if self._teacher is not None:
            losses = self._distilled(losses, answers, self._teacher, x, rows, numbers, blend)
        return losses.sum() / len(x)

    def _distilled(
        self,
        losses: Tensor,
        logits: Tensor,
        teacher: Teacher,
        x: Tensor,
        rows: Tensor,
        numbers: Tensor,
        blend: mixup.Mix | None,
    ) -> Tensor:
        """(N,): the losses by the labels, and the teacher's, for as much of each photo as is of classes it knows."""
        temperature = self.recipe.distil_temperature
        answers = (teacher(x, numbers) / temperature).softmax(1)
        if blend is not None and teacher.of_photos:
            answers = blend.blended(answers, x.shape[-1])
        share = torch.full(rows.shape, self.recipe.distil, device=logits.device)
        if teacher.columns is not None:
            known = torch.isin(rows, teacher.columns.to(rows.device)).float()
            share = share * (known if blend is None else blend.blended(known[:, None], x.shape[-1])[:, 0])
        apart = divergence(logits, answers, teacher.columns, temperature)
        return (1 - share) * losses + share * temperature**2 * apart

    # ------------------------------------------------------------------ looking

    def _log_step(self) -> None:
        since, now = self.state.since, time.perf_counter()
        loss = self.processes.total(float(self._running) / since) / self.processes.world
        rate = since * self.recipe.batch_size / (now - self._noted)
        self._running.zero_()
        self.state.since, self._noted = 0, now
        if not math.isfinite(loss):
            raise ModelError(
                f"the loss is {loss} at step {self.state.step}",
                "use a lower --lr; the best weights so far are in the run's folder",
            )
        if not self.processes.first:
            return
        values: Step = {
            "step": self.state.step,
            "epoch": round(self.state.step / self.plan.steps, 4),
            "loss": round(loss, 6),
            "lr": self.optimisers[0].param_groups[-1]["lr"],
            "size": self._size_at(self.state.step - 1),
            "images_per_second": round(rate, 1),
            "seconds": round(self.state.spent, 1),
        }
        self.folder.add_to_log(values)
        self.listener.step(self._done, values)

    def _judge(self) -> None:
        """Look at val with the averaged weights, or the network's own; keep the best, and tell. The last are the best
        without val."""
        state = self.state
        if self.average is not None:
            self.average.swap()
        self.network.eval()
        try:
            values: Evaluation = {"step": state.step, "epoch": round(state.step / self.plan.steps, 4)}
            self._add_figures(values)
            values["seconds"] = round(state.spent, 1)
            better = not state.best or "val_top1" not in values or _merit(values) > _merit(state.best)
            if not math.isfinite(values.get("val_loss", 0.0)):
                raise ModelError(
                    f"the network's scores are not finite at step {state.step}",
                    "use a lower --lr; the best weights so far are in the run's folder",
                )
            if self.processes.first:
                self._write(self.folder.ema)
                if better:
                    self._write(self.folder.best)
        finally:
            if self.average is not None:
                self.average.swap()
            self.network.train()
        state.worse = 0 if better else state.worse + 1
        if better:
            state.best = values
        state.history.append(values)
        if self.processes.first:
            if "val_top1" in values:
                self.folder.add_to_log(values)
            self.listener.evaluated(self._done, values)

    def _add_figures(self, values: Evaluation) -> None:
        """Add the figures of val, if there are photos for it."""
        if not len(self.photos.val):
            return
        answers = logits(
            self.network, self.photos.val, self._preprocessing, self.processes, dtype=self._dtype, workers=self._workers
        )
        figures = judge(answers, self.photos.val_labels)
        values["val_top1"], values["val_top5"] = figures["top1"], figures["top5"]
        values["val_loss"], values["val_ece"] = figures["loss"], figures["ece"]


def _merit(values: Evaluation) -> tuple[float, float]:
    """Of an evaluation; the larger, the better."""
    return values["val_top1"], -values["val_loss"]
