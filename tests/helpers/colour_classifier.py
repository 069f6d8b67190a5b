"""A small network that names the colours of ``training.place``, made without training it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from convnext_cli import checkpoints
from convnext_cli.checkpoints import canonical
from convnext_cli.photos.decode import decode
from convnext_cli.photos.resize import apply_preprocessing
from convnext_cli.runtimes.torch.engine import TorchEngine
from tests.helpers.training import COLOURS, tinted, write_labelled


def write_classifier(path: Path, *, photos: int = 12, sharpness: float = 12.0) -> Path:
    """Random weights, with a classifier fitted to their features by least squares.

    Args:
        path: of the file.
        photos: of each colour; their numbers begin at 50.
        sharpness: of the logits.
    """
    names = tuple(COLOURS)
    write_labelled(path, names)
    checkpoint = checkpoints.load(path)
    engine = TorchEngine(path, device="cpu")
    pixels, rows = [], []
    for row, name in enumerate(names):
        for number in range(50, 50 + photos):
            photo = decode(tinted(name, 100 * row + number))
            pixels.append(apply_preprocessing(checkpoint.card.preprocessing, photo))
            rows.append(row)
    _, features = engine.with_features(np.stack(pixels))
    engine.close()
    x = np.concatenate([features, np.ones((len(features), 1))], 1).astype(np.float64)
    target = sharpness * (np.eye(len(names))[rows] - 1 / len(names))
    solution = np.linalg.solve(x.T @ x + 1e-3 * np.eye(x.shape[1]), x.T @ target)
    tensors = dict(checkpoint.tensors)
    tensors["head.weight"] = torch.from_numpy(np.ascontiguousarray(solution[:-1].T)).float()
    tensors["head.bias"] = torch.from_numpy(solution[-1]).float()
    canonical.write(path, tensors, checkpoint.card.replace(sha256=canonical.fingerprint(tensors)))
    return path
