"""Engines: how a batch of tensors becomes logits. One file an engine; ``open_engine`` picks."""

from __future__ import annotations

import gc
from pathlib import Path
from typing import TYPE_CHECKING, Literal, Protocol

from convnext_cli.card import Card

if TYPE_CHECKING:
    import numpy as np

DTYPES = ("float32", "bfloat16", "float16", "int8")
ENGINES = ("auto", "torch", "openvino", "onnxruntime")
Job = Literal["latency", "throughput"]


class Engine(Protocol):
    """A network ready to run.

    name: "torch" …; device: as the runtime names it; dtype: what it computes in; card: what the model says of
    itself; notes: what was inferred while loading, to be said aloud.
    """

    name: str
    device: str
    dtype: str
    card: Card
    notes: list[str]

    def __call__(self, batch: np.ndarray) -> np.ndarray:
        """(N, 3, H, W) float32 -> (N, classes) float32."""
        ...

    def close(self) -> None: ...


def open_engine(
    path: Path,
    *,
    engine: str = "auto",
    device: str = "auto",
    dtype: str = "float32",
    threads: int = 1,
    job: Job = "latency",
    batch_size: int = 8,
    compiled: bool = False,
) -> Engine:
    """The engine for a model file or folder.

    engine: one of ENGINES. threads: processor threads it may use. job: "latency" for single photos, "throughput" for
    many, in batches of batch_size. compiled: have torch compile the network.
    Raises ModelError when the model cannot be used, UnavailableError when the device or engine is not there.
    """
    # Importing torch makes many objects and no garbage; looking for some meanwhile costs a tenth of the time.
    collecting = gc.isenabled()
    gc.disable()
    try:
        from convnext_cli.engines.torch import TorchEngine
    finally:
        if collecting:
            gc.enable()
    if engine == "openvino":
        from convnext_cli import checkpoints
        from convnext_cli.engines.openvino import OpenVINOEngine, graph

        found = checkpoints.load(path)
        model = graph(found.card.config, {name: tensor.numpy() for name, tensor in found.tensors.items()})
        return OpenVINOEngine(model, found.card, dtype=dtype, threads=threads, job=job, batch_size=batch_size)
    return TorchEngine(path, device=device, dtype=dtype, threads=threads)
