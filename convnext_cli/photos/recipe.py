"""Recipe: how an upright RGB photo becomes the (3, H, W) float32 tensor that a network was trained on.

A recipe is data; a card carries one. The pixels must be those of the library that made the weights, because a
crop that is one pixel off changes scores (docs/preprocessing.md names every difference between libraries).
"""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, get_args

from convnext_cli.errors import ModelError

if TYPE_CHECKING:
    import numpy as np
    from PIL import Image

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
INCEPTION_MEAN, INCEPTION_STD = (0.5, 0.5, 0.5), (0.5, 0.5, 0.5)
CLIP_MEAN, CLIP_STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)

Resize = Literal["shortest", "squash", "longest", "none"]
# In the order of Pillow's numbers, which transformers' files use.
Interpolation = Literal["nearest", "lanczos", "bilinear", "bicubic", "box", "hamming"]
INTERPOLATIONS: tuple[Interpolation, ...] = get_args(Interpolation)

_USUAL_CROPS = (0.875, 0.95, 0.9, 1.0)
# transformers, and the official code, squash from this size on and crop below it.
SQUASH_FROM = 384
# resize_to of torchvision's presets (ConvNeXt_*_Weights.IMAGENET1K_V1).
_TORCHVISION_EDGES = {"tiny": 236, "small": 230, "base": 232, "large": 232}


