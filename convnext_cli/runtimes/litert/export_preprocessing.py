"""Preprocessing in a TensorFlow Lite graph: photos of any size become the tensor of ``apply_preprocessing``."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, DTypeLike

from convnext_cli.model.preprocessing import Preprocessing
from convnext_cli.runtimes.litert.graph import Graph, Value, options, type_of

_PARTS = 2**11  # squared, the parts of 1 that Pillow's weights are whole numbers of (its Resample.c)


def tensor_of(photos: Value, graph: Graph, preprocessing: Preprocessing) -> Value:
    """uint8 photos (N, height, width, 3) of any one size -> float32 (N, H, W, 3), normalised.

    Pillow's resize of bytes is two products with matrices, along one edge and then the other, each rounded to bytes.
    The matrices, and which edge comes first, are made in the graph from the photo's height and width.
    """
    return _Photos(graph, preprocessing).tensor(photos)


class _Photos:
    def __init__(self, graph: Graph, preprocessing: Preprocessing) -> None:
        self._graph, self._preprocessing = graph, preprocessing

    def tensor(self, photos: Value) -> Value:
        n, preprocessing = photos.shape[0], self._preprocessing
        chosen = options("Shape", outType=type_of(np.int32))
        shape = self._graph.op("SHAPE", photos, shape=(4,), dtype=np.int32, options=chosen)
        height, width = (
            self._graph.op("GATHER", shape, self._number(axis), shape=(), options=options("Gather")) for axis in (1, 2)
        )
        to_height, to_width = self._resized(height, width)
        down = self._vertical_first(height, width, to_height, to_width)
        down_along = [height, to_height, *map(self._number, preprocessing.size[:1])]
        across_along = [width, to_width, *map(self._number, preprocessing.size[1:])]
        first = self._matrix(*(self._either(down, a, b) for a, b in zip(down_along, across_along, strict=True)))
        second = self._matrix(*(self._either(down, b, a) for a, b in zip(down_along, across_along, strict=True)))
        # across: (N, height, 3, width), (N, height, 3, W), (N, W, 3, height), (N, W, 3, H); down: the other way round
        x = self._turned(photos, self._either(down, np.array([0, 2, 3, 1]), np.array([0, 1, 3, 2])), photos.shape)
        x = self._product(self._cast(x, np.float32), first)
        x = self._turned(x, self._number([0, 3, 2, 1]), x.shape)
        x = self._product(x, second)
        order = self._either(down, np.array([0, 1, 3, 2]), np.array([0, 3, 1, 2]))
        x = self._turned(x, order, (n, *preprocessing.size, 3))
        mean, std = np.array(preprocessing.mean), np.array(preprocessing.std)
        x = self._op("MUL", x, (preprocessing.rescale / std).astype(np.float32))
        return self._op("SUB", x, (mean / std).astype(np.float32))

    def _resized(self, height: Value, width: Value) -> list[Value]:
        """What becomes of a photo's height and width before the crop; all int32 without axes."""
        to = self._preprocessing.resize_to
        if self._preprocessing.resize == "squash":
            return [self._number(edge) for edge in to]
        shorter = self._op("MINIMUM", height, width)
        return [self._op("FLOOR_DIV", self._op("MUL", edge, to[0]), shorter) for edge in (height, width)]

    def _vertical_first(self, height: Value, width: Value, to_height: Value, to_width: Value) -> Value:
        """1 where Pillow resizes down before across, else 0: since 13.0, where the height shrinks, and by more than
        twice what the width does, in pixels."""
        down = self._op("SUB", height, to_height)
        more = self._op("SUB", down, self._op("MUL", self._op("SUB", width, to_width), 2))
        return self._op("MAXIMUM", self._op("MINIMUM", self._op("MINIMUM", down, more), 1), 0)

    def _either(self, which: Value, yes: Value | np.ndarray, no: Value | np.ndarray) -> Value:
        """yes where which is 1, no where it is 0; of int32."""
        yes, no = (value if isinstance(value, Value) else self._number(value) for value in (yes, no))
        return self._op("ADD", no, self._op("MUL", self._op("SUB", yes, no), which))

    def _matrix(self, edge: Value, resized: Value, crop: Value) -> tuple[Value, Value]:
        """Pillow's weights of each pixel of the photo in each one of the crop, along one edge: (crop, edge) float32, as
        whole parts of 2^-11 and of 2^-22.

        They are computed in whole numbers, since float32, which is all that there is, would round them otherwise.
        """
        excess = self._op("SUB", resized, crop)
        offset = self._op("FLOOR_DIV", excess, 2)
        if self._preprocessing.crop_offset == "round":  # a half goes to the even number
            up = self._op("MUL", self._op("FLOOR_MOD", excess, 2), self._op("FLOOR_MOD", offset, 2))
            offset = self._op("ADD", offset, up)
        rows = self._op("ADD", self._odd(crop, self._preprocessing.size[0]), self._op("MUL", offset, 2))
        columns = self._odd(edge, self._preprocessing.size[0])
        chosen = options("ExpandDims")
        rows = self._graph.op("EXPAND_DIMS", rows, self._number(1), shape=(*rows.shape, 1), options=chosen)
        rows, columns, edge, resized = (self._cast(value, np.int64) for value in (rows, columns, edge, resized))
        # how far two pixels' middles are apart, and the unit of the filter, as parts of the same
        apart = self._op("SUB", self._op("MUL", columns, resized), self._op("MUL", rows, edge))
        apart = self._op("MAXIMUM", apart, self._graph.op("NEG", apart, options=options("Neg")))
        unit = self._op("MUL", self._op("MAXIMUM", edge, resized), 2)
        shares = self._filter(apart, unit)
        chosen = options("Reducer", keepDims=True)
        total = self._graph.op("SUM", shares, self._number([1]), shape=(shares.shape[0], 1), options=chosen)
        coarse = self._parts(shares, total)
        used = self._op("MUL", self._cast(coarse, np.int64), total)
        return coarse, self._parts(self._op("SUB", self._op("MUL", shares, _PARTS), used), total)

    def _parts(self, shares: Value, total: Value) -> Value:
        """How many 2^-11 of the whole the shares are, to the nearest number or nearly; float32."""
        share = self._op("DIV", self._cast(shares, np.float32), self._cast(total, np.float32))
        return self._graph.op("FLOOR", self._op("ADD", self._op("MUL", share, _PARTS), 0.5))

    def _odd(self, count: Value, usual: int) -> Value:
        """int32 1, 3, 5 …, count of them. usual: how many stand in the file."""
        end, one, two = self._op("MUL", count, 2), self._number(1), self._number(2)
        return self._graph.op("RANGE", one, end, two, shape=(usual,), options=options("Range"))

    def _filter(self, apart: Value, unit: Value) -> Value:
        """Pillow's filters, of distances apart / unit: a tent, or Keys' cubic with a = -1/2, times 2 unit³; int64."""
        if self._preprocessing.interpolation == "bilinear":
            return self._op("MAXIMUM", self._op("SUB", unit, apart), 0)
        # 2 + d²(3d - 5) up to 1, (1 - d)(2 - d)² up to 2; both are 0 where they meet
        twice = self._op("MUL", unit, 2)
        near = self._op("MINIMUM", apart, unit)
        far = self._op("MINIMUM", self._op("MAXIMUM", apart, unit), twice)
        cubic = self._op("SUB", self._op("MUL", near, 3), self._op("MUL", unit, 5))
        inner = self._op("MUL", self._op("MUL", near, near), cubic)
        inner = self._op("ADD", inner, self._op("MUL", self._op("MUL", unit, unit), twice))
        left = self._op("SUB", twice, far)
        outer = self._op("MUL", self._op("MUL", left, left), self._op("SUB", unit, far))
        return self._op("ADD", inner, outer)

    def _product(self, x: Value, matrices: tuple[Value, Value]) -> Value:
        """Bytes (N, a, b, edge) by (crop, edge) -> (N, a, b, crop), bytes again, halves up; all float32.

        Sums of bytes by either matrix are below 2^24, and so are those that are made of them here: float32 is exact.
        """
        chosen = options("FullyConnected", keepNumDims=True)
        shape = (*x.shape[:3], matrices[0].shape[0])
        coarse, fine = (
            self._graph.op("FULLY_CONNECTED", x, matrix, shape=shape, version=5, options=chosen) for matrix in matrices
        )
        coarse = self._op("ADD", coarse, _PARTS / 2)
        floor = self._graph.op("FLOOR", self._op("MUL", coarse, 1 / _PARTS))
        rest = self._op("SUB", coarse, self._op("MUL", floor, _PARTS))
        rest = self._op("ADD", self._op("MUL", rest, _PARTS), fine)
        floor = self._op("ADD", floor, self._graph.op("FLOOR", self._op("MUL", rest, 1 / _PARTS**2)))
        return self._op("MINIMUM", self._op("MAXIMUM", floor, 0.0), 255.0)

    def _turned(self, x: Value, order: Value, shape: tuple[int, ...]) -> Value:
        return self._graph.op("TRANSPOSE", x, order, shape=shape, options=options("Transpose"))

    def _number(self, values: ArrayLike) -> Value:
        return self._graph.constant(np.array(values, np.int32))

    def _cast(self, x: Value, dtype: DTypeLike) -> Value:
        chosen = options("Cast", inDataType=type_of(x.dtype), outDataType=type_of(dtype))
        return self._graph.op("CAST", x, dtype=dtype, options=chosen)

    def _op(self, kind: str, *values: Value | float | np.ndarray) -> Value:
        """Of two values, one of which may be a number of the other's dtype."""
        (dtype,) = {value.dtype for value in values if isinstance(value, Value)}
        a, b = (
            value if isinstance(value, Value) else self._graph.constant(np.asarray(value, dtype)) for value in values
        )
        name = "MaximumMinimum" if kind in ("MAXIMUM", "MINIMUM") else "".join(map(str.capitalize, kind.split("_")))
        return self._graph.op(kind, a, b, options=options(name))
