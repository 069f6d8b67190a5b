"""The stream from photos to rows, with engines that fail on purpose."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from convnext_cli import classify
from convnext_cli.base.errors import ModelError, UsageError
from convnext_cli.labels import LabelSet
from convnext_cli.model.card import Card
from convnext_cli.model.config import ConvNextConfig
from convnext_cli.model.preprocessing import Preprocessing
from convnext_cli.photos.content_key import content_key
from convnext_cli.photos.find import Photo
from convnext_cli.predict.open import open_predictor
from convnext_cli.predict.options import PredictorOptions
from convnext_cli.predict.predictor import Predictor
from convnext_cli.predict.preprocess import Preprocessor
from convnext_cli.predict.scoring import score
from convnext_cli.runtimes.fixed_shapes import Fixed
from tests.helpers.paths import SAMPLES

PHOTO = Path(SAMPLES[0]).read_bytes()


class MeanEngine:
    """Logits from the mean of each tensor; fails over ``room`` photos at a time, and where ``bad`` says."""

    name, device, dtype, photos, notes = "mean", "cpu", "float32", False, []
    fixed = Fixed()

    def __init__(self, room: int = 1000, bad: float | None = None) -> None:
        self.card = Card(ConvNextConfig(num_labels=3), Preprocessing(size=(8, 8), resize_to=(8, 8)))
        self.room, self.bad = room, bad
        self.batches: list[int] = []

    def __call__(self, batch: np.ndarray) -> np.ndarray:
        if len(batch) > self.room:
            raise MemoryError
        self.batches.append(len(batch))
        mean = batch.mean((1, 2, 3))[:, None].astype(np.float32)
        return np.concatenate([mean, 2 * mean, np.full_like(mean, self.bad or 0)], 1)

    def close(self) -> None: ...


def predictor(
    engine: MeanEngine, preprocessing: Preprocessing | None = None, *, workers: int = 1, **options: object
) -> Predictor:
    preprocessor = Preprocessor(preprocessing=preprocessing or engine.card.preprocessing, workers=workers)
    return Predictor(engine=engine, labels=LabelSet.numbered(3), preprocessor=preprocessor, **options)


def photos(n: int) -> Iterator[Photo]:
    return (Photo(str(i), PHOTO) for i in range(n))


def test_order_is_kept_and_nothing_is_lost() -> None:
    rows = list(predictor(MeanEngine(), workers=4, threads=4, batch_size=7).rows(photos(100)))
    assert [row.path for row in rows] == [str(i) for i in range(100)]
    assert {row.status for row in rows} == {"ok"}


def test_out_of_memory_halves_the_batch_and_says_so_once() -> None:
    engine, said = MeanEngine(room=3), []
    rows = list(predictor(engine, batch_size=16, say=said.append).rows(photos(40)))
    assert [row.status for row in rows] == ["ok"] * 40
    assert said == ["out of memory on cpu: continuing with 2 photos at a time"]
    assert max(engine.batches) == 2


def test_out_of_memory_even_for_one_photo() -> None:
    rows = list(predictor(MeanEngine(room=0), batch_size=4).rows(photos(3)))
    assert [row.error and row.error.kind for row in rows] == ["out_of_memory"] * 3


def test_other_errors_of_the_engine_are_not_taken_for_memory() -> None:
    class Broken(MeanEngine):
        def __call__(self, batch: np.ndarray) -> np.ndarray:
            raise RuntimeError("x")

    with pytest.raises(RuntimeError, match="x"):
        list(predictor(Broken()).rows(photos(3)))


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_a_score_that_is_not_finite_is_a_failure(bad: float) -> None:
    rows = list(predictor(MeanEngine(bad=bad)).rows(photos(2)))
    assert [(row.status, row.error and row.error.kind, row.predictions) for row in rows] == [
        ("failed", "not_finite", ())
    ] * 2


def test_the_first_row_comes_with_the_first_batch() -> None:
    """A source that never ends: rows must come all the same, and no more be read than a few batches."""
    taken = 0

    def endless() -> Iterator[Photo]:
        nonlocal taken
        while True:
            taken += 1
            yield Photo("x", PHOTO)

    rows = predictor(MeanEngine(), batch_size=4, workers=2, threads=2).rows(endless())
    for _ in range(3):
        next(rows)
    assert taken <= 4 * 3
    rows.close()


def test_failures_do_not_wait_for_a_batch() -> None:
    rows = predictor(MeanEngine(), batch_size=4).rows(Photo("x", b"no photo") for _ in iter(int, 1))
    assert next(rows).status == "failed"
    rows.close()


def test_decoding_overlaps_over_the_workers() -> None:
    """All workers are inside a decoder at once; were they one after the other, the barrier would break."""
    barrier = threading.Barrier(3, timeout=30)

    class Together(Preprocessing):
        def apply(self, image: object, *, fast: bool = False) -> np.ndarray:
            barrier.wait()
            return np.zeros((3, 8, 8), np.float32)

    engine = MeanEngine()
    stream = predictor(engine, Together(), workers=3, threads=3)
    assert len(list(stream.rows(photos(9)))) == 9


def test_times_name_the_limit() -> None:
    class Slow(MeanEngine):
        def __call__(self, batch: np.ndarray) -> np.ndarray:
            end = time.perf_counter() + 0.2
            while time.perf_counter() < end:
                pass
            return super().__call__(batch)

    stream = predictor(Slow())
    list(stream.rows(photos(3)))
    assert stream.times.limiting() == "engine"
    assert stream.times.photos == 3
    assert stream.times.wall >= stream.times.engine >= 0.2


def test_temperature_sharpens() -> None:
    logits = np.array([1.0, 2.0, 3.0], np.float32)
    assert score(logits, "softmax", 0.5)[2] > score(logits, "softmax")[2]
    np.testing.assert_allclose(score(logits, "softmax", 0.5), score(logits * 2, "softmax"), rtol=1e-6)


def test_scores_do_not_overflow() -> None:
    logits = np.array([1e4, -1e4, 0], np.float32)
    np.testing.assert_array_equal(score(logits, "softmax"), [1, 0, 0])
    np.testing.assert_array_equal(score(logits, "sigmoid"), [1, 0, 0.5])
    np.testing.assert_array_equal(score(logits, "logits"), logits)


def test_equal_scores_come_in_the_order_of_the_classes() -> None:
    class Flat(MeanEngine):
        def __call__(self, batch: np.ndarray) -> np.ndarray:
            return np.zeros((len(batch), 3), np.float32)

    (row,) = predictor(Flat()).rows(photos(1))
    assert [p.index for p in row.predictions] == [0, 1, 2]


def test_classify_from_python(home: Path) -> None:
    rows = classify([SAMPLES[0], PHOTO, "missing.jpg"], k=2, batch_size=2)
    assert [row.status for row in rows] == ["ok", "ok", "failed"]
    assert rows[0].predictions == rows[1].predictions
    assert len(rows[0].predictions) == 2
    (alone,) = classify(SAMPLES[0], k=2)
    assert [p.label for p in alone.predictions] == [p.label for p in rows[0].predictions]
    assert alone.predictions[0].score == pytest.approx(rows[0].predictions[0].score, abs=1e-5)


@pytest.mark.parametrize(
    "options", [{"k": -1}, {"k": "3"}, {"batch_size": 0}, {"workers": 0}, {"top": 3}, {"dtype": "float8"}]
)
def test_python_options_are_checked(home: Path, options: dict) -> None:
    with pytest.raises(UsageError):
        classify(SAMPLES[0], **options)


def test_python_photos_are_checked(home: Path) -> None:
    with Path(SAMPLES[0]).open("rb") as file, pytest.raises(UsageError, match="not BufferedReader"):
        classify(file)
    with pytest.raises(UsageError, match="not NoneType"):
        classify(None)


def test_the_process_gets_its_threads_back(home: Path) -> None:
    import torch

    before = torch.get_num_threads()
    classify(SAMPLES[0], threads=before + 1)
    assert torch.get_num_threads() == before


def test_models_that_name_no_class_are_refused(home: Path, tmp_path: Path) -> None:
    import convnext_cli

    body = convnext_cli.ConvNextModel(convnext_cli.ConvNextConfig(hidden_sizes=(8, 8, 8, 8), depths=(1, 1, 1, 1)))
    body.save_pretrained(tmp_path)
    with pytest.raises(ModelError, match="without a classifier"):
        classify(SAMPLES[0], model=tmp_path)


def test_outputs_are_those_of_the_rows() -> None:
    opened = open_predictor(PredictorOptions())
    opened = replace(opened, preprocessor=replace(opened.preprocessor, content=True))
    named = [*map(Photo, SAMPLES), Photo("no such photo")]
    rows, outputs = list(opened.rows(named)), list(opened.outputs(named, features=True))
    for row, (ready, output) in zip(rows[:-1], outputs[:-1], strict=True):
        assert output is not None and output.features is not None
        assert output.features.shape == (opened.engine.card.config.hidden_sizes[-1],)
        assert int(output.logits.argmax()) == row.predictions[0].index
        assert ready.content == content_key(Path(row.path).read_bytes()) and ready.tensor is None
    failed, output = outputs[-1]
    assert output is None and failed.content is None and failed.error is not None and failed.error.kind == "missing"