@dataclass(frozen=True)
class Recipe:
    """Resize, crop and normalise.

    size: (height, width) in pixels of the tensor.
    resize_to: (height, width) for "squash", else the edge in pixels that "shortest" or "longest" aims at, twice; two
        unlike edges make "shortest" cover them and "longest" fit into them.
    resize: "shortest" edge and centre crop; "squash" both edges (aspect ratio lost), then centre crop;
        "longest" edge, then pad or crop (timm's "border"); "none" leaves the photo as it is, uncropped.
    interpolation: Pillow's filter of this name; it always antialiases when it shrinks.
    crop_offset: "round" is torchvision's and timm's int(round(excess / 2)), "floor" is transformers' excess // 2.
    fill: what "longest" pads with: the bytes round(255 * mean), or black. All other padding is black.
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
    fill: Literal["mean", "black"] = "mean"
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
        plain: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in values.items()}
        return cls(**plain)

    @property
    def crop_pct(self) -> float:
        """The share of the resized edge that the crop keeps, as its makers would write it: 0.95, not 224/235."""
        size, edge = self.size[0], self.resize_to[0]
        tens = [10.0**digits for digits in range(1, 8)]
        downwards = [math.floor(size / edge * ten - less) / ten for ten in tens for less in (0, 1)]
        for share in (*_USUAL_CROPS, *downwards):
            if share > 0 and math.floor(size / share) == edge:
                return share
        return size / edge

    def apply(self, image: Image.Image) -> np.ndarray[Any, np.dtype[np.float32]]:
        """A float32 array (3, height, width), normalised, from an upright RGB image.

        Raises ValueError when the image is not in mode RGB.
        """
        from convnext_cli.photos.pixels import apply

        return apply(self, image)

    def describe(self) -> str:
        """One line for people: "224×224, shortest side 256, bicubic, centre crop"."""
        height, width = self.size
        edge = str(self.resize_to[0]) if self.resize_to[0] == self.resize_to[1] else "{}×{}".format(*self.resize_to)
        if self.resize == "none":
            return "as large as the photo"
        words = [f"{height}×{width}"]
        if self.resize == "squash":
            words += ["squashed" if self.resize_to == self.size else "squashed to {}×{}".format(*self.resize_to)]
        else:
            words += [f"{self.resize} side {edge}"]
        words += [self.interpolation + (" on floats" if self.float_resize else "")]
        if self.resize == "longest":
            words += ["padded"]
        elif self.resize == "shortest" or self.resize_to != self.size:
            words += ["centre crop"]
        return ", ".join(words)

    def changed(self, *, crop_pct: float | None = None, **changes: Any) -> Recipe:
        """With other fields; ``crop_pct`` sets ``resize_to`` to floor(size / crop_pct), as timm does."""
        recipe = dataclasses.replace(self, **changes)
        if crop_pct is None:
            return recipe
        return dataclasses.replace(recipe, resize_to=_edges(recipe.size, crop_pct))

    def at_size(self, size: int | tuple[int, int], *, crop_pct: float | None = None) -> Recipe:
        """For another input size, in pixels; keeps the crop_pct, the way of resizing and all else."""
        edges = (size, size) if isinstance(size, int) else size
        return self.changed(size=edges, crop_pct=crop_pct or self.crop_pct)

    def at_test_size(self) -> Recipe:
        """At the size that the makers measured best at; the same recipe where none is known."""
        if self.test_size is None:
            return self
        if self.test_resize_to is None:
            return self.at_size(self.test_size)
        return self.changed(size=self.test_size, resize_to=self.test_resize_to)

    @classmethod
    def official(cls, size: int = 224) -> Recipe:
        """Of the authors' evaluation (facebookresearch/ConvNeXt, datasets.py): crop below 384, squash from there."""
        if size >= SQUASH_FROM:
            return cls(size=(size, size), resize_to=(size, size), resize="squash")
        return cls(size=(size, size), resize_to=_edges((size, size), 224 / 256))

    @classmethod
    def from_torchvision(cls, variant: str) -> Recipe:
        """Of torchvision's weights for "tiny", "small", "base" or "large" (with or without "convnext_").

        Raises ModelError for another variant.
        """
        edge = _TORCHVISION_EDGES.get(variant.removeprefix("convnext_"))
        if edge is None:
            raise ModelError(f"torchvision has no weights for {variant}", "say --size, --crop-pct and --interpolation")
        return cls(resize_to=(edge, edge), interpolation="bilinear")

    @classmethod
    def from_timm(cls, cfg: dict[str, Any]) -> Recipe:
        """Of a ``pretrained_cfg`` (timm's config.json). Absent and null fields take timm's defaults.

        Raises ModelError when a field has a value that timm does not know.
        """
        size = _pair(cfg.get("input_size") or (3, 224, 224))
        crop_pct = cfg.get("crop_pct") or 0.875
        test = cfg.get("test_input_size")
        mode = cfg.get("crop_mode") or "center"
        modes: dict[str, Resize] = {"center": "shortest", "squash": "squash", "border": "longest"}
        if mode not in modes:
            raise ModelError(f"the model's crop_mode {mode!r} is unknown", f"known are {', '.join(modes)}")
        return cls(
            size=size,
            resize_to=_edges(size, crop_pct),
            resize=modes[mode],
            interpolation=_interpolation(cfg.get("interpolation"), "bicubic"),
            mean=tuple(cfg.get("mean") or IMAGENET_MEAN),
            std=tuple(cfg.get("std") or IMAGENET_STD),
            test_size=_pair(test) if test else None,
            test_resize_to=_edges(_pair(test), cfg.get("test_crop_pct") or crop_pct) if test else None,
        )

    @classmethod
    def from_open_clip(cls, image_size: int | list[int], cfg: dict[str, Any] | None = None) -> Recipe:
        """Of an OpenCLIP tower: ``image_size`` of its vision_cfg, and its preprocess_cfg; only the overhang is cut."""
        cfg = cfg or {}
        size = (image_size, image_size) if isinstance(image_size, int) else _pair(image_size)
        return cls(
            size=size,
            resize_to=size,
            resize=cfg.get("resize_mode") or "shortest",
            interpolation=_interpolation(cfg.get("interpolation"), "bicubic"),
            fill="black",
            mean=tuple(cfg.get("mean") or CLIP_MEAN),
            std=tuple(cfg.get("std") or CLIP_STD),
        )

    @classmethod
    def from_huggingface(cls, cfg: dict[str, Any], image_size: int | None = None) -> Recipe:
        """Of a preprocessor_config.json in any spelling since transformers 4.17; see docs/preprocessing.md.

        image_size: of config.json; taken where the file names no size.

        Raises ModelError when a field has a value that transformers does not know.
        """
        kind = str(cfg.get("image_processor_type") or cfg.get("feature_extractor_type") or "")
        dino, newer = kind.startswith("DINOv3"), bool(cfg.get("image_processor_type"))
        size = cfg.get("size") or image_size or (SQUASH_FROM if newer and not dino else 224)
        try:
            scale = float(cfg.get("rescale_factor") or 1 / 255) if cfg.get("do_rescale", True) else 1.0
            mean = tuple(cfg.get("image_mean") or (INCEPTION_MEAN if newer and not dino else IMAGENET_MEAN))
            std = tuple(cfg.get("image_std") or (INCEPTION_STD if newer and not dino else IMAGENET_STD))
            plain = cls(
                interpolation=_interpolation(cfg.get("resample"), "bilinear" if dino else "bicubic"),
                crop_offset="floor",
                float_resize=dino,
                rescale=scale,
                mean=mean if cfg.get("do_normalize", True) else (0.0,) * 3,
                std=std if cfg.get("do_normalize", True) else (1.0,) * 3,
            )
            shape = _huggingface_shape(kind, size, cfg)
        except (KeyError, TypeError, ValueError, IndexError) as error:
            raise ModelError(f"preprocessor_config.json is damaged: {error}", "fetch the model again") from error
        return plain.changed(**shape)


