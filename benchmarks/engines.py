"""Every engine and precision against network.py in float64, on photos: the table of docs/performance.md.

    python -m benchmarks.engines VALIDATION.parquet [--photos 500] [--model default]

The file has Hugging Face's image layout: a column ``image`` of {bytes, path} and a column ``label`` of integers. int8
is calibrated with the photos behind those that are tested. Also printed is how often each was right, where the labels
are the model's own classes, and how long a photo took in batches of 8: rough, since the engines do not take turns here
(benchmarks/peers.py measures).
"""

from __future__ import annotations

import argparse
import io
import os
import platform
import time
from collections.abc import Callable, Iterator
from datetime import date
from importlib.metadata import version
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import torch
from PIL import Image

from convnext_cli import checkpoints, zoo
from convnext_cli.base import machine
from convnext_cli.base.errors import ConvNextError
from convnext_cli.base.threads import usable_threads
from convnext_cli.model.network import build
from convnext_cli.photos.resize import apply_preprocessing
from convnext_cli.runtimes.int8.build import prepare_int8
from convnext_cli.runtimes.int8.quantise import MOST
from convnext_cli.runtimes.onnx.engine import OnnxRuntimeEngine
from convnext_cli.runtimes.onnx.graph import graph as onnx_graph
from convnext_cli.runtimes.protocol import Engine
from convnext_cli.runtimes.select import open_engine
from convnext_cli.runtimes.torch.engine import TorchEngine

BATCH = 8


def engines(path: Path) -> Iterator[tuple[str, str, Callable[[], Engine]]]:
    """Name, precision, and what opens it."""
    threads = usable_threads()
    for dtype in ("float32", "bfloat16", "float16"):
        yield "torch", dtype, lambda dtype=dtype: TorchEngine(path, device="cpu", dtype=dtype, threads=threads)
    for dtype in ("bfloat16", "float16"):
        yield (
            "torch, autocast",
            dtype,
            lambda dtype=dtype: TorchEngine(path, device="cpu", dtype=dtype, threads=threads, autocast=True),
        )
    for dtype in ("float32", "bfloat16"):
        yield (
            "torch --compile",
            dtype,
            lambda dtype=dtype: TorchEngine(path, device="cpu", dtype=dtype, threads=threads, compiled=True),
        )
    for dtype in ("float32", "bfloat16", "int8"):
        yield (
            "openvino",
            dtype,
            lambda dtype=dtype: open_engine(path, engine="openvino", dtype=dtype, threads=threads, prepare=True),
        )

    def onnxruntime() -> Engine:
        found = checkpoints.load(path)
        model = onnx_graph(found.card.config, {name: t.numpy() for name, t in found.tensors.items()})
        return OnnxRuntimeEngine(model.SerializeToString(), found.card, threads=threads)

    yield "onnxruntime", "float32", onnxruntime


def batches(x: np.ndarray) -> list[np.ndarray]:
    return [x[at : at + BATCH] for at in range(0, len(x), BATCH)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("parquet", type=Path)
    parser.add_argument("--photos", type=int, default=500)
    parser.add_argument("--model", default="default")
    given = parser.parse_args()
    path = zoo.resolve(given.model)
    found = checkpoints.load(path, dtype=torch.float64)
    table = pq.read_table(given.parquet).slice(0, given.photos + MOST).to_pydict()
    photos = [Image.open(io.BytesIO(image["bytes"])).convert("RGB") for image in table["image"]]
    x = np.stack([apply_preprocessing(found.card.preprocessing, photo) for photo in photos])
    x, others = x[: given.photos], x[given.photos :]
    labels = np.array(table["label"])[: given.photos]
    prepare_int8(path, others, x, None, threads=usable_threads(), batch_size=BATCH)
    network = build(found.card.config, found.tensors)
    with torch.inference_mode():
        wanted = np.concatenate([network(torch.from_numpy(b).double()).logits.numpy() for b in batches(x)])
    print(f"{date.today()}  {platform.platform()}  {machine.processor()}, {os.cpu_count()} threads")
    print(", ".join(f"{name} {version(name)}" for name in ("torch", "openvino", "onnxruntime")))
    print(f"{found.card.name}, {len(x)} photos; the network in float64: {100 * accuracy(wanted, labels):.1f} % right\n")
    print(
        "| engine | precision | same top-1 % | largest difference of a logit | of their range | right % | ms a photo |"
    )
    print("| --- | --- | --- | --- | --- | --- | --- |")
    for name, dtype, make in engines(path):
        try:
            engine = make()
        except ConvNextError as error:
            print(f"| {name} | {dtype} | {error.message} | | | | |", flush=True)
            continue
        engine(x[:BATCH])
        start = time.perf_counter()
        logits = np.concatenate([engine(batch) for batch in batches(x)])
        milliseconds = 1000 * (time.perf_counter() - start) / len(x)
        engine.close()
        worst = float(np.abs(logits - wanted).max())
        same = 100 * float((logits.argmax(1) == wanted.argmax(1)).mean())
        print(
            f"| {name} | {engine.dtype} | {same:.1f} | {worst:.1e} | {worst / np.ptp(wanted):.1e} "
            f"| {100 * accuracy(logits, labels):.1f} | {milliseconds:.1f} |",
            flush=True,
        )


def accuracy(logits: np.ndarray, labels: np.ndarray) -> float:
    return float((logits.argmax(1) == labels).mean())


if __name__ == "__main__":
    main()
