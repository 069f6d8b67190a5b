"""The weights of Pillow's resize along one axis, as it rounds them to whole numbers.

They tell where a resize of a part, or of mirrored pixels, gives the same bits as a resize of the whole (Resample.c in
Pillow: precompute_coeffs and normalize_coeffs_8bpc).
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

Floats = np.ndarray[Any, np.dtype[np.float64]]
Integers = np.ndarray[Any, np.dtype[np.int64]]

_PRECISION = float(1 << 22)  # Pillow's weights are multiples of 1 / _PRECISION
_A = -0.5  # of the bicubic filter


def _box(x: Floats) -> Floats:
    return ((x > -0.5) & (x <= 0.5)).astype(np.float64)


def _bilinear(x: Floats) -> Floats:
    return np.maximum(0.0, 1.0 - np.abs(x))


def _hamming(x: Floats) -> Floats:
    return np.where(np.abs(x) < 1.0, np.sinc(x) * (0.54 + 0.46 * np.cos(x * np.pi)), 0.0)


def _bicubic(x: Floats) -> Floats:
    x = np.abs(x)
    near = ((_A + 2.0) * x - (_A + 3.0)) * x * x + 1
    far = (((x - 5) * x + 8) * x - 4) * _A
    return np.where(x < 1.0, near, np.where(x < 2.0, far, 0.0))


def _lanczos(x: Floats) -> Floats:
    return np.where((x >= -3.0) & (x < 3.0), np.sinc(x) * np.sinc(x / 3), 0.0)


# Pillow's filters, and how far they reach. "nearest" is none of them: it takes single pixels.
_FILTERS: dict[str, tuple[Callable[[Floats], Floats], float]] = {
    "box": (_box, 0.5),
    "bilinear": (_bilinear, 1.0),
    "hamming": (_hamming, 1.0),
    "bicubic": (_bicubic, 2.0),
    "lanczos": (_lanczos, 3.0),
}


@dataclass(frozen=True, slots=True)
class Axis:
    """A resize along one axis.

    Args:
        source: pixels of the photo.
        target: pixels of the result.
        start, end: the part of the photo that is resized; Pillow rounds them to float32.
    """

    source: int
    target: int
    start: float
    end: float

    @classmethod
    def whole(cls, source: int, target: int) -> Axis:
        """The resize of a whole photo."""
        return cls(source, target, 0.0, float(source))

    @property
    def is_whole(self) -> bool:
        """Whether the whole photo is resized."""
        return (self.start, self.end) == (0.0, float(self.source))

    @property
    def does_nothing(self) -> bool:
        """Whether the result is the photo itself."""
        return self.is_whole and self.target == self.source

    @property
    def scale(self) -> float:
        """Pixels of the photo for each of the result."""
        return float(np.float32(self.end) - np.float32(self.start)) / self.target

    def centers(self, outputs: Integers) -> Floats:
        """The places in the photo of pixels of the result."""
        return np.asarray(float(np.float32(self.start)) + (outputs + 0.5) * self.scale, np.float64)


def used_pixels(axis: Axis, low: int, high: int, interpolation: str) -> tuple[int, int]:
    """The first pixel of the photo, and the one behind the last, of which some pixels of a result are made.

    Args:
        axis: the resize.
        low, high: the first of these pixels of the result, and the one behind the last.
        interpolation: the name of Pillow's filter.
    """
    if axis.does_nothing:
        return low, high
    reach = 1.0 if interpolation == "nearest" else _FILTERS[interpolation][1] * max(axis.scale, 1.0)
    first, last = axis.centers(np.array([low, high - 1]))
    return max(0, int(first - reach) - 1), min(axis.source, int(last + reach) + 2)


@functools.lru_cache(maxsize=512)
def gives_same_bits(
    axis: Axis, low: int, high: int, other: Axis, skip: int, interpolation: str, mirrored: bool
) -> bool:
    """Whether another resize has the weights of a part of a resize, so that it gives the same bits.

    Args:
        axis: the resize to be matched.
        low, high: the first pixel of its result that is needed, and the one behind the last.
        other: the other resize, of a photo of the same size.
        skip: pixels of its result before the needed ones.
        interpolation: the name of Pillow's filter.
        mirrored: whether the other resize takes the photo in the reverse order, and gives its result so.

    Returns:
        True only where the weights are equal however a compiler orders the arithmetic; False where that is not sure.
    """
    outputs = np.arange(low, high)
    others = outputs - low + skip
    if mirrored:
        others = others[::-1]
    if interpolation == "nearest":
        return not mirrored and axis == other and low == skip
    first, behind = _windows(axis, outputs, interpolation)
    other_first, other_behind = _windows(other, others, interpolation)
    if mirrored:
        other_first, other_behind = axis.source - other_behind, axis.source - other_first
    first, behind = np.minimum(first, other_first), np.maximum(behind, other_behind)
    positions = first[:, None] + np.arange(int((behind - first).max()))
    weights = _weights(axis, outputs, positions, interpolation)
    other_positions = axis.source - 1 - positions if mirrored else positions
    other_weights = _weights(other, others, other_positions, interpolation)
    if weights is None or other_weights is None:
        return False
    return bool(np.array_equal(weights, other_weights))


def _windows(axis: Axis, outputs: Integers, interpolation: str) -> tuple[Integers, Integers]:
    """For each pixel of the result, the first pixel of the photo that has a weight, and the one behind the last."""
    reach = _FILTERS[interpolation][1] * max(axis.scale, 1.0)
    centers = axis.centers(outputs)
    first = np.maximum((centers - reach + 0.5).astype(np.int64), 0)
    behind = np.minimum((centers + reach + 0.5).astype(np.int64), axis.source)
    return first, behind


def _weights(axis: Axis, outputs: Integers, positions: Integers, interpolation: str) -> Integers | None:
    """The whole-number weights of pixels of a photo, or None where one of them might be rounded the other way.

    Args:
        axis: the resize.
        outputs: (N,) pixels of the result.
        positions: (N, K) pixels of the photo.
        interpolation: the name of Pillow's filter.
    """
    function, _ = _FILTERS[interpolation]
    step = max(axis.scale, 1.0)
    first, behind = _windows(axis, outputs, interpolation)
    places = (positions - axis.centers(outputs)[:, None] + 0.5) * (1.0 / step)
    exact = function(places)
    exact[(positions < first[:, None]) | (positions >= behind[:, None])] = 0.0
    if interpolation == "box" and (np.abs(np.abs(places) - 0.5) < 1e-9).any():
        return None  # it jumps there
    total = exact.sum(axis=1, keepdims=True)
    exact = np.divide(exact, total, out=exact, where=total != 0) * _PRECISION
    # the error of a center in float64, times the slope of the filters, with room for another order of operations
    doubt = 16 * _PRECISION * np.finfo(np.float64).eps * (axis.source / step**2 + 1)
    magnitude = np.abs(exact)
    if (np.abs(magnitude - np.floor(magnitude) - 0.5) < doubt).any():
        return None
    return np.asarray(np.sign(exact) * np.floor(magnitude + 0.5), np.int64)
