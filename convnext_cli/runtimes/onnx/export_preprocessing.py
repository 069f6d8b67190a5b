"""Preprocessing as ONNX operations: uint8 photos of any size to the network's tensors, byte for byte as with Pillow.

Resize and crop are two products with matrices that the graph makes from the photo's height and width, each rounded to
bytes, as Pillow does (its ``Resample.c``). Pillow's weights are whole multiples of 2^-22, so that products with bytes
and their sums are exact in float64, and nothing is left to the order of additions. ONNX's Resize with "antialias" was
five times as fast in ONNX Runtime for 12 megapixels, but rounds up to half a percent of the bytes otherwise, and is not
the same in every runtime.
"""

from __future__ import annotations

import numpy as np
from onnx import TensorProto

from convnext_cli.model.preprocessing import Preprocessing
from convnext_cli.runtimes.onnx.graph import Ops

INPUT = "photos"
_ONE = 2.0**22  # what Pillow's weights are whole parts of
_CUBIC = -0.5  # its a


def tensors(ops: Ops, preprocessing: Preprocessing) -> str:
    """Add what makes (N, 3, height, width) float32 of "photos", (N, H, W, 3) uint8; the name of it."""
    shape = ops.op("Shape", INPUT)
    edges = [ops.op("Gather", shape, ops.constant(axis)) for axis in (1, 2)]
    if preprocessing.resize == "shortest":
        shortest = ops.op("Min", *edges)
        resized = [
            ops.op("Div", ops.op("Mul", edge, ops.constant(preprocessing.resize_to[0])), shortest) for edge in edges
        ]
    else:
        resized = [ops.constant(edge) for edge in preprocessing.resize_to]
    down, across = (
        _matrix(ops, preprocessing, edge, to, size)
        for edge, to, size in zip(edges, resized, preprocessing.size, strict=True)
    )
    x = ops.op("Cast", ops.op("Transpose", INPUT, perm=[0, 3, 1, 2]), to=TensorProto.DOUBLE)
    across = ops.op("Transpose", across, perm=[1, 0])
    # from Pillow 13 on; before, always across first, which differs by one level in a tenth of the bytes of such photos
    less = [ops.op("Sub", edge, to) for edge, to in zip(edges, resized, strict=True)]
    tall = ops.op("Greater", less[0], ops.op("Max", ops.op("Mul", less[1], ops.constant(2)), ops.constant(0)))
    x = ops.choose(
        tall,
        lambda: _product(ops, _product(ops, down, x), across),
        lambda: _product(ops, down, _product(ops, x, across)),
    )
    scale = (preprocessing.rescale / np.array(preprocessing.std)).astype(np.float32).reshape(-1, 1, 1)
    shift = (np.array(preprocessing.mean) / np.array(preprocessing.std)).astype(np.float32).reshape(-1, 1, 1)
    x = ops.op("Mul", ops.op("Cast", x, to=TensorProto.FLOAT), ops.constant(scale))
    return ops.op("Sub", x, ops.constant(shift))


def _matrix(ops: Ops, preprocessing: Preprocessing, edge: str, to: str, size: int) -> str:
    """Pillow's weights of the crop's rows, in parts of _ONE: (size, edge) float64. to: the edge after the resize."""
    one, half = ops.constant(1), ops.constant(2)
    excess = ops.op("Sub", to, ops.constant(size))
    start = ops.op("Div", excess, half)
    if preprocessing.crop_offset == "round":  # halves to the even number
        odd = ops.op("Mul", ops.op("Mod", excess, half), ops.op("Mod", start, half))
        start = ops.op("Add", start, odd)
    # row i and pixel j: |j + 1/2 - (i + 1/2) · edge / to| in units of the filter, max(edge / to, 1) pixels
    i = ops.op("Add", ops.constant(np.arange(size)[:, None]), start)
    j = ops.op("Range", ops.constant(0), edge, one)
    centres = [ops.op("Add", ops.op("Mul", position, half), one) for position in (i, j)]
    off = ops.op("Sub", ops.op("Mul", centres[1], to), ops.op("Mul", centres[0], edge))
    unit = ops.op("Mul", ops.op("Max", edge, to), half)
    x = ops.op("Div", *(ops.op("Cast", position, to=TensorProto.DOUBLE) for position in (ops.op("Abs", off), unit)))
    weights = _bilinear(ops, x) if preprocessing.interpolation == "bilinear" else _bicubic(ops, x)
    sums = ops.op("ReduceSum", weights, ops.constant([1]))
    parts = ops.op("Mul", ops.op("Div", weights, sums), ops.constant(_ONE))
    near = ops.op("Floor", ops.op("Add", ops.op("Abs", parts), ops.constant(0.5)))
    return ops.op("Mul", ops.op("Sign", parts), near)


def _bilinear(ops: Ops, x: str) -> str:
    return ops.op("Max", ops.op("Sub", ops.constant(1.0), x), ops.constant(0.0))


def _bicubic(ops: Ops, x: str) -> str:
    """Keys' kernel: ((a + 2) x - (a + 3)) x² + 1 up to 1, a (((x - 5) x + 8) x - 4) up to 2."""
    near = _polynomial(ops, x, _CUBIC + 2, -(_CUBIC + 3), 0.0, 1.0)
    far = _polynomial(ops, x, _CUBIC, -5 * _CUBIC, 8 * _CUBIC, -4 * _CUBIC)
    rest = ops.op("Where", ops.op("Less", x, ops.constant(2.0)), far, ops.constant(0.0))
    return ops.op("Where", ops.op("Less", x, ops.constant(1.0)), near, rest)


def _polynomial(ops: Ops, x: str, first: float, *rest: float) -> str:
    y = ops.constant(first)
    for factor in rest:
        y = ops.op("Add", ops.op("Mul", y, x), ops.constant(factor))
    return y


def _product(ops: Ops, a: str, b: str) -> str:
    """Of a matrix in parts of _ONE and bytes, or the other way round: bytes, halves rounded up."""
    x = ops.op("Mul", ops.op("MatMul", a, b), ops.constant(1 / _ONE))
    x = ops.op("Floor", ops.op("Add", x, ops.constant(0.5)))
    return ops.op("Clip", x, ops.constant(0.0), ops.constant(255.0))
