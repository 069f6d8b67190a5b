"""Other libraries' networks of torch as a ``runtimes.protocol.Engine`` is: arrays in, arrays out."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from convnext_cli.base.errors import UnavailableError, lacks_memory
from convnext_cli.benchmarking.setting import Setting
from convnext_cli.model.card import Card
from convnext_cli.runtimes.torch.engine import pick_device

MEMORY_FORMATS = {"channels_last": torch.channels_last, "contiguous": torch.contiguous_format}


class TorchNetwork:
    """A module on a device. What it computes in is the dtype of its parameters; nothing is cast in silence."""

    provider = None

    def __init__(self, name: str, module: nn.Module, card: Card, setting: Setting, layout: str, compiled: bool) -> None:
        self.name, self.card, self.layout = name, card, layout
        self.notes: list[str] = []
        self._device = pick_device(setting.device)
        dtype = getattr(torch, setting.dtype, None)
        if not isinstance(dtype, torch.dtype) or not dtype.is_floating_point:
            raise UnavailableError(
                f"{name} does not compute in {setting.dtype}", "leave it out, or take another --dtype"
            )
        torch.backends.cudnn.allow_tf32 = False  # float32 is float32, for everyone
        module = module.eval().requires_grad_(False).to(self._device, dtype)
        module = module.to(memory_format=MEMORY_FORMATS[layout])
        first = next(module.parameters())
        self.device, self.dtype = str(first.device), str(first.dtype).removeprefix("torch.")
        self._dtype, self._format = dtype, MEMORY_FORMATS[layout]
        self._module: Callable[..., Any] = module
        if compiled:
            import torch._inductor.config as inductor

            inductor.freezing = True  # weights become constants, which is as fast as compiled torch gets
            self._module = torch.compile(module)
        self._compiled = compiled

    def __call__(self, batch: np.ndarray) -> np.ndarray:
        """(N, 3, H, W) float32 -> (N, classes) float32, in the host's memory. Raises MemoryError."""
        # frozen graphs do not take tensors of inference mode
        with memory_errors(), torch.no_grad() if self._compiled else torch.inference_mode():
            x = torch.from_numpy(batch).to(self._device, self._dtype, memory_format=self._format)
            result = self._module(x)
            logits: Tensor = result if isinstance(result, Tensor) else result.logits
            return np.asarray(logits.float().cpu().numpy())

    def close(self) -> None:
        del self._module


@contextmanager
def memory_errors() -> Iterator[None]:
    """Turn what torch raises when memory is out, and nothing else, into MemoryError."""
    try:
        yield
    except RuntimeError as error:
        if not lacks_memory(error):
            raise
        raise MemoryError(str(error)) from None
