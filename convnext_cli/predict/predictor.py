"""Photos in, rows out: the one stream that every command uses.

Threads decode and prepare while the calling thread runs the engine; rows come in the order of the photos; only a few
batches are ever in memory.
"""

from __future__ import annotations

import io
import os
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, fields
from itertools import groupby
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np

from convnext_cli import labels as label_sets
from convnext_cli import zoo
from convnext_cli.base.errors import ModelError, PhotoError, UsageError
from convnext_cli.base.text import well_formed
from convnext_cli.base.threads import Budget, usable_threads
from convnext_cli.labels import LabelSet
from convnext_cli.model.preprocessing_changes import PreprocessingChanges
from convnext_cli.photos.photo import Photo
from convnext_cli.predict import option_effects
from convnext_cli.predict.decode_threads import Task
from convnext_cli.predict.preprocess import Preprocessor, Ready
from convnext_cli.predict.rows import Prediction, Row
from convnext_cli.runtimes import DTYPES, ENGINES, Engine, Job, open_engine

Scores = Literal["softmax", "sigmoid", "logits"]
# What scores mean by default, by what the model was trained for (the card's ``problem``).
SCORES: dict[str, Scores] = {"single_label": "softmax", "multi_label": "sigmoid", "regression": "logits"}
BATCH_SIZE = 8  # photos, on a CPU


@dataclass(kw_only=True)
class Predictor(Preprocessor):
    """How photos become rows.

    engine: gives the logits. labels: the names.
    k: guesses a row; 0 for all. scores: what the numbers are. min_score: below it a row is "unknown". floors: the same
    for single labels, by name or id, in place of min_score.
    temperature: logits are divided by it before the softmax.
    batch_size, threads: photos a call of the engine, and processor threads of decoding and engine together.
    say: called once with each remark that the user should see.
    Raises UsageError for options that cannot take effect together.
    """

    engine: Engine
    labels: LabelSet
    k: int = 5
    scores: Scores = "softmax"
    min_score: float | None = None
    floors: Mapping[str, float] = field(default_factory=dict)
    temperature: float = 1.0
    batch_size: int = 8
    threads: int = 1
    model: str = ""
    say: Callable[[str], None] = lambda _: None

    def __post_init__(self) -> None:
        self.as_photos = self.engine.photos
        option_effects.check_recipe(self.recipe, self.engine, fast_decode=self.fast_decode)
        option_effects.check_scores(self.scores, self.engine, min_score=self.min_score, floors=self.floors)

    def rows(self, photos: Iterable[Photo]) -> Iterator[Row]:
        """One row a photo, in their order. The first comes when the first batch is done."""
        self.times.workers = self.workers
        start = time.perf_counter()
        budget = Budget(self.threads)
        waiting: list[Ready] = []
        tensors = 0
        for ready in self.prepared(iter(photos), budget, self.batch_size):
            waiting.append(ready)
            tensors += ready.tensor is not None
            # failures wait only for the photos before them, and never pile up
            if not tensors or tensors >= self.batch_size or len(waiting) >= self.batch_size + 256:
                yield from self.answer(waiting, budget)
                waiting, tensors = [], 0
        yield from self.answer(waiting, budget)
        self.times.wall = time.perf_counter() - start

    def rows_in_turn(self, photos: Iterable[Photo]) -> Iterator[Row]:
        """The same rows by the calling thread alone, one stage after the other: for measuring what each takes."""
        budget, waiting = Budget(1), list[Ready]()
        for photo in photos:
            task: Task[Photo, Ready] = Task(photo, budget)
            waiting.append(self.prepare(photo, task))
            task.end()
            if len(waiting) == self.batch_size:
                yield from self.answer(waiting, budget)
                waiting = []
        yield from self.answer(waiting, budget)

    def answer(self, waiting: list[Ready], budget: Budget) -> Iterator[Row]:
        """The rows of photos that are prepared, in their order."""
        tensors = [r.tensor for r in waiting if r.tensor is not None]
        logits: Iterator[np.ndarray | None] = iter(())
        if tensors:
            # on another device the engine only waits, and decoding goes on beside it
            with budget.whole() if self.engine.device == "cpu" else budget.one(), self._at(waiting):
                start = time.perf_counter()
                logits = iter(self._logits(tensors))
                self.times.engine += time.perf_counter() - start
        for ready in waiting:
            yield self._row(ready, next(logits) if ready.tensor is not None else None)

    def _at(self, waiting: list[Ready]) -> AbstractContextManager[None]:
        """The engine is at work on these."""
        if self.in_flight is None:
            return nullcontext()
        return self.in_flight.batch(ready.photo.path for ready in waiting if ready.tensor is not None)

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

    def _row(self, ready: Ready, logits: np.ndarray | None) -> Row:
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
        return floor_of(best, self.floors, self.min_score)

    def _predict(self, logits: np.ndarray) -> tuple[Prediction, ...]:
        return ranked(score(logits, self.scores, self.temperature), self.labels, self.scores, self.k)


def floor_of(best: Prediction, floors: Mapping[str, float], min_score: float | None) -> float | None:
    """The score below which a photo with this best guess is unknown."""
    named = floors.get(best.label, floors.get(best.id or ""))
    return min_score if named is None else named


