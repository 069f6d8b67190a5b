"""Logits and pooled features of photos, computed once and kept in a file: other scripts here read them.

The file is named after the model's checksum and the data, so that another model's outputs are never taken for them.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

import numpy as np

from convnext_cli.datasets import open_data
from convnext_cli.labels import LabelSet
from convnext_cli.photos.photo import Photo
from convnext_cli.predict.open import open_predictor
from convnext_cli.predict.options import ModelOptions, PredictorOptions
from convnext_cli.predict.predictor import Predictor


class Outputs(NamedTuple):
    """Of the photos that could be read.

    Args:
        logits: float32 (N, rows).
        features: float32 (N, channels).
        truth: (N,) the true row; -1 for photos of other classes.
    """

    logits: np.ndarray
    features: np.ndarray
    truth: np.ndarray

    def take(self, places: np.ndarray) -> Outputs:
        """Some of the photos."""
        return Outputs(*(array[places] for array in self))


def open_model(name: str) -> Predictor:
    """A model, as ``convnext classify`` opens it for many photos.

    Args:
        name: of the model, or a file.
    """
    return open_predictor(PredictorOptions(model=ModelOptions(model=name)), job="throughput")


def of_data(predictor: Predictor, path: str, split: str | None, limit: int, cache: Path) -> Outputs:
    """The outputs for labelled photos, a random sample of them where there are more than ``limit``.

    Args:
        predictor: the model.
        path: of the data, in any form that ``convnext evaluate`` reads.
        split: of the data; None for all photos.
        limit: the most photos.
        cache: a folder.
    """
    dataset = open_data(path)
    try:
        photos = [photo for photo in dataset.of(split) if photo.label is not None]
        chosen = np.sort(np.random.default_rng(0).permutation(len(photos))[:limit])
        photos = [photos[place] for place in chosen]
        truth = [_row(predictor.labels, photo.label or "") for photo in photos]
        key = f"{path} {split} {limit}"
        return _cached(predictor, dataset.stream(photos), np.array(truth), key, cache)
    finally:
        dataset.close()


def of_photos(predictor: Predictor, photos: list[bytes], name: str, cache: Path) -> Outputs:
    """The outputs for photos that a script makes; none of them has a class.

    Args:
        predictor: the model.
        photos: files.
        name: for the file that keeps the outputs.
        cache: a folder.
    """
    stream = (Photo(f"{name}-{number}.png", data) for number, data in enumerate(photos))
    return _cached(predictor, stream, np.full(len(photos), -1), f"{name} {len(photos)}", cache)


def _cached(predictor: Predictor, photos: Iterable[Photo], truth: np.ndarray, key: str, cache: Path) -> Outputs:
    sha256 = predictor.engine.card.sha256 or predictor.model
    file = cache / f"{hashlib.sha256(f'{sha256} {key}'.encode()).hexdigest()[:24]}.npz"
    if file.exists():
        with np.load(file) as kept:
            return Outputs(kept["logits"], kept["features"], kept["truth"])
    pairs = [output for _, output in predictor.outputs(photos, features=True)]
    read = np.array([output is not None for output in pairs])
    done = [output for output in pairs if output is not None]
    outputs = Outputs(
        np.stack([output.logits for output in done]),
        np.stack([output.features for output in done if output.features is not None]),
        truth[read],
    )
    cache.mkdir(parents=True, exist_ok=True)
    np.savez(file, **outputs._asdict())
    return outputs


def _row(labels: LabelSet, text: str) -> int:
    """The row of a class of the data: by id or by name; -1 for one that the model does not have."""
    if text in labels.ids:
        return labels.ids.index(text)
    return labels.names.index(text) if text in labels.names else -1
