"""Recipe: how an upright RGB photo becomes the (3, H, W) float32 tensor that a network was trained on.

A recipe is data; a card carries one. The pixels must be those of the library that made the weights, because a
crop that is one pixel off changes scores (docs/preprocessing.md names every difference between libraries).
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any, Literal

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
INCEPTION_MEAN, INCEPTION_STD = (0.5, 0.5, 0.5), (0.5, 0.5, 0.5)
CLIP_MEAN, CLIP_STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)

Resize = Literal["shortest", "squash", "longest", "none"]
Interpolation = Literal["nearest", "lanczos", "bilinear", "bicubic", "box", "hamming"]


@dataclass(frozen=True)
class Recipe:
    """Resize, crop and normalise.

    size: (height, width) in pixels of the tensor.
    resize_to: (height, width) for "squash", else the edge in pixels that "shortest" or "longest" aims at, twice.
    resize: "shortest" edge and centre crop; "squash" both edges (aspect ratio lost), then centre crop;
        "longest" edge, then pad or crop (timm's "border"); "none" leaves the photo as it is.
    interpolation: Pillow's filter of this name; it always antialiases when it shrinks.
    crop_offset: "round" is torchvision's and timm's int(round(excess / 2)), "floor" is transformers' excess // 2.
    float_resize: resize the photo as floats after rescaling (DINOv3's processor) instead of as bytes.
    rescale: the factor for bytes, 1/255.
    mean, std: per channel, in rescaled units.
    test_size: the size that the makers measured best at, used on ``--size test`` only; None when unknown.
    test_resize_to: the edge for it.
    """

    size: tuple[int, int] = (224, 224)
    resize_to: tuple[int, int] = (256, 256)
    resize: Resize = "shortest"
    interpolation: Interpolation = "bicubic"
    crop_offset: Literal["round", "floor"] = "round"
    float_resize: bool = False
    rescale: float = 1 / 255
    mean: tuple[float, ...] = IMAGENET_MEAN
    std: tuple[float, ...] = IMAGENET_STD
    test_size: tuple[int, int] | None = None
    test_resize_to: tuple[int, int] | None = None

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values; the inverse of ``from_dict``."""
        return {k: list(v) if isinstance(v, tuple) else v for k, v in dataclasses.asdict(self).items()}

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Recipe:
        """A recipe from a card's JSON; unknown keys raise TypeError."""
        return cls(**{k: tuple(v) if isinstance(v, list) else v for k, v in values.items()})
