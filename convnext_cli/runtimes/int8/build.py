"""Prepare a model in int8: quantise the proven graph, hold it against float32, and keep it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from convnext_cli import checkpoints
from convnext_cli.base.errors import ModelError
from convnext_cli.runtimes import cache
from convnext_cli.runtimes.int8.comparison import Comparison, compare
from convnext_cli.runtimes.int8.quantise import quantise
from convnext_cli.runtimes.openvino import engine
from convnext_cli.runtimes.reference import TOLERANCE, difference, reference_input
from convnext_cli.runtimes.torch.engine import TorchEngine


@dataclass(frozen=True)
class Int8:
    """comparison: with float32. kept: why the cache could not be written, if so."""

    comparison: Comparison
    kept: str | None = None


def prepare_int8(
    path: Path,
    calibrating: Iterable[np.ndarray],
    testing: Iterable[np.ndarray],
    labels: Sequence[int] | None,
    *,
    threads: int,
    batch_size: int,
) -> Int8:
    """Make a model's int8 engine and keep it, whether it pays or not: the caller says what was found.

    calibrating, testing: (3, H, W) float32 preprocessed photos, none in both. labels: the classes
    of testing, read only after all of testing.
    Raises ModelError when the weights cannot be used, UsageError for too few photos.
    """
    checkpoint = checkpoints.load(path)
    card = checkpoint.card
    network = TorchEngine(path, device="cpu", threads=threads, checkpoint=checkpoint)
    x = reference_input(*card.preprocessing.size)
    reference = network(x)
    network.close()
    graph = engine.graph(card.config, {name: tensor.numpy() for name, tensor in checkpoint.tensors.items()})
    float32 = engine.OpenVINOEngine(graph, card, threads=threads, batch_size=batch_size)
    if (off := difference(float32(x), reference)) > TOLERANCE["float32"]:
        raise ModelError(f"openvino differs from the network by {off:.1e} of the range of its scores", "--engine torch")
    small = quantise(graph, calibrating, threads=threads)
    int8 = engine.OpenVINOEngine(small, card, dtype="int8", threads=threads, batch_size=batch_size)
    comparison = compare(float32, int8, testing, labels, batch_size=batch_size)
    kept = None
    try:
        report = comparison.to_dict()
        with cache.making(card, "openvino", "int8", difference(int8(x), reference), report) as folder:
            engine.save(small, folder / engine.FILE)
        cache.remember(path, card, checkpoint.notes)
    except OSError as error:
        kept = f"{cache.root()} cannot be written ({error.strerror or error})"
    float32.close()
    int8.close()
    return Int8(comparison, kept)
