"""Pillow's resize, one pass at a time and equal to the bit, of only the part of a photo that a crop keeps.

Pillow resizes along one axis, rounds to bytes, and resizes along the other. So the first pass needs only the lines that
the second one uses, and a photo can be turned between the two, when it is small. Where the whole-number weights of a
part are those of the whole, the pass makes only that part.

``resized_part`` is the "exact" method of ``resize.as_bytes``, and ``roughly_resized_part`` the "rough" one;
``close_resize.py`` has the one between them.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from convnext_cli.photos.filter_weights import Axis, gives_same_bits, used_pixels
from convnext_cli.photos.turning import UPRIGHT, Box, Size, Turn

if TYPE_CHECKING:
    from PIL import Image

# Photos of at most so many pixels are turned and resized whole: nothing else would be faster.
WHOLE_UP_TO = 1_000_000
BAND_PIXELS = 1_000_000  # of the photo that are copied at a time; more are not faster
_Rule = Callable[[Size, Size], bool]


@dataclass(frozen=True, slots=True)
class _Pass:
    """A resize along one axis, as it is called.

    Args:
        axis: the resize.
        skip: pixels of its result before the needed ones.
        count: needed pixels of its result.
    """

    axis: Axis
    skip: int
    count: int

    def run(self, image: Image.Image, axis: int, interpolation: str) -> Image.Image:
        """The needed part of the result, along x (0) or y (1)."""
        from PIL import Image as pil

        lines = image.size[1 - axis]
        if not self.axis.does_nothing:
            size, box = (self.axis.target, lines), (self.axis.start, 0.0, self.axis.end, float(lines))
            if axis == 1:
                size, box = (lines, self.axis.target), (0.0, self.axis.start, float(lines), self.axis.end)
            image = image.resize(size, pil.Resampling[interpolation.upper()], box)
        kept = (self.skip, 0, self.skip + self.count, lines)
        if axis == 1:
            kept = (0, self.skip, lines, self.skip + self.count)
        return image if kept == (0, 0, *image.size) else image.crop(kept)


def resized_part(image: Image.Image, turn: Turn, size: Size, interpolation: str, part: Box) -> Image.Image:
    """The bits of ``turn.upright(image).resize(size, interpolation).crop(part)``.

    Args:
        image: stored pixels, of mode RGB or L.
        turn: how they become upright.
        size: (width, height) of the upright photo after the resize.
        interpolation: the name of Pillow's filter.
        part: (left, top, right, bottom) in the resized photo.
    """
    width, height = turn.upright_size(image.size)
    axes = (Axis.whole(width, size[0]), Axis.whole(height, size[1]))
    return _resized(image, turn, axes, interpolation, part)


def resized_box(
    image: Image.Image, turn: Turn, size: Size, interpolation: str, box: tuple[float, float, float, float]
) -> Image.Image:
    """The bits of ``turn.upright(image).resize(size, interpolation, box)``.

    Args:
        image: stored pixels, of mode RGB or L.
        turn: how they become upright.
        size: (width, height) of the result.
        interpolation: the name of Pillow's filter.
        box: (left, top, right, bottom) in the upright photo.
    """
    width, height = turn.upright_size(image.size)
    axes = (Axis(width, size[0], box[0], box[2]), Axis(height, size[1], box[1], box[3]))
    return _resized(image, turn, axes, interpolation, (0, 0, *size))


def roughly_resized_part(image: Image.Image, turn: Turn, size: Size, interpolation: str, part: Box) -> Image.Image:
    """Nearly the same as ``resized_part``: large images are first shrunk by whole factors, to the mean of their pixels.

    Args:
        image, turn, size, interpolation, part: as for ``resized_part``.
    """
    from PIL import Image as pil

    if image.width * image.height <= WHOLE_UP_TO:
        image, turn = turn.upright(image), UPRIGHT
    if turn.upright_size(image.size) != size:
        image = image.resize(turn.upright_size(size), pil.Resampling[interpolation.upper()], reducing_gap=4.0)
    return turn.upright(image.crop(turn.stored_box(part, image.size)))


def _resized(image: Image.Image, turn: Turn, axes: tuple[Axis, Axis], interpolation: str, part: Box) -> Image.Image:
    """``part`` of the resized upright photo, whose two axes are resized so."""
    rule = _order()
    if rule is None or image.width * image.height <= WHOLE_UP_TO:
        return _whole(turn.upright(image), axes, interpolation, part)
    spans = ((part[0], part[2]), (part[1], part[3]))
    first = int(rule((axes[0].source, axes[1].source), (axes[0].target, axes[1].target)))
    if axes[first].does_nothing:
        first = 1 - first
    second = 1 - first
    lines = used_pixels(axes[second], *spans[second], interpolation)
    narrow = _first_pass(image, turn, first, axes[first], spans[first], lines, interpolation)
    last = _exact_pass(axes[second], *spans[second], interpolation)
    assert last is not None
    return last.run(narrow, second, interpolation)


def _whole(upright: Image.Image, axes: tuple[Axis, Axis], interpolation: str, part: Box) -> Image.Image:
    """The same by a single resize."""
    from PIL import Image as pil

    x, y = axes
    if not (x.does_nothing and y.does_nothing):
        box = (x.start, y.start, x.end, y.end)
        upright = upright.resize((x.target, y.target), pil.Resampling[interpolation.upper()], box)
    return upright if part == (0, 0, *upright.size) else upright.crop(part)


def _first_pass(
    image: Image.Image,
    turn: Turn,
    axis: int,
    resize: Axis,
    span: tuple[int, int],
    lines: tuple[int, int],
    interpolation: str,
) -> Image.Image:
    """Some lines of the upright photo, resized along the other axis.

    Args:
        image: stored pixels.
        turn: how they become upright.
        axis: x (0) or y (1) of the upright photo.
        resize: the resize along it.
        span: the first pixel of its result that is needed, and the one behind the last.
        lines: the first line that is needed, and the one behind the last.
        interpolation: the name of Pillow's filter.

    Returns:
        As many lines as the upright photo has, so that each is in its place; those that are not needed are black.
    """
    from PIL import Image as pil

    stored_axis = turn.stored_axis(axis)
    stored = _exact_pass(resize, *span, interpolation, mirrored=turn.mirrors(stored_axis))
    upright = _exact_pass(resize, *span, interpolation)
    assert upright is not None
    count, length = span[1] - span[0], turn.upright_size(image.size)[1 - axis]
    result = pil.new(image.mode, (count, length) if axis == 0 else (length, count))
    step = max(1, BAND_PIXELS // resize.source)
    for low in range(*lines, step):
        high = min(low + step, lines[1])
        box = (0, low, resize.source, high) if axis == 0 else (low, 0, high, resize.source)
        band = image.crop(turn.stored_box(box, image.size))
        if stored is not None:
            band = turn.upright(stored.run(band, stored_axis, interpolation))
        else:  # resized in the other direction, some values would be rounded differently
            band = upright.run(turn.upright(band), axis, interpolation)
        result.paste(band, (0, low) if axis == 0 else (low, 0))
    return result


def _exact_pass(axis: Axis, low: int, high: int, interpolation: str, *, mirrored: bool = False) -> _Pass | None:
    """The least work that gives the bits of pixels ``low`` to ``high`` of a resize.

    Args:
        axis: the resize.
        low, high: the first pixel of its result that is needed, and the one behind the last.
        interpolation: the name of Pillow's filter.
        mirrored: the photo comes in the reverse order, and so does the result.

    Returns:
        None where mirrored pixels give other bits.
    """
    count, start, end = high - low, axis.start, axis.end
    needed = (low, high)
    if mirrored:
        low, high, start, end = axis.target - high, axis.target - low, axis.source - end, axis.source - start
    complete = Axis(axis.source, axis.target, start, end)
    if axis.does_nothing:
        return _Pass(complete, low, count)
    candidates = [(complete, low)]
    if axis.is_whole:
        candidates.insert(0, _smallest(axis, low, high))
    for other, skip in candidates:
        if other == axis and not mirrored:
            return _Pass(other, skip, count)
        if gives_same_bits(axis, *needed, other, skip, interpolation, mirrored):
            return _Pass(other, skip, count)
    return None


def _smallest(axis: Axis, low: int, high: int) -> tuple[Axis, int]:
    """The smallest part of a whole resize whose ends are fractions that float32 holds, and the pixels to skip in it.

    Args:
        axis: the resize of a whole photo.
        low, high: the first pixel of the result that is needed, and the one behind the last.
    """
    step = axis.target // math.gcd(axis.source, axis.target)
    step //= step & -step  # without the powers of two
    first, behind = low // step * step, -(-high // step) * step
    start, end = (edge * axis.source / axis.target for edge in (first, behind))
    return Axis(axis.source, behind - first, start, end), low - first


def first_axis(source: Size, target: Size) -> int:
    """The axis along which Pillow resizes first: x (0) or y (1).

    Args:
        source, target: (width, height) before and after.
    """
    rule = _order()
    return int(rule is not None and rule(source, target))


@functools.cache
def _order() -> _Rule | None:
    """Which pass Pillow runs first, as a function of the two sizes that is true for the vertical one.

    It depends on the version of Pillow, so some small pictures are tried. None where none of the known rules holds;
    photos are then resized whole.
    """
    import numpy as np
    from PIL import Image as pil

    def is_vertical_first(size: Size, to: Size) -> bool:
        noise = np.arange(size[0] * size[1]) ** 2 * 2_654_435_761 >> 13
        image = pil.fromarray(noise.astype(np.uint8).reshape(size[::-1]))
        expected = image.resize(to, pil.Resampling.BICUBIC)
        passes = [((size[0], to[1]), to), ((to[0], size[1]), to)]
        bits = [
            image.resize(between, pil.Resampling.BICUBIC).resize(end, pil.Resampling.BICUBIC).tobytes()
            for between, end in passes
        ]
        matches = [pixels == expected.tobytes() for pixels in bits]
        if matches == [True, False]:
            return True
        if matches == [False, True]:
            return False
        raise LookupError

    samples = [
        ((300, 200), (150, 25)),
        ((80, 200), (70, 25)),
        ((5, 501), (3, 90)),
        ((90, 90), (60, 29)),
        ((90, 90), (60, 31)),
    ]
    try:
        orders = [is_vertical_first(*sample) for sample in samples]
    except LookupError:
        return None
    rules = (_by_loss, _if_very_tall, _never)
    return next((rule for rule in rules if [rule(*sample) for sample in samples] == orders), None)


def _by_loss(size: Size, to: Size) -> bool:
    """Pillow 13: where the height loses more than twice as many pixels as the width."""
    return size[1] - to[1] > max(0, 2 * (size[0] - to[0]))


def _if_very_tall(size: Size, to: Size) -> bool:
    """Pillow 12.2 and 12.3: where the height is more than a hundred times the width, and becomes less."""
    return size[1] > 100 * size[0] and to[1] < size[1]


def _never(size: Size, to: Size) -> bool:
    """Pillow before 12.2."""
    return False
