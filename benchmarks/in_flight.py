"""What it costs to note which photos are being worked on: ``convnext label`` with and without the notes, in turns.

    python -m benchmarks.in_flight [--photos 4000] [--turns 5]

Tiny photos, of which a second has the most, on the bundled default and all threads; and the same with a network that
takes no time, which is the worst case. The ratio is the median of the ratios of neighbouring runs, with the smallest
and the largest. Run it on a machine that does nothing else.
"""

from __future__ import annotations

import argparse
import platform
import statistics
import tempfile
import time
from contextlib import ExitStack
from dataclasses import replace
from datetime import date
from pathlib import Path

import numpy as np

from benchmarks import photos
from convnext_cli.base import machine
from convnext_cli.base.threads import usable_threads
from convnext_cli.jobs import job, suspects
from convnext_cli.jobs.store import Store
from convnext_cli.photos.photo import Photo
from convnext_cli.predict.open import open_predictor
from convnext_cli.predict.options import PredictorOptions
from convnext_cli.predict.predictor import Predictor

TINY = photos.Kind((64, 48))


class Nothing:
    """An engine that takes no time."""

    def __init__(self, engine: object) -> None:
        self._engine = engine

    def __getattr__(self, name: str) -> object:
        return getattr(self._engine, name)

    def __call__(self, batch: np.ndarray) -> np.ndarray:
        return np.zeros((len(batch), self._engine.card.config.num_labels), np.float32)


def seconds(predictor: Predictor, paths: list[str], *, noted: bool) -> float:
    """How long one job takes."""
    with tempfile.TemporaryDirectory() as place, ExitStack() as stack:
        store = Store(Path(place) / "job")
        stack.callback(store.close)
        settings = store.settings("model", "sha256", {})
        tally = job.look(store, map(Photo, paths), [], settings)
        start = time.perf_counter()
        those = stack.enter_context(suspects.opened(store, predictor)) if noted else None
        job.run(store, those.predictor if those else predictor, settings, tally, suspects=those)
        assert (tally.done, tally.failed) == (len(paths), 0)
        return time.perf_counter() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--photos", type=int, default=4000)
    parser.add_argument("--turns", type=int, default=5)
    given = parser.parse_args()
    print(f"{date.today()}  {platform.platform()}  {machine.processor()}, {usable_threads()} threads")
    print("\n| network | photos/s without notes | with notes | ratio of times | smallest | largest |")
    print("| --- | --- | --- | --- | --- | --- |", flush=True)
    predictor = open_predictor(PredictorOptions.of(), job="throughput", prepare=True)
    real = predictor.engine
    with tempfile.TemporaryDirectory() as place:
        paths = photos.make(Path(place) / "photos", TINY, given.photos, 24)
        for name, engine in (("the default", real), ("none", Nothing(real))):
            predictor = replace(predictor, engine=engine)
            seconds(predictor, paths[:200], noted=True)  # the first photos of a process are slow
            without, noted = [], []
            for _ in range(given.turns):
                without.append(seconds(predictor, paths, noted=False))
                noted.append(seconds(predictor, paths, noted=True))
            ratios = [b / a for a, b in zip(without, noted, strict=True)]
            rates = [given.photos / statistics.median(each) for each in (without, noted)]
            print(f"| {name} | {rates[0]:.0f} | {rates[1]:.0f} | {statistics.median(ratios):.3f} "
                  f"| {min(ratios):.3f} | {max(ratios):.3f} |", flush=True)  # fmt: skip


if __name__ == "__main__":
    main()
