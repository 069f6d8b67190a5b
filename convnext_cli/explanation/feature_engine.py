"""An engine that also keeps the last feature map of a photo."""

from __future__ import annotations

from collections import deque

import numpy as np
import torch
from torch import Tensor

from convnext_cli.base.errors import lacks_memory
from convnext_cli.checkpoints import build
from convnext_cli.checkpoints.checkpoint import Checkpoint
from convnext_cli.runtimes.fixed_shapes import Fixed
from convnext_cli.runtimes.torch.devices import pick_device
from convnext_cli.runtimes.torch.engine import check_channels
from convnext_cli.runtimes.torch.real_float32 import real_float32


class FeatureEngine:
    """The network in torch, in float32, on one device.

    Args:
        checkpoint: the weights.
        device: "auto", or a name of torch's.
        threads: processor threads, until ``close``.

    Raises:
        ModelError: the network does not take RGB photos.
        UnavailableError: the device is missing.
    """

    name = "torch"
    dtype = "float32"
    photos = False
    fixed = Fixed()
    has_features = True

    def __init__(self, checkpoint: Checkpoint, *, device: str = "auto", threads: int = 1) -> None:
        check_channels(checkpoint)
        place = pick_device(device)
        self.device = str(place)
        self.card, self.notes = checkpoint.card, checkpoint.notes
        self.network = build(checkpoint).to(place)
        self._place = place
        self._feature_map: Tensor | None = None
        self._threads_before = torch.get_num_threads()
        torch.set_num_threads(threads)

    @property
    def feature_map(self) -> Tensor:
        """(N, C, H, W): the output of the last stage in the last call."""
        assert self._feature_map is not None
        return self._feature_map

    def __call__(self, batch: np.ndarray) -> np.ndarray:
        """(N, 3, H, W) float32 -> (N, classes) float32.

        Raises:
            MemoryError: the device's memory does not hold the batch.
        """
        return self.with_features(batch)[0]

    def with_features(self, batch: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The same logits, and the pooled features (N, C) float32. Raises as a call does."""
        self._feature_map = None
        network = self.network
        try:
            with torch.inference_mode(), real_float32():
                photos = torch.from_numpy(np.ascontiguousarray(batch)).to(self._place)
                (self._feature_map,) = deque(network.hidden_states(photos), maxlen=1)  # the last stage's output
                pooled = network.pool(self._feature_map)
                return network.classify(pooled).cpu().numpy(), pooled.cpu().numpy()
        except RuntimeError as error:
            if not lacks_memory(error):
                raise
            raise MemoryError(str(error)) from None

    def close(self) -> None:
        """Give the process its own number of threads back."""
        torch.set_num_threads(self._threads_before)
