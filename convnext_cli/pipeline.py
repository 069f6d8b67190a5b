"""Photos in, rows out: the one stream that every command uses.

Threads decode and prepare while the calling thread runs the engine; rows come in the order of the photos; only a few
batches are ever in memory.
"""

from __future__ import annotations

import io
import os
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, fields
from itertools import groupby, pairwise
from pathlib import Path
from queue import SimpleQueue
from threading import Event, Semaphore, Thread
from typing import Any, Literal

import numpy as np

from convnext_cli import labels as label_sets
from convnext_cli import zoo
from convnext_cli.decoders import Decoders, Task
from convnext_cli.engines import DTYPES, ENGINES, Engine, Job, open_engine
from convnext_cli.errors import ModelError, PhotoError, UsageError
from convnext_cli.labels import LabelSet
from convnext_cli.photos.decode import DEFAULT_MAX_PIXELS, check_bytes, decode, read_file
from convnext_cli.photos.photo import Photo
from convnext_cli.photos.recipe import Recipe
from convnext_cli.remote.addresses import is_url
from convnext_cli.remote.places import READERS
from convnext_cli.rows import Prediction, Row
from convnext_cli.threads import Budget, usable_threads

Scores = Literal["softmax", "sigmoid", "logits"]
# What scores mean by default, by what the model was trained for (the card's ``problem``).
SCORES: dict[str, Scores] = {"single_label": "softmax", "multi_label": "sigmoid", "regression": "logits"}
BATCH_SIZE = 8  # photos, on a CPU
# Bytes above which an object counts as large. Of these only a few are read at a time, however many readers there are:
# each is held in memory until it is decoded.
LARGE = 32 * 2**20
_few_large = Semaphore(4)


@dataclass
class Times:
    """Seconds spent in each stage, added over all threads, and from first to last (wall); counts of photos."""

    read: float = 0.0
    decode: float = 0.0
    prepare: float = 0.0
    engine: float = 0.0
    wall: float = 0.0
    photos: int = 0
    failed: int = 0
    unknown: int = 0
    workers: int = 1
    readers: int = 1  # where they are more than decode

    def add(self, seconds: tuple[float, ...]) -> None:
        """Count a photo, with what it took to read, decode and prepare it, as far as it came."""
        self.photos += 1
        read, decode, prepare = (*seconds, 0.0, 0.0, 0.0)[:3]
        self.read += read
        self.decode += decode
        self.prepare += prepare

    def limiting(self) -> str:
        """The stage that kept the others waiting: the most wall time with its threads side by side."""
        wall = self._by_stage()
        return max(wall, key=lambda name: wall[name])

    def shares(self) -> str:
        """Each stage's share of the time of all: "decoding 40 %, network 55 % …"."""
        wall = self._by_stage()
        total = sum(wall.values()) or 1.0
        return ", ".join(f"{name} {100 * seconds / total:.0f} %" for name, seconds in wall.items())

    def _by_stage(self) -> dict[str, float]:
        photo = {"reading": self.read, "decoding": self.decode, "preparing": self.prepare}
        threads = dict.fromkeys(photo, self.workers) | {"reading": max(self.workers, self.readers)}
        return {name: seconds / threads[name] for name, seconds in photo.items()} | {"engine": self.engine}


@dataclass
class _Ready:
    """One photo on its way: the tensor, or why there is none."""

    photo: Photo
    width: int | None = None
    height: int | None = None
    tensor: np.ndarray | None = None
    error: PhotoError | None = None
    thumbnail: Any = None
    seconds: tuple[float, ...] = ()


