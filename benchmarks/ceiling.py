"""What lies between the network and the ceiling of the processor: the table in docs/performance.md.

    python -m benchmarks.ceiling [--model convnext_tiny] [--batches 1,8] [--seconds 4]

Three graphs take turns in OpenVINO in float32: the network; the network with one set of weights for all layers of a
shape, which stay in the cache (its answers mean nothing, its arithmetic is the same); and the pointwise layers alone,
with their activation, also out of the cache. What the second gains is the cost of reading weights from memory in each
call; what the third gains on it, that of depthwise layers, norms, residuals and downsampling.
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
from typing import Any

import numpy as np

from convnext_cli.base import machine
from convnext_cli.base.threads import usable_threads
from convnext_cli.benchmarking import ceilings, work
from convnext_cli.benchmarking.runs import Bench
from convnext_cli.checkpoints.numpy_arrays import read_arrays
from convnext_cli.model.config import ConvNextConfig
from convnext_cli.runtimes.openvino import engine
from convnext_cli.runtimes.openvino.runtime import op, ov
from convnext_cli.runtimes.operations import network


class Cached(engine.Ops):
    """Layers of one shape share one array of weights."""

    def __init__(self) -> None:
        self._by_shape: dict[Any, np.ndarray] = {}

    def conv(self, x: Any, weight: np.ndarray, bias: np.ndarray, **options: Any) -> Any:
        kept = self._by_shape.setdefault((weight.shape, *options.items()), weight)
        return super().conv(x, kept, bias, **options)


def pointwise(config: ConvNextConfig, batch: int, edge: int) -> tuple[ov.Model, int]:
    """The blocks' pointwise layers of all stages side by side, and their multiply-adds for one photo."""
    ops, rng = Cached(), np.random.default_rng(0)
    inputs, outputs, macs = [], [], 0
    for depth, width, step in zip(config.depths, config.hidden_sizes, (4, 8, 16, 32), strict=True):
        x = op.parameter([batch, width, edge // step, edge // step], np.float32)
        inputs.append(x)
        for _ in range(depth):
            for before, after in ((width, 4 * width), (4 * width, width)):
                weight = rng.standard_normal((after, before, 1, 1), np.float32) / np.sqrt(before)
                x = ops.conv(x, weight.astype(np.float32), np.zeros(after, np.float32), stride=1, padding=0, groups=1)
                x = ops.act(x, "gelu") if after > width else x
            macs += 8 * width * width * (edge // step) ** 2
        outputs.append(op.result(x))
    return ov.Model(outputs, inputs, "pointwise"), macs


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="convnext_tiny")
    parser.add_argument("--batches", default="1,8")
    parser.add_argument("--seconds", type=float, default=4.0)
    given = parser.parse_args()
    threads = usable_threads()
    print(f"{date.today()}  {platform.platform()}  {machine.processor()}, {os.cpu_count()} threads")
    print(f"Python {platform.python_version()}, openvino {version('openvino')}")
    found = ceilings.measure("cpu", "float32", threads)
    ceiling = found["flops"]
    print(f"ceiling {ceiling / 1e9:.0f} GFLOP/s ({found['by']}), copy {found['copy'] / 1e9:.0f} GB/s\n")
    print("| batch | | ms a photo | GFLOP/s | of the ceiling |\n| --- | --- | --- | --- | --- |")
    with Bench(seconds=1, checks=False) as bench:
        card, arrays = read_arrays(Path(bench.random_weights(given.model).path))
        for batch in map(int, given.batches.split(",")):
            _table(card.config, arrays, batch, card.preprocessing.size[0], given.seconds, threads, ceiling)


def _table(config: Any, arrays: Any, batch: int, edge: int, seconds: float, threads: int, ceiling: float) -> None:
    def whole(ops: Any) -> ov.Model:
        photos = op.parameter([batch, 3, edge, edge], np.float32)
        return ov.Model([op.result(network(config, arrays, ops, photos))], [photos], "network")

    layers, macs = pointwise(config, batch, edge)
    all_macs = work.macs(config, (edge, edge))
    graphs = {
        "the network": (whole(engine.Ops()), all_macs),
        "with its weights in the cache": (whole(Cached()), all_macs),
        "its pointwise layers alone, likewise": (layers, macs),
    }
    core, properties = (
        ov.Core(),
        {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": threads, "NUM_STREAMS": 1},
    )
    rng, calls = np.random.default_rng(0), {}
    for name, (model, _) in graphs.items():
        values = [rng.standard_normal(list(one.shape), np.float32) for one in model.inputs]
        calls[name] = (core.compile_model(model, "CPU", properties).create_infer_request(), values)
    times: dict[str, list[float]] = {name: [] for name in calls}
    end = time.perf_counter() + seconds * len(calls)
    while time.perf_counter() < end:
        for name, (request, values) in calls.items():
            request.infer(values, share_inputs=True, share_outputs=True)
            for _ in range(5):
                start = time.perf_counter()
                request.infer(values, share_inputs=True, share_outputs=True)
                times[name].append((time.perf_counter() - start) / batch)
    for name, (_, count) in graphs.items():
        middle = statistics.median(times[name])
        print(f"| {batch} | {name} | {1000 * middle:.2f} | {2 * count / middle / 1e9:.0f} "
              f"| {2 * count / middle / ceiling:.2f} |", flush=True)  # fmt: skip


if __name__ == "__main__":
    main()
