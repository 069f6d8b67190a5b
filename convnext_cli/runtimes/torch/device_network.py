"""The network on one device: photos there, logits and features back."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import numpy as np
import torch
from torch import Tensor

from convnext_cli.base.errors import UnavailableError, lacks_memory
from convnext_cli.checkpoints.checkpoint import Checkpoint
from convnext_cli.model.network import build
from convnext_cli.runtimes.torch.compiled import Compiled, Outputs
from convnext_cli.runtimes.torch.cuda_graphs import Graphed

_PART = 8  # photos, of those on their way to a GPU
FORMATS = {"channels_last": torch.channels_last, "contiguous": torch.contiguous_format}


class Replica:
    """One copy of a network on one device.

    dtype: of the photos and the sums; layout: a key of ``FORMATS``; autocast: keep the weights in float32, and let
    torch choose the operations that run in dtype.
    """

    def __init__(
        self,
        checkpoint: Checkpoint,
        device: torch.device,
        dtype: torch.dtype,
        *,
        layout: str,
        compiled: bool = False,
        autocast: bool = False,
    ) -> None:
        self.device = device
        self._dtype, self._format, self._autocast = dtype, FORMATS[layout], autocast
        kept = torch.float32 if autocast else dtype
        with _cuda_errors(device):
            tensors = {name: tensor.to(device, kept) for name, tensor in checkpoint.tensors.items()}
        self._model = build(checkpoint.card.config, tensors)
        self._model.to(memory_format=self._format)
        forward = self._forward
        self._compiled = Compiled(forward) if compiled else None
        forward = self._compiled or forward
        self._run = Graphed(forward, device) if device.type == "cuda" else forward
        self._staging: dict[tuple[int, ...], Tensor] = {}

    @property
    def compilations(self) -> int:
        return self._compiled.compilations if self._compiled else 0

    def __call__(self, batch: np.ndarray) -> np.ndarray:
        """(N, 3, H, W) float32 -> (N, classes) float32, when the device has finished.

        Raises as ``with_features`` does.
        """
        return self._outputs(batch, 1)[0]

    def with_features(self, batch: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The same logits, and the pooled features (N, C) float32, when the device has finished.

        Raises MemoryError when the device's memory does not hold the batch, UnavailableError when torch has no code
        for the device.
        """
        logits, features = self._outputs(batch, 2)
        return logits, features

    def _outputs(self, batch: np.ndarray, count: int) -> list[np.ndarray]:
        """The first outputs."""
        try:
            with ExitStack() as stack:
                stack.enter_context(torch.no_grad() if self._compiled else torch.inference_mode())
                stack.enter_context(_cuda_errors(self.device))
                if self.device.type == "cuda":
                    stack.enter_context(torch.cuda.device(self.device))
                kept = torch.float32 if self._autocast else self._dtype
                x = self._there(batch).to(dtype=kept, memory_format=self._format)
                return [self._back(output.float()) for output in self._run(x)[:count]]
        except RuntimeError as error:
            if not lacks_memory(error):
                raise
            if self.device.type == "cuda":
                torch.cuda.empty_cache()
            raise MemoryError(str(error)) from None

    def _forward(self, x: Tensor) -> Outputs:
        if not self._autocast:
            return self._pass(x)
        # a weight is used once a pass: there is nothing to keep
        with torch.autocast(self.device.type, self._dtype, cache_enabled=False):
            return self._pass(x)

    def _pass(self, x: Tensor) -> Outputs:
        *_, last = self._model.hidden_states(x)
        features = self._model.pool(last)
        return self._model.classify(features), features

    def _there(self, batch: np.ndarray) -> Tensor:
        photos = torch.from_numpy(np.ascontiguousarray(batch))
        if self.device.type != "cuda":
            return photos.to(self.device)
        # Pinned memory is read by the GPU itself. The buffer is free again: the last call waited for its results.
        if batch.shape not in self._staging:
            self._staging = {batch.shape: torch.empty(batch.shape, dtype=torch.float32, pin_memory=True)}
        on_device = torch.empty(batch.shape, device=self.device)
        # In parts: the GPU reads one while the next is written.
        parts = (torch.split(x, _PART) for x in (photos, self._staging[batch.shape], on_device))
        for source, pinned, target in zip(*parts, strict=True):
            target.copy_(pinned.copy_(source), non_blocking=True)
        return on_device

    def _back(self, logits: Tensor) -> np.ndarray:
        if self.device.type != "cuda":
            return np.array(logits.cpu().numpy(), copy=self.device.type == "cpu")
        pinned = torch.empty(logits.shape, dtype=logits.dtype, pin_memory=True)
        pinned.copy_(logits, non_blocking=True)
        torch.cuda.current_stream().synchronize()
        return np.array(pinned.numpy())


@contextmanager
def _cuda_errors(device: torch.device) -> Iterator[None]:
    """Say in words that torch was built for other GPUs than this one."""
    try:
        yield
    except RuntimeError as error:
        if "no kernel image" not in str(error):
            raise
        major, minor = torch.cuda.get_device_capability(device)
        name, built_for = torch.cuda.get_device_name(device), ", ".join(torch.cuda.get_arch_list())
        raise UnavailableError(
            f"torch {torch.__version__} has no code for {name} (sm_{major}{minor}), but for {built_for}",
            "install a torch that is built for this GPU, or take -d cpu",
        ) from None
