"""What a Ray cluster costs: ``convnext label`` and ``convnext label --cluster auto`` on the same processors, in turns.

    python -m benchmarks.cluster FOLDER [--models default,convnext_tiny] [--photos 4000] [--turns 3]

FOLDER holds some hundred photos, which are linked as often as needed. Models but the default have random weights. Rates
are from the first row that is there to the last, so that starting and loading are left out; these are told beside.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from datetime import date
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

from convnext_cli import zoo
from convnext_cli.base import machine
from convnext_cli.base.threads import usable_threads
from convnext_cli.benchmarking.runs import Bench

BLOCK = 250  # photos of a part: the first one tells when all is running


def one(folder: str, model: str, tell: Callable[[int], None]) -> None:
    """The job of one machine."""
    from convnext_cli.jobs import job
    from convnext_cli.jobs.store import Store
    from convnext_cli.photos.find import Finder
    from convnext_cli.predict.open import open_predictor
    from convnext_cli.predict.options import PredictorOptions

    predictor = open_predictor(PredictorOptions.of(model=model), job="throughput", prepare=True)
    with tempfile.TemporaryDirectory() as place:
        store = Store(Path(place) / "job")
        settings = store.settings("m", "s", {})
        tally = job.look(store, Finder(recursive=True).named([folder]), [folder], settings)
        job.run(store, predictor, settings, tally, progress=lambda _: tell(tally.done))
        store.close()


def cluster(folder: str, model: str, tell: Callable[[int], None]) -> None:
    """The job of a cluster of this machine alone."""
    from convnext_cli.jobs.cluster import connect
    from convnext_cli.jobs.cluster.run import ClusterJob
    from convnext_cli.jobs.cluster.source import Source
    from convnext_cli.photos.find import Finder

    opener = partial(_opened, model)
    with tempfile.TemporaryDirectory() as place, connect.connected("auto", usable_threads()):
        shape = partial(connect.shape, gpu=None, threads=None)
        opened = connect.looked_at(opener, shape())
        finder = Finder(recursive=True, shards="kept")
        ClusterJob(
            Source(finder, (folder,)),
            target=f"{place}/out",
            shape=shape,
            opener=opener,
            described=opened.described,
            view=opened.view,
            preprocessor=opened.preprocessor,
            folder=place,
            block=BLOCK,
            tell=lambda progress: tell(progress.done),
        ).run()


def _opened(model: str, threads: int | None) -> Any:
    from convnext_cli.predict.open import open_predictor
    from convnext_cli.predict.options import PredictorOptions

    return open_predictor(PredictorOptions.of(model=model, threads=threads), job="throughput", prepare=True)


def measure(kind: str, folder: str, model: str) -> None:
    """Run one of the two, and print its start and its rate as a line of JSON."""
    begun, seen = time.perf_counter(), list[tuple[float, int]]()

    def tell(done: int) -> None:
        if done and (not seen or done > seen[-1][1]):
            seen.append((time.perf_counter(), done))

    {"one": one, "cluster": cluster}[kind](folder, model, tell)
    first = next(index for index, (_, done) in enumerate(seen) if done >= BLOCK)
    (start, before), (end, after) = seen[first], seen[-1]
    print(json.dumps({"rate": (after - before) / (end - start), "start": start - begun, "photos": after}))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--models", default="default,convnext_tiny")
    parser.add_argument("--photos", type=int, default=4000)
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--measure", choices=["one", "cluster"], help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.measure:
        measure(options.measure, str(options.folder), options.models)
        return
    originals = sorted(options.folder.glob("*.jpg"))
    print(f"{machine.processor()}, {usable_threads()} threads, Python {platform.python_version()}, ", end="")
    print(f"ray {version('ray')}, {date.today()}; {options.photos} photos\n")
    print("| model | label, photos/s | --cluster auto, photos/s | ratio | start, s | start, s |")
    print("| --- | --- | --- | --- | --- | --- |")
    with tempfile.TemporaryDirectory() as place, Bench(seconds=1, checks=False) as bench:
        folder = Path(place) / "photos"
        folder.mkdir()
        for number in range(options.photos):
            os.link(*_near(originals[number % len(originals)], folder / f"{number:06d}.jpg", Path(place)))
        for name in options.models.split(","):
            model = zoo.default_model() if name == "default" else bench.random_weights(name).path
            told: dict[str, list[dict[str, float]]] = {"one": [], "cluster": []}
            for _ in range(options.turns):
                for kind, values in told.items():
                    values.append(_measured(kind, folder, str(model)))
            rates = {kind: statistics.median(each["rate"] for each in values) for kind, values in told.items()}
            starts = [f"{statistics.median(each['start'] for each in values):.1f}" for values in told.values()]
            row = [name, f"{rates['one']:.1f}", f"{rates['cluster']:.1f}", f"{rates['cluster'] / rates['one']:.2f}"]
            print(f"| {' | '.join([*row, *starts])} |", flush=True)


def _near(original: Path, link: Path, place: Path) -> tuple[Path, Path]:
    """A copy of a photo on the disk of the links, and the link."""
    copy = place / original.name
    if not copy.exists():
        copy.write_bytes(original.read_bytes())
    return copy, link


def _measured(kind: str, folder: Path, model: str) -> dict[str, float]:
    command = [sys.executable, "-m", "benchmarks.cluster", str(folder), "--measure", kind, "--models", model]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(done.stderr)
    values: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return values


if __name__ == "__main__":
    main()
