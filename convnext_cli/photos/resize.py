"""The pixel work of a Preprocessing: resize, crop, pad, normalise.

Pillow resizes bytes, as timm, torchvision and the authors' code do on photos: in two passes, each rounded to bytes,
antialiased when it shrinks. Torch resizes floats, as DINOv3's processor does.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from convnext_cli.model.preprocessing import Preprocessing

if TYPE_CHECKING:
    Floats = np.ndarray[Any, np.dtype[np.float32]]
    Bytes = np.ndarray[Any, np.dtype[np.uint8]]

# A photo like a thread (1 × 60,000 pixels) grows by its ratio of sides when its short side is brought to 256. Above
# this many pixels only the part is made that the crop keeps; a level of 255 more or less is the price, and more where
# Pillow then takes its two passes in the other order.
WHOLE_BELOW = 16_000_000


def apply_preprocessing(recipe: Preprocessing, image: Image.Image, *, fast: bool = False) -> Floats:
    """The tensor of a photo: resized, cropped and normalised.

    Args:
        recipe: the model's preprocessing.
        image: upright, in mode RGB.
        fast: shrink large images roughly first, by whole factors: quicker, not exact.

    Returns:
        float32 (3, height, width).

    Raises:
        ValueError: the image is not in mode RGB.
    """
    if image.mode != "RGB":
        raise ValueError(f"a recipe takes images in mode RGB, not {image.mode}")
    if recipe.float_resize:
        return _normalised(_cropped(_resized_floats(recipe, image), recipe), recipe, rescale=1.0)
    return _normalised(as_bytes(recipe, image, fast=fast), recipe, rescale=recipe.rescale)


def as_bytes(recipe: Preprocessing, image: Image.Image, *, fast: bool = False) -> Bytes:
    """(height, width, 3): resized and cropped, before it is normalised; of a recipe that resizes bytes."""
    return _cropped(_resized_bytes(recipe, image, fast), recipe)  # type: ignore[no-any-return]


def apply_floats(recipe: Preprocessing, values: Floats) -> Floats:
    """The same for an array of floats (height, width, 3), which nothing rounds to bytes.

    torchvision resizes, as transformers' processor does. Raises ValueError for a filter that it lacks for floats.
    """
    import torch
    from torchvision.transforms.v2 import InterpolationMode
    from torchvision.transforms.v2.functional import resize

    if recipe.interpolation not in ("nearest", "bilinear", "bicubic"):
        raise ValueError(f"floats cannot be resized with {recipe.interpolation}; use nearest, bilinear or bicubic")
    size = resized_size(recipe, *values.shape[:2])
    if size != values.shape[:2]:
        planes = torch.from_numpy(np.ascontiguousarray(values.transpose(2, 0, 1)))
        planes = resize(planes, list(size), InterpolationMode(recipe.interpolation), antialias=True)
        values = planes.numpy().transpose(1, 2, 0)
    return _normalised(_cropped(values, recipe), recipe, rescale=recipe.rescale)


def resized_size(recipe: Preprocessing, height: int, width: int) -> tuple[int, int]:
    """(height, width) of a photo after the resize and before the crop.

    The long side is cut to a whole number by torchvision and transformers, and rounded by timm's resize that keeps the
    ratio (for "longest" and for edges that differ).
    """
    to_height, to_width = recipe.resize_to
    if recipe.resize == "none":
        return height, width
    if recipe.resize == "squash":
        return to_height, to_width
    if recipe.resize == "shortest" and to_height == to_width:
        if width <= height:
            return int(to_height * height / width), to_height
        return to_height, int(to_height * width / height)
    pick = max if recipe.resize == "longest" else min
    ratio = pick(height / to_height, width / to_width)
    return max(1, round(height / ratio)), max(1, round(width / ratio))


def _offsets(recipe: Preprocessing, have: int, want: int) -> tuple[int, int]:
    """Where along one edge the crop begins in the photo, and where the photo begins in the result."""
    excess = have - want
    if excess >= 0:
        return (excess // 2 if recipe.crop_offset == "floor" else round(excess / 2)), 0
    # transformers' array code pads the odd pixel before, torchvision after
    return 0, (-(excess // 2) if recipe.crop_offset == "floor" else -excess // 2)


def _resized_bytes(recipe: Preprocessing, image: Image.Image, fast: bool) -> Bytes:
    """(height, width, 3): as large as ``resized_size`` says, or already cropped to no more than the recipe's size."""
    height, width = resized_size(recipe, image.height, image.width)
    filter = Image.Resampling[recipe.interpolation.upper()]
    if recipe.resize == "none":
        return np.asarray(image)
    top, _ = _offsets(recipe, height, recipe.size[0])
    left, _ = _offsets(recipe, width, recipe.size[1])
    bottom, right = min(height, top + recipe.size[0]), min(width, left + recipe.size[1])
    if height * width > WHOLE_BELOW:
        down, across = image.height / height, image.width / width
        box = (left * across, top * down, min(right * across, image.width), min(bottom * down, image.height))
        return np.asarray(image.resize((right - left, bottom - top), filter, box))
    if (width, height) != image.size:
        image = image.resize((width, height), filter, reducing_gap=4.0 if fast else None)
    return np.asarray(image.crop((left, top, right, bottom)))


def _resized_floats(recipe: Preprocessing, image: Image.Image) -> Floats:
    """(height, width, 3), rescaled before the resize."""
    values = np.asarray(image).astype(np.float32) * np.float32(recipe.rescale)
    height, width = resized_size(recipe, image.height, image.width)
    if (width, height) == image.size:
        return values
    # Pillow could resize floats too, but with weights in float64: up to 5e-5 away from torch, whose answer is wanted.
    import torch
    from torch.nn.functional import interpolate

    planes = torch.from_numpy(np.ascontiguousarray(values.transpose(2, 0, 1)))[None]
    smooth = recipe.interpolation in ("bilinear", "bicubic")
    mode = recipe.interpolation if smooth else "nearest-exact"
    resized: Floats = interpolate(planes, (height, width), mode=mode, antialias=smooth)[0].numpy()
    return resized.transpose(1, 2, 0)


def _cropped(pixels: Any, recipe: Preprocessing) -> Any:
    """The middle (height, width) of the recipe, padded where the photo is smaller."""
    if recipe.resize == "none" or pixels.shape[:2] == recipe.size:
        return pixels
    height, width = recipe.size
    top, down = _offsets(recipe, pixels.shape[0], height)
    left, across = _offsets(recipe, pixels.shape[1], width)
    part = pixels[top : top + height, left : left + width]
    if part.shape[:2] == recipe.size:
        return part
    padded = np.zeros((height, width, 3), pixels.dtype)
    if recipe.resize == "longest" and recipe.fill == "mean":
        padded[:] = [round(255 * mean) for mean in recipe.mean]
    padded[down : down + part.shape[0], across : across + part.shape[1]] = part
    return padded


def _normalised(pixels: Any, recipe: Preprocessing, rescale: float) -> Floats:
    """(3, height, width) float32: (pixels * rescale - mean) / std, with one rounding less than in that order."""
    mean, std = np.array(recipe.mean), np.array(recipe.std)
    scale = (rescale / std).astype(np.float32)
    shift = (mean / std).astype(np.float32)
    planes: Floats = np.multiply(pixels.transpose(2, 0, 1), scale[:, None, None], dtype=np.float32, order="C")
    planes -= shift[:, None, None]
    return planes
