"""A whole run: data, network, loop, and the model that comes of it."""

from __future__ import annotations

import hashlib
import signal
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

import torch

from convnext_cli import checkpoints
from convnext_cli.benchmarking import environment
from convnext_cli.datasets import Dataset, LabelledPhoto, problems
from convnext_cli.errors import ModelError, PhotoError, UsageError
from convnext_cli.files import replacing
from convnext_cli.training import choose, finish, precision, product
from convnext_cli.training import head as heads
from convnext_cli.training.data import FEW, TrainingData, arrange
from convnext_cli.training.folder import RunFolder
from convnext_cli.training.loop import DTYPES, Photos, Teacher, Told, Trainer
from convnext_cli.training.pixels import Judged, Pixels, Shrunk, load
from convnext_cli.training.processes import Processes
from convnext_cli.training.recipe import SCRATCH, TrainingRecipe, make, read
from convnext_cli.training.start import Start, begin
from convnext_cli.training.teacher import FileTeacher, ModelTeacher, is_file_of_logits

_SHOWN = 10  # photos in a message


class Teller(Told, Protocol):
    """Who is told what is done."""

    def say(self, text: str) -> None:
        """A sentence of what is remarkable."""
        ...

    def reading(self, what: str, done: int, total: int) -> None: ...

    def begins(self, recipe: TrainingRecipe, facts: dict[str, Any]) -> None: ...


@dataclass(frozen=True)
class Job:
    """What was asked for, besides the recipe.

    paths: of the data. folder: of the run. given: settings that are not left to choice. start, teacher: paths of what
    the recipe names so. val, test: shares, where the data is not split. memory: bytes that photos may take.
    """

    paths: Sequence[str]
    folder: Path
    given: dict[str, Any]
    start: Path | None
    teacher: Path | None
    val: float = 0.15
    test: float = 0.15
    skip_bad: bool = False
    threads: int = 1
    workers: int = 0
    timeout: float | None = None
    memory: int | None = None
    command: str = ""


@dataclass(frozen=True)
class Outcome:
    """finished: whether the run came to its end. facts: what run.json holds."""

    finished: bool
    facts: dict[str, Any]


