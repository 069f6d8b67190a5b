"""CUDA graphs: a forward pass recorded once and replayed with one launch.

A single photo keeps a large GPU busy for less time than it takes to launch the network's two hundred kernels; replaying
a recording takes one launch. It needs fixed addresses, so there is one input and one output for each shape.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from convnext_cli.runtimes.torch.compiled import Forward, Outputs

LARGEST = 8  # photos; larger batches take longer to compute than to launch
_MOST = 16  # recordings; each keeps its input, and all share the memory of the values between
_WARM_UP = 3  # calls before recording, in which libraries choose algorithms and allocate


@dataclass
class _Recording:
    graph: torch.cuda.CUDAGraph
    input: Tensor
    outputs: Outputs


class Graphed:
    """A forward pass on one CUDA device: replayed for small batches, called for others and where recording fails."""

    def __init__(self, forward: Forward, device: torch.device) -> None:
        self._forward, self._device = forward, device
        self._pool = torch.cuda.graph_pool_handle()
        self._recordings: dict[torch.Size, _Recording | None] = {}

    def __call__(self, x: Tensor) -> Outputs:
        """The outputs for photos (N, 3, H, W), which the next call may overwrite."""
        if len(x) > LARGEST:
            return self._forward(x)
        if x.shape not in self._recordings:
            if len(self._recordings) >= _MOST:
                return self._forward(x)
            self._recordings[x.shape] = self._record(x)
        recording = self._recordings[x.shape]
        if recording is None:
            return self._forward(x)
        recording.input.copy_(x)
        recording.graph.replay()
        return recording.outputs

    def _record(self, x: Tensor) -> _Recording | None:
        """None when something in the pass cannot be recorded. Raises OutOfMemoryError."""
        fixed = x.clone()
        with torch.cuda.device(self._device):
            aside = torch.cuda.Stream()  # type: ignore[no-untyped-call]
            aside.wait_stream(torch.cuda.current_stream())
            with torch.cuda.stream(aside):
                for _ in range(_WARM_UP):
                    self._forward(fixed)
            torch.cuda.current_stream().wait_stream(aside)
            graph = torch.cuda.CUDAGraph()
            try:
                # other GPUs' threads go on meanwhile
                with torch.cuda.graph(graph, pool=self._pool, capture_error_mode="thread_local"):
                    outputs = self._forward(fixed)
            except torch.OutOfMemoryError:
                raise
            except RuntimeError:
                torch.cuda.synchronize()
                return None
        return _Recording(graph, fixed, outputs)
