"""Preprocessing: how an upright RGB photo becomes the (3, H, W) float32 tensor that a network was trained on.

Preprocessing is data, and part of a card. The pixels must be those of the library that made the weights, because a crop
that is one pixel off changes scores (docs/preprocessing.md names every difference between libraries).
"""

from __future__ import annotations

import dataclasses
import math
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeVar, get_args

from convnext_cli.base.errors import ModelError
from convnext_cli.base.text import JsonObject, JsonValue

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
INCEPTION_MEAN, INCEPTION_STD = (0.5, 0.5, 0.5), (0.5, 0.5, 0.5)
CLIP_MEAN, CLIP_STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)

Edges = tuple[int, int]  # (height, width) in pixels
Choice = TypeVar("Choice", bound=str | bool)
Fit = Literal["shortest", "squash", "longest"]  # into a square
Resize = Literal["shortest", "squash", "longest", "none"]
_FITS: tuple[Fit, ...] = get_args(Fit)
# In the order of Pillow's numbers, which transformers' files use.
Interpolation = Literal["nearest", "lanczos", "bilinear", "bicubic", "box", "hamming"]
INTERPOLATIONS: tuple[Interpolation, ...] = get_args(Interpolation)

_USUAL_CROPS = (0.875, 0.95, 0.9, 1.0)
# transformers, and the official code, squash from this size on and crop below it.
SQUASH_FROM = 384
MOST = 4096  # pixels of an edge of the tensor, a limit against damaged files
# Limits of useful values, within which float32 cannot overflow.
_MEAN_LIMITS, _STD_LIMITS, _RESCALE_MOST = (-1e3, 1e3), (1e-6, 1e6), 1e6
_CROP_LEAST = 1e-5  # a smaller share would need more pixels than any edge may have
# resize_to of torchvision's presets (ConvNeXt_*_Weights.IMAGENET1K_V1).
_TORCHVISION_EDGES = {"tiny": 236, "small": 230, "base": 232, "large": 232}


