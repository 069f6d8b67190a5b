"""Weights that tests make: random, and so that every parameter matters."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from convnext_cli.checkpoints import canonical
from convnext_cli.model.card import Card
from convnext_cli.model.config import ConvNextConfig
from convnext_cli.model.preprocessing import Preprocessing

SMALL = ConvNextConfig(depths=(1, 1, 2, 1), hidden_sizes=(8, 16, 24, 32), num_labels=7, layer_norm_eps=1e-6)


def random_tensors(config: ConvNextConfig, seed: int = 0) -> dict[str, torch.Tensor]:
    """By canonical name, float32: scales far from 1, shifts far from 0, weights that keep the size of what they get."""
    rng = np.random.default_rng(seed)
    tensors = {}
    for name, shape in config.shapes().items():
        values = rng.standard_normal(shape)
        if len(shape) == 1 or ".grn." in name:
            values = 0.3 * values + (("norm" in name or "gamma" in name or shape == ()) and name.endswith(("t", "a")))
        else:
            values /= np.sqrt(np.prod(shape[1:]))
        tensors[name] = torch.from_numpy(values.astype(np.float32))
    return tensors


def write_model(path: Path, config: ConvNextConfig = SMALL, seed: int = 0, size: int = 64) -> Path:
    """A canonical file of random weights, whose photos have ``size`` pixels."""
    tensors = random_tensors(config, seed)
    preprocessing = Preprocessing(size=(size, size), resize_to=(size, size))
    canonical.write(path, tensors, Card(config, preprocessing, path.stem, sha256=canonical.fingerprint(tensors)))
    return path
