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
# this many pixels only the part that the crop keeps is made. Values may then differ by one of 255 levels, and by more
# where Pillow runs its two passes in the other order.
WHOLE_BELOW = 16_000_000


def apply_preprocessing(preprocessing: Preprocessing, image: Image.Image, *, fast: bool = False) -> Floats:
    """The tensor of a photo: resized, cropped and normalised.

    Args:
        preprocessing: the model's preprocessing.
        image: upright, in mode RGB.
        fast: shrink large images roughly first, by whole factors: quicker, not exact.

    Returns:
        float32 (3, height, width).

    Raises:
        ValueError: the image is not in mode RGB.
    """
    if image.mode != "RGB":
        raise ValueError(f"the image must be in mode RGB, not {image.mode}")
    if preprocessing.float_resize:
        return _normalised(_cropped(_resized_floats(preprocessing, image), preprocessing), preprocessing, rescale=1.0)
    return _normalised(as_bytes(preprocessing, image, fast=fast), preprocessing, rescale=preprocessing.rescale)


def as_bytes(preprocessing: Preprocessing, image: Image.Image, *, fast: bool = False) -> Bytes:
    """Resize and crop a photo as bytes, (height, width, 3), without normalising it.

    Args:
        preprocessing: one that resizes bytes.
        image: upright, in mode RGB.
        fast: as for ``apply_preprocessing``.
    """
    return _cropped(_resized_bytes(preprocessing, image, fast), preprocessing)  # type: ignore[no-any-return]


def apply_floats(preprocessing: Preprocessing, values: Floats) -> Floats:
    """The tensor of an array of floats (height, width, 3), which is not rounded to bytes.

    torchvision resizes it, as in transformers' processor.

    Raises:
        ValueError: torchvision does not have the filter for floats.
    """
    import torch
    from torchvision.transforms.v2 import InterpolationMode
    from torchvision.transforms.v2.functional import resize

    if preprocessing.interpolation not in ("nearest", "bilinear", "bicubic"):
        raise ValueError(
            f"floats cannot be resized with {preprocessing.interpolation}; use nearest, bilinear or bicubic"
        )
    size = resized_size(preprocessing, *values.shape[:2])
    if size != values.shape[:2]:
        planes = torch.from_numpy(np.ascontiguousarray(values.transpose(2, 0, 1)))
        planes = resize(planes, list(size), InterpolationMode(preprocessing.interpolation), antialias=True)
        values = planes.numpy().transpose(1, 2, 0)
    return _normalised(_cropped(values, preprocessing), preprocessing, rescale=preprocessing.rescale)


def resized_size(preprocessing: Preprocessing, height: int, width: int) -> tuple[int, int]:
    """(height, width) of a photo after the resize and before the crop.

    The long side is cut to a whole number by torchvision and transformers, and rounded by timm's resize that keeps the
    ratio (for "longest" and for edges that differ).
    """
    to_height, to_width = preprocessing.resize_to
    if preprocessing.resize == "none":
        return height, width
    if preprocessing.resize == "squash":
        return to_height, to_width
    if preprocessing.resize == "shortest" and to_height == to_width:
        if width <= height:
            return int(to_height * height / width), to_height
        return to_height, int(to_height * width / height)
    pick = max if preprocessing.resize == "longest" else min
    ratio = pick(height / to_height, width / to_width)
    return max(1, round(height / ratio)), max(1, round(width / ratio))


def _offsets(preprocessing: Preprocessing, have: int, want: int) -> tuple[int, int]:
    """Along one edge, the start of the crop in the photo, and the start of the photo in the result."""
    excess = have - want
    if excess >= 0:
        return (excess // 2 if preprocessing.crop_offset == "floor" else round(excess / 2)), 0
    # transformers' array code pads the odd pixel before, torchvision after
    return 0, (-(excess // 2) if preprocessing.crop_offset == "floor" else -excess // 2)


def _resized_bytes(preprocessing: Preprocessing, image: Image.Image, fast: bool) -> Bytes:
    """Resize to (height, width, 3): as large as ``resized_size``, or already cropped to the preprocessing's size."""
    height, width = resized_size(preprocessing, image.height, image.width)
    filter = Image.Resampling[preprocessing.interpolation.upper()]
    if preprocessing.resize == "none":
        return np.asarray(image)
    top, _ = _offsets(preprocessing, height, preprocessing.size[0])
    left, _ = _offsets(preprocessing, width, preprocessing.size[1])
    bottom, right = min(height, top + preprocessing.size[0]), min(width, left + preprocessing.size[1])
    if height * width > WHOLE_BELOW:
        down, across = image.height / height, image.width / width
        box = (left * across, top * down, min(right * across, image.width), min(bottom * down, image.height))
        return np.asarray(image.resize((right - left, bottom - top), filter, box))
    if (width, height) != image.size:
        image = image.resize((width, height), filter, reducing_gap=4.0 if fast else None)
    return np.asarray(image.crop((left, top, right, bottom)))


def _resized_floats(preprocessing: Preprocessing, image: Image.Image) -> Floats:
    """Resize floats, (height, width, 3), which are rescaled before."""
    values = np.asarray(image).astype(np.float32) * np.float32(preprocessing.rescale)
    height, width = resized_size(preprocessing, image.height, image.width)
    if (width, height) == image.size:
        return values
    # Pillow could resize floats too, but with weights in float64: up to 5e-5 away from torch, which is the reference.
    import torch
    from torch.nn.functional import interpolate

    planes = torch.from_numpy(np.ascontiguousarray(values.transpose(2, 0, 1)))[None]
    smooth = preprocessing.interpolation in ("bilinear", "bicubic")
    mode = preprocessing.interpolation if smooth else "nearest-exact"
    resized: Floats = interpolate(planes, (height, width), mode=mode, antialias=smooth)[0].numpy()
    return resized.transpose(1, 2, 0)


def _cropped(pixels: Any, preprocessing: Preprocessing) -> Any:
    """Crop to the middle of the preprocessing's size, and pad where the photo is smaller."""
    if preprocessing.resize == "none" or pixels.shape[:2] == preprocessing.size:
        return pixels
    height, width = preprocessing.size
    top, down = _offsets(preprocessing, pixels.shape[0], height)
    left, across = _offsets(preprocessing, pixels.shape[1], width)
    part = pixels[top : top + height, left : left + width]
    if part.shape[:2] == preprocessing.size:
        return part
    padded = np.zeros((height, width, 3), pixels.dtype)
    if preprocessing.resize == "longest" and preprocessing.fill == "mean":
        padded[:] = [round(255 * mean) for mean in preprocessing.mean]
    padded[down : down + part.shape[0], across : across + part.shape[1]] = part
    return padded


def _normalised(pixels: Any, preprocessing: Preprocessing, rescale: float) -> Floats:
    """(3, height, width) float32: (pixels * rescale - mean) / std, with one rounding less than in that order."""
    mean, std = np.array(preprocessing.mean), np.array(preprocessing.std)
    scale = (rescale / std).astype(np.float32)
    shift = (mean / std).astype(np.float32)
    planes: Floats = np.multiply(pixels.transpose(2, 0, 1), scale[:, None, None], dtype=np.float32, order="C")
    planes -= shift[:, None, None]
    return planes