@dataclass(frozen=True)
class Preprocessing:
    """Resize, crop and normalise.

    mean and std may be one number for all channels, or arrays.

    Args:
        size: (height, width) in pixels of the tensor.
        resize_to: (height, width) for "squash"; otherwise twice the edge that "shortest" or "longest" aims at. If the
            two differ, "shortest" covers them and "longest" fits into them.
        resize: "shortest" edge and centre crop; "squash" both edges (aspect ratio lost), then centre crop; "longest"
            edge, then pad or crop (timm's "border"); "none" leaves the photo as it is, uncropped.
        interpolation: the name of Pillow's filter, which always antialiases when it shrinks.
        crop_offset: "round" is torchvision's and timm's int(round(excess / 2)), "floor" is transformers' excess // 2.
        fill: the colour with which "longest" pads: the bytes round(255 * mean), or black. Other padding is black.
        float_resize: resize floats, after rescaling (DINOv3's processor), instead of bytes.
        rescale: the factor for bytes, 1/255.
        mean, std: for each channel, in rescaled units; a mean within ±1000, an std from 1e-6 to 1e6.
        test_size: the size at which the publisher measured the best accuracy, for ``--size test``; None when unknown.
        test_resize_to: the edge to resize to for ``test_size``.

    Raises:
        ValueError: a value is not valid; the message has the name of the field.
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

    def __post_init__(self) -> None:
        for name, most in (("size", MOST), ("resize_to", 2 * MOST)):
            object.__setattr__(self, name, _edges(name, getattr(self, name), most))
            if getattr(self, f"test_{name}") is not None:
                object.__setattr__(self, f"test_{name}", _edges(f"test_{name}", getattr(self, f"test_{name}"), most))
        object.__setattr__(self, "rescale", _number("rescale", self.rescale, positive=True))
        if self.rescale > _RESCALE_MOST:
            raise ValueError(f"rescale must be at most {_RESCALE_MOST:g}, not {self.rescale!r}")
        object.__setattr__(self, "mean", _channels("mean", self.mean))
        object.__setattr__(self, "std", _channels("std", self.std, positive=True))
        object.__setattr__(self, "interpolation", _interpolation("interpolation", self.interpolation))
        _one_of("resize", self.resize, get_args(Resize))
        _one_of("crop_offset", self.crop_offset, ("round", "floor"))
        _one_of("fill", self.fill, ("mean", "black"))
        _one_of("float_resize", self.float_resize, (True, False))

    def to_dict(self) -> JsonObject:
        """Plain JSON values; the inverse of ``from_dict``."""
        return {k: list(v) if isinstance(v, tuple) else v for k, v in dataclasses.asdict(self).items()}

    @classmethod
    def from_dict(cls, values: JsonObject) -> Preprocessing:
        """Preprocessing from a card's JSON; unknown keys raise TypeError."""
        return cls(**values)

    @property
    def crop_pct(self) -> float:
        """The share of the resized edge that the crop keeps, as its publisher would write it: 0.95, not 224/235."""
        size, edge = self.size[0], self.resize_to[0]
        tens = [10.0**digits for digits in range(1, 8)]
        downwards = [math.floor(size / edge * ten - less) / ten for ten in tens for less in (0, 1)]
        for share in (*_USUAL_CROPS, *downwards):
            if share > 0 and math.floor(size / share) == edge:
                return share
        return size / edge

    @property
    def enough(self) -> int | None:
        """Pixels of a photo's shorter edge that suffice for nearly the same result; None where all are needed."""
        return None if self.resize == "none" else math.ceil(2.9 * max(self.resize_to))

    def describe(self) -> str:
        """One line for people: "224×224, shortest side 256, bicubic, centre crop"."""
        height, width = self.size
        edge = str(self.resize_to[0]) if self.resize_to[0] == self.resize_to[1] else "{}×{}".format(*self.resize_to)
        if self.resize == "none":
            return "at the photo's own size"
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

    def changed(self, *, crop_pct: float | None = None, **changes: Any) -> Preprocessing:
        """A copy with other fields; ``crop_pct`` sets ``resize_to`` to floor(size / crop_pct), as timm does."""
        preprocessing = dataclasses.replace(self, **changes)
        if crop_pct is None:
            return preprocessing
        return dataclasses.replace(preprocessing, resize_to=_before_crop(preprocessing.size, crop_pct))

    def at_size(self, size: int | tuple[int, int], *, crop_pct: float | None = None) -> Preprocessing:
        """A copy for another input size in pixels, with the same crop_pct and other fields."""
        edges = (size, size) if isinstance(size, int) else size
        return self.changed(size=edges, crop_pct=self.crop_pct if crop_pct is None else crop_pct)

    def at_test_size(self) -> Preprocessing:
        """A copy for the size at which the publisher measured the best accuracy; unchanged if it is not known."""
        if self.test_size is None:
            return self
        if self.test_resize_to is None:
            return self.at_size(self.test_size)
        return self.changed(size=self.test_size, resize_to=self.test_resize_to)

    @classmethod
    def official(cls, size: int = 224) -> Preprocessing:
        """The authors' evaluation (facebookresearch/ConvNeXt, datasets.py): crop below 384 pixels, else squash."""
        if size >= SQUASH_FROM:
            return cls(size=(size, size), resize_to=(size, size), resize="squash")
        return cls(size=(size, size), resize_to=_before_crop((size, size), 224 / 256))

    @classmethod
    def from_torchvision(cls, variant: str) -> Preprocessing:
        """The preprocessing of torchvision's weights for "tiny", "small", "base" or "large", also with "convnext_".

        Raises:
            ModelError: the variant is another one.
        """
        edge = _TORCHVISION_EDGES.get(variant.removeprefix("convnext_"))
        if edge is None:
            raise ModelError(f"torchvision has no weights for {variant}", "set --size, --crop-pct and --interpolation")
        return cls(resize_to=(edge, edge), interpolation="bilinear")

    @classmethod
    def from_timm(cls, cfg: JsonObject) -> Preprocessing:
        """The preprocessing of a ``pretrained_cfg`` (timm's config.json). Missing and null fields have timm's defaults.

        Raises:
            ValueError: timm does not know a value, or it is not valid; the message has the name of the field.
        """
        fields = _Fields(cfg)
        size = fields.size("input_size") or (224, 224)
        crop_pct = fields.share("crop_pct") or 0.875
        test = fields.size("test_input_size")
        modes: dict[str, Resize] = {"center": "shortest", "squash": "squash", "border": "longest"}
        return cls(
            size=size,
            resize_to=_before_crop(size, crop_pct),
            resize=modes[fields.one_of("crop_mode", modes) or "center"],
            interpolation=fields.interpolation("interpolation") or "bicubic",
            mean=fields.channels("mean") or IMAGENET_MEAN,
            std=fields.channels("std", positive=True) or IMAGENET_STD,
            test_size=test,
            test_resize_to=_before_crop(test, fields.share("test_crop_pct") or crop_pct) if test else None,
        )

    @classmethod
    def from_open_clip(cls, image_size: int | list[int], cfg: JsonObject | None = None) -> Preprocessing:
        """The preprocessing of an OpenCLIP tower, which cuts only what exceeds the square.

        Args:
            image_size: of its vision_cfg.
            cfg: its preprocess_cfg.

        Raises:
            ValueError: as for ``from_timm``.
        """
        fields = _Fields(cfg or {})
        size = _edges("image_size", image_size)
        return cls(
            size=size,
            resize_to=size,
            resize=fields.one_of("resize_mode", _FITS) or "shortest",
            interpolation=fields.interpolation("interpolation") or "bicubic",
            fill="black",
            mean=fields.channels("mean") or CLIP_MEAN,
            std=fields.channels("std", positive=True) or CLIP_STD,
        )

    @classmethod
    def from_huggingface(cls, cfg: JsonObject, image_size: int | None = None) -> Preprocessing:
        """The preprocessing of a preprocessor_config.json of transformers 4.17 or newer; see docs/preprocessing.md.

        Args:
            cfg: the fields of the file.
            image_size: of config.json; used if the file has no size.

        Raises:
            ValueError: transformers does not know a value, or it is not valid; the message has the name of the field.
        """
        fields = _Fields(cfg)
        kind = str(cfg.get("image_processor_type") or cfg.get("feature_extractor_type") or "")
        dino, newer = kind.startswith("DINOv3"), bool(cfg.get("image_processor_type"))
        usual = (INCEPTION_MEAN, INCEPTION_STD) if newer and not dino else (IMAGENET_MEAN, IMAGENET_STD)
        mean, std = fields.channels("image_mean") or usual[0], fields.channels("image_std", positive=True) or usual[1]
        scale = fields.number("rescale_factor", positive=True) or 1 / 255
        normalized = fields.switch("do_normalize")
        default = image_size if image_size is not None else SQUASH_FROM if newer and not dino else 224
        resize, size, resize_to = _huggingface_shape(kind, default, fields)
        return cls(
            size=size,
            resize_to=resize_to,
            resize=resize,
            interpolation=fields.interpolation("resample") or ("bilinear" if dino else "bicubic"),
            crop_offset="floor",
            float_resize=dino,
            rescale=scale if fields.switch("do_rescale") else 1.0,
            mean=mean if normalized else (0.0,) * 3,
            std=std if normalized else (1.0,) * 3,
        )


