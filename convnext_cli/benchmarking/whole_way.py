"""From the file to the label: how fast the pipeline is, and where the time of one photo goes."""

from __future__ import annotations

import io
import time
from collections.abc import Callable, Iterable
from dataclasses import replace
from statistics import median
from typing import TYPE_CHECKING, Any

from convnext_cli.base import memory
from convnext_cli.base.errors import UsageError
from convnext_cli.base.text import JsonObject
from convnext_cli.benchmarking.setting import Setting
from convnext_cli.model.preprocessing_changes import PreprocessingChanges
from convnext_cli.photos.find import Finder, Photo
from convnext_cli.predict.open import open_predictor
from convnext_cli.predict.options import ModelOptions, PredictorOptions
from convnext_cli.predict.predictor import Predictor
from convnext_cli.predict.rows import Row
from convnext_cli.predict.stage_times import Times
from convnext_cli.predict.writers import FORMATS, Columns

if TYPE_CHECKING:
    import numpy as np

    from convnext_cli.runtimes.protocol import Engine

STAGES = ("read", "decode", "resize", "copy", "infer", "write")
MOST_ALONE = 200  # photos that are taken one stage after the other
_PARTIAL = 3.0  # times as long a photo may take in the last, partial batch


class _Timed:
    """The engine with a note of each call: photos and seconds."""

    def __init__(self, engine: Engine) -> None:
        self._engine, self.calls = engine, list[tuple[int, float]]()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._engine, name)

    def __call__(self, batch: np.ndarray) -> np.ndarray:
        start = time.perf_counter()
        result = self._engine(batch)
        self.calls.append((len(batch), time.perf_counter() - start))
        return result


def measure(setting: Setting, folder: str, runs: int, say: Callable[[str], None] = lambda _: None) -> JsonObject:
    """Run the folder through ``Predictor`` ``runs`` times, then a part of it stage by stage.

    The first run reads what may not be in the system's cache yet, and compiles; it is apart. Rows are written as
    JSON lines into memory. ``stages`` are seconds a photo with nothing beside each other, so that they add up to
    ``alone_s``; in the pipeline they overlap. On a GPU the transfer is a part of infer.
    Photos that cannot be read do not count. Raises UsageError when the folder holds no photo.
    """
    photos = list(Finder(recursive=True).named([folder]))
    options = PredictorOptions(
        model=ModelOptions(
            model=setting.path,
            engine=setting.engine,
            device=setting.device,
            dtype=setting.asked_dtype,
            threads=setting.threads,
            compiled=setting.compiled,
            batch_size=setting.batch_size,
        ),
        preprocessing=PreprocessingChanges(size=setting.size),
    )
    predictor = open_predictor(options, job="throughput", prepare=True, say=say)
    if not photos:
        raise UsageError(f"there is no photo in {folder}", "name a folder with photos")
    engine = _Timed(predictor.engine)
    predictor = replace(predictor, engine=engine)
    walls, failed = [], 0
    for i in range(max(2, runs)):
        say(f"run {i + 1} over {len(photos)} photos")
        start = time.perf_counter()
        failed, _ = _write(predictor, predictor.rows(photos))
        walls.append(time.perf_counter() - start)
    again = median(walls[1:])
    figures = {
        "photos": len(photos),
        "failed": failed,
        "first_run_s": walls[0],
        "runs_s": walls[1:],
        "images_per_second": (len(photos) - failed) / again,
        "first_run_images_per_second": (len(photos) - failed) / walls[0],
        "partial_batch_ratio": partial_batch(engine.calls, predictor.batch_size),
        "batch_size": predictor.batch_size,
        "workers": predictor.preprocessor.workers,
        "engine": engine.name,
        "device": engine.device,
        "dtype": engine.dtype,
        "image_size": list(predictor.preprocessor.preprocessing.size),
        **stage_by_stage(predictor, photos[:MOST_ALONE]),
        "peak_memory_bytes": memory.peak(),
    }
    figures["warnings"] = []
    if (figures["partial_batch_ratio"] or 0) > _PARTIAL:
        times = f"{figures['partial_batch_ratio']:.1f} times"
        figures["warnings"].append(f"a photo takes {times} as long in a partial batch")
    return figures


def partial_batch(calls: list[tuple[int, float]], batch_size: int) -> float | None:
    """Time of a photo in batches that were not full over that in full ones; None where one kind is missing.

    The first call of each kind does not count, for it may compile.
    """
    full = [seconds / n for n, seconds in calls if n == batch_size][1:]
    partial = [seconds / n for n, seconds in calls if n < batch_size][1:]
    return median(partial) / median(full) if full and partial else None


def stage_by_stage(
    predictor: Predictor, photos: list[Photo], clock: Callable[[], float] = time.perf_counter
) -> JsonObject:
    """Seconds a photo of each stage and of the whole, in the pipeline's own steps by one thread: then no photo is read
    or decoded while the network runs, and the stages add up."""
    engine = _Timed(predictor.engine)
    preprocessor = replace(predictor.preprocessor, workers=1, times=Times())
    alone = replace(predictor, engine=engine, preprocessor=preprocessor, threads=1)
    start = clock()
    writing = _write(alone, alone.rows_in_turn(photos), clock)[1]
    total_s = clock() - start
    times, infer = alone.times, sum(seconds for _, seconds in engine.calls)
    seconds = dict(
        zip(STAGES, (times.read, times.decode, times.prepare, times.engine - infer, infer, writing), strict=True)
    )
    return {
        "stages_s": {name: total / len(photos) for name, total in seconds.items()},
        "alone_s": total_s / len(photos),
        "stages_share_of_wall": sum(seconds.values()) / total_s,
    }


def _write(
    predictor: Predictor, rows: Iterable[Row], clock: Callable[[], float] = time.perf_counter
) -> tuple[int, float]:
    """Write rows as JSON lines into memory: how many failed, and the seconds that the writing took."""
    writer = FORMATS["jsonl"].writer(io.BytesIO(), Columns(max(1, predictor.k)))
    failed, writing = 0, 0.0
    for row in rows:
        start = clock()
        writer.write(row)
        writing += clock() - start
        failed += row.status == "failed"
    writer.close()
    return failed, writing
