"""A recipe as OpenVINO operations: uint8 photos of any size to the tensors of the network.

Resize and crop are two products with matrices that the graph makes from the photo's height and width, each rounded to
bytes, as Pillow does (its ``Resample.c``). OpenVINO computes in float32 on processors, which tells not every half from
what is just above: one byte in 10,000 comes out one level off with bicubic, and up to 3 % with bilinear where the edges
are in a simple ratio, so that many lie at a half. Its own Interpolate in Pillow's manner took a second for a photo that
Pillow resizes in a millisecond, and was further off.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from convnext_cli.engines.runtime import op, ov
from convnext_cli.photos.recipe import Recipe

_CUBIC = -0.5  # Pillow's a


def tensors(photos: Any, recipe: Recipe) -> Any:
    """(N, 3, height, width) float32 of (N, H, W, 3) uint8."""
    shape = op.shape_of(photos, "i32")
    edges = [op.gather(shape, _whole(axis), _whole(0)) for axis in (1, 2)]
    resized = [_whole(edge) for edge in recipe.resize_to]
    if recipe.resize == "shortest":
        shortest = op.minimum(*edges)
        resized = [op.divide(op.multiply(edge, to), shortest) for edge, to in zip(edges, resized, strict=True)]
    down, across = (_matrix(recipe, edge, to, size) for edge, to, size in zip(edges, resized, recipe.size, strict=True))
    x = op.convert(op.transpose(photos, _whole([0, 3, 1, 2])), np.float32)
    # from Pillow 13 on; before, always across first, which differs by one level in a tenth of the bytes of such photos
    less = [op.subtract(edge, to) for edge, to in zip(edges, resized, strict=True)]
    tall = op.greater(less[0], op.maximum(op.multiply(less[1], _whole(2)), _whole(0)))
    x = _either(tall, x, down, across)
    scale = (recipe.rescale / np.array(recipe.std)).astype(np.float32).reshape(1, -1, 1, 1)
    shift = (np.array(recipe.mean) / np.array(recipe.std)).astype(np.float32).reshape(1, -1, 1, 1)
    return op.subtract(op.multiply(x, op.constant(scale)), op.constant(shift))


def _either(down_first: Any, x: Any, down: Any, across: Any) -> Any:
    """The photo through both matrices, in the one order or the other."""
    chosen = op.if_op(down_first.output(0))
    bodies = []
    for down_now in (True, False):
        inside = [op.parameter(each.get_output_partial_shape(0), np.float32) for each in (x, down, across)]
        y, d, a = inside
        y = _across(_down(y, d), a) if down_now else _down(_across(y, a), d)
        bodies.append((ov.Model([op.result(y)], inside), inside))
    chosen.set_then_body(bodies[0][0])
    chosen.set_else_body(bodies[1][0])
    for outer, one, other in zip((x, down, across), bodies[0][1], bodies[1][1], strict=True):
        chosen.set_input(outer.output(0), one, other)
    return chosen.set_output(bodies[0][0].get_results()[0], bodies[1][0].get_results()[0])


def _down(x: Any, matrix: Any) -> Any:
    return _bytes(op.matmul(matrix, x, False, False))


def _across(x: Any, matrix: Any) -> Any:
    return _bytes(op.matmul(x, matrix, False, True))


def _bytes(x: Any) -> Any:
    """Rounded, halves up."""
    return op.clamp(op.floor(op.add(x, _number(0.5))), 0.0, 255.0)


def _matrix(recipe: Recipe, edge: Any, to: Any, size: int) -> Any:
    """Pillow's weights of the crop's rows, (size, edge) float32. edge, to: before and after the resize."""
    excess = op.subtract(to, _whole(size))
    start = op.divide(excess, _whole(2))
    if recipe.crop_offset == "round":  # halves to the even number
        odd = op.multiply(op.mod(excess, _whole(2)), op.mod(start, _whole(2)))
        start = op.add(start, odd)
    i = op.add(_whole(np.arange(size)[:, None]), start)
    j = op.range(_whole(0), edge, _whole(1), "i32")
    # Row i and pixel j are 2j + 1 - (2i + 1) · edge / to half pixels apart. What is whole of it is computed in whole
    # numbers, since float32 holds positions in large photos to a thousandth of a pixel only.
    rows, pixels = (op.add(op.multiply(each, _whole(2)), _whole(1)) for each in (i, j))
    near = op.subtract(pixels, op.multiply(rows, op.divide(edge, to)))
    edge, to, rows, rest, near = (op.convert(each, np.float32) for each in (edge, to, rows, op.mod(edge, to), near))
    apart = op.abs(op.subtract(near, op.divide(op.multiply(rows, rest), to)))
    x = op.divide(apart, op.multiply(op.maximum(op.divide(edge, to), _number(1)), _number(2)))
    weights = _bilinear(x) if recipe.interpolation == "bilinear" else _bicubic(x)
    return op.divide(weights, op.reduce_sum(weights, _whole([1]), True))


def _bilinear(x: Any) -> Any:
    return op.maximum(op.subtract(_number(1), x), _number(0))


def _bicubic(x: Any) -> Any:
    """Keys' kernel: ((a + 2) x - (a + 3)) x² + 1 up to 1, a (((x - 5) x + 8) x - 4) up to 2."""
    near = _polynomial(x, _CUBIC + 2, -(_CUBIC + 3), 0.0, 1.0)
    far = _polynomial(x, _CUBIC, -5 * _CUBIC, 8 * _CUBIC, -4 * _CUBIC)
    rest = op.select(op.less(x, _number(2)), far, _number(0))
    return op.select(op.less(x, _number(1)), near, rest)


def _polynomial(x: Any, first: float, *rest: float) -> Any:
    y = _number(first)
    for factor in rest:
        y = op.add(op.multiply(y, x), _number(factor))
    return y


def _number(value: float) -> Any:
    return op.constant(np.float32(value))


def _whole(values: Any) -> Any:
    return op.constant(np.asarray(values, np.int32))
