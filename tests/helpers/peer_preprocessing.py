"""Photos, and how far our pixels are from another library's."""

from __future__ import annotations

import functools
import io
from collections.abc import Callable
from typing import Any

import numpy as np
from PIL import Image

from convnext_cli.model.preprocessing import Preprocessing
from convnext_cli.photos.decode import decode
from convnext_cli.photos.resize import apply_preprocessing
from tests.helpers.photos import parity_photos

Peer = Callable[[Image.Image], Any]


@functools.cache
def photos() -> list[tuple[Image.Image, Image.Image]]:
    """Each photo as this project decodes it, and as its peers do."""
    return [(decode(data).image, Image.open(io.BytesIO(data)).convert("RGB")) for data in parity_photos()]


def furthest(preprocessing: Preprocessing, peer: Peer, step: int = 1) -> float:
    """The largest absolute difference over all photos, or over each ``step``-th, in normalised units."""
    worst = 0.0
    for ours, theirs in photos()[::step]:
        expected = np.asarray(peer(theirs))
        found = apply_preprocessing(preprocessing, ours)
        assert found.shape == expected.shape and found.dtype == np.float32
        worst = max(worst, float(np.abs(found - expected).max()))
    return worst


def timm_peer(cfg: dict[str, Any]) -> Peer:
    from timm.data import create_transform

    known = ("input_size", "crop_pct", "crop_mode", "interpolation", "mean", "std")
    transform: Peer = create_transform(**{name: cfg[name] for name in known if name in cfg}, is_training=False)
    return transform