@dataclass
class Pipeline:
    """How photos become rows.

    engine: gives the logits. labels: the names. recipe: the card's, or the user's own.
    k: guesses a row; 0 for all. scores: what the numbers are. min_score: below it a row is "unknown". floors: the same
    for single labels, by name or id, in place of min_score.
    temperature: logits are divided by it before the softmax.
    batch_size, workers, threads: photos a call of the engine, decoding threads, and processor threads of both.
    max_pixels: larger photos fail as too_large. fast_decode: decode large JPEGs at a fraction of
    their size, which is quicker and not exact. timeout: seconds for reading and decoding one photo, or None.
    thumbnail: edge in pixels of the small picture kept in a row, or 0.
    say: called once with each remark that the user should see.
    """

    engine: Engine
    labels: LabelSet
    recipe: Recipe
    k: int = 5
    scores: Scores = "softmax"
    min_score: float | None = None
    floors: Mapping[str, float] = field(default_factory=dict)
    temperature: float = 1.0
    batch_size: int = 8
    workers: int = 1
    threads: int = 1
    max_pixels: int = DEFAULT_MAX_PIXELS
    fast_decode: bool = False
    timeout: float | None = None
    thumbnail: int = 0
    model: str = ""
    say: Callable[[str], None] = lambda _: None
    times: Times = field(default_factory=Times)

    def rows(self, photos: Iterable[Photo]) -> Iterator[Row]:
        """One row a photo, in their order. The first comes when the first batch is done."""
        self.times.workers = self.workers
        start = time.perf_counter()
        budget = Budget(self.threads)
        waiting: list[_Ready] = []
        tensors = 0
        for ready in self._prepared(iter(photos), budget):
            waiting.append(ready)
            tensors += ready.tensor is not None
            # failures wait only for the photos before them, and never pile up
            if not tensors or tensors >= self.batch_size or len(waiting) >= self.batch_size + 256:
                yield from self._answer(waiting, budget)
                waiting, tensors = [], 0
        yield from self._answer(waiting, budget)
        self.times.wall = time.perf_counter() - start

    def rows_in_turn(self, photos: Iterable[Photo]) -> Iterator[Row]:
        """The same rows by the calling thread alone, one stage after the other: for measuring what each takes."""
        budget, waiting = Budget(1), list[_Ready]()
        for photo in photos:
            task: Task[Photo, _Ready] = Task(photo, budget)
            waiting.append(self._prepare(photo, task))
            task.end()
            if len(waiting) == self.batch_size:
                yield from self._answer(waiting, budget)
                waiting = []
        yield from self._answer(waiting, budget)

    def _prepared(self, photos: Iterator[Photo], budget: Budget) -> Iterator[_Ready]:
        # Bounded: enough for the batch being filled and the next photos, never the whole folder. A thread of its own
        # asks for photos, so that what is ready goes on while a slow source is waited for.
        pending: SimpleQueue[Task[Photo, _Ready] | BaseException | None] = SimpleQueue()
        room = Semaphore(self.batch_size + self.workers)
        decoders = Decoders(self.workers, self._prepare, budget, self.timeout)
        stop = Event()

        def feed() -> None:
            end: BaseException | None = None
            try:
                far = False
                for photo in photos:
                    if not far and photo.data is None and is_url(photo.path):
                        far = True
                        decoders.grow(READERS)
                        self.times.readers = READERS
                        room.release(READERS)
                    room.acquire()
                    if stop.is_set():
                        return
                    pending.put(decoders.submit(photo))
            except BaseException as error:
                end = error
            pending.put(end)

        Thread(target=feed, name="find", daemon=True).start()
        try:
            while (task := pending.get()) is not None:
                if isinstance(task, BaseException):
                    raise task
                ready = task.result() or self._late(task.item)
                room.release()
                yield ready
        finally:
            stop.set()
            decoders.close()
            room.release()  # let go of the feeder, should it wait for room

    def _late(self, photo: Photo) -> _Ready:
        return _Ready(photo, error=PhotoError("timeout", f"it took more than {self.timeout:g} seconds"))

    def _prepare(self, photo: Photo, task: Task[Photo, _Ready]) -> _Ready:
        size = photo.seen.size if photo.seen is not None else None
        if size is not None and size > LARGE and is_url(photo.path):
            with task.alone(_few_large):
                return self._read_and_decode(photo, task)
        return self._read_and_decode(photo, task)

    def _read_and_decode(self, photo: Photo, task: Task[Photo, _Ready]) -> _Ready:
        clock, idle = [time.perf_counter()], 0.0
        ready = _Ready(photo)
        try:
            if photo.problem is not None:
                raise photo.problem
            if photo.seen is not None and photo.seen.size is not None:
                check_bytes(photo.seen.size)
            data = read_file(photo.path) if photo.data is None else photo.data
            clock.append(time.perf_counter())
            before = time.perf_counter()
            task.compute()
            idle = time.perf_counter() - before
            enough = self.recipe.enough if self.fast_decode else None
            decoded = decode(data, max_pixels=self.max_pixels, enough=enough)
            clock.append(time.perf_counter() - idle)
            ready.width, ready.height = decoded.width, decoded.height
            if self.engine.photos:  # the recipe is in the model
                ready.tensor = np.asarray(decoded.image)
            else:
                ready.tensor = self.recipe.apply(decoded.image, fast=self.fast_decode)
            if self.thumbnail:
                decoded.image.thumbnail((self.thumbnail, self.thumbnail))
                ready.thumbnail = decoded.image
        except PhotoError as error:
            ready.error = error
        except MemoryError:
            ready.error = PhotoError("out_of_memory", "there is not enough memory to decode it")
        clock.append(time.perf_counter() - idle)
        ready.seconds = tuple(after - before for before, after in pairwise(clock))
        return ready

    def _answer(self, waiting: list[_Ready], budget: Budget) -> Iterator[Row]:
        tensors = [r.tensor for r in waiting if r.tensor is not None]
        logits: Iterator[np.ndarray | None] = iter(())
        if tensors:
            # on another device the engine only waits, and decoding goes on beside it
            with budget.whole() if self.engine.device == "cpu" else budget.one():
                start = time.perf_counter()
                logits = iter(self._logits(tensors))
                self.times.engine += time.perf_counter() - start
        for ready in waiting:
            yield self._row(ready, next(logits) if ready.tensor is not None else None)

    def _logits(self, tensors: list[np.ndarray]) -> list[np.ndarray | None]:
        """The logits of each tensor, None for one that does not fit into memory even alone."""
        done: list[np.ndarray | None] = []
        before = self.batch_size
        while len(done) < len(tensors):
            part = tensors[len(done) : len(done) + self.batch_size]
            # photos that nothing brought to one size go as many at once as are alike
            part = list(next(groupby(part, np.shape))[1])
            try:
                done.extend(self.engine(np.stack(part)))
            except MemoryError:
                if len(part) == 1:
                    done.append(None)
                else:
                    self.batch_size = len(part) // 2
        if self.batch_size < before:
            self.say(f"out of memory on {self.engine.device}: going on with {self.batch_size} photos at a time")
        return done

    def _row(self, ready: _Ready, logits: np.ndarray | None) -> Row:
        error, predictions = ready.error, tuple[Prediction, ...]()
        if error is None and logits is None:
            error = PhotoError("out_of_memory", f"not enough memory on {self.engine.device} even for one photo")
        elif error is None and logits is not None:
            if np.isfinite(logits).all():
                predictions = self._predict(logits)
            else:
                hint = "" if self.engine.dtype == "float32" else "; try --dtype float32"
                error = PhotoError("not_finite", f"the network gave no finite score in {self.engine.dtype}{hint}")
        floor = self._floor(predictions[0]) if predictions else None
        unsure = floor is not None and predictions[0].score < floor
        self.times.add(ready.seconds)
        self.times.failed += error is not None
        self.times.unknown += unsure
        return Row(
            path=ready.photo.path,
            status="failed" if error else "unknown" if unsure else "ok",
            width=ready.width,
            height=ready.height,
            predictions=predictions,
            model=self.model,
            model_sha256=self.engine.card.sha256,
            error=error,
            thumbnail=ready.thumbnail,
        )

    def _floor(self, best: Prediction) -> float | None:
        named = self.floors.get(best.label, self.floors.get(best.id or ""))
        return self.min_score if named is None else named

    def _predict(self, logits: np.ndarray) -> tuple[Prediction, ...]:
        scores = score(logits, self.scores, self.temperature)
        best = np.arange(len(scores))  # the classifier row that stands for each label
        if self.labels.groups is not None:
            best = np.array([group[int(np.argmax(scores[list(group)]))] for group in self.labels.groups])
            if self.scores == "softmax":
                scores = np.array([scores[list(group)].sum() for group in self.labels.groups], np.float32)
            else:
                scores = scores[best]
        # a stable sort, so that equal scores come in the order of the classes on every machine
        order = np.argsort(-scores, kind="stable")[: self.k or None]
        ids = self.labels.group_ids or (None,) * len(self.labels.names)
        return tuple(
            Prediction(
                rank, int(best[i]), ids[i] or self.labels.ids[best[i]], self.labels.names[i], _shortest(scores[i])
            )
            for rank, i in enumerate(order, 1)
        )


