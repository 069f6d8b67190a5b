"""Predictor: from photos to rows, the one stream that every command uses.

Threads decode and prepare while the calling thread runs the engine; rows come in the order of the photos; only a few
batches are ever in memory.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, replace
from itertools import groupby

import numpy as np

from convnext_cli.base.errors import PhotoError, TooSlowError
from convnext_cli.base.threads import Budget
from convnext_cli.certainty.answer import Decision
from convnext_cli.certainty.decider import Decider
from convnext_cli.labels import LabelSet
from convnext_cli.photos.photo import Photo
from convnext_cli.predict import option_effects
from convnext_cli.predict.decode_threads import Task
from convnext_cli.predict.preprocess import DECODED, InFlight, Preprocessor, Ready
from convnext_cli.predict.rows import Prediction, Row
from convnext_cli.predict.scoring import ScoreKind, floor_of, ranked, score
from convnext_cli.predict.stage_times import Times
from convnext_cli.runtimes.protocol import Engine


@dataclass
class _Room:
    """The number of photos that fit into one call of the engine; smaller after memory has run out."""

    photos: int


@dataclass(frozen=True, slots=True)
class Output:
    """The network's output for one photo.

    Args:
        logits: float32 (classes,).
        features: pooled features, float32 (C,); None where they were not asked for.
    """

    logits: np.ndarray
    features: np.ndarray | None = None


@dataclass(frozen=True, kw_only=True)
class Predictor:
    """Turns photos into rows.

    Args:
        engine: computes the logits.
        preprocessor: makes the tensors.
        labels: the names of the classes.
        k: predictions in a row; 0 for all.
        scores: the kind of score.
        min_score: a row whose best score is below it is "unknown".
        floors: thresholds for single labels, by name or id, in place of min_score.
        temperature: logits are divided by it before the softmax.
        decider: makes the answer and the set of each row; None for neither.
        batch_size: photos in one call of the engine.
        threads: processor threads for decoding and the engine together.
        model: the model's name, for the rows.
        say: called once with each note for the user.

    Raises:
        UsageError: options cannot take effect together.
    """

    engine: Engine
    preprocessor: Preprocessor
    labels: LabelSet
    k: int = 5
    scores: ScoreKind = "softmax"
    min_score: float | None = None
    floors: Mapping[str, float] = field(default_factory=dict)
    temperature: float = 1.0
    decider: Decider | None = None
    batch_size: int = 8
    threads: int = 1
    model: str = ""
    say: Callable[[str], None] = lambda _: None
    _room: _Room = field(init=False, repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_room", _Room(self.batch_size))
        option_effects.check_preprocessing(self.preprocessor, self.engine)
        option_effects.check_scores(self.scores, self.engine, min_score=self.min_score, floors=self.floors)

    @property
    def times(self) -> Times:
        """The time that each stage has taken so far."""
        return self.preprocessor.times

    def noting(self, in_flight: InFlight | None) -> Predictor:
        """The same predictor, which also reports to ``in_flight`` the photos that it works on."""
        return replace(self, preprocessor=replace(self.preprocessor, in_flight=in_flight))

    def rows(self, photos: Iterable[Photo]) -> Iterator[Row]:
        """One row a photo, in their order. The first comes when the first batch is done."""
        return (self.row(ready, output) for ready, output in self.outputs(photos, features=self.reads_features))

    def outputs(self, photos: Iterable[Photo], *, features: bool = False) -> Iterator[tuple[Ready, Output | None]]:
        """The network's output for each photo, in their order.

        Args:
            photos: the photos.
            features: whether the pooled features are needed.

        Yields:
            The prepared photo, without its tensor, and the output: None where the photo failed,
            and ``Ready.error`` says why.
        """
        self.times.workers = self.preprocessor.workers
        start = time.perf_counter()
        budget = Budget(self.threads)
        waiting: list[Ready] = []
        tensors = held = 0
        for ready in self.preprocessor.prepared(iter(photos), budget, self._room.photos):
            waiting.append(ready)
            tensors += ready.tensor is not None
            if self.preprocessor.as_photos and ready.tensor is not None:  # at full size
                held += ready.tensor.nbytes
            # failures wait only for the photos before them, and never pile up
            is_full = tensors >= self._room.photos or held >= DECODED
            if not tensors or is_full or len(waiting) >= self._room.photos + 256:
                yield from self._run(waiting, budget, features=features)
                waiting, tensors, held = [], 0, 0
        yield from self._run(waiting, budget, features=features)
        self.times.wall = time.perf_counter() - start

    def rows_in_turn(self, photos: Iterable[Photo]) -> Iterator[Row]:
        """The same rows, made by the calling thread alone, one stage after the other: to measure each stage."""
        budget, waiting = Budget(1), list[Ready]()
        for photo in photos:
            task: Task[Photo, Ready] = Task(photo, budget)
            waiting.append(self.preprocessor.prepare(photo, task))
            task.end()
            if len(waiting) == self._room.photos:
                yield from self.answer(waiting, budget)
                waiting = []
        yield from self.answer(waiting, budget)

    def answer(self, waiting: list[Ready], budget: Budget) -> Iterator[Row]:
        """The rows of photos that are prepared, in their order."""
        outputs = self._run(waiting, budget, features=self.reads_features)
        return (self.row(ready, output) for ready, output in outputs)

    @property
    def reads_features(self) -> bool:
        """Whether answers need the pooled features."""
        return self.decider is not None and self.decider.reads_features

    def _run(
        self, waiting: list[Ready], budget: Budget, *, features: bool = False
    ) -> Iterator[tuple[Ready, Output | None]]:
        """Photos that are prepared, with the network's outputs."""
        tensors = [r.tensor for r in waiting if r.tensor is not None]
        outputs: Iterator[Output | PhotoError] = iter(())
        if tensors:
            # on another device the engine only waits, and decoding goes on beside it
            with budget.all_threads() if self.engine.device == "cpu" else budget.one(), self._in_flight(waiting):
                start = time.perf_counter()
                outputs = iter(self._compute(tensors, features=features))
                self.times.engine += time.perf_counter() - start
        for ready in waiting:
            output = next(outputs) if ready.tensor is not None else None
            ready.tensor = None
            if isinstance(output, PhotoError):
                ready.error, output = output, None
            yield ready, output

    def _in_flight(self, waiting: list[Ready]) -> AbstractContextManager[None]:
        """Report that the engine works on these photos."""
        in_flight = self.preprocessor.in_flight
        if in_flight is None:
            return nullcontext()
        return in_flight.batch(ready.photo.path for ready in waiting if ready.tensor is not None)

    def _compute(self, tensors: list[np.ndarray], *, features: bool) -> list[Output | PhotoError]:
        """The output of each tensor; an error for one that takes too much memory or time even alone."""
        done: list[Output | PhotoError] = []
        before, one_by_one = self._room.photos, 0  # photos of a batch that took too long are tried one by one
        while len(done) < len(tensors):
            part = tensors[len(done) : len(done) + (1 if len(done) < one_by_one else self._room.photos)]
            # photos keep their own sizes if the model resizes them: batch only consecutive photos of equal shape
            part = list(next(groupby(part, np.shape))[1])
            try:
                if features:
                    done.extend(map(Output, *self.engine.with_features(np.stack(part))))
                else:
                    done.extend(map(Output, self.engine(np.stack(part))))
            except MemoryError:
                if len(part) == 1:
                    words = f"there is not enough memory on {self.engine.device} even for one photo"
                    done.append(PhotoError("out_of_memory", words))
                else:
                    self._room.photos = len(part) // 2
            except TooSlowError as error:
                if len(part) == 1:
                    done.append(PhotoError("timeout", error.message))
                else:
                    one_by_one = len(done) + len(part)
        if self._room.photos < before:
            self.say(f"out of memory on {self.engine.device}: continuing with {self._room.photos} photos at a time")
        return done

    def row(self, ready: Ready, output: Output | None) -> Row:
        """The row of a photo, from its output."""
        error, predictions, decision = ready.error, tuple[Prediction, ...](), Decision(None, None)
        if output is not None:
            if np.isfinite(output.logits).all():
                predictions = self._predict(output.logits)
                if self.decider is not None:
                    decision = self.decider(output.logits, output.features)
            else:
                hint = "" if self.engine.dtype == "float32" else "; try --dtype float32"
                error = PhotoError("not_finite", f"the network's scores are not finite in {self.engine.dtype}{hint}")
        floor = floor_of(predictions[0], self.floors, self.min_score) if predictions else None
        unsure = floor is not None and predictions[0].score < floor
        if decision.answer is not None:
            unsure = decision.answer.level == "none"
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
            answer=decision.answer,
            prediction_set=decision.prediction_set,
        )

    def _predict(self, logits: np.ndarray) -> tuple[Prediction, ...]:
        return ranked(score(logits, self.scores, self.temperature), self.labels, self.scores, self.k)
