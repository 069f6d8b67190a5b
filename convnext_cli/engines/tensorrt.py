"""Run a TensorRT engine that ``convnext export --to tensorrt`` built; torch holds the GPU's memory.

It was not run here for want of a GPU.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch

from convnext_cli.card import Card
from convnext_cli.errors import ModelError, UnavailableError

_MOST = 64  # photos a call that the engine takes where its batch is open


def open_file(path: Path, *, device: str, threads: int) -> tuple[TensorRTFile, Card | None]:
    """The engine, and the card beside it. Raises as ``engines.exported`` says."""
    if not torch.cuda.is_available() or device == "cpu":
        raise UnavailableError(f"{path.name} runs on an NVIDIA GPU alone", "leave -d out, on a machine that has one")
    beside = path.with_name(f"{path.name}.json")
    if not beside.is_file():
        raise ModelError(f"{beside.name}, the card of {path.name}, is not beside it", "copy both files")
    card = Card.from_json(beside.read_text("utf-8"))
    return TensorRTFile(path, torch.device("cuda" if device == "auto" else device)), card


class TensorRTFile:
    """``exported.Runtime`` of an engine on one GPU."""

    name = "tensorrt"

    def __init__(self, path: Path, device: torch.device) -> None:
        import tensorrt as trt

        self.device = str(device)
        self.notes: list[str] = []
        self._device = device
        self._runtime = trt.Runtime(trt.Logger(trt.Logger.ERROR))
        with torch.cuda.device(device):
            self._engine: Any = self._runtime.deserialize_cuda_engine(path.read_bytes())
            if self._engine is None:
                raise ModelError(
                    f"{path.name} does not run here: it is damaged, or was built for another GPU or TensorRT",
                    "export it again on this machine",
                )
            self._context = self._engine.create_execution_context()
        names = [self._engine.get_tensor_name(i) for i in range(self._engine.num_io_tensors)]
        inputs = [name for name in names if self._engine.get_tensor_mode(name) == trt.TensorIOMode.INPUT]
        self._input = inputs[0]
        self._outputs = [name for name in ("logits", "scores", "features") if name in names]

    def run(self, x: np.ndarray) -> list[np.ndarray]:
        """See ``exported.Runtime``."""
        if len(x) > _MOST:
            parts = [self.run(x[i : i + _MOST]) for i in range(0, len(x), _MOST)]
            return [np.concatenate(outputs) for outputs in zip(*parts, strict=True)]
        with torch.cuda.device(self._device):
            given = torch.from_numpy(x).to(self._device)
            self._context.set_input_shape(self._input, tuple(x.shape))
            self._context.set_tensor_address(self._input, given.data_ptr())
            found = []
            for name in self._outputs:
                out = torch.empty(tuple(self._context.get_tensor_shape(name)), device=self._device)
                self._context.set_tensor_address(name, out.data_ptr())
                found.append(out)
            stream = torch.cuda.current_stream(self._device)
            self._context.execute_async_v3(stream.cuda_stream)
            stream.synchronize()
            return [out.cpu().numpy() for out in found]

    def close(self) -> None:
        """See ``exported.Runtime``."""
        del self._context, self._engine, self._runtime
