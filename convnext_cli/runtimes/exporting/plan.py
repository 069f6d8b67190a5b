"""Plan: what an exported file shall be."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np

Dtype = Literal["float32", "float16", "bfloat16", "int8"]


@dataclass(frozen=True)
class Plan:
    """How a model is written in another program's format; ``card.Export`` says the same of the file afterwards.

    dtype: what the file computes in. batch, size: photos a call and (height, width), None for any.
    preprocessing: take uint8 photos of any size, and put the card's preprocessing into the graph.
    scores: end with the softmax (or sigmoid) that turns logits into scores; the card's temperature is in it.
    features: give the pooled features as a second output.
    opset: of ONNX; None for the newest that ONNX Runtime takes here. simplify: have ONNX's simplifier look at it.
    calibration: for int8, (3, H, W) float32 preprocessed photos, as often as it is called.
    threads: processor threads to calibrate with.
    """

    dtype: Dtype = "float32"
    batch: int | None = None
    size: tuple[int, int] | None = (224, 224)
    preprocessing: bool = False
    scores: bool = False
    features: bool = False
    opset: int | None = None
    simplify: bool = False
    calibration: Callable[[], Iterator[np.ndarray]] | None = None
    threads: int = 1
