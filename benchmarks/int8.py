"""Print the int8 table of docs/performance.md: speed and accuracy of float32, bfloat16 and int8 in the OpenVINO engine.

    python -m benchmarks.int8 TRAIN.parquet VALIDATION.parquet [--limit N]

The bundled default is calibrated with the first training photos and tested on validation photos; the files have Hugging
Face's image layout (columns ``image`` of {bytes, path} and ``label``). convnext_tiny has random weights: its speed is
that of trained ones, its answers mean nothing, so that none are counted. Speeds are medians of calls in turns.
"""

from __future__ import annotations

import argparse
import platform
import time
from collections.abc import Iterator
from datetime import date
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq

from convnext_cli import checkpoints
from convnext_cli.base.errors import UnavailableError
from convnext_cli.base.machine import instruction_sets, processor
from convnext_cli.base.threads import usable_threads
from convnext_cli.model.card import Card
from convnext_cli.model.config import VARIANTS
from convnext_cli.model.preprocessing import Preprocessing
from convnext_cli.photos.decode import decode
from convnext_cli.photos.resize import apply_preprocessing
from convnext_cli.runtimes.int8 import comparison
from convnext_cli.runtimes.int8.quantise import MOST, quantise
from convnext_cli.runtimes.openvino.engine import OpenVINOEngine, graph
from convnext_cli.runtimes.protocol import Engine
from tests.helpers.weights import random_tensors

DEFAULT = Path(__file__).resolve().parent.parent / "weights" / "default.safetensors"
SECONDS = 20.0  # for all precisions of one network and batch size


def photos(parquet: Path, preprocessing: Preprocessing, limit: int | None) -> Iterator[np.ndarray]:
    for batch in pq.ParquetFile(parquet).iter_batches(256, columns=["image"]):
        for image in batch.column("image").to_pylist()[:limit]:
            yield apply_preprocessing(preprocessing, decode(image["bytes"]))
        if limit is not None and (limit := limit - len(batch)) <= 0:
            return


def engines(card: Card, tensors: dict[str, Any], calibrating: Iterator[np.ndarray]) -> dict[str, OpenVINOEngine]:
    threads = usable_threads()
    model = graph(card.config, {name: tensor.numpy() for name, tensor in tensors.items()})
    start = time.perf_counter()
    models = {"float32": model, "bfloat16": model, "int8": quantise(model, calibrating, threads=threads)}
    print(f"\n{card.name}: quantised in {time.perf_counter() - start:.0f} s\n")
    found = {}
    for dtype, made in models.items():
        try:
            found[dtype] = OpenVINOEngine(made, card, dtype=dtype, threads=threads, batch_size=8)
        except UnavailableError as error:
            print(error.message)
    return found


def speeds(found: dict[str, OpenVINOEngine], batch: np.ndarray) -> dict[str, float]:
    """Milliseconds a photo."""
    times: dict[str, list[float]] = {dtype: [] for dtype in found}
    for engine in found.values():
        engine(batch)
    end = time.perf_counter() + SECONDS
    while time.perf_counter() < end:
        for dtype, engine in found.items():
            start = time.perf_counter()
            engine(batch)
            times[dtype].append(1000 * (time.perf_counter() - start) / len(batch))
    return {dtype: float(np.median(samples)) for dtype, samples in times.items()}


def answers(float32: Engine, other: Engine, parquet: Path, limit: int | None) -> list[str]:
    """Cells of accuracy, points lost and agreement."""
    labels = pq.read_table(parquet, columns=["label"]).slice(0, limit)["label"].to_pylist()
    judged = comparison.compare(
        float32, other, photos(parquet, float32.card.preprocessing, limit), labels, batch_size=32
    )
    lost = f"{judged.lost:+.2f} ± {judged.uncertainty:.2f}" if other is not float32 else ""
    return [f"{judged.int8_accuracy:.2f}", lost, f"{judged.agreement:.2f}"]


def draw(found: dict[str, OpenVINOEngine], size: tuple[int, int], cells: dict[str, list[str]]) -> None:
    x = np.random.default_rng(0).standard_normal((8, 3, *size)).astype(np.float32)
    one, eight = speeds(found, x[:1]), speeds(found, x)
    print("| precision | one photo, ms | photo of 8, ms | times float32 | top-1 % | points lost | same top-1 % |")
    print("| --- | --- | --- | --- | --- | --- | --- |")
    for dtype in found:
        ratio = " / ".join(f"{ms['float32'] / ms[dtype]:.2f}" for ms in (one, eight))
        print(f"| {dtype} | {one[dtype]:.2f} | {eight[dtype]:.2f} | {ratio} | {' | '.join(cells[dtype])} |")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("train", type=Path)
    parser.add_argument("validation", type=Path)
    parser.add_argument("--limit", type=int, help="validation photos")
    given = parser.parse_args()
    print(f"{date.today()}  {processor()} ({', '.join(instruction_sets())}), {usable_threads()} threads,", end=" ")
    print(f"{platform.platform()}, openvino {version('openvino')}, numpy {version('numpy')}")

    loaded = checkpoints.load(DEFAULT)
    card = loaded.card
    found = engines(card, loaded.tensors, photos(given.train, card.preprocessing, MOST))
    cells = {dtype: answers(found["float32"], engine, given.validation, given.limit) for dtype, engine in found.items()}
    draw(found, card.preprocessing.size, cells)

    config = VARIANTS["convnext_tiny"]
    card = Card(config, Preprocessing(), "convnext_tiny, random weights")
    noise = np.random.default_rng(1).standard_normal((32, 3, 224, 224)).astype(np.float32)
    found = engines(card, random_tensors(config), iter(noise))
    draw(found, card.preprocessing.size, dict.fromkeys(found, [""] * 3))


if __name__ == "__main__":
    main()
