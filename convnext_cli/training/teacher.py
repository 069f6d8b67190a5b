"""Another model to learn from: distillation (G. Hinton et al., arXiv 1503.02531).

A model looks at the very photos that the network learns from, cropped and mixed as they are (L. Beyer et al., arXiv
2106.05237); a file holds what was once said of each whole photo.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import interpolate

from convnext_cli import checkpoints
from convnext_cli.errors import ModelError
from convnext_cli.evaluation.match import match
from convnext_cli.photos.recipe import Recipe


class ModelTeacher:
    """Weights of any layout, in eval mode."""

    of_photos = False

    def __init__(
        self, path: Path, classes: tuple[str, ...], recipe: Recipe, device: torch.device, dtype: torch.dtype
    ) -> None:
        """recipe: that the photos were normalised by. Raises ModelError for a model that lacks some of the classes."""
        checkpoint = checkpoints.load(path)
        card = checkpoint.card
        found = match(classes, card.label_set())
        if found.unmatched:
            raise ModelError(
                f"the teacher {card.name} does not know {found.unmatched[0]}"
                + (f" and {len(found.unmatched) - 1} more classes" if len(found.unmatched) > 1 else ""),
                "a teacher must have been trained on these classes; else train without --teacher",
            )
        self._rows = torch.tensor([found.answers[name] for name in classes], device=device)
        self._network = checkpoints.build(checkpoint).requires_grad_(False).to(device)
        self._network = self._network.to(memory_format=torch.channels_last)
        self._size, self._dtype = card.recipe.size, dtype
        # from one normalisation to the other
        mean, std = (np.array(values) for values in (recipe.mean, recipe.std))
        self._scale, self._shift = (
            torch.from_numpy(values.astype(np.float32)).view(-1, 1, 1).to(device)
            for values in (
                std * card.recipe.rescale / recipe.rescale / np.array(card.recipe.std),
                (mean * card.recipe.rescale / recipe.rescale - np.array(card.recipe.mean)) / np.array(card.recipe.std),
            )
        )

    @torch.no_grad()
    def __call__(self, x: Tensor, numbers: Tensor) -> Tensor:
        if tuple(x.shape[-2:]) != self._size:
            x = interpolate(x, self._size, mode="bicubic", antialias=True)
        x = (x * self._scale + self._shift).contiguous(memory_format=torch.channels_last)
        with torch.autocast(x.device.type, self._dtype, enabled=self._dtype != torch.float32):
            found = self._network(x).logits
        return found.float()[:, self._rows]  # type: ignore[no-any-return]


class FileTeacher:
    """Logits of the training photos in their order, (N, classes): .npy, or the tensor "logits" of .safetensors."""

    of_photos = True

    def __init__(self, path: Path, photos: int, classes: int) -> None:
        """Raises ModelError for a file of another shape."""
        try:
            if path.suffix == ".npy":
                found = torch.from_numpy(np.load(path, allow_pickle=False))
            else:
                from safetensors.torch import load_file

                found = load_file(path)["logits"]
        except Exception as error:  # whatever the damage leads to
            raise ModelError(f"{path} cannot be read as logits: {error}", "docs/train.md says what it holds") from error
        if tuple(found.shape) != (photos, classes) or not found.is_floating_point():
            raise ModelError(
                f"{path} has logits of {tuple(found.shape)}, but there are {photos} photos and {classes} classes",
                "the rows are the training photos in the order of the data, the columns the classes by name",
            )
        if not bool(found.isfinite().all()):
            raise ModelError(f"{path} holds logits that are no numbers", "make it again")
        self._logits = found.float()

    def __call__(self, x: Tensor, numbers: Tensor) -> Tensor:
        return self._logits[numbers].to(x.device)


def is_file_of_logits(name: str) -> bool:
    """Whether --teacher names such a file instead of a model."""
    if name.endswith(".npy"):
        return True
    if not (name.endswith(".safetensors") and Path(name).is_file()):
        return False
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(name, "pt") as file:
            return list(file.keys()) == ["logits"]
    except (SafetensorError, OSError):
        return False
