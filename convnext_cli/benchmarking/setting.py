"""Setting: what one row measures, as plain data that travels to a process of its own."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Literal

Mode = Literal["forward", "train"]
Layout = Literal["channels_last", "contiguous"]
PEERS = ("timm", "torchvision", "transformers", "onnxruntime")
PEER_OPTIONS = ("compile", "channels_last")


@dataclass(frozen=True)
class Setting:
    """One network, one way of running it, one batch.

    Args:
        model: the name that the row has for it.
        path: of its weights.
        engine: as for ``select.open_engine``, like device, dtype, threads and compiled.
        size: edge in pixels; None for the model's own.
        layout: of the tensors in torch; None for the engine's own.
        peer: another library that runs the same weights: "timm", "timm+compile", "torchvision+channels_last" …; None
            for our own engines.
        mode: a forward pass, or a training step.
        home: ``CONVNEXT_HOME`` of the process; None for the user's.
        dtype_is_asked: float32 is the default too, which an exported file of another precision overrules.
    """

    model: str
    path: str
    engine: str = "auto"
    device: str = "auto"
    dtype: str = "float32"
    batch_size: int = 1
    size: int | None = None
    threads: int = 1
    layout: Layout | None = None
    compiled: bool = False
    peer: str | None = None
    mode: Mode = "forward"
    home: str | None = None
    dtype_is_asked: bool = False

    def to_dict(self) -> dict[str, object]:
        return dataclasses.asdict(self)

    replace = dataclasses.replace  # a copy with other fields

    @property
    def asked_dtype(self) -> str | None:
        """As for ``select.open_engine``: an exported file computes in its own precision, unless another is named."""
        return None if self.dtype == "float32" and not self.dtype_is_asked else self.dtype

    @property
    def runner(self) -> str:
        """What runs the network, in a word or two: "openvino", "torch --compile", "timm"."""
        if self.peer:
            return self.peer
        options = ("--compile" if self.compiled else "", self.layout or "")
        return " ".join(filter(None, (self.engine, *options)))

    def describe(self) -> str:
        """One line for the screen."""
        kind = ", training" if self.mode == "train" else ""
        size = f", {self.size} px" if self.size else ""
        device = "" if self.device == "auto" else f" on {self.device}"
        return f"{self.model}, {self.runner}{device}, {self.dtype}, batch {self.batch_size}{size}{kind}"
