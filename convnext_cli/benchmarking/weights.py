"""Weights drawn at random for any architecture, so that it can be measured before anything is pulled."""

from __future__ import annotations

from pathlib import Path

from convnext_cli import checkpoints
from convnext_cli.base.errors import ModelError
from convnext_cli.checkpoints import Checkpoint
from convnext_cli.checkpoints.layouts import timm
from convnext_cli.model.card import Card
from convnext_cli.model.config import VARIANTS

SEED = 0


def write_random(architecture: str, path: Path) -> Path:
    """Write a file in which every parameter matters: no layer scale of 1e-6 and no GRN of 0 hides a block.

    Always the same weights for an architecture, so that runs can be compared. Raises ModelError for a name that is not
    in ``config.VARIANTS``.
    """
    import torch

    if architecture not in VARIANTS:
        from difflib import get_close_matches

        near = ", ".join(get_close_matches(architecture, VARIANTS, 3)) or ", ".join(VARIANTS)
        raise ModelError(f"there is no architecture {architecture!r}", f"--random takes an architecture: {near}")
    config = VARIANTS[architecture]
    generator = torch.Generator().manual_seed(SEED)
    tensors = {}
    for name, shape in config.shapes().items():
        leaf = name.rpartition(".")[2]
        drawn = torch.randn(shape, generator=generator)
        if ".grn." in name:
            drawn *= 0.5
        elif leaf == "gamma":
            drawn = 0.2 + 0.8 * torch.rand(shape, generator=generator)
        elif leaf == "bias":
            drawn *= 0.1
        elif len(shape) < 2:
            drawn = 1 + 0.2 * drawn
        else:
            drawn *= (drawn[0].numel()) ** -0.5  # activations keep their size
        tensors[name] = drawn
    labels = "imagenet-1k" if config.num_labels == 1000 else None
    card = Card(
        config=config,
        preprocessing=timm.usual(architecture),
        name=architecture,
        architecture=architecture,
        labels=labels,
        task="classification" if config.num_labels else "features",
        description="random weights, for measuring alone",
    )
    checkpoints.save(Checkpoint(tensors, card, "canonical", path), path)
    return path
