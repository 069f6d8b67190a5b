"""A small network that names the colours of ``training.place``, made without training it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from convnext_cli import checkpoints
from convnext_cli.checkpoints import canonical
from convnext_cli.photos.decode import decode
from convnext_cli.photos.resize import apply_preprocessing
from convnext_cli.runtimes.torch.engine import TorchEngine
from tests.helpers.photos import encoded, picture
from tests.helpers.training import COLOURS, tinted, write_labelled

GROUPS = {"blue": "cold", "green": "vivid", "grey": "cold", "red": "vivid"}


def write_classifier(path: Path, *, photos: int = 12, sharpness: float = 12.0, grouped: bool = False) -> Path:
    """Random weights, with a classifier fitted to their features by least squares.

    Args:
        path: of the file.
        photos: of each colour; their numbers begin at 50.
        sharpness: of the logits.
        grouped: red and green are vivid, blue and grey are cold.
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
    labels = checkpoint.card.label_set()
    if grouped:
        labels = replace(labels, parents=tuple((GROUPS[name],) for name in names))
    canonical.write(path, tensors, checkpoint.card.replace(sha256=canonical.fingerprint(tensors), labels=labels))
    return path


def blended(first: str, second: str, share: float) -> bytes:
    """A noisy photo of a colour between two of them.

    Args:
        first, second: names of colours.
        share: of the first one, 0 to 1.
    """
    noise = np.asarray(picture(36, 36, seed=7), np.float32)
    colour = share * np.array(COLOURS[first]) + (1 - share) * np.array(COLOURS[second])
    return encoded(Image.fromarray((0.5 * noise + 0.5 * colour).astype(np.uint8)))
