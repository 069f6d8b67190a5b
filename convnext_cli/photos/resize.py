"""The pixel work of a Preprocessing: resize, crop, pad, normalise.

Pillow resizes bytes, as timm, torchvision and the authors' code do on photos: in two passes, each rounded to bytes,
antialiased when it shrinks. Torch resizes floats, as DINOv3's processor does.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from PIL import Image

from convnext_cli.model.preprocessing import Preprocessing
from convnext_cli.photos.close_resize import closely_resized_part
from convnext_cli.photos.colour import in_srgb
from convnext_cli.photos.photo import Decoded
from convnext_cli.photos.resampling import resized_box, resized_part, roughly_resized_part

if TYPE_CHECKING:
    Floats = np.ndarray[Any, np.dtype[np.float32]]
    Bytes = np.ndarray[Any, np.dtype[np.uint8]]

# A photo like a thread (1 × 60,000 pixels) grows by its ratio of sides when its short side is brought to 256. Above
# this many pixels of the result, Pillow is given the part that the crop keeps. Values may then differ by one of 255
# levels, and by more where Pillow runs its two passes in the other order.
WHOLE_BELOW = 16_000_000

# How bytes are resized. "exact": as Pillow does. "close": by a quicker kernel, which rounds differently. "rough": by
# Pillow, which shrinks large images by whole factors first.
Method = Literal["exact", "close", "rough"]
_RESIZE = {"exact": resized_part, "close": closely_resized_part, "rough": roughly_resized_part}


def apply_preprocessing(
    preprocessing: Preprocessing, photo: Decoded | Image.Image, *, method: Method = "exact"
) -> Floats:
    """The tensor of a photo: resized, cropped, turned upright, converted to sRGB and normalised.

    Args:
        preprocessing: the model's preprocessing.
        photo: decoded, or an image that is upright, in sRGB and in mode RGB.
        method: how bytes are resized. "close" is for preprocessing that ``close_resize.no_kernel`` allows.

    Returns:
        float32 (3, height, width).

    Raises:
        ValueError: the image is not in mode RGB.
    """
    decoded = photo if isinstance(photo, Decoded) else Decoded.upright(photo)
    if preprocessing.float_resize:
        return _normalised(_cropped(_resized_floats(preprocessing, decoded), preprocessing), preprocessing, rescale=1.0)
    return _normalised(as_bytes(preprocessing, decoded, method=method), preprocessing, rescale=preprocessing.rescale)


def as_bytes(preprocessing: Preprocessing, photo: Decoded | Image.Image, *, method: Method = "exact") -> Bytes:
    """Resize and crop a photo as bytes, (height, width, 3), without normalising it.

    Args:
        preprocessing: one that resizes bytes.
        photo, method: as for ``apply_preprocessing``.
    """
    decoded = photo if isinstance(photo, Decoded) else Decoded.upright(photo)
    return _cropped(_resized_bytes(preprocessing, decoded, method), preprocessing)  # type: ignore[no-any-return]


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


def tensor_box(preprocessing: Preprocessing, height: int, width: int) -> tuple[float, float, float, float]:
    """Where the edges of the tensor are in the photo: (left, top, right, bottom) in pixels of the upright photo.

    They are outside the photo where the tensor is padded.
    """
    if preprocessing.resize == "none":
        return 0.0, 0.0, float(width), float(height)
    edges = []
    for edge, resized, size in zip(
        (width, height),
        reversed(resized_size(preprocessing, height, width)),
        reversed(preprocessing.size),
        strict=True,
    ):
        cropped, padded = _offsets(preprocessing, resized, size)
        edges.append([(cropped - padded + end) * edge / resized for end in (0, size)])
    (left, right), (top, bottom) = edges
    return left, top, right, bottom


def _offsets(preprocessing: Preprocessing, have: int, want: int) -> tuple[int, int]:
    """Along one edge, the start of the crop in the photo, and the start of the photo in the result."""
    excess = have - want
    if excess >= 0:
        return (excess // 2 if preprocessing.crop_offset == "floor" else round(excess / 2)), 0
    # transformers' array code pads the odd pixel before, torchvision after
    return 0, (-(excess // 2) if preprocessing.crop_offset == "floor" else -excess // 2)


def _resized_bytes(preprocessing: Preprocessing, photo: Decoded, method: Method) -> Bytes:
    """Resize to (height, width, 3): as large as ``resized_size``, or already cropped to the preprocessing's size.

    The profile is applied at the end, to the pixels that are left.
    """
    if preprocessing.resize == "none":
        return np.asarray(photo.image)
    full_width, full_height = photo.size
    height, width = resized_size(preprocessing, full_height, full_width)
    top, _ = _offsets(preprocessing, height, preprocessing.size[0])
    left, _ = _offsets(preprocessing, width, preprocessing.size[1])
    bottom, right = min(height, top + preprocessing.size[0]), min(width, left + preprocessing.size[1])
    if height * width > WHOLE_BELOW:
        down, across = full_height / height, full_width / width
        box = (left * across, top * down, min(right * across, full_width), min(bottom * down, full_height))
        image = resized_box(photo.pixels, photo.turn, (right - left, bottom - top), preprocessing.interpolation, box)
    else:
        part = (left, top, right, bottom)
        image = _RESIZE[method](photo.pixels, photo.turn, (width, height), preprocessing.interpolation, part)
    return np.asarray(in_srgb(image, photo.transform))


def _resized_floats(preprocessing: Preprocessing, photo: Decoded) -> Floats:
    """Resize floats, (height, width, 3), which are rescaled before.

    A profile is applied before the resize, because it is applied to bytes.
    """
    pixels = photo.turn.upright_view(np.asarray(in_srgb(photo.pixels, photo.transform)))
    values = pixels.astype(np.float32, order="C") * np.float32(preprocessing.rescale)
    height, width = resized_size(preprocessing, *values.shape[:2])
    if (height, width) == values.shape[:2]:
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
