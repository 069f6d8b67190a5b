"""Another model to learn from: distillation (G. Hinton et al., arXiv 1503.02531).

A model looks at the very photos that the network learns from, cropped and mixed as they are (L. Beyer et al., arXiv
2106.05237); a file holds logits of the whole photos.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import interpolate, kl_div

from convnext_cli import checkpoints
from convnext_cli.base.errors import ModelError, UsageError
from convnext_cli.base.safetensors_header import read_header
from convnext_cli.evaluation.class_matching import match
from convnext_cli.model.card import Card
from convnext_cli.model.preprocessing import Preprocessing
from convnext_cli.runtimes.protocol import Engine
from convnext_cli.runtimes.registry import is_program
from convnext_cli.runtimes.select import open_engine

_LEAST = 2  # classes in common; the scores of one alone are always 1
_SHOWN = 5  # names in a message


class Classes:
    """Those of the data that a teacher knows, matched by name.

    columns: their rows of the network's classifier, (K,); None for all in their order.
    """

    def __init__(
        self, card: Card, labels: str | None, classes: tuple[str, ...], say: Callable[[str], None] = lambda _: None
    ) -> None:
        """labels: a label file or a bundled set, in place of the card's. Raises ModelError for a teacher that knows
        fewer than two of the classes."""
        name = card.name or "without a name"
        if card.task != "classification":
            raise ModelError(f"the teacher {name} does not name classes", "name a model that `convnext classify` takes")
        names = card.named(labels)
        answers = match(classes, names).answers
        known = [row for row, name in enumerate(classes) if name in answers]
        missing = [name for name in classes if name not in answers]
        if len(known) < _LEAST:
            raise ModelError(
                f"the teacher {name} knows {len(known) or 'none'} of the {len(classes)} classes: its first labels are "
                f"{_list(names.names)}",
                "name its labels as the data does: --set teacher_labels=FILE, a label a line",
            )
        if missing:
            say(
                f"the teacher {name} knows {len(known):,} of {len(classes):,} classes; photos of the others are learnt "
                f"from their labels alone: {_list(missing)}"
            )
        self.columns: Tensor | None = torch.tensor(known) if missing else None
        groups = names.groups or tuple((row,) for row in range(len(names)))
        self._groups = [list(groups[answers[classes[row]]]) for row in known]

    def __call__(self, logits: Tensor) -> Tensor:
        """(N, the teacher's classes) -> (N, K); a label of several classes has the sum of their probabilities."""
        if all(len(group) == 1 for group in self._groups):
            return logits[:, [group[0] for group in self._groups]]
        return torch.stack([logits[:, group].logsumexp(1) for group in self._groups], 1)


class ModelTeacher:
    """Weights of any layout, in eval mode."""

    of_photos = False

    def __init__(
        self,
        path: Path,
        classes: tuple[str, ...],
        preprocessing: Preprocessing,
        device: torch.device,
        dtype: torch.dtype,
        *,
        labels: str | None = None,
        say: Callable[[str], None] = lambda _: None,
    ) -> None:
        """preprocessing: that the photos were normalised by. Raises ModelError for a model that cannot be used."""
        checkpoint = checkpoints.load(path)
        card = checkpoint.card
        self._classes = Classes(card, labels, classes, say)
        self.columns: Tensor | None = self._classes.columns
        self._network = checkpoints.build(checkpoint).requires_grad_(False).to(device)
        self._network = self._network.to(memory_format=torch.channels_last)
        self._size, self._dtype = card.preprocessing.size, dtype
        self._scale, self._shift = _normalisation(preprocessing, card.preprocessing, device)

    @torch.no_grad()
    def __call__(self, x: Tensor, numbers: Tensor) -> Tensor:
        x = (_resized(x, self._size) * self._scale + self._shift).contiguous(memory_format=torch.channels_last)
        with torch.autocast(x.device.type, self._dtype, enabled=self._dtype != torch.float32):
            logits = self._network(x).logits
        return self._classes(logits.float())


class EngineTeacher:
    """A network for a runtime, such as anybody's ONNX file: in its own engine, with its own preprocessing."""

    of_photos = False

    def __init__(
        self,
        engine: Engine,
        classes: tuple[str, ...],
        preprocessing: Preprocessing,
        device: torch.device,
        *,
        labels: str | None = None,
        say: Callable[[str], None] = lambda _: None,
    ) -> None:
        """preprocessing: that the photos were normalised by. Raises ModelError for a model that cannot be used."""
        self._engine, card = engine, engine.card
        for note in engine.notes:
            say(note)
        self._classes = Classes(card, labels, classes, say)
        self.columns: Tensor | None = self._classes.columns
        self._size = card.preprocessing.size
        bytes_ = Preprocessing(rescale=1.0, mean=(0.0,) * 3, std=(1.0,) * 3)
        self._scale, self._shift = _normalisation(
            preprocessing, bytes_ if engine.photos else card.preprocessing, device
        )

    @torch.no_grad()
    def __call__(self, x: Tensor, numbers: Tensor) -> Tensor:
        if self._engine.photos:  # it resizes and normalises them itself
            pixels = (x * self._scale + self._shift).round().clamp(0, 255).to(torch.uint8)
            batch = pixels.permute(0, 2, 3, 1).contiguous().cpu().numpy()
        else:
            batch = (_resized(x, self._size) * self._scale + self._shift).contiguous().cpu().numpy()
        try:
            logits = torch.from_numpy(self._engine(batch))
        except MemoryError as error:
            raise ModelError(
                f"not enough memory for the teacher to label {len(batch)} photos", "use a smaller -b"
            ) from error
        if not bool(logits.isfinite().all()):
            raise ModelError("the teacher returns scores that are not finite", "train without --teacher")
        return self._classes(logits).to(x.device)


class FileTeacher:
    """Logits of the training photos in their order, (N, classes): .npy, or the tensor "logits" of .safetensors."""

    of_photos = True
    columns: Tensor | None = None

    def __init__(self, path: Path, photos: int, classes: int) -> None:
        """Raises ModelError for a file of another shape."""
        try:
            if path.suffix == ".npy":
                logits = torch.from_numpy(np.load(path, allow_pickle=False))
            else:
                from safetensors.torch import load_file

                logits = load_file(path)["logits"]
        except Exception as error:  # whatever the damage leads to
            raise ModelError(
                f"{path} cannot be read as logits: {error}", "docs/distill.md describes the file"
            ) from error
        if tuple(logits.shape) != (photos, classes) or not logits.is_floating_point():
            raise ModelError(
                f"{path} has logits of {tuple(logits.shape)}, but there are {photos} photos and {classes} classes",
                "the rows are the training photos in the order of the data, the columns the classes by name",
            )
        if not bool(logits.isfinite().all()):
            raise ModelError(f"{path} holds logits that are not finite", "make it again")
        self._logits = logits.float()

    def __call__(self, x: Tensor, numbers: Tensor) -> Tensor:
        return self._logits[numbers].to(x.device)


Teacher = ModelTeacher | EngineTeacher | FileTeacher


def open_teacher(
    path: Path,
    *,
    photos: int,
    classes: tuple[str, ...],
    preprocessing: Preprocessing,
    device: torch.device,
    dtype: torch.dtype,
    threads: int,
    labels: str | None = None,
    say: Callable[[str], None] = lambda _: None,
) -> Teacher:
    """A file of logits, weights of any layout, or a network for a runtime.

    Args:
        path: of the teacher.
        photos: how many there are in train.
        classes: of train, in their order.
        preprocessing: that photos are normalised by.
        device: that the network is trained on.
        dtype: of products in torch.
        threads: of a runtime.
        labels: as for ``Classes``.
        say: is called with notes.

    Raises:
        ConvNextError: whatever opening a model raises.
        UsageError: labels were named for a file of logits.
    """
    if is_file_of_logits(str(path)):
        if labels is not None:
            raise UsageError(
                "teacher_labels names the classes of a model; the columns of a file of logits are those of the data",
                "leave it out",
            )
        return FileTeacher(path, photos, len(classes))
    if is_program(path):
        engine = open_engine(path, device="cpu" if device.type == "cpu" else "auto", threads=threads)
        return EngineTeacher(engine, classes, preprocessing, device, labels=labels, say=say)
    return ModelTeacher(path, classes, preprocessing, device, dtype, labels=labels, say=say)


def divergence(logits: Tensor, answers: Tensor, columns: Tensor | None, temperature: float) -> Tensor:
    """(N,): of the network's probabilities from the teacher's, over the classes that both know.

    logits: the network's logits. answers: the teacher's probabilities. temperature: logits were divided by.
    """
    if columns is not None:
        logits = logits[:, columns.to(logits.device)]
    return kl_div((logits / temperature).log_softmax(1), answers, reduction="none").sum(1)


def _normalisation(preprocessing: Preprocessing, other: Preprocessing, device: torch.device) -> tuple[Tensor, Tensor]:
    """Factor and addend from one normalisation to another."""
    mean, std = (np.array(values) for values in (preprocessing.mean, preprocessing.std))
    ratio = other.rescale / preprocessing.rescale
    scale, shift = std * ratio / np.array(other.std), (mean * ratio - np.array(other.mean)) / np.array(other.std)
    factors = [torch.from_numpy(values.astype(np.float32)).view(-1, 1, 1).to(device) for values in (scale, shift)]
    return factors[0], factors[1]


def _resized(x: Tensor, size: tuple[int, int]) -> Tensor:
    return x if tuple(x.shape[-2:]) == size else interpolate(x, size, mode="bicubic", antialias=True)


def _list(names: Sequence[str]) -> str:
    return ", ".join(names[:_SHOWN]) + (", …" if len(names) > _SHOWN else "")


def is_file_of_logits(name: str) -> bool:
    """Whether --teacher names such a file instead of a model."""
    if name.endswith(".npy"):
        return True
    if not (name.endswith(".safetensors") and Path(name).is_file()):
        return False
    try:
        return read_header(Path(name)).keys() - {"__metadata__"} == {"logits"}
    except (ValueError, OSError):
        return False
