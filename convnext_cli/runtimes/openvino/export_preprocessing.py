"""Preprocessing as OpenVINO operations: uint8 photos to the network's tensors, byte for byte as with Pillow.

All of it is computed in whole numbers. On processors OpenVINO has no float64, and where it is asked for bfloat16 it
takes that for whatever was float32, here too; 32-bit whole numbers it leaves alone, and adds and multiplies exactly.
Pillow resizes in whole numbers as well: weights in parts of 2^-22, sums of their products with bytes, each rounded to
bytes (its ``Resample.c``). Only its weights come from float64: here from numbers of several digits (``_Digits``). Its
own Interpolate in Pillow's manner took a second for a photo that Pillow resizes in a millisecond, and was further off.
Edges may have 65,536 pixels, before and after the resize: then all numbers fit.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike

from convnext_cli.model.preprocessing import Preprocessing
from convnext_cli.runtimes.openvino.runtime import op, ov

_PARTS = 22  # bits of Pillow's weights
_BITS = 13  # of a digit: products of two, and some of them summed, fit into 32 bits
_FRACTION = 3  # digits behind the point; 39 bits, for weights of 22


def tensors(photos: ov.Node, preprocessing: Preprocessing) -> ov.Node:
    """(N, 3, height, width) float32 of (N, H, W, 3) uint8."""
    shape = op.shape_of(photos, "i32")
    edges = [op.gather(shape, _whole(axis), _whole(0)) for axis in (1, 2)]
    resized = [_whole(edge) for edge in preprocessing.resize_to]
    if preprocessing.resize == "shortest":
        shortest = op.minimum(*edges)
        resized = [_divided(op.multiply(edge, to), shortest)[0] for edge, to in zip(edges, resized, strict=True)]
    ways = [_taps(preprocessing, *axis_sizes) for axis_sizes in zip(edges, resized, preprocessing.size, strict=True)]
    x = op.convert(op.transpose(photos, _whole([0, 3, 1, 2])), np.int32)
    # from Pillow 13 on; before, always across first, which differs by one level in a tenth of the bytes of such photos
    less = [op.subtract(edge, to) for edge, to in zip(edges, resized, strict=True)]
    tall = op.greater(less[0], op.maximum(op.multiply(less[1], _whole(2)), _whole(0)))
    x = _either(tall, x, ways)
    # looked up, which rounds once whatever the precision is
    scale = (preprocessing.rescale / np.array(preprocessing.std)).astype(np.float32).reshape(-1, 1)
    shift = (np.array(preprocessing.mean) / np.array(preprocessing.std)).astype(np.float32).reshape(-1, 1)
    values = np.arange(256, dtype=np.float32) * scale - shift
    places = op.add(x, _whole(256 * np.arange(3).reshape(1, 3, 1, 1)))
    return op.gather(op.constant(values.reshape(-1)), places, _whole(0))


def _either(down_first: ov.Node, x: ov.Node, ways: list[tuple[ov.Node, ov.Node, ov.Node]]) -> ov.Node:
    """The photo down and across, in the one order or the other. ways: what ``_taps`` gives of each."""
    chosen = op.if_op(down_first.output(0))
    outer = [x, *ways[0], *ways[1]]
    bodies = []
    for order in ((0, 1), (1, 0)):
        inside = [op.parameter(value.get_output_partial_shape(0), np.int32) for value in outer]
        y, both = inside[0], (inside[1:4], inside[4:7])
        for axis in order:
            y = _resized(y, *both[axis], axis=2 + axis)
        bodies.append((ov.Model([op.result(y)], inside), inside))
    chosen.set_then_body(bodies[0][0])
    chosen.set_else_body(bodies[1][0])
    for value, one, other in zip(outer, bodies[0][1], bodies[1][1], strict=True):
        chosen.set_input(value.output(0), one, other)
    return chosen.set_output(bodies[0][0].get_results()[0], bodies[1][0].get_results()[0])


def _resized(x: ov.Node, first: ov.Node, weights: ov.Node, last: ov.Node, *, axis: int) -> ov.Node:
    """(N, 3, H, W) bytes resized along an axis, as bytes again: a loop over the taps, which needs little memory."""
    rows = weights.get_output_partial_shape(0)[0].get_length()
    lengths = op.split(op.shape_of(x, "i32"), _whole(0), 4)
    shape = op.concat([_whole([rows]) if place == axis else lengths.output(place) for place in range(4)], 0)
    loop = op.loop(_tap_count(weights).output(0), op.constant(True).output(0))
    some = [-1, -1, -1, -1]
    k, pixels, sums = (op.parameter(dims, np.int32) for dims in ([], some, some))
    starts, table, end = (op.parameter(node.get_output_partial_shape(0), np.int32) for node in (first, weights, last))
    place = op.minimum(op.add(starts, k), end)
    weight = op.reshape(op.gather(table, k, _whole(1)), _whole([rows, 1] if axis == 2 else [1, rows]), False)
    added = op.add(sums, op.multiply(op.gather(pixels, place, _whole(axis)), weight))
    body = ov.Model([added.output(0), op.constant(True).output(0)], [k, pixels, sums, starts, table, end])
    loop.set_function(body)
    loop.set_special_body_ports([0, 1])
    for parameter, value in ((pixels, x), (starts, first), (table, weights), (end, last)):
        loop.set_invariant_input(parameter, value.output(0))
    half = op.broadcast(_whole(2 ** (_PARTS - 1)), shape)  # rounds, halves up
    loop.set_merged_input(sums, half.output(0), added.output(0))
    total = loop.get_iter_value(added.output(0), -1)
    return op.maximum(op.minimum(op.bitwise_right_shift(total, _whole(_PARTS)), _whole(255)), _whole(0))


def _tap_count(weights: ov.Node) -> ov.Node:
    return op.gather(op.shape_of(weights, "i32"), _whole(1), _whole(0))


def _taps(preprocessing: Preprocessing, edge: ov.Node, to: ov.Node, size: int) -> tuple[ov.Node, ov.Node, ov.Node]:
    """Of the crop's rows: the first pixel that each takes (size,), Pillow's weights of that and the next ones, in parts
    of 2^-22 (size, taps), and the number of the last pixel there is. edge, to: before and after the resize.
    """
    reach = 1 if preprocessing.interpolation == "bilinear" else 2
    excess = op.subtract(to, _whole(size))
    start = op.bitwise_right_shift(excess, _whole(1))
    if preprocessing.crop_offset == "round":  # halves to the even number
        start = op.add(start, op.bitwise_and(op.bitwise_and(excess, _whole(1)), op.bitwise_and(start, _whole(1))))
    rows = op.add(op.multiply(op.add(_whole(np.arange(size)), start), _whole(2)), _whole(1))
    # row i and pixel j: |(2j + 1) · to - (2i + 1) · edge| in units of the filter, max(edge / to, 1) pixels
    unit = op.multiply(op.maximum(edge, to), _whole(2))
    middle, far = op.multiply(rows, edge), op.multiply(unit, _whole(reach))
    twice = op.multiply(to, _whole(2))
    first = op.maximum(op.subtract(op.divide(op.subtract(middle, far), twice), _whole(1)), _whole(0))
    taps = op.range(_whole(0), op.add(op.divide(op.multiply(far, _whole(2)), twice), _whole(4)), _whole(1), "i32")
    pixels = op.add(op.unsqueeze(first, _whole(1)), taps)
    off = op.subtract(
        op.multiply(op.add(op.multiply(pixels, _whole(2)), _whole(1)), to), op.unsqueeze(middle, _whole(1))
    )
    off = op.select(op.less(pixels, edge), op.abs(off), far)  # beyond the photo is beyond the filter
    weights = _bilinear(off, unit) if reach == 1 else _bicubic(off, unit)
    return first, weights, op.subtract(edge, _whole(1))


def _bilinear(off: ov.Node, unit: ov.Node) -> ov.Node:
    """1 - x, as parts of their sum: a division of whole numbers, digit by digit."""
    rest = op.maximum(op.subtract(unit, off), _whole(0))
    total = op.reduce_sum(rest, _whole([1]), True)
    parts = _whole(0)
    for bits in (8, 8, 6):
        digit, rest = _divided(op.multiply(rest, _whole(2**bits)), total)
        parts = op.add(op.multiply(parts, _whole(2**bits)), digit)
    return op.add(parts, _one_if(op.greater_equal(op.multiply(rest, _whole(2)), total)))


def _bicubic(off: ov.Node, unit: ov.Node) -> ov.Node:
    """Keys' kernel with Pillow's a = -1/2, twice of it: 3x³ - 5x² + 2 up to 1, -x³ + 5x² - 8x + 4 up to 2."""
    digit, rest = _divided(off, unit)
    digits = [digit]
    for _ in range(_FRACTION):
        digit, rest = _divided(op.multiply(rest, _whole(2**_BITS)), unit)
        digits.append(digit)
    x = _Digits(digits)
    square = x.times(x)
    cube = square.times(x)
    near = cube.scaled(3).plus(square.scaled(-5)).plus(2)
    far = cube.scaled(-1).plus(square.scaled(5)).plus(x.scaled(-8)).plus(4)
    zero = op.multiply(off, _whole(0))
    values = [
        op.select(op.less(x.digits[0], _whole(1)), a, op.select(op.less(x.digits[0], _whole(2)), b, zero))
        for a, b in zip(near.digits, far.digits, strict=True)
    ]
    negative = op.less(values[0], _whole(0))
    sign = op.select(negative, _whole(-1), _whole(1))
    sums = _Digits([op.reduce_sum(digit_values, _whole([1]), True) for digit_values in values]).carried()
    size = _Digits([op.multiply(digit_values, sign) for digit_values in values]).carried()
    return op.multiply(_parts(size, sums), sign)


def _parts(value: _Digits, total: _Digits) -> ov.Node:
    """value / total in parts of 2^-22, halves up. Digits of 11 bits are guessed, and the last rest corrects them."""
    divisor, small = total.top(2), op.less(total.digits[0], _whole(16))
    parts, bits = _whole(0), _PARTS // 2
    for _ in range(2):
        # as many of the first bits as fit: of sums up to 16, and up to 512
        fine = op.divide(op.bitwise_right_shift(value.top(3), _whole(_BITS - bits)), divisor)
        coarse = op.divide(
            op.multiply(value.top(2), _whole(2 ** (bits - 4))), op.bitwise_right_shift(divisor, _whole(4))
        )
        guess = op.select(small, fine, coarse)
        value = value.scaled(2**bits).minus(total, guess)
        parts = op.add(op.multiply(parts, _whole(2**bits)), guess)
    for missing in (1, 3, 5):
        more = value.scaled(2).minus(total, _whole(missing)).digits[0]
        less = value.scaled(2).minus(total, _whole(-missing)).digits[0]
        parts = op.add(parts, _one_if(op.greater_equal(more, _whole(0))))
        parts = op.subtract(parts, _one_if(op.less(less, _whole(0))))
    return parts


class _Digits:
    """A number in base 2^13: what is before the point, with the sign, then the digits behind it."""

    def __init__(self, digits: Sequence[ov.Node]) -> None:
        self.digits = list(digits)

    def carried(self) -> _Digits:
        """The same number, with digits from 0 to 2^13 - 1 behind the point."""
        digits = list(self.digits)
        for place in range(len(digits) - 1, 0, -1):
            over = op.bitwise_right_shift(digits[place], _whole(_BITS))
            digits[place] = op.bitwise_and(digits[place], _whole(2**_BITS - 1))
            digits[place - 1] = op.add(digits[place - 1], over)
        return _Digits(digits)

    def plus(self, other: _Digits | int) -> _Digits:
        if isinstance(other, int):
            return _Digits([op.add(self.digits[0], _whole(other)), *self.digits[1:]])
        return _Digits([op.add(a, b) for a, b in zip(self.digits, other.digits, strict=True)]).carried()

    def scaled(self, factor: int) -> _Digits:
        return _Digits([op.multiply(digit, _whole(factor)) for digit in self.digits]).carried()

    def minus(self, other: _Digits, times: ov.Node) -> _Digits:
        taken = [op.multiply(digit, times) for digit in other.digits]
        return _Digits([op.subtract(a, b) for a, b in zip(self.digits, taken, strict=True)]).carried()

    def times(self, other: _Digits) -> _Digits:
        """Of two numbers that are not below 0, with one digit more on the way."""
        sums: list[ov.Node | None] = [None] * (_FRACTION + 2)
        for i, a in enumerate(self.digits):
            for j, b in enumerate(other.digits):
                if i + j < len(sums):
                    product = op.multiply(a, b)
                    sums[i + j] = product if sums[i + j] is None else op.add(sums[i + j], product)
        return _Digits(_Digits(sums).carried().digits[:-1])

    def top(self, count: int) -> ov.Node:
        """The first digits as one whole number."""
        number = self.digits[0]
        for digit in self.digits[1:count]:
            number = op.add(op.multiply(number, _whole(2**_BITS)), digit)
        return number


def _divided(a: ov.Node, b: ov.Node) -> tuple[ov.Node, ov.Node]:
    """Quotient and rest of numbers that are not below 0. OpenVINO's own quotient may be off by one."""
    quotient = op.divide(a, b)
    rest = op.subtract(a, op.multiply(quotient, b))
    mend = op.subtract(_one_if(op.greater_equal(rest, b)), _one_if(op.less(rest, _whole(0))))
    return op.add(quotient, mend), op.subtract(rest, op.multiply(mend, b))


def _one_if(condition: ov.Node) -> ov.Node:
    return op.select(condition, _whole(1), _whole(0))


def _whole(values: ArrayLike) -> ov.Node:
    return op.constant(np.asarray(values, np.int32))
