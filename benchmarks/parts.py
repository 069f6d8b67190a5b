"""Batches computed in parts side by side against one stream of all threads: the OpenVINO engine, turn by turn.

python -m benchmarks.parts [--models convnext_tiny,convnext_base,convnext_atto] [--batches 8] [--seconds 8]
"""

from __future__ import annotations

import argparse
import os
import platform
import statistics
import time
from datetime import date
from importlib.metadata import version
from pathlib import Path
from unittest.mock import patch

import numpy as np

from convnext_cli.base import machine
from convnext_cli.base.errors import UnavailableError
from convnext_cli.base.threads import usable_threads
from convnext_cli.benchmarking.runs import Bench
from convnext_cli.benchmarking.statistics import paired_ratio
from convnext_cli.checkpoints.numpy_arrays import read_arrays
from convnext_cli.runtimes.openvino import engine as openvino
from convnext_cli.runtimes.openvino.engine import OpenVINOEngine
from convnext_cli.runtimes.reference import reference_input


def seconds(engine: OpenVINOEngine, batch: np.ndarray) -> float:
    """Of one call, after another: the threads of the engine before spin on for a while."""
    engine(batch)
    start = time.perf_counter()
    engine(batch)
    return time.perf_counter() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--models", default="convnext_tiny,convnext_base,convnext_atto")
    parser.add_argument("--dtypes", default="float32,bfloat16")
    parser.add_argument("--batches", default="8")
    parser.add_argument("--seconds", type=float, default=8.0, help="for each line")
    given, threads = parser.parse_args(), usable_threads()
    print(f"{date.today()}  {platform.platform()}  {machine.processor()}, {os.cpu_count()} threads")
    print(f"Python {platform.python_version()}, openvino {version('openvino')}\n")
    print("| network | precision | batch | streams × photos | one stream, ms a photo | parts | ratio | same bits |")
    print("| --- | --- | --- | --- | --- | --- | --- | --- |")
    with Bench(seconds=1, checks=False) as bench:
        for model in given.models.split(","):
            card, arrays = read_arrays(Path(bench.random_weights(model).path))
            graph = openvino.graph(card.config, arrays)
            for dtype in given.dtypes.split(","):
                for size in map(int, given.batches.split(",")):
                    streams, part = openvino.split(size, threads)
                    batch = reference_input(*card.preprocessing.size, size)
                    try:
                        with patch.object(openvino, "split", lambda batch_size, _: (1, batch_size)):
                            one = OpenVINOEngine(graph, card, dtype=dtype, threads=threads, batch_size=size)
                        parts = OpenVINOEngine(graph, card, dtype=dtype, threads=threads, batch_size=size)
                    except UnavailableError as error:
                        print(f"| {model} | {dtype} | {size} | | {error.message} | | | |")
                        continue
                    same = "yes" if np.array_equal(one(batch), parts(batch)) else "no"
                    times: dict[OpenVINOEngine, list[float]] = {one: [], parts: []}
                    end = time.perf_counter() + given.seconds
                    while time.perf_counter() < end or len(times[one]) < 5:
                        for engine in (one, parts) if len(times[one]) % 2 else (parts, one):
                            times[engine].append(1000 * seconds(engine, batch) / size)
                    ratio, (low, high) = paired_ratio([[t] for t in times[parts]], [[t] for t in times[one]])
                    print(f"| {model} | {dtype} | {size} | {streams} × {part} | {statistics.median(times[one]):.2f} "
                          f"| {statistics.median(times[parts]):.2f} | {ratio:.3f} ({low:.3f}–{high:.3f}) | {same} |",
                          flush=True)  # fmt: skip


if __name__ == "__main__":
    main()
