"""How much ``--sure`` costs ``convnext label``: the rate of a folder of small photos with it and without.

    python -m benchmarks.sure_cost [-m default] [--photos 2000] [--turns 5] [--sure 0.9]

The model must be calibrated. Everything runs in one process, and the two take turns: the folder is labelled into a new
job without ``--sure``, then with it, and so on. A first turn of each is not counted. Photos have 0.5 megapixels; a few
are different, and the others are links to them. The ratio is that of the seconds in the same turn, with its median; it
is asked to be at most 1.03.
"""

from __future__ import annotations

import argparse
import platform
import statistics
import tempfile
import time
from contextlib import ExitStack
from datetime import date
from pathlib import Path

from benchmarks import photos
from convnext_cli.base import machine
from convnext_cli.base.threads import usable_threads
from convnext_cli.jobs import job, settings
from convnext_cli.jobs.store import Store
from convnext_cli.jobs.view import View
from convnext_cli.photos.find import Finder
from convnext_cli.predict.open import open_predictor
from convnext_cli.predict.options import PredictorOptions
from convnext_cli.predict.predictor import Predictor

DISTINCT = 24
MOST = 1.03  # times as long


def seconds_of(predictor: Predictor, folder: Path) -> float:
    """The time for labelling a folder into a new job, everything from the walk to the last commit."""
    with tempfile.TemporaryDirectory() as place:
        store = Store(Path(place) / "job")
        try:
            view = View.of(predictor)
            number, kept = settings.new(store, predictor, view)
            store.views.show(view, {number: kept}, predictor.model)
            keeping = settings.keeping(predictor, kept, view)
            start = time.perf_counter()
            tally = job.look(store, Finder(recursive=True).named([str(folder)]), [str(folder)], number)
            job.run(store, keeping, number, tally)
            seconds = time.perf_counter() - start
            levels = store.levels()
        finally:
            store.close()
    assert tally.done == tally.photos and not tally.failed
    assert sum(levels.values()) == (tally.done if predictor.decider is not None else 0)
    return seconds


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("-m", "--model", default="default")
    parser.add_argument("--photos", type=int, default=2000)
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument("--sure", type=float, default=0.9)
    arguments = parser.parse_args()
    print(f"{date.today()}  {platform.platform()}  {machine.processor()}, {usable_threads()} threads")
    with tempfile.TemporaryDirectory() as place, ExitStack() as stack:
        folder = Path(place) / "photos"
        photos.make(folder, photos.KINDS["0.5 MP"], arguments.photos, min(arguments.photos, DISTINCT))
        predictors = {}
        for name, sure in (("without", None), ("with", arguments.sure)):
            options = PredictorOptions.of(model=arguments.model, sure=sure)
            predictors[name] = open_predictor(options, job="throughput", prepare=True)
            stack.callback(predictors[name].engine.close)
        engine = predictors["with"].engine
        print(f"{arguments.photos} photos, {predictors['with'].model}, {engine.name} in {engine.dtype}")
        seconds: dict[str, list[float]] = {name: [] for name in predictors}
        for turn in range(arguments.turns + 1):
            for name, predictor in predictors.items():
                taken = seconds_of(predictor, folder)
                if turn:
                    seconds[name].append(taken)
    for name, values in seconds.items():
        print(f"{name:>8} --sure: {arguments.photos / statistics.median(values):.1f} photos/s")
    ratios = [after / before for before, after in zip(seconds["without"], seconds["with"], strict=True)]
    print(
        f"--sure takes {statistics.median(ratios):.3f} times as long ({min(ratios):.3f} to {max(ratios):.3f} in "
        f"{len(ratios)} turns); asked: at most {MOST}"
    )


if __name__ == "__main__":
    main()