def score(logits: np.ndarray, kind: Scores, temperature: float = 1.0) -> np.ndarray:
    """Scores from the logits of one photo, computed in float32; "logits" leaves them as they are."""
    x = logits.astype(np.float32)
    if kind == "logits":
        return x
    if kind == "sigmoid":
        return np.asarray(0.5 * (1 + np.tanh(0.5 * x)))  # does not overflow
    x = np.exp((x - x.max()) / np.float32(temperature))
    return np.asarray(x / x.sum())


def _shortest(value: np.floating[Any]) -> float:
    """The float whose shortest decimal form is that of the float32."""
    return float(str(np.float32(value)))


def open_pipeline(
    model: str | Path,
    *,
    labels: str | Path | None = None,
    classes: str | None = None,
    engine: str = "auto",
    device: str = "auto",
    dtype: str = "float32",
    threads: int | None = None,
    job: Job = "latency",
    photos: int | None = None,
    compiled: bool = False,
    prepare: bool = False,
    **options: Any,
) -> Pipeline:
    """The pipeline of a model: a name, a file or a folder.

    labels: a label file or the name of a bundled set, instead of the card's. classes: only these of them, parted by
    commas (``labels.select``). floors, of the options: a file too. threads: None for all that this process
    may use. photos: how many will come, where that is known. engine, device, dtype, job, compiled, prepare: as for
    ``open_engine``. options: fields of ``Pipeline``; the rest come from the card and the machine.
    Raises ModelError when the model or labels cannot be used, or it names no classes; UnavailableError when the device
    is not there; UsageError for an option that is not there or out of range.
    """
    for name in ("k", "batch_size", "workers", "max_pixels"):
        value = options.get(name)
        if value is not None and (not isinstance(value, int) or value < (name != "k")):
            raise UsageError(f"{name} must be a whole number from {int(name != 'k')}, not {value!r}")
    if unknown := options.keys() - {entry.name for entry in fields(Pipeline)}:
        raise UsageError(f"there is no option {', '.join(sorted(unknown))}", "see the fields of Pipeline")
    if dtype not in DTYPES:
        raise UsageError(f"dtype must be one of {', '.join(DTYPES)}, not {dtype!r}")
    threads = threads or usable_threads()
    if engine not in ENGINES:
        raise UsageError(f"engine must be one of {', '.join(ENGINES)}, not {engine!r}")
    runs = open_engine(
        zoo.resolve(model),
        engine=engine,
        device=device,
        dtype=dtype,
        threads=threads,
        job=job,
        batch_size=min(photos or BATCH_SIZE, options.get("batch_size") or BATCH_SIZE),
        compiled=compiled,
        prepare=prepare,
        say=options.get("say", lambda _: None),
    )
    card = runs.card
    if card.task != "classification":
        what = "gives an embedding" if card.task == "embedding" else "is a feature backbone without a head"
        raise ModelError(
            f"{card.name or model} {what}: it cannot name classes", "convnext models list --task classification"
        )
    if labels is None:
        names = card.label_set()
    elif str(labels) in label_sets.names() and not Path(labels).exists():
        names = card.replace(labels=str(labels)).label_set()
    else:
        names = label_sets.read(Path(labels), card.label_set())
    if classes is not None:
        names = label_sets.select(classes.split(","), names)
    if isinstance(options.get("floors"), str | Path):
        options["floors"] = label_sets.floors(Path(options["floors"]), names)
    settings: dict[str, Any] = {
        "recipe": card.recipe,
        "scores": SCORES[card.problem],
        "temperature": card.temperature or 1.0,
        "batch_size": BATCH_SIZE if runs.device == "cpu" else 64,
        "workers": threads,
        "model": card.name or str(model),
    }
    settings |= {name: value for name, value in options.items() if value is not None}
    settings["workers"] = min(settings["workers"], threads)
    return Pipeline(engine=runs, labels=names, threads=threads, **settings)


def classify(
    photos: str | Path | bytes | Iterable[str | Path | bytes], *, model: str | Path | None = None, **options: Any
) -> list[Row]:
    """Label photos from Python.

    photos: one, or several, as paths or as the bytes of files. model: a name, a file or a folder; None for the default.
    options: those of ``open_pipeline``, and with them any field of ``Pipeline``, such as ``k``.
    Raises ConvNextError when the model cannot be used; a photo that cannot be read is a row that says so.
    """
    if isinstance(photos, str | Path | bytes):
        photos = [photos]
    if isinstance(photos, io.IOBase) or not isinstance(photos, Iterable):  # a file's lines are no photos
        raise UsageError(f"photos are paths or the bytes of files, not {type(photos).__name__}", "pass a list of them")
    found = [Photo("-", photo) if isinstance(photo, bytes) else Photo(os.fspath(photo)) for photo in photos]
    pipeline = open_pipeline(zoo.default_model() if model is None else model, photos=len(found), **options)
    try:
        return list(pipeline.rows(found))
    finally:
        pipeline.engine.close()
