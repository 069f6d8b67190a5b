"""A training step: forward, loss, backward, AdamW."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch.nn.functional import cross_entropy

from convnext_cli import checkpoints
from convnext_cli.base.errors import ModelError, UnavailableError
from convnext_cli.benchmarking.networks import MEMORY_FORMATS, memory_errors
from convnext_cli.benchmarking.setting import Setting
from convnext_cli.runtimes.torch.engine import pick_device


class TrainingStep:
    """network.py in training mode. float16 and bfloat16 are autocast, over weights in float32."""

    name, provider = "torch", None

    def __init__(self, setting: Setting) -> None:
        if setting.engine not in ("auto", "torch"):
            raise UnavailableError(f"{setting.engine} does not train", "take --engine torch, or leave it out")
        if setting.dtype == "int8":
            raise UnavailableError("nothing trains in int8", "take --dtype float32 or bfloat16")
        torch.set_num_threads(setting.threads)
        checkpoint = checkpoints.load(Path(setting.path))
        self.card, self.notes = checkpoint.card, checkpoint.notes
        if not self.card.config.num_labels:
            raise ModelError(f"{setting.model} has no classifier to train", "take another -m")
        device = pick_device(setting.device)
        self.layout = setting.layout or "channels_last"
        model = checkpoints.build(checkpoint).requires_grad_(True).train().to(device)
        model = model.to(memory_format=MEMORY_FORMATS[self.layout])
        self._optimiser = torch.optim.AdamW(model.parameters(), lr=1e-6)
        self._model = torch.compile(model) if setting.compiled else model
        self._device, self._format = device, MEMORY_FORMATS[self.layout]
        self._autocast = None if setting.dtype == "float32" else getattr(torch, setting.dtype)
        self._scaler = torch.amp.GradScaler(device.type, enabled=setting.dtype == "float16")
        self.device, self.dtype = str(next(model.parameters()).device), setting.dtype

    def __call__(self, batch: np.ndarray) -> np.ndarray:
        """One step on photos (N, 3, H, W); gives the loss (1,), when the step is over. Raises MemoryError."""
        with memory_errors():
            x = torch.from_numpy(batch).to(self._device, memory_format=self._format)
            target = torch.arange(len(batch), device=self._device) % self.card.config.num_labels
            with torch.autocast(self._device.type, self._autocast, enabled=self._autocast is not None):
                loss = cross_entropy(self._model(x).logits, target)
            self._scaler.scale(loss).backward()  # type: ignore[no-untyped-call]
            self._scaler.step(self._optimiser)
            self._scaler.update()
            self._optimiser.zero_grad(set_to_none=True)
            synchronise = getattr(torch, self._device.type, None)
            if self._device.type != "cpu" and synchronise is not None:
                synchronise.synchronize()  # the optimiser comes after the loss
            return np.asarray(loss.detach().float().cpu().numpy()).reshape(1)

    def close(self) -> None:
        del self._model, self._optimiser
