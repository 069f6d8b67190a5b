"""Photos to measure with: the samples, enlarged, turned and grained until they weigh what a camera's files weigh."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
from PIL import Image

SAMPLES = sorted((Path(__file__).resolve().parent.parent / "samples").glob("*.jpg"))
SIZES = {"0.5 MP": (816, 612), "12 MP": (4000, 3000)}


def make(folder: Path, size: tuple[int, int], count: int, distinct: int) -> list[str]:
    """``count`` JPEG files of this size in a folder; ``distinct`` are different, the others are hard links to them."""
    folder.mkdir(parents=True)
    rng = np.random.default_rng(0)
    paths = []
    for i in range(count):
        path = folder / f"{i:06}.jpg"
        if i < distinct:
            _photo(rng, i, size).save(path, quality=92)
        else:
            os.link(paths[i % distinct], path)
        paths.append(str(path))
    return paths


def _photo(rng: np.random.Generator, number: int, size: tuple[int, int]) -> Image.Image:
    """A part of a sample, mirrored or not, with a sensor's grain."""
    image = Image.open(SAMPLES[number % len(SAMPLES)]).convert("RGB")
    width, height = image.size
    share = rng.uniform(0.7, 1.0)
    left, top = rng.uniform(0, (1 - share) * width), rng.uniform(0, (1 - share) * height)
    image = image.resize(size, Image.Resampling.BICUBIC, (left, top, left + share * width, top + share * height))
    if rng.random() < 0.5:
        image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    grain = rng.normal(0, 5, (size[1] // 2, size[0] // 2, 3)).repeat(2, 0).repeat(2, 1)
    pixels = np.asarray(image, np.float32)
    return Image.fromarray((pixels + grain[: pixels.shape[0], : pixels.shape[1]]).clip(0, 255).astype(np.uint8))