def ranked(scores: np.ndarray, labels: LabelSet, kind: Scores, k: int) -> tuple[Prediction, ...]:
    """The best guesses from the scores of all classes, float32 (classes,).

    labels: the names; probabilities (softmax) of a group's members are added, and other scores have their best one.
    k: how many; 0 for all.
    """
    best = np.arange(len(scores))  # the classifier row that stands for each label
    if labels.groups is not None:
        best = np.array([group[int(np.argmax(scores[list(group)]))] for group in labels.groups])
        if kind == "softmax":
            scores = np.array([scores[list(group)].sum() for group in labels.groups], np.float32)
        else:
            scores = scores[best]
    # a stable sort, so that equal scores come in the order of the classes on every machine
    order = np.argsort(-scores, kind="stable")[: k or None]
    ids = labels.group_ids or (None,) * len(labels.names)
    return tuple(
        Prediction(rank, int(best[i]), ids[i] or labels.ids[best[i]], labels.names[i], _shortest(scores[i]))
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


def open_predictor(
    model: str | Path,
    *,
    labels: str | Path | None = None,
    classes: str | None = None,
    engine: str = "auto",
    device: str = "auto",
    dtype: str | None = None,
    threads: int | None = None,
    job: Job = "latency",
    photos: int | None = None,
    compiled: bool = False,
    prepare: bool = False,
    changes: PreprocessingChanges | None = None,
    **options: Any,
) -> Predictor:
    """The pipeline of a model: a name, a file or a folder.

    labels: a label file or the name of a bundled set, instead of the card's. classes: only these of them, parted by
    commas (``labels.select``). floors, of the options: a file too. threads: None for all that this process
    may use. photos: how many will come, where that is known. engine, device, dtype, job, compiled, prepare: as for
    ``open_engine``. changes: of the card's preprocessing; its fields may also be given one by one (``size=96``).
    options: fields of ``Predictor``; the rest come from the card and the machine.
    Raises ModelError when the model or labels cannot be used, or it names no classes; UnavailableError when the device
    is not there; UsageError for an option that is not there, out of range, or without effect on this model.
    """
    single = {
        name: options.pop(name) for name in [entry.name for entry in fields(PreprocessingChanges)] if name in options
    }
    if single and changes is not None:
        raise UsageError("changes and its fields exclude each other", "give one of the two")
    changes = changes or PreprocessingChanges(**single)
    if changes.options and options.get("recipe") is not None:
        raise UsageError("recipe and changes of the card's recipe exclude each other", "give one of the two")
    if options.get("scores") not in (None, *get_args(Scores)):
        raise UsageError(f"scores must be one of {', '.join(get_args(Scores))}, not {options['scores']!r}")
    if threads and (options.get("workers") or 0) > threads:
        raise UsageError(
            f"--workers {options['workers']} is more than --threads {threads}: no more threads than that decode",
            "leave one of the two out",
        )
    for name in ("k", "batch_size", "workers", "max_pixels"):
        value = options.get(name)
        if value is not None and (not isinstance(value, int) or value < (name != "k")):
            raise UsageError(f"{name} must be a whole number from {int(name != 'k')}, not {value!r}")
    if unknown := options.keys() - {entry.name for entry in fields(Predictor)}:
        raise UsageError(f"there is no option {', '.join(sorted(unknown))}", "see the fields of Predictor")
    if dtype is not None and dtype not in DTYPES:
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
    names = card.named(labels)
    scores = options.get("scores") or SCORES[card.problem]
    if classes is not None:
        names = label_sets.select(classes.split(","), names)
    if isinstance(options.get("floors"), str | Path):
        options["floors"] = label_sets.floors(Path(options["floors"]), names, logits=scores == "logits")
    option_effects.check_changes(changes, runs)
    option_effects.check_batch(options.get("batch_size"), runs)
    settings: dict[str, Any] = {
        "recipe": changes.apply(card.recipe, stride=card.config.stride),
        "scores": scores,
        "temperature": card.temperature or 1.0,
        "batch_size": BATCH_SIZE if runs.device == "cpu" else 64,
        "workers": threads,
        "model": card.name or well_formed(str(model)),
    }
    settings |= {name: value for name, value in options.items() if value is not None}
    settings["workers"] = min(settings["workers"], threads)
    return Predictor(engine=runs, labels=names, threads=threads, **settings)


def classify(
    photos: str | Path | bytes | Iterable[str | Path | bytes], *, model: str | Path | None = None, **options: Any
) -> list[Row]:
    """Label photos from Python.

    photos: one, or several, as paths or as the bytes of files. model: a name, a file or a folder; None for the default.
    options: those of ``open_predictor``, and with them any field of ``Predictor``, such as ``k``.
    Raises ConvNextError when the model cannot be used; a photo that cannot be read is a row that says so.
    """
    if isinstance(photos, str | Path | bytes):
        photos = [photos]
    if isinstance(photos, io.IOBase) or not isinstance(photos, Iterable):  # a file's lines are no photos
        raise UsageError(f"photos are paths or the bytes of files, not {type(photos).__name__}", "pass a list of them")
    found = [Photo("-", photo) if isinstance(photo, bytes) else Photo(os.fspath(photo)) for photo in photos]
    predictor = open_predictor(zoo.default_model() if model is None else model, photos=len(found), **options)
    try:
        return list(predictor.rows(found))
    finally:
        predictor.engine.close()
