"""Photos to measure with: the samples, enlarged, turned and grained until they weigh what a camera's files weigh."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from PIL import Image

from benchmarks.profiles import display_p3

SAMPLES = sorted((Path(__file__).resolve().parent.parent / "samples").glob("*.jpg"))
_TILE = 512  # pixels: phones store HEIC in tiles of this edge


@dataclass(frozen=True)
class Kind:
    """How files of photos are made.

    Args:
        size: (width, height) of the upright photo.
        form: of the files.
        phone: with a Display P3 profile; and of JPEGs every second is stored turned by 90 degrees, with a tag.
    """

    size: tuple[int, int]
    form: Literal["jpeg", "heic"] = "jpeg"
    phone: bool = False


KINDS = {
    "0.5 MP": Kind((816, 612)),
    "12 MP": Kind((4000, 3000)),
    "12 MP phone": Kind((4000, 3000), phone=True),
    "12 MP HEIC": Kind((4032, 3024), "heic", phone=True),
    "48 MP": Kind((8000, 6000)),
}


def make(folder: Path, kind: Kind, count: int, distinct: int) -> list[str]:
    """``count`` files of a kind in a folder; ``distinct`` are different, the others are hard links to them."""
    folder.mkdir(parents=True)
    rng = np.random.default_rng(0)
    paths = []
    for i in range(count):
        path = folder / f"{i:06}.{'jpg' if kind.form == 'jpeg' else 'heic'}"
        if i < distinct:
            _save(_photo(rng, i, kind.size), path, kind, turned=kind.form == "jpeg" and kind.phone and i % 2 == 1)
        else:
            os.link(paths[i % distinct], path)
        paths.append(str(path))
    return paths


def _save(image: Image.Image, path: Path, kind: Kind, *, turned: bool) -> None:
    profile = display_p3() if kind.phone else b""
    if kind.form == "heic":
        import pillow_heif

        pillow_heif.options.GRID_TILE_SIZE = _TILE
        heif = pillow_heif.from_pillow(image)
        heif.save(path, quality=60, icc_profile=profile, icc_profile_type="prof")
        return
    exif = Image.Exif()
    if turned:
        exif[0x0112] = 6
        image = image.transpose(Image.Transpose.ROTATE_90)
    image.save(path, quality=92, icc_profile=profile, exif=exif)


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