def train(job: Job, dataset: Dataset, processes: Processes, teller: Teller, *, begun: float) -> Outcome:
    """Train, or go on where an earlier run in the folder was cut; nothing more is done where it has come to its end.

    begun: ``time.perf_counter()`` when the command started: a budget in minutes counts from there.
    Raises UsageError when the folder holds another run, ModelError for data or weights that cannot be used.
    """
    torch.set_num_threads(job.threads)
    folder = RunFolder(job.folder)
    former = folder.read_facts() if folder.begun() else None
    processes.wait()  # until all have looked, before the first one writes
    if former is not None:  # parted as it was, whatever is said now
        job = replace(job, **former["parting"])
    seed = former["seed"] if former is not None else job.given.get("seed", 0)
    data = arrange(dataset, val=job.val, test=job.test, seed=seed, skip_bad=job.skip_bad, say=teller.say)
    identity = _identity(data)
    if former is not None and former["photos_sha256"] != identity:
        raise UsageError(
            f"the photos are not those that the run in {job.folder} began with",
            "begin anew with --overwrite, or in another folder",
        )
    card = checkpoints.read_card(job.start) if job.start is not None else None
    if former is not None:
        recipe = _same(job, read(folder.recipe), former)
        if "results" in former:
            return Outcome(True, former)
    else:
        recipe = choose.choose(
            job.given, photos=len(data.train), counts=data.counts(), card=card, device=processes.device.type
        )
        if recipe.start == SCRATCH and len(data.train) < FEW:
            teller.say(
                f"{len(data.train):,} photos are few to train from scratch (below {FEW:,}): with --from default it "
                "learns more from them"
            )
    _even(recipe, processes, len(data.train))
    start = begin(recipe, job.start, data.classes)
    for note in (*data.notes, *start.notes):
        teller.say(note)
    photos, data = _load(job, data, recipe, start, teller)
    if former is None and len(data.train) < recipe.batch_size:
        parts = 2 * processes.world * recipe.accumulate
        recipe = recipe.replace(batch_size=max(parts, len(data.train) // parts * parts))
        _even(recipe, processes, len(data.train))
    if recipe.dtype == "auto":
        dtype = precision.fastest(start.network, recipe, processes) if former is None else former["dtype"]
    else:
        dtype = recipe.dtype
    teacher = None if recipe.freeze else _teacher(job, recipe, data, start, processes, dtype)
    facts = former or _facts(job, data, recipe, start, processes, dtype, identity)
    if processes.first and former is None:
        folder.make()
        with replacing(folder.recipe) as file:
            file.write(recipe.to_toml().encode())
        if data.parted:
            _write_splits(folder, data)
        folder.write_facts(facts)
    teller.begins(recipe, facts)
    processes.wait()
    workers = job.workers if recipe.augment != "affine" else 0

    def write(path: Path) -> None:
        name = folder.path.resolve().name
        product.write(path, start.network, product.card(name, start, data, recipe))

    weights = _class_weights(recipe, data)
    if recipe.freeze:
        best = heads.solve(recipe, start, photos, weights, processes, folder, teller, dtype=dtype, workers=workers)
        write(folder.best)
        finished = True
    else:
        trainer = Trainer(
            recipe,
            start,
            photos,
            processes,
            folder,
            teller,
            dtype=dtype,
            workers=workers,
            write=write,
            weights=weights,
            teacher=teacher,
            spent=time.perf_counter() - begun,
        )
        if former is not None:
            if (state := folder.read_state()) is not None:
                trainer.resume(state)
                teller.say(f"going on at step {trainer.state.step:,}")
            if processes.first:
                folder.cut_log(-1 if state is None else trainer.state.step)
        with _stopping(trainer):
            progress = trainer.run()
        best, finished = progress.best, not trainer.stopped
    if not finished:
        return Outcome(False, facts)
    if processes.first:
        facts = facts | finish.finish(job, recipe, start, data, photos, processes, folder, teller, best)
        folder.write_facts(facts)
    processes.wait()
    return Outcome(True, facts)


# ---------------------------------------------------------------------- before


def _same(job: Job, values: dict[str, Any], former: dict[str, Any]) -> TrainingRecipe:
    """The recipe that the run began with. Raises UsageError when other settings are asked for now."""
    recipe = make(values)
    for name, value in job.given.items():
        # a batch that was too large for the data was made smaller
        if value not in (former["asked"].get(name), values.get(name), getattr(recipe, name)):
            raise UsageError(
                f"{job.folder} holds a run with {name} = {values.get(name)}, not {value}",
                "the same command goes on with it; --overwrite begins anew",
            )
    return recipe


def _even(recipe: TrainingRecipe, processes: Processes, photos: int) -> None:
    """Raise UsageError for a batch that cannot be parted into pairs for every process and pass."""
    parts = processes.world * recipe.accumulate
    if recipe.batch_size % (2 * parts):
        raise UsageError(
            f"a batch of {recipe.batch_size} photos cannot be parted evenly among {parts} passes",
            f"take a --batch-size that {2 * parts} divides",
        )
    if recipe.batch_size > photos:
        raise UsageError(f"a batch of {recipe.batch_size} is more than the {photos} photos", "take a smaller one")


def _load(
    job: Job, data: TrainingData, recipe: TrainingRecipe, start: Start, teller: Teller
) -> tuple[Photos, TrainingData]:
    """Photos in memory where they fit, without bad ones. Raises ModelError for bad ones, unless they are skipped."""
    judged = Judged(start.recipe)
    if recipe.freeze:
        shape: Any = judged
    else:
        shape = Shrunk(recipe.largest, square=recipe.augment == "affine")
    found: dict[str, Pixels] = {}
    bad: list[tuple[LabelledPhoto, PhotoError]] = []
    for name, how in (("train", shape), ("val", judged)):
        photos = getattr(data, name)

        def tell(done: int, name: str = name, total: int = len(photos)) -> None:
            teller.reading(name, done, total)

        found[name], some = load(
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
        progress=lambda done: teller.reading("test", done, len(data.test)),
    )
    if bad:
        for photo, error in bad[:_SHOWN]:
            teller.say(f"{photo.path}: {error.kind}: {error.message}")
        if len(bad) > _SHOWN:
            teller.say(f"and {len(bad) - _SHOWN:,} more")
        if not job.skip_bad:
            many = "1 photo" if len(bad) == 1 else f"{len(bad):,} photos"
            raise ModelError(f"{many} cannot be read", "mend them, or leave them out with --skip-bad")
        data = data.without([photo for photo, _ in bad])
    rows = data.rows
    labels = {
        name: torch.tensor([rows[photo.label] for photo in getattr(data, name)], dtype=torch.int64)
        for name in ("train", "val")
    }
    return Photos(found["train"], labels["train"], found["val"], labels["val"]), data


def _identity(data: TrainingData) -> str:
    """Which photos are in train and val, in their order: the same at another place of the same data."""
    digest = hashlib.sha256()
    for name in ("train", "val"):
        for photo in getattr(data, name):
            digest.update(f"{name}\0{photo.label}\0{Path(photo.path).name}\n".encode("utf-8", "surrogateescape"))
    return digest.hexdigest()


def _facts(
    job: Job,
    data: TrainingData,
    recipe: TrainingRecipe,
    start: Start,
    processes: Processes,
    dtype: str,
    identity: str,
) -> dict[str, Any]:
    return {
        "command": job.command,
        "data": list(job.paths),
        "photos": {name: len(getattr(data, name)) for name in ("train", "val", "test")},
        "photos_sha256": identity,
        "parting": {"val": job.val, "test": job.test, "skip_bad": job.skip_bad},
        "asked": job.given,
        "classes": list(data.classes),
        "architecture": start.architecture,
        "begun_with": start.begun,
        "seed": recipe.seed,
        "device": str(processes.device),
        "processes": processes.world,
        "threads": job.threads,
        "dtype": dtype,
        "environment": environment.describe(),
    }


def _write_splits(folder: RunFolder, data: TrainingData) -> None:
    import csv
    import io

    text = io.StringIO()
    lines = csv.writer(text, lineterminator="\n")
    lines.writerow(("path", "label", "split"))
    for name in ("train", "val", "test"):
        lines.writerows((photo.path, photo.label, name) for photo in getattr(data, name))
    with replacing(folder.splits) as file:
        file.write(text.getvalue().encode("utf-8", "surrogateescape"))


def _class_weights(recipe: TrainingRecipe, data: TrainingData) -> torch.Tensor | None:
    """So that every class counts as much as any other, and photos count 1 on average."""
    if recipe.class_weights == "none":
        return None
    counts = torch.tensor(data.counts(), dtype=torch.float64)
    return (counts.sum() / (len(counts) * counts)).float()


def _teacher(
    job: Job, recipe: TrainingRecipe, data: TrainingData, start: Start, processes: Processes, dtype: str
) -> Teacher | None:
    if job.teacher is None:
        return None
    if is_file_of_logits(str(job.teacher)):
        return FileTeacher(job.teacher, len(data.train), len(data.classes))
    return ModelTeacher(job.teacher, data.classes, start.recipe, processes.device, DTYPES[dtype])


# ---------------------------------------------------------------------- meanwhile


@contextmanager
def _stopping(trainer: Trainer) -> Iterator[None]:
    """Ctrl-C, and being asked to end, stop after the step; the second time at once."""
    former = {}

    def stop(number: int, frame: Any) -> None:
        trainer.stop = True
        signal.signal(number, signal.default_int_handler)

    for number in (signal.SIGINT, signal.SIGTERM):
        try:
            if signal.getsignal(number) != signal.SIG_IGN:
                former[number] = signal.signal(number, stop)
        except ValueError:  # not in the main thread
            break
    try:
        yield
    finally:
        for number, handler in former.items():
            signal.signal(number, handler)
