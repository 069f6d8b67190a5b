"""A whole run: what is prepared, the loop, and the model that comes of it."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from types import FrameType

import tomli_w
import torch

from convnext_cli.base.errors import UsageError
from convnext_cli.base.files import replacing
from convnext_cli.base.interruption import interrupt, noting
from convnext_cli.base.tables import csv_line
from convnext_cli.datasets import Dataset
from convnext_cli.storage.addresses import is_url
from convnext_cli.training import classifier_head, finish, model_file, setting_effects, setup
from convnext_cli.training.data import SHARE, TrainingData, arrange
from convnext_cli.training.distributed import Processes
from convnext_cli.training.job import Job, Outcome
from convnext_cli.training.listener import TrainListener
from convnext_cli.training.loop import Trainer
from convnext_cli.training.records import Evaluation, Parting, RunFacts
from convnext_cli.training.run_folder import RunFolder
from convnext_cli.training.settings_changes import SettingsChanges


def carry_out(job: Job, dataset: Dataset, processes: Processes, listener: TrainListener) -> Outcome:
    """Train, or go on where an earlier run in the folder was cut; nothing more is done where it has come to its end.

    Raises UsageError when the folder holds another run, ModelError for data or weights that cannot be used.
    """
    torch.set_num_threads(job.threads)
    folder = RunFolder(job.folder)
    former = folder.read_facts() if folder.begun() and not job.overwrite else None
    processes.wait()  # until all have looked, before the first one writes
    _check(job, dataset)
    if any(is_url(photo.path) for photo in dataset.photos[:1]):
        job = replace(job, workers=0)  # connections do not survive in processes that begin as copies of this one
    if former is not None:
        job = _with_splits_of(job, former["parting"])
    seed = former["seed"] if former is not None else job.changes.seed or 0
    val, test = (SHARE if share is None else share for share in (job.val, job.test))
    data = arrange(
        dataset, val=val, test=test, seed=seed, skip_bad=job.skip_bad, say=listener.note, progress=listener.progress
    )
    identity = setup.identity_of(data)
    if former is not None:
        if former["photos_sha256"] != identity:
            raise UsageError(
                f"the photos are not those that the run in {job.folder} began with",
                "start again with --overwrite, or in another folder",
            )
        recipe = setup.same_settings(job, SettingsChanges.read(folder.recipe), former)
        setup.same_teacher(job, former)
        if "results" in former:
            return Outcome(True, former, trained=False)
    else:
        recipe = setup.settings(job, data, processes, listener)
    ready = setup.prepare(job, recipe, data, processes, listener, former=former)
    facts = former or ready.facts(job, processes, identity)
    if processes.first:
        if former is None:
            _begin(folder, ready, facts, listener)
        folder.tidy()
    listener.begins(ready.recipe, facts)
    processes.wait()
    best = _train(job, ready, processes, folder, listener, goes_on=former is not None)
    if best is None:
        return Outcome(False, facts)
    if processes.first:
        facts = {**facts, "results": finish.finish(job, ready, processes, folder, listener, best)}
        folder.write_facts(facts)
        folder.forget_former()
    processes.wait()
    return Outcome(True, facts)


def _check(job: Job, dataset: Dataset) -> None:
    """Raise UsageError for shares of splits that the data has already."""
    splits = dataset.splits()
    if job.val is not None and "train" in splits and "val" in splits:
        raise UsageError("--val has no effect on data that has a val split", "leave it out")
    if job.test is not None and splits:
        why = "has a test split" if "test" in splits else "is split, and has no test split"
        raise UsageError(f"--test has no effect on data that {why}", "leave it out")


def _with_splits_of(job: Job, parting: Parting) -> Job:
    """The job with the splits that its run began with. Raises UsageError when others are asked for."""
    for name, asked, former in (
        ("val", job.val, parting["val"]),
        ("test", job.test, parting["test"]),
        ("skip_bad", job.skip_bad or None, parting["skip_bad"]),
    ):
        if asked not in (None, SHARE if former is None else former):
            raise UsageError(
                f"{job.folder} holds a run with {name} = {former}, not {asked}",
                "run the same command again to resume it, or start again with --overwrite",
            )
    return replace(job, val=parting["val"], test=parting["test"], skip_bad=parting["skip_bad"])


def _begin(folder: RunFolder, ready: setup.Prepared, facts: RunFacts, listener: TrainListener) -> None:
    """Write what comes before the first step, in place of an earlier run; run.json last: it says that one is there."""
    if folder.begun():
        folder.set_aside()
        listener.note(f"the earlier run is kept as {folder.former} until this one is done")
    folder.make()
    with replacing(folder.recipe) as file:
        file.write(tomli_w.dumps(setting_effects.in_force(ready.recipe)).encode())
    if ready.data.is_split_here:
        _write_splits(folder, ready.data)
    folder.write_facts(facts)


def _write_splits(folder: RunFolder, data: TrainingData) -> None:
    with replacing(folder.splits) as file:
        file.write(csv_line(("path", "label", "split")).encode())
        for name in ("train", "val", "test"):
            for photo in getattr(data, name):
                file.write(csv_line((photo.path, photo.label, name)).encode("utf-8", "surrogateescape"))


def _train(
    job: Job,
    ready: setup.Prepared,
    processes: Processes,
    folder: RunFolder,
    listener: TrainListener,
    *,
    goes_on: bool,
) -> Evaluation | None:
    """The best evaluation, whose weights are in the folder; None when it was stopped before the end."""
    recipe, start, data = ready.recipe, ready.start, ready.data
    workers = job.workers if recipe.augment != "affine" else 0
    weights = data.weights() if recipe.class_weights == "balanced" else None

    def write(path: Path) -> None:
        name = folder.path.resolve().name
        model_file.write(path, start.network, model_file.card(name, start, data, recipe))

    if recipe.freeze:
        best = classifier_head.solve(
            recipe, start, ready.photos, weights, processes, folder, listener, dtype=ready.dtype, threads=job.threads
        )
        write(folder.best)
        return best
    trainer = Trainer(
        recipe,
        start,
        ready.photos,
        processes,
        folder,
        listener,
        dtype=ready.dtype,
        workers=workers,
        write=write,
        weights=weights,
        teacher=ready.teacher,
    )
    if goes_on:
        if (state := folder.read_state()) is not None:
            trainer.resume(state)
            listener.note(f"resuming at step {trainer.state.step:,}")
        if processes.first:
            folder.cut_log(-1 if state is None else trainer.state.step)
    with _stopping(trainer):
        progress = trainer.run()
    return None if trainer.stopped else progress.best


@contextmanager
def _stopping(trainer: Trainer) -> Iterator[None]:
    """Ctrl-C, and being asked to end, stop after the step; the second time at once."""
    former = {}

    def stop(number: int, frame: FrameType | None) -> None:
        trainer.stop = True
        signal.signal(number, interrupt)

    for number in (signal.SIGINT, signal.SIGTERM):
        try:
            if signal.getsignal(number) != signal.SIG_IGN:
                former[number] = signal.signal(number, noting(stop))
        except ValueError:  # not in the main thread
            break
    try:
        yield
    finally:
        for number, handler in former.items():
            signal.signal(number, handler)
