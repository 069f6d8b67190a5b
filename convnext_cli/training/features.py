"""The features that a classifier reads, of each photo once: by the fastest engine that gives the network's own."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.util import find_spec

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from convnext_cli.base.errors import PhotoError, UnavailableError
from convnext_cli.model.card import Card
from convnext_cli.model.network import ConvNextForImageClassification
from convnext_cli.model.preprocessing import Preprocessing
from convnext_cli.runtimes.protocol import BATCH_SIZE
from convnext_cli.runtimes.reference import TOLERANCE, difference, reference_input
from convnext_cli.training.batches import gone, judged
from convnext_cli.training.loop import DTYPES
from convnext_cli.training.photo_cache import Pixels, Streamed
from convnext_cli.training.validation import BATCH, normaliser

Extract = Callable[[Tensor], Tensor]  # normalised photos (N, 3, H, W) to features (N, C)


class Features:
    """How photos become features.

    Args:
        network: whose classifier is to be fitted, on the device.
        preprocessing: of the photos.
        device: that the network is on.
        say: called with the name of a step that takes some seconds.
    """

    def __init__(
        self,
        network: ConvNextForImageClassification,
        preprocessing: Preprocessing,
        device: torch.device,
        *,
        dtype: str = "float32",
        threads: int = 1,
        say: Callable[[str], None] = lambda _: None,
    ) -> None:
        self._threads, self._normalise = threads, normaliser(preprocessing, device)
        self.engine, self._batch, self._extract = "torch", BATCH, by_torch(network, device, dtype)
        if device.type == "cpu" and find_spec("openvino"):
            say("compiling the network with OpenVINO, which computes its features")
            extract = by_openvino(network, preprocessing, dtype=dtype, threads=threads)
            if extract is not None and self._agrees(extract, preprocessing, dtype):
                self.engine, self._batch, self._extract = "openvino", BATCH_SIZE, extract

    def of(
        self, pixels: Pixels, *, mirrored: bool = False, progress: Callable[[int], None] = lambda _: None
    ) -> tuple[Tensor, Tensor | None]:
        """(N, C) float64 on the CPU, and the same of mirrored photos if asked for. progress: called with how many
        photos are done. Raises ModelError for a photo that cannot be read any more."""
        plain, turned, done = list[Tensor](), list[Tensor](), 0
        with _torch_threads(1 if self.engine == "openvino" else torch.get_num_threads()):
            for photos in self._batches(pixels):
                plain.append(self._extract(self._normalise(photos)).double().cpu())
                if mirrored:
                    turned.append(self._extract(self._normalise(photos.flip(-1))).double().cpu())
                done += len(photos)
                progress(done)
        return torch.cat(plain), torch.cat(turned) if mirrored else None

    def _batches(self, pixels: Pixels) -> Iterator[Tensor]:
        """Bytes (n, 3, H, W), in order."""
        if not isinstance(pixels, Streamed):
            yield from judged(pixels, range(len(pixels)), self._batch, 0)
            return
        waiting: list[Tensor] = []
        for photo in pixels.in_order(self._threads):
            if isinstance(photo, PhotoError):
                raise gone(f"{photo.kind}: {photo.message}")
            waiting.append(photo)
            if len(waiting) == self._batch:
                yield torch.stack(waiting)
                waiting = []
        if waiting:
            yield torch.stack(waiting)

    def _agrees(self, extract: Extract, preprocessing: Preprocessing, dtype: str) -> bool:
        """Whether an engine gives the features of ``model/network.py``."""
        x = torch.from_numpy(reference_input(*preprocessing.size, 2))
        return difference(extract(x).numpy(), self._extract(x).float().numpy()) <= TOLERANCE[dtype]


@contextmanager
def _torch_threads(threads: int) -> Iterator[None]:
    """So many for a while: those of torch that wait for the next batch keep processors busy that an engine needs."""
    former = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        yield
    finally:
        torch.set_num_threads(former)


def by_torch(network: ConvNextForImageClassification, device: torch.device, dtype: str) -> Extract:
    """By ``model/network.py`` itself."""
    network.eval()

    @torch.inference_mode()
    def extract(x: Tensor) -> Tensor:
        with torch.autocast(device.type, DTYPES[dtype], enabled=dtype != "float32"):
            *_, last = network.hidden_states(x)
            pooled = network.pool(last)
            return F.gelu(network.head_hidden(pooled)) if network.config.head_hidden_size else pooled

    return extract


def by_openvino(
    network: ConvNextForImageClassification, preprocessing: Preprocessing, *, dtype: str, threads: int
) -> Extract | None:
    """By OpenVINO's graph of the network without its classifier; None where this processor lacks the precision."""
    from convnext_cli.runtimes.openvino.engine import OpenVINOEngine, graph

    config = network.config.replace(num_labels=0)
    state = network.state_dict()
    arrays = {name: state[name].detach().float().cpu().numpy() for name in config.shapes()}
    card = Card(config, preprocessing, task="features")
    try:
        engine = OpenVINOEngine(graph(config, arrays), card, dtype=dtype, threads=threads, batch_size=BATCH_SIZE)
    except UnavailableError:
        return None

    def extract(x: Tensor) -> Tensor:
        return torch.from_numpy(engine(np.ascontiguousarray(x.numpy())))

    return extract
