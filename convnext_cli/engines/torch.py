"""The torch engine: model.py as it is, on any device that torch knows."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from convnext_cli import checkpoints
from convnext_cli.errors import ModelError, UnavailableError
from convnext_cli.model import build


def devices() -> list[str]:
    """What torch can use here, best first; always ends with "cpu"."""
    found = [f"cuda:{i}" for i in range(torch.cuda.device_count())] if torch.cuda.is_available() else []
    if torch.backends.mps.is_available():
        found.append("mps")
    if hasattr(torch, "xpu") and torch.xpu.is_available():
        found.append("xpu")
    return [*found, "cpu"]


def pick_device(wish: str) -> torch.device:
    """The device for "auto" or a name such as "cuda", "cuda:1", "mps", "cpu".

    An explicit wish is never replaced by another device: raises UnavailableError naming what is there.
    """
    if wish == "cpu":  # asking for the accelerators costs time
        return torch.device("cpu")
    there = devices()
    if wish == "auto":
        return torch.device(there[0])
    if wish in there or f"{wish}:0" in there:
        return torch.device(wish)
    raise UnavailableError(
        f"the device {wish!r} is not there", f"here are: {', '.join(there)}; leave -d out to take the best"
    )


class TorchEngine:
    """Eager torch. Norms are computed in float32 whatever the dtype (model.py)."""

    name = "torch"

    def __init__(self, path: Path, *, device: str = "auto", dtype: str = "float32", threads: int = 1) -> None:
        self._threads_before = torch.get_num_threads()
        torch.set_num_threads(threads)
        self._device = pick_device(device)
        self._dtype = getattr(torch, dtype)
        self.device, self.dtype = str(self._device), dtype
        checkpoint = checkpoints.load(path, dtype=self._dtype)
        self.card, self.notes = checkpoint.card, checkpoint.notes
        if (channels := self.card.config.num_channels) != 3:
            raise ModelError(
                f"{checkpoint.path.name} takes {channels}-channel photos; this program makes RGB, 3 channels",
                "use weights for RGB photos, or give the network arrays of your own: from_pretrained in Python",
            )
        self._model = build(checkpoint.card.config, checkpoint.tensors)
        self._model.to(self._device)
        self._model.to(memory_format=torch.channels_last)

    @torch.inference_mode()
    def __call__(self, batch: np.ndarray) -> np.ndarray:
        """(N, 3, H, W) float32 -> (N, classes) float32.

        Raises MemoryError when the device's memory does not hold the batch.
        """
        try:
            x = torch.from_numpy(batch).to(self._device, self._dtype, memory_format=torch.channels_last)
            logits: torch.Tensor = self._model(x).logits
            return np.asarray(logits.float().cpu().numpy())
        except RuntimeError as error:
            if not _is_out_of_memory(error):
                raise
            if self._device.type == "cuda":
                torch.cuda.empty_cache()
            raise MemoryError(str(error)) from None

    def close(self) -> None:
        """Give the process its own number of threads back; torch frees the rest with the object."""
        torch.set_num_threads(self._threads_before)


def _is_out_of_memory(error: Exception) -> bool:
    # torch's own class where the device's allocator says so; the CPU allocator, cuBLAS and cuDNN only say it in words.
    if isinstance(error, torch.OutOfMemoryError):
        return True
    words = str(error)
    return any(
        sign in words
        for sign in ("can't allocate memory", "not enough memory", "out of memory", "CUBLAS_STATUS_ALLOC_FAILED")
    )
