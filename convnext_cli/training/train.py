"""The verb ``train``: from a request to a run in a folder, and to the model that comes of it."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, closing, contextmanager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal, Self

import torch

from convnext_cli import zoo
from convnext_cli.base.errors import UsageError
from convnext_cli.base.files import check_utf8, user_path
from convnext_cli.base.threads import environment_number, usable_threads
from convnext_cli.datasets import open_data
from convnext_cli.predict.preprocess import InFlight
from convnext_cli.storage.addresses import check_output, places
from convnext_cli.training import classifier_head, distributed, run, setting_effects
from convnext_cli.training.job import Job
from convnext_cli.training.listener import SILENT, TrainListener
from convnext_cli.training.records import RunFacts
from convnext_cli.training.request import TrainRequest
from convnext_cli.training.run_folder import RunFolder
from convnext_cli.training.settings import SCRATCH
from convnext_cli.training.settings_changes import SettingsChanges
from convnext_cli.training.teacher import is_file_of_logits


@dataclass(frozen=True, kw_only=True)
class SplitFigures:
    """How well the model answers on the photos of one split.

    Args:
        photos: how many there are.
        top1: the share whose best guess is right.
        top5: the share whose best five guesses hold the right label; None for few classes.
        calibration_error: the expected calibration error; None for too few photos.
    """

    photos: int
    top1: float
    top5: float | None
    calibration_error: float | None

    @classmethod
    def of(cls, facts: RunFacts, split: Literal["val", "test"]) -> Self | None:
        """From the facts of a run; None where it has no figures of the split."""
        figures = facts["results"].get(split) if "results" in facts else None
        if figures is None:
            return None
        top5 = figures["top5"] if len(facts["classes"]) > 5 else None  # earlier versions noted it of any number
        return cls(photos=facts["photos"][split], top1=figures["top1"], top5=top5, calibration_error=figures["ece"])


@dataclass(frozen=True, kw_only=True)
class TrainResult:
    """What came out of a run.

    Args:
        finished: whether the run came to its end; otherwise the same request continues it.
        trained: whether anything was trained now; False where the run was finished before.
        folder: the run's folder.
        classes: the labels of the model, in the order of its outputs.
        val: figures on the photos for val, by which the best weights were chosen.
        test: figures on the photos for test.
        facts: everything that run.json holds.
    """

    finished: bool
    trained: bool
    folder: Path
    classes: tuple[str, ...]
    val: SplitFigures | None
    test: SplitFigures | None
    facts: RunFacts

    @property
    def model(self) -> Path | None:
        """The model's file; None before the end of the run."""
        return RunFolder(self.folder).model if self.finished else None


def train(
    request: TrainRequest,
    *,
    listener: TrainListener = SILENT,
    in_flight: Callable[[], AbstractContextManager[InFlight | None]] = nullcontext,
    fetch: Callable[[str], object] | None = None,
) -> TrainResult:
    """Train a network on labelled photos, or continue where an earlier run in the folder was interrupted.

    SIGINT and SIGTERM end a run after its step; the result is then not finished.

    Args:
        request: what to do.
        listener: hears notes, stages, steps and evaluations.
        in_flight: opened while photos are read; is informed of which ones these are.
        fetch: called with the name of each model before it is opened; None where they have to be on this machine.

    Raises:
        KeyboardInterrupt: interrupted before the first step, or twice.
        ModelError: data, weights or a teacher cannot be used.
        OutputError: the folder cannot be written.
        UnavailableError: a device or a library is missing.
        UsageError: the folder holds something else, or an option has no effect.
    """
    check_output(os.fspath(request.output))
    folder = RunFolder(user_path(request.output))
    check_utf8(folder.path)
    folder.check()
    if not folder.begun() and not folder.free():
        raise UsageError(f"{folder.path} exists, and does not hold a run", "name another folder")
    if not request.data and not folder.begun():
        raise UsageError("no data is named, and there is no run to continue", "name a folder of class folders")
    roots = places(request.data or folder.read_facts()["data"], offline=request.offline)
    if request.overwrite and folder.begun() and "RANK" in os.environ:
        raise UsageError("--overwrite is for one process", "remove the folder first")
    job = _job(request, folder, roots, fetch)
    processes = distributed.join(request.device)
    try:
        with _torch_threads_kept(), closing(open_data(roots)) as dataset, in_flight() as notes:
            outcome = run.carry_out(
                job, replace(dataset, in_flight=notes), processes, listener if processes.first else SILENT
            )
    finally:
        processes.leave()
    return TrainResult(
        finished=outcome.finished,
        trained=outcome.trained,
        folder=folder.path,
        classes=tuple(outcome.facts["classes"]),
        val=SplitFigures.of(outcome.facts, "val"),
        test=SplitFigures.of(outcome.facts, "test"),
        facts=outcome.facts,
    )


@contextmanager
def _torch_threads_kept() -> Iterator[None]:
    """Give the caller back the number of threads that torch had."""
    threads = torch.get_num_threads()
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def _job(
    request: TrainRequest, folder: RunFolder, roots: tuple[str, ...], fetch: Callable[[str], object] | None
) -> Job:
    """The request with all settings that it names, and names of models as paths."""
    begun = folder.begun() and not request.overwrite
    path = request.settings_file
    of_file = SettingsChanges() if path is None else SettingsChanges.read(Path(path))
    changes = of_file.updated(request.settings)
    named = dict.fromkeys(of_file.values(), str(path)) | dict.fromkeys(request.settings.values(), "")
    provisional = changes.provisional()
    if not begun:
        setting_effects.check(provisional, named, chosen=False)
    known = SettingsChanges.read(folder.recipe).updated(changes) if begun else changes
    if known.freeze:
        classifier_head.check_alone(distributed.started())
    start = "default" if known.start is None else known.start
    names = [name for name in (start, known.teacher) if name is not None and name != SCRATCH]
    if fetch is not None and not names:
        raise UsageError(
            "--pull has no effect from scratch and without a teacher: no weights are named", "leave it out"
        )
    idle = "with freeze" if known.freeze else "with augment = affine" if known.augment == "affine" else ""
    if request.workers and idle:
        raise UsageError(f"--workers has no effect {idle}: no process changes photos one at a time", "leave it out")
    models = {name: _model(name, fetch) for name in names}
    # torchrun's processes share this machine
    threads = request.threads or max(1, usable_threads() // max(1, environment_number("LOCAL_WORLD_SIZE", 1)))
    return Job(
        paths=roots,
        folder=folder.path,
        changes=changes if begun else replace(changes, start=start),
        named=named,
        start=None if start == SCRATCH else models[start],
        teacher=None if known.teacher is None else models[known.teacher],
        val=request.val,
        test=request.test,
        skip_bad=request.skip_bad,
        threads=threads,
        workers=max(1, threads // 2) if request.workers is None else request.workers,
        timeout=request.timeout,
        memory=None if request.memory is None else int(request.memory * 1e9),
        command=request.command,
        overwrite=request.overwrite,
    )


def _model(name: str, fetch: Callable[[str], object] | None) -> Path:
    """The file or folder of weights, or the file of logits, that a setting names."""
    if not name:
        raise UsageError("the name of a model is empty", "name one of `convnext models list`, a file or a folder")
    if is_file_of_logits(name):
        if not Path(name).is_file():
            raise UsageError(f"{name} does not exist", "name the file of logits")
        return Path(name)
    if fetch is not None:
        fetch(name)
    return zoo.resolve(None if name == "default" else name)
