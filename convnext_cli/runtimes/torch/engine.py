"""The torch engine: network.py as it is, on any device that torch knows.

Norms and GRN are computed in float32 whatever the dtype (network.py). Nothing is folded: in eager on the CPU that
did not pay, and channels_last was mostly the faster layout. Neither was measured on GPUs.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from pathlib import Path
from typing import Literal

import numpy as np
import torch

from convnext_cli import checkpoints
from convnext_cli.base.errors import ModelError, UnavailableError, UsageError
from convnext_cli.checkpoints.checkpoint import Checkpoint
from convnext_cli.runtimes.fixed_shapes import Fixed
from convnext_cli.runtimes.torch.device_network import FORMATS, Replica
from convnext_cli.runtimes.torch.devices import devices, pick_device, pick_devices
from convnext_cli.runtimes.torch.real_float32 import real_float32

__all__ = ["TorchEngine", "devices", "pick_device"]

_DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}

Layout = Literal["channels_last", "contiguous"]


class TorchEngine:
    """Eager or compiled torch on one device, or on several of a kind side by side.

    device: "auto", a name of torch's, "cuda:all", or several names, between which each batch is split.
    threads: processor threads, until ``close``. compiled: have torch compile it, in the first call for each size.
    layout: of the tensors; None for the faster. autocast: keep the weights in float32 and let torch choose the
    operations that run in dtype. checkpoint: the weights, if they were read already.
    Raises ModelError when the weights cannot be used, UnavailableError when the device is not there or does not compute
    in dtype, UsageError for wishes that exclude each other.
    """

    name = "torch"
    photos = False
    fixed = Fixed()

    def __init__(
        self,
        path: Path,
        *,
        device: str | Sequence[str] = "auto",
        dtype: str = "float32",
        threads: int = 1,
        compiled: bool = False,
        layout: Layout | None = None,
        autocast: bool = False,
        checkpoint: Checkpoint | None = None,
    ) -> None:
        if dtype not in _DTYPES:
            raise UnavailableError(f"the torch engine does not compute in {dtype}", f"take one of {', '.join(_DTYPES)}")
        if autocast and dtype == "float32":
            raise UsageError("autocast is for bfloat16 and float16", "ask for one of them, or leave autocast out")
        if layout is not None and layout not in FORMATS:
            raise UsageError(f"{layout!r} is not a layout", f"take one of {', '.join(FORMATS)}")
        places = pick_devices(device) if isinstance(device, str) else [pick_device(name) for name in device]
        self.device = "+".join(map(str, places))
        self.dtype, self.autocast, self.compiled = dtype, autocast, compiled
        self.layout: Layout = layout or "channels_last"
        kept = torch.float32 if autocast else _DTYPES[dtype]
        checkpoint = checkpoint or checkpoints.load(path, dtype=kept)
        self.card, self.notes = checkpoint.card, checkpoint.notes
        self.has_features = self.card.config.num_labels > 0
        check_channels(checkpoint)
        self._replicas = [
            Replica(checkpoint, one, _DTYPES[dtype], layout=self.layout, compiled=compiled, autocast=autocast)
            for one in places
        ]
        self._pool = ThreadPoolExecutor(len(places), "device") if len(places) > 1 else None
        self._threads_before = torch.get_num_threads()
        torch.set_num_threads(threads)

    @property
    def compilations(self) -> int:
        """How often the compiler ran; while it stays the same, no call waited for it."""
        return sum(replica.compilations for replica in self._replicas)

    def __call__(self, batch: np.ndarray) -> np.ndarray:
        """(N, 3, H, W) float32 -> (N, classes) float32.

        Raises MemoryError when the device's memory does not hold the batch.
        """
        return self._outputs(lambda replica, part: (replica(part),), batch)[0]

    def with_features(self, batch: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The same logits, and the pooled features (N, C) float32. Raises as a call does."""
        logits, features = self._outputs(Replica.with_features, batch)
        return logits, features

    def _outputs(
        self, run: Callable[[Replica, np.ndarray], tuple[np.ndarray, ...]], batch: np.ndarray
    ) -> tuple[np.ndarray, ...]:
        """The outputs of a batch, whose parts are computed by all devices at once."""
        with real_float32() if self.dtype == "float32" else nullcontext():
            if self._pool is None:
                return run(self._replicas[0], batch)
            parts = [part for part in np.array_split(batch, len(self._replicas)) if len(part)]
            outputs = self._pool.map(run, self._replicas, parts)
            return tuple(np.concatenate(arrays) for arrays in zip(*outputs, strict=True))

    def close(self) -> None:
        """Give the process its own number of threads back; torch frees the rest with the object."""
        if self._pool:
            self._pool.shutdown()
        torch.set_num_threads(self._threads_before)


def check_channels(checkpoint: Checkpoint) -> None:
    """Raise ModelError for a network that does not take RGB photos."""
    if (channels := checkpoint.card.config.num_channels) != 3:
        raise ModelError(
            f"{checkpoint.path.name} takes {channels}-channel photos; this program makes RGB, 3 channels",
            "use weights for RGB photos, or give the network arrays of your own: from_pretrained in Python",
        )
