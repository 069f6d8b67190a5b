"""Resizing of bytes by torch's antialiasing kernel, for ``--pixels close`` and ``fast``.

It resizes along x and then y in whole numbers, as Pillow does, but rounds its weights to 16 bits rather than 22: about
one value in a thousand differs by one of 255 levels. It is many times as fast.
"""

from __future__ import annotations

import functools
import warnings
from typing import TYPE_CHECKING

import numpy as np

from convnext_cli.model.preprocessing import Preprocessing
from convnext_cli.photos.resampling import first_axis

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from PIL import Image

    from convnext_cli.photos.turning import Box, Size, Turn

    Pixels = NDArray[np.uint8]

_FILTERS = ("bilinear", "bicubic")
# Pixels that are resized at a time: with all of them, a large photo would not stay in the processor's cache.
_STRIP = 2**18
_REACH = 2  # pixels on each side that bicubic takes into account, at the scale of the smaller picture


def no_kernel(preprocessing: Preprocessing) -> str | None:
    """Why the kernel cannot do this preprocessing, in words; None where it can."""
    if preprocessing.resize == "none":
        return "this model takes photos at their own size"
    if preprocessing.float_resize:
        return "this model resizes photos as floats, which is exact already"
    if preprocessing.interpolation not in _FILTERS:
        return f"its kernel resizes with {' or '.join(_FILTERS)}, and this model with {preprocessing.interpolation}"
    return None


@functools.cache
def load_kernel() -> None:
    """Import torch, which takes seconds and must not count as the time of a photo."""
    import torch

    with warnings.catch_warnings():  # torch warns once that a tensor of bytes must not be written to
        warnings.simplefilter("ignore")
        torch.from_numpy(np.frombuffer(b"\0", np.uint8))


def closely_resized_part(image: Image.Image, turn: Turn, size: Size, interpolation: str, part: Box) -> Image.Image:
    """Nearly the bits of ``resampling.resized_part``.

    Args:
        image, turn, size, interpolation, part: as for ``resampling.resized_part``.
    """
    from PIL import Image as pil

    width, height = turn.upright_size(size)
    left, top, right, bottom = turn.stored_box(part, (width, height))
    # in the order of the exact resize: in the other one, every tenth value would be rounded differently
    if turn.stored_axis(first_axis(turn.upright_size(image.size), size)) == 1:
        narrow = _first_pass(image, 1, height, _used(image.width, width, left, right), interpolation)
    else:
        narrow = _first_pass(image, 0, width, _used(image.height, height, top, bottom), interpolation)
    kept = _resize(narrow, height, width, interpolation)[top:bottom, left:right]
    return turn.upright(pil.fromarray(kept[:, :, 0] if image.mode == "L" else kept))


def _first_pass(image: Image.Image, axis: int, target: int, lines: tuple[int, int], interpolation: str) -> Pixels:
    """Resize along one axis; lines that are not needed stay black, so that the others keep their places.

    Args:
        image: in mode RGB or L.
        axis: x (0) or y (1).
        target: pixels of the result along it.
        lines: the first line that is needed, and the one behind the last.
        interpolation: the filter.
    """
    width, height = image.size
    channels = len(image.getbands())
    shape = (height, target, channels) if axis == 0 else (target, width, channels)
    result = np.zeros(shape, np.uint8)
    step = max(1, _STRIP // image.size[axis])
    for low in range(*lines, step):
        high = min(low + step, lines[1])
        box = (0, low, width, high) if axis == 0 else (low, 0, high, height)
        strip = _pixels(image.crop(box))
        if axis == 0:
            result[low:high] = _resize(strip, high - low, target, interpolation)[..., :channels]
        else:
            result[:, low:high] = _resize(strip, target, high - low, interpolation)[..., :channels]
    return result


def _pixels(image: Image.Image) -> Pixels:
    """The pixels as Pillow holds them, (height, width, 4) for RGB: the kernel would add a fourth channel itself."""
    data = image.tobytes("raw", "L" if image.mode == "L" else "RGBX")
    return np.frombuffer(data, np.uint8).reshape(image.height, image.width, -1)


def _used(source: int, target: int, low: int, high: int) -> tuple[int, int]:
    """The pixels of a line that the pixels ``low`` to ``high`` of the resized line depend on, and a few more."""
    scale = source / target
    reach = _REACH * max(scale, 1.0) + 1
    return max(0, int(low * scale - reach)), min(source, int(high * scale + reach) + 1)


def _resize(pixels: Pixels, height: int, width: int, interpolation: str) -> Pixels:
    """Resize (height, width, channels) by the kernel, which skips an axis whose size does not change."""
    load_kernel()
    import torch
    from torch.nn.functional import interpolate

    planes = torch.from_numpy(pixels).permute(2, 0, 1)[None]
    return interpolate(planes, (height, width), mode=interpolation, antialias=True)[0].permute(1, 2, 0).numpy()