def _huggingface_shape(kind: str, size: Any, cfg: dict[str, Any]) -> dict[str, Any]:
    """The fields resize, size and resize_to. ``kind`` is the class that wrote the file, "" for none."""
    crop = cfg.get("crop_size") if cfg.get("do_center_crop") else None
    crop = _pair(crop) if crop else None
    if not cfg.get("do_resize", True):
        edges = _pair(size)
        return {"resize": "none", "size": edges, "resize_to": edges}
    if isinstance(size, dict) and "shortest_edge" not in size:  # height and width: a plain warp
        edges = _pair(size)
        return {"resize": "squash", "size": crop or edges, "resize_to": edges}
    edge = int(size["shortest_edge"] if isinstance(size, dict) else size)
    edges = (edge, edge)
    if kind and not kind.startswith("ConvNext"):  # another family's processor: an integer is a square, an edge an edge
        if isinstance(size, dict) or crop:
            return {"resize": "shortest", "size": crop or edges, "resize_to": edges}
        return {"resize": "squash", "size": edges, "resize_to": edges}
    if edge >= SQUASH_FROM:
        return {"resize": "squash", "size": crop or edges, "resize_to": edges}
    to = int(edge / float(cfg.get("crop_pct") or 224 / 256))
    return {"resize": "shortest", "size": crop or edges, "resize_to": (to, to)}


def _pair(size: Any) -> tuple[int, int]:
    """(height, width) from 224, [3, 224, 224], [224, 224] or {"height": 224, "width": 224}."""
    if isinstance(size, dict):
        edge = size.get("shortest_edge")
        return (int(edge), int(edge)) if edge else (int(size["height"]), int(size["width"]))
    return (size, size) if isinstance(size, int) else (int(size[-2]), int(size[-1]))


def _edges(size: tuple[int, int], crop_pct: float) -> tuple[int, int]:
    return math.floor(size[0] / crop_pct), math.floor(size[1] / crop_pct)


def _interpolation(value: Any, default: Interpolation) -> Interpolation:
    """From a name or Pillow's number. timm's "random" is for training; it then means the default."""
    if value is None or value == "random":
        return default
    if isinstance(value, int) and 0 <= value < len(INTERPOLATIONS):
        return INTERPOLATIONS[value]
    if value in INTERPOLATIONS:
        return value  # type: ignore[no-any-return]
    raise ModelError(f"the model's interpolation {value!r} is unknown", f"known are {', '.join(INTERPOLATIONS)}")