def _huggingface_shape(kind: str, default: int, fields: _Fields) -> tuple[Resize, Edges, Edges]:
    """Resize, size and resize_to. ``kind`` is the class that wrote the file; "" if unknown."""
    crop_pct = fields.share("crop_pct") or 224 / 256
    crop = fields.size("crop_size") if fields.switch("do_center_crop", default=False) else None
    edges = fields.size("size") or _edges("image_size", default)
    size = fields.values.get("size")
    if not fields.switch("do_resize"):
        return "none", edges, edges
    if isinstance(size, dict) and "shortest_edge" not in size:  # height and width: a plain warp
        return "squash", crop or edges, edges
    if kind and not kind.startswith("ConvNext"):  # another family's processor: an integer is a square, an edge an edge
        if isinstance(size, dict) or crop:
            return "shortest", crop or edges, edges
        return "squash", edges, edges
    if edges[0] >= SQUASH_FROM:
        return "squash", crop or edges, edges
    to = int(edges[0] / crop_pct)
    return "shortest", crop or edges, (to, to)


class _Fields:
    """The fields of a library's file, each checked when it is read; None where it is missing or null."""

    def __init__(self, values: JsonObject) -> None:
        self.values = values

    def size(self, name: str) -> tuple[int, int] | None:
        return None if self.values.get(name) is None else _edges(name, self.values[name])

    def share(self, name: str) -> float | None:
        value = self.number(name, positive=True)
        if value is not None and value > 1:
            raise ValueError(f"{name} must be at most 1, not {value!r}")
        if value is not None and value < _CROP_LEAST:
            raise ValueError(f"{name} must be at least {_CROP_LEAST:g}, not {value!r}")
        return value

    def number(self, name: str, *, positive: bool = False) -> float | None:
        value = self.values.get(name)
        return None if value is None else _number(name, value, positive=positive)

    def channels(self, name: str, *, positive: bool = False) -> tuple[float, ...] | None:
        value = self.values.get(name)
        return None if value is None else _channels(name, value, positive=positive)

    def interpolation(self, name: str) -> Interpolation | None:
        """timm's "random" is for training, and counts as missing."""
        value = self.values.get(name)
        return None if value is None or value == "random" else _interpolation(name, value)

    def one_of(self, name: str, choices: Iterable[Choice]) -> Choice | None:
        value = self.values.get(name)
        return None if value is None else _one_of(name, value, tuple(choices))

    def switch(self, name: str, *, default: bool = True) -> bool:
        value = self.values.get(name)
        return default if value is None else _one_of(name, value, (True, False))


