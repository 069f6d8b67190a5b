"""Small networks, their tensors, and files of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from convnext_cli import checkpoints
from convnext_cli.labels import LabelSet
from convnext_cli.model.card import Card
from convnext_cli.model.config import ConvNextConfig as ShapeConfig
from convnext_cli.model.preprocessing import Preprocessing

SMALL: dict[str, Any] = {"depths": (1, 2, 1, 1), "hidden_sizes": (8, 12, 16, 24), "layer_norm_eps": 1e-6}
V1 = ShapeConfig(**SMALL, num_labels=5)
V2 = ShapeConfig(**SMALL, num_labels=5, use_grn=True, layer_scale_init_value=0.0)
Tensors = dict[str, Tensor]


def draw(config: ShapeConfig, seed: int = 0) -> Tensors:
    generator = torch.Generator().manual_seed(seed)
    return {name: torch.randn(shape, generator=generator) for name, shape in config.shapes().items()}


def save(state: Any, path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file(state, path) if path.suffix == ".safetensors" else torch.save(state, path)
    return path


def same(ours: Tensors, theirs: Tensors) -> bool:
    return ours.keys() == theirs.keys() and all(torch.equal(ours[name], theirs[name]) for name in ours)


def canonical_file(tmp_path: Path) -> tuple[checkpoints.Checkpoint, Path]:
    labels = LabelSet.from_names("insects", ["ant", "bee", "cat", "dog", "eel"])
    card = Card(V1, Preprocessing(size=(96, 96)), name="mine", labels=labels, license="MIT", metrics={"top-1": 81.5})
    checkpoint = checkpoints.Checkpoint(draw(V1), card, "canonical", tmp_path)
    checkpoints.save(checkpoint, tmp_path / "mine.safetensors")
    return checkpoint, tmp_path / "mine.safetensors"
