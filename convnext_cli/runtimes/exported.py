"""A file that ``convnext export`` made, as an engine: its card says what it takes and gives."""

from __future__ import annotations

from typing import Literal

import numpy as np

from convnext_cli.base.errors import ModelError
from convnext_cli.model.card import Card, Export
from convnext_cli.model.config import MOST_LABELS
from convnext_cli.runtimes.fixed_shapes import Fixed
from convnext_cli.runtimes.protocol import Runtime

_LEAST = np.finfo(np.float32).tiny


def fixed_of(export: Export, card: Card) -> Fixed:
    """What an exported file has decided, by its card."""
    multi = card.problem == "multi_label"
    ends: Literal["", "softmax", "sigmoid"] = "" if export.output == "logits" else "sigmoid" if multi else "softmax"
    return Fixed((None, None) if export.photos or export.size is None else export.size, export.batch, ends)


def check_classes(classes: int, file: str) -> None:
    """Raise ModelError for more classes than any model has."""
    if classes > MOST_LABELS:
        raise ModelError(
            f"{file} is refused: it gives {classes:,} scores; {MOST_LABELS:,} classes are the most",
            "use a network for classification",
        )


class ExportedEngine:
    """An ``runtimes.protocol.Engine`` of a runtime and the card in its file.

    photos: whether a batch is uint8 (N, height, width, 3) photos of one size instead of tensors.
    Raises ModelError when the file is none of ours.
    """

    def __init__(self, file: str, runtime: Runtime, card: Card | None) -> None:
        if card is None or card.export is None:
            raise ModelError(f"{file} has no card of convnext", "make it with: convnext export")
        self._file, self._runtime = file, runtime
        self.card = card
        self.export: Export = card.export
        self.name, self.device, self.dtype = runtime.name, runtime.device, card.export.dtype
        self.photos = card.export.photos
        self.fixed = fixed_of(card.export, card)
        self.has_features = card.export.features
        self.notes: list[str] = runtime.notes

    def __call__(self, batch: np.ndarray) -> np.ndarray:
        """(N, 3, H, W) float32, or uint8 photos, -> logits (N, classes) float32.

        Of scores, the logarithms or logits: what a softmax or sigmoid would make them of. Raises ModelError for a size
        that the file does not take, MemoryError when memory does not hold the batch.
        """
        return self._logits(self.outputs(batch)[0])

    def with_features(self, batch: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The same logits, and the pooled features (N, C) float32. Raises as a call does."""
        values, features = self.outputs(batch)
        return self._logits(values), features

    def outputs(self, batch: np.ndarray) -> list[np.ndarray]:
        """What the file gives: logits or scores, then the features where it has them; each (N, …) float32."""
        size, fixed = self.export.size, self.export.batch
        if not self.photos and size is not None and batch.shape[2:] != size:
            height, width = batch.shape[2:]
            raise ModelError(
                f"{self._file} takes photos of {size[0]}×{size[1]} pixels, not {height}×{width}",
                "leave --size out, or export it with --size any",
            )
        step = fixed or max(1, len(batch))
        parts = [self._run(batch[i : i + step], fixed) for i in range(0, max(1, len(batch)), step)]
        return [np.concatenate(outputs) for outputs in zip(*parts, strict=True)]

    def close(self) -> None:
        """Let go of the runtime and its memory."""
        self._runtime.close()

    def _run(self, x: np.ndarray, fixed: int | None) -> list[np.ndarray]:
        n = len(x)
        if fixed and n < fixed:
            x = np.concatenate([x, np.zeros((fixed - n, *x.shape[1:]), x.dtype)])
        return [np.array(output[:n], np.float32) for output in self._runtime.run(np.ascontiguousarray(x))]

    def _logits(self, values: np.ndarray) -> np.ndarray:
        if self.export.output == "logits":
            return values
        logits = np.log(np.maximum(values, _LEAST))
        if self.card.problem == "multi_label":
            logits = logits - np.log(np.maximum(1 - values, _LEAST))
        return np.asarray(logits, np.float32)