def _edges(name: str, size: JsonValue, most: int = MOST) -> tuple[int, int]:
    """(height, width) from 224, [3, 224, 224], [224, 224], {"height": 224, "width": 224} or {"shortest_edge": 224}."""
    edges: tuple[JsonValue, ...]
    if isinstance(size, dict):
        edge = size.get("shortest_edge")
        edges = (edge, edge) if edge is not None else (size.get("height"), size.get("width"))
    elif isinstance(size, list | tuple):
        edges = tuple(size[-2:])
    else:
        edges = (size, size)
    are_valid = [isinstance(e, int | float) and not isinstance(e, bool) and e % 1 == 0 and 0 < e <= most for e in edges]
    if are_valid != [True, True]:
        raise ValueError(f"{name} must be whole numbers of pixels from 1 to {most}, not {size!r}")
    return int(edges[0]), int(edges[1])


def _before_crop(size: tuple[int, int], crop_pct: float) -> tuple[int, int]:
    if not crop_pct > 0:
        raise ValueError(f"crop_pct must be above 0, not {crop_pct!r}")
    if crop_pct < _CROP_LEAST:
        raise ValueError(f"crop_pct must be at least {_CROP_LEAST:g}, not {crop_pct!r}")
    return math.floor(size[0] / crop_pct), math.floor(size[1] / crop_pct)


def _number(name: str, value: JsonValue, *, positive: bool = False) -> float:
    value = value.item() if hasattr(value, "item") else value
    if not isinstance(value, int | float) or isinstance(value, bool) or not abs(value) <= sys.float_info.max:
        raise ValueError(f"{name} must be a finite number, not {value!r}")
    if positive and value <= 0:
        raise ValueError(f"{name} must be above 0, not {value!r}")
    return float(value)


def _channels(name: str, value: JsonValue, *, positive: bool = False) -> tuple[float, ...]:
    """Three numbers, from three or from one; lists, tuples and arrays."""
    value = value.tolist() if hasattr(value, "tolist") else value
    values = tuple(value) if isinstance(value, list | tuple) else (value,) * 3
    if len(values) != 3:
        raise ValueError(f"{name} must be one number or three, not {value!r}")
    numbers = tuple(_number(name, entry, positive=positive) for entry in values)
    low, high = _STD_LIMITS if positive else _MEAN_LIMITS
    if not all(low <= number <= high for number in numbers):
        raise ValueError(f"{name} must be from {low:g} to {high:g}, not {value!r}")
    return numbers


def _interpolation(name: str, value: JsonValue) -> Interpolation:
    """From a name or Pillow's number."""
    if isinstance(value, int) and not isinstance(value, bool) and 0 <= value < len(INTERPOLATIONS):
        return INTERPOLATIONS[value]
    return _one_of(name, value, INTERPOLATIONS)


def _one_of(name: str, value: JsonValue, choices: Sequence[Choice]) -> Choice:
    if not isinstance(value, str | bool) or value not in choices:
        raise ValueError(f"{name} must be one of {', '.join(map(str, choices))}, not {value!r}")
    return choices[choices.index(value)]
