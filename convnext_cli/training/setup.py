"""All that is there before the first step: settings, photos, network, precision; what is wrong is said here."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import torch

from convnext_cli import checkpoints
from convnext_cli.base import environment
from convnext_cli.base.errors import ModelError, PhotoError, UsageError
from convnext_cli.datasets import LabelledPhoto, problems
from convnext_cli.training import aspect_ratios, defaults, precision, setting_effects
from convnext_cli.training.data import FEW, TrainingData
from convnext_cli.training.distributed import Processes
from convnext_cli.training.initial_network import Start, begin
from convnext_cli.training.job import Job
from convnext_cli.training.listener import TrainListener
from convnext_cli.training.loop import DTYPES, Photos, Teacher
from convnext_cli.training.photo_cache import Judged, Pixels, Shrunk, Square, load
from convnext_cli.training.records import RunFacts
from convnext_cli.training.settings import SCRATCH, TrainingSettings
from convnext_cli.training.settings_changes import SettingsChanges
from convnext_cli.training.teacher import open_teacher
from convnext_cli.zoo.record import sha256

_SHOWN = 10  # photos in a message


@dataclass(frozen=True)
class Prepared:
    """recipe: every setting. data: without the photos that cannot be used. photos: their pixels. dtype: of the
    products."""

    recipe: TrainingSettings
    data: TrainingData
    photos: Photos
    start: Start
    teacher: Teacher | None
    dtype: str

    def facts(self, job: Job, processes: Processes, identity: str) -> RunFacts:
        """The values of run.json before the results. identity: of the photos, before any was left out."""
        return {
            "command": job.command,
            "data": list(job.paths),
            "photos": {name: len(getattr(self.data, name)) for name in ("train", "val", "test")},
            "photos_sha256": identity,
            "used_sha256": identity_of(self.data),
            "parting": {"val": job.val, "test": job.test, "skip_bad": job.skip_bad},
            "asked": job.changes.values(),
            "teacher_sha256": teacher_identity(job),
            "classes": list(self.data.classes),
            "architecture": self.start.architecture,
            "begun_with": self.start.begun,
            "seed": self.recipe.seed,
            "device": str(processes.device),
            "processes": processes.world,
            "threads": job.threads,
            "dtype": self.dtype,
            "environment": environment.describe(),
        }


def settings(job: Job, data: TrainingData, processes: Processes, listener: TrainListener) -> TrainingSettings:
    """Those that were asked for, and the rest by the data. Raises UsageError."""
    card = checkpoints.read_card(job.start) if job.start is not None else None
    fitted = (
        None
        if job.changes.resize is not None
        else aspect_ratios.suggest(data.dataset, data.train, card, progress=listener.progress)
    )
    recipe = defaults.choose(
        job.changes,
        photos=len(data.train),
        counts=data.counts(),
        card=card,
        device=processes.device.type,
        resize="shortest" if fitted is None else fitted.resize,
    )
    setting_effects.check(recipe, job.named)
    for name in ("search_size", "patience"):
        if not data.val and setting_effects.asked_for(recipe, job.named, name):
            setting_effects.refuse((job.named[name], "without photos for val, by which it decides"), [name])
    if fitted is not None and fitted.reason:
        listener.note(fitted.reason)
    if not recipe.freeze and recipe.batch_size < (job.changes.batch_size or 0):
        listener.note(f"the batch has {recipe.batch_size} photos, because there are only {len(data.train)} to train on")
    if recipe.freeze and setting_effects.asked_for(recipe, job.named, "seed") and not data.is_split_here:
        setting_effects.refuse(
            (job.named["seed"], "with freeze on data that has its splits: nothing is random"), ["seed"]
        )
    if recipe.start == SCRATCH and len(data.train) < FEW:
        listener.note(
            f"{len(data.train):,} photos are few for training from scratch (below {FEW:,}): --from default learns "
            "more from them"
        )
    return recipe


def same_settings(job: Job, own: SettingsChanges, former: RunFacts) -> TrainingSettings:
    """The settings that the run began with.

    Args:
        job: what is asked for now.
        own: the settings in the run's folder.
        former: the facts of the run.

    Raises:
        UsageError: other settings are asked for now.
    """
    if own.resize is None and job.start is not None:  # of a run that an earlier version began
        resize = checkpoints.read_card(job.start).preprocessing.resize
        own = replace(own, resize="shortest" if resize == "none" else resize)
    recipe = own.complete()
    setting_effects.check(recipe, job.named)
    for name, value in job.changes.values().items():
        # a batch that was too large for the data was made smaller
        if value not in (former["asked"].get(name), getattr(own, name), getattr(recipe, name)):
            raise UsageError(
                f"{job.folder} holds a run with {name} = {getattr(recipe, name)}, not {value}",
                "run the same command again to resume it, or start again with --overwrite",
            )
    return recipe


def prepare(
    job: Job,
    recipe: TrainingSettings,
    data: TrainingData,
    processes: Processes,
    listener: TrainListener,
    *,
    former: RunFacts | None,
) -> Prepared:
    """former: the facts of the run that goes on, None for a new one.

    Raises UsageError for a batch that cannot be shared, ModelError for photos, weights or a teacher that cannot be
    used.
    """
    _check_batch(recipe, processes, len(data.train))
    start = begin(recipe, job.start, data.classes)
    if setting_effects.asked_for(recipe, job.named, "head_scale") and not start.new_head:
        why = f"on the classifier of {start.begun}, which knows these classes"
        setting_effects.refuse((job.named["head_scale"], why), ["head_scale"])
    for note in (*data.notes, *start.notes):
        listener.note(note)
    classes = data.classes
    photos, data = _load(job, data, recipe, start, listener)
    if former is not None and identity_of(data) != former["used_sha256"]:
        raise ModelError(
            f"not the same photos can be read as when the run in {job.folder} began: {len(data.train)} for train and "
            f"{len(data.val)} for val, then {former['photos']['train']} and {former['photos']['val']}",
            "fix them, or start again with --overwrite",
        )
    if data.classes != classes:
        start = begin(recipe, job.start, data.classes)
    if former is None and len(data.train) < recipe.batch_size:
        parts = 2 * processes.world * recipe.accumulate
        recipe = replace(recipe, batch_size=max(parts, len(data.train) // parts * parts))
        _check_batch(recipe, processes, len(data.train))
    dtype = recipe.dtype if former is None else former["dtype"]
    if dtype == "auto":
        measured = partial(listener.progress, "measuring steps in both precisions")
        dtype = (
            "float32" if recipe.freeze else precision.fastest(start.network, recipe, processes, listener.note, measured)
        )
    teacher = None if recipe.freeze else _teacher(job, recipe, data, start, processes, dtype, listener.note)
    return Prepared(recipe, data, photos, start, teacher, dtype)


def _check_batch(recipe: TrainingSettings, processes: Processes, photos: int) -> None:
    """Raise UsageError for a batch that passes and processes cannot share, or whose parts have no pairs to mix."""
    if recipe.freeze:  # no step is taken
        return
    batch, parts = recipe.batch_size, processes.world * recipe.accumulate
    among = " and ".join(
        f"{count} {name}"
        for count, name in ((processes.world, "processes"), (recipe.accumulate, "passes"))
        if count > 1
    )
    if batch > photos:
        raise UsageError(f"a batch of {batch} photos is more than the {photos} to train on", f"--batch-size {photos}")
    if batch % parts:
        raise UsageError(
            f"a batch of {batch} photos cannot be shared evenly by {among}", f"use a --batch-size that {parts} divides"
        )
    if (recipe.mixup or recipe.cutmix) and batch // parts % 2:
        mixing = "mixup" if recipe.mixup else "cutmix"
        of = (
            f"each of {among} has {batch // parts} of the {batch}" if among else f"a batch of {batch} has one left over"
        )
        raise UsageError(
            f"{mixing} mixes photos in pairs: {of}",
            f"use a --batch-size that {2 * parts} divides" if among else "use an even --batch-size",
        )


def _load(
    job: Job, data: TrainingData, recipe: TrainingSettings, start: Start, listener: TrainListener
) -> tuple[Photos, TrainingData]:
    """Photos in memory where they fit, without bad ones. Raises ModelError for bad ones, unless they are skipped."""
    judged = Judged(start.preprocessing)
    shape: Square = judged
    if not recipe.freeze:
        shape = Shrunk(recipe.largest, square=recipe.augment == "affine", preprocessing=start.preprocessing)
    pixels: dict[str, Pixels] = {}
    bad: list[tuple[LabelledPhoto, PhotoError]] = []
    for name, how in (("train", shape), ("val", judged)):
        photos = getattr(data, name)

        def tell(done: int, name: str = name, total: int = len(photos)) -> None:
            listener.progress(f"reading {name}", done, total)

        pixels[name], some = load(
            data.dataset,
            job.paths,
            photos,
            how,
            threads=job.threads,
            timeout=job.timeout,
            memory=job.memory,
            progress=tell,
        )
        bad += some
    bad += problems.bad_photos(
        data.dataset,
        data.test,
        threads=job.threads,
        timeout=job.timeout,
        progress=lambda done: listener.progress("reading test", done, len(data.test)),
    )
    if bad:
        for photo, error in bad[:_SHOWN]:
            listener.note(f"{photo.path}: {error.kind}: {error.message}")
        if len(bad) > _SHOWN:
            listener.note(f"and {len(bad) - _SHOWN:,} more")
        if not job.skip_bad:
            many = "1 photo" if len(bad) == 1 else f"{len(bad):,} photos"
            raise ModelError(f"{many} cannot be read", "fix them, or leave them out with --skip-bad")
        left = data.without([photo for photo, _ in bad])
        if len(left.classes) < len(data.classes):
            gone = [name for name in data.classes if name not in left.classes]
            listener.note(f"left out: classes without a photo that can be read: {', '.join(gone)}")
            return _load(job, left, recipe, start, listener)  # without the photos that it has in other splits
        data = left
    rows = data.rows
    labels = {
        name: torch.tensor([rows[photo.label] for photo in getattr(data, name)], dtype=torch.int64)
        for name in ("train", "val")
    }
    return Photos(pixels["train"], labels["train"], pixels["val"], labels["val"]), data


def identity_of(data: TrainingData) -> str:
    """Which photos are in train and val, in their order: the same at another place of the same data."""
    digest = hashlib.sha256()
    for name in ("train", "val"):
        for photo in getattr(data, name):
            digest.update(f"{name}\0{photo.label}\0{Path(photo.path).name}\n".encode("utf-8", "surrogateescape"))
    return digest.hexdigest()


def teacher_identity(job: Job) -> str | None:
    """The sha256 of the teacher's file; None without one, and for a folder."""
    return sha256(job.teacher) if job.teacher is not None and job.teacher.is_file() else None


def same_teacher(job: Job, former: RunFacts) -> None:
    """Raise UsageError when the teacher's file does not hold what it held when the run began.

    Args:
        job: the command that goes on with the run.
        former: the facts of the run; an earlier version did not note the file.
    """
    if "teacher_sha256" in former and former["teacher_sha256"] != teacher_identity(job):
        raise UsageError(
            f"{job.teacher} has changed since the run in {job.folder} began",
            "put the earlier file back, or start again with --overwrite, or in another folder",
        )


def _teacher(
    job: Job,
    recipe: TrainingSettings,
    data: TrainingData,
    start: Start,
    processes: Processes,
    dtype: str,
    say: Callable[[str], None],
) -> Teacher | None:
    if job.teacher is None:
        return None
    return open_teacher(
        job.teacher,
        photos=len(data.train),
        classes=data.classes,
        preprocessing=start.preprocessing,
        device=processes.device,
        dtype=DTYPES[dtype],
        threads=job.threads,
        labels=recipe.teacher_labels,
        say=say,
    )
