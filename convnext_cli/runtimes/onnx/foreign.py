"""An ONNX file of another program: which input and output count, what they mean, and how photos are made for it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from convnext_cli import labels as label_sets
from convnext_cli.base.errors import ModelError
from convnext_cli.model.card import Card
from convnext_cli.model.config import ConvNextConfig
from convnext_cli.model.preprocessing import Preprocessing
from convnext_cli.runtimes.onnx import foreign_meaning, foreign_trial, graph
from convnext_cli.runtimes.onnx.foreign_meaning import Kind, Scope, Steps

_HALVES = (0.5, 0.5, 0.5)  # mean and deviation of pixels in [-1, 1]
_SAID: dict[Kind, str] = {
    "softmax": "ends with a softmax: logits are the logarithms of its scores",
    "sigmoid": "ends with a sigmoid: any number of its labels may fit a photo",
}
_FEWEST = 8  # finite answers that say something
_ONE = "export it with one output of scores (N, classes)"


class Foreign:
    """What the graph says. dtype: what it computes in. notes: to be said aloud.

    Raises what onnx raises for a file that it cannot read.
    """

    def __init__(self, model: Path | bytes, file: str) -> None:
        proto = graph.read(model)
        self.dtype = graph.dtype_of(proto)
        self.notes: list[str] = []
        self._file = file
        self._proto = foreign_meaning.inlined(proto)
        self._scope = Scope.of(self._proto.graph)
        self._pixels = "tensor"
        self._tensorflow = foreign_meaning.made_by_tensorflow(self._proto)

    def channels_last(self, name: str, shape: Sequence[int | None]) -> bool:
        """Whether the input of this shape takes (N, height, width, 3)."""
        if shape[3] == 3 != shape[1]:
            return True
        known = shape[1] is not None or shape[3] is not None
        return not known and bool(foreign_meaning.input_of(self._proto.graph, name).channels_last)

    def output(self, candidates: list[str]) -> str:
        """The output of scores among several. Raises ModelError, with their names, where that is not clear."""
        last = foreign_meaning.last_of(self._scope, candidates)
        kinds = {name: foreign_meaning.kind_of(self._scope, name) for name in last}
        if len(last) > 1 and len({name for name, kind in kinds.items() if kind != "logits"}) == 1:
            last = [name for name in last if kinds[name] != "logits"]  # scores beside an embedding or logits
        if len(last) != 1:
            raise ModelError(f"{self._file} has {len(last)} outputs that may be its scores: {', '.join(last)}", _ONE)
        if foreign_meaning.is_sorted(self._scope, last[0]):
            raise ModelError(f"{self._file} gives only the best scores, in the order of their size", _ONE)
        if len(candidates) > 1:
            self.notes.append(f"{self._file} has {len(candidates)} outputs; {last[0]!r} is taken for the scores")
        return last[0]

    def steps(self, output: str) -> Steps | None:
        """How an output of bytes was quantised; None where that is not clear."""
        return foreign_meaning.steps_of(self._scope, output)

    def preprocessing(self, name: str, size: tuple[int, int], *, bytes_wanted: bool) -> Preprocessing:
        """How photos are made for it: as the graph says, otherwise as usual."""
        height, width = size
        usual = Preprocessing.official(height) if height == width else Preprocessing.official().at_size(size)
        inside = foreign_meaning.pixels_of(foreign_meaning.input_of(self._proto.graph, name))
        if bytes_wanted or inside == "bytes":
            self._pixels = "bytes"
            return usual.changed(rescale=1.0, mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0))
        if inside == "unit":
            self._pixels = "unit"
            return usual.changed(mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0))
        if self._tensorflow:
            return usual.changed(crop_pct=1.0, mean=_HALVES, std=_HALVES)
        return usual

    def pixels(self) -> str:
        """What is said of the values that it takes."""
        words = {"bytes": "pixels from 0 to 255", "unit": "pixels from 0 to 1"}
        return words.get(self._pixels, "pixels from -1 to 1" if self._tensorflow else "normalised")

    def kind(self, output: str, size: tuple[int, int], run: Callable[[np.ndarray], np.ndarray]) -> Kind:
        """What the output is: by the last operation, or by the answers to a few inputs where that does not say it.

        run: gives the output (N, classes) of (N, 3, height, width).
        """
        kind = foreign_meaning.kind_of(self._scope, output)
        photos = foreign_trial.inputs(size, kind=self._pixels)  # type: ignore[arg-type]
        if kind is None:
            answers = run(photos)
            self._refuse_joined(answers)
            kind = self._tried(answers)
        elif kind == "softmax":  # over all labels, or over parts of them: one photo shows it
            self._refuse_joined(run(photos[:1]))
        if kind in _SAID:
            self.notes.append(f"{self._file} {_SAID[kind]}")
        return kind

    def _refuse_joined(self, scores: np.ndarray) -> None:
        """Raise ModelError for several softmaxes side by side, of which each is one of a part of the labels."""
        heads = foreign_trial.joined(scores, self.dtype)
        if heads > 1:
            raise ModelError(
                f"{self._file} joins {heads} heads in one output: each photo's scores add up to {heads}, not to 1",
                "export one head alone, with one output of scores (N, classes)",
            )

    def _tried(self, scores: np.ndarray) -> Kind:
        finite = scores[np.isfinite(scores).all(1)]  # what is written out may overflow for the strongest inputs
        scores = finite if len(finite) >= _FEWEST else scores
        if foreign_trial.is_softmax(scores, self.dtype):
            return "softmax"
        if foreign_trial.is_sigmoid(scores):
            return "sigmoid"
        if foreign_trial.is_sigmoid(scores / 100):
            raise ModelError(
                f"{self._file} gives a percentage for each label by itself", "export it without the factor"
            )
        if foreign_trial.in_unit_range(scores):
            self.notes.append(
                f"{self._file} gave scores between 0 and 1 for all inputs that were tried, and it is not clear what "
                "they are: taken for logits; --sigmoid and --logits take them otherwise"
            )
        return "logits"

    def card(self, preprocessing: Preprocessing, name: str, classes: int, kind: Kind) -> Card:
        """A card of known or usual values; of its config only num_labels and image_size mean anything."""
        labels = label_sets.for_size(classes)
        background = label_sets.for_size(classes - 1) if labels is None and classes > 1 else None
        known = labels or "none known"
        if background:
            known = f"none known; {background} has one less: it may have a background class"
        self.notes.append(
            f"{self._file} has no card; taken as usual: the preprocessing ({preprocessing.describe()}, "
            f"{self.pixels()}), the labels ({known} for {classes} classes)"
        )
        problem: Any = "multi_label" if kind == "sigmoid" else "regression" if classes == 1 else "single_label"
        return Card(
            config=ConvNextConfig(num_labels=classes, image_size=preprocessing.size[0]),
            preprocessing=preprocessing,
            name=name,
            labels=labels,
            problem=problem,
        )


def logits_of(scores: np.ndarray, kind: Kind) -> np.ndarray:
    """The logits that a softmax or sigmoid would make the scores of; those of 0 and 1 are as large as float32 lets."""
    if kind == "logits":
        return scores
    exact = np.clip(scores.astype(np.float64), 0, 1 if kind == "sigmoid" else None)
    with np.errstate(divide="ignore"):
        logits = np.log(exact) - (np.log1p(-exact) if kind == "sigmoid" else 0)
    most = np.finfo(np.float32).max
    return np.asarray(np.clip(logits, -most, most), np.float32)
