"""Engines: how a batch of tensors becomes logits. One file an engine; ``open_engine`` picks."""

from __future__ import annotations

import gc
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from convnext_cli.card import Card

if TYPE_CHECKING:
    import numpy as np

DTYPES = ("float32", "bfloat16", "float16")


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


def open_engine(path: Path, *, device: str = "auto", dtype: str = "float32", threads: int = 1) -> Engine:
    """The engine for a model file or folder.

    threads: processor threads it may use. Raises ModelError when the model cannot be used, UnavailableError when
    the device is not there.
    """
    # Importing torch makes many objects and no garbage; looking for some meanwhile costs a tenth of the time.
    collecting = gc.isenabled()
    gc.disable()
    try:
        from convnext_cli.engines.torch import TorchEngine
    finally:
        if collecting:
            gc.enable()
    return TorchEngine(path, device=device, dtype=dtype, threads=threads)
