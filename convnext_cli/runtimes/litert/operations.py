"""``operations.Ops`` in the operations of TensorFlow Lite, whose kernels have their tensors as (N, H, W, C)."""

from __future__ import annotations

import numpy as np
from ai_edge_litert.schema_py_generated import Padding
from numpy.typing import DTypeLike

from convnext_cli.base.errors import ModelError
from convnext_cli.runtimes.litert.graph import Graph, Option, Value, options

_TINY = 1e-9


class Ops:
    """stored: the dtype of the weights of convolutions, after TensorFlow Lite's ways of quantisation.

    float16: they are widened when the file is opened, and the arithmetic is float32 but for GPUs.
    int8: those of all large layers, a scale for each output channel. What they are multiplied with is rounded to eight
    bits too, by a scale that is found in it when it is there, so that nothing has to be calibrated ("dynamic range").
    The stem reads pixels, the classifier and depthwise layers are small: they stay float32.
    """

    def __init__(self, graph: Graph, stored: DTypeLike = np.float32) -> None:
        self._graph, self._stored = graph, stored
        self._small = True  # the next layer is the stem, or behind the pool

    def channels_last(self, x: Value) -> Value:
        """(N, C, H, W) -> (N, H, W, C)."""
        n, c, h, w = x.shape
        order = self._graph.constant(np.array([0, 2, 3, 1], np.int32))
        return self._graph.op("TRANSPOSE", x, order, shape=(n, h, w, c), options=options("Transpose"))

    def conv(
        self, x: Value, weight: np.ndarray, bias: np.ndarray, *, stride: int = 1, padding: int = 0, groups: int = 1
    ) -> Value:
        """Weights become (out, k, k, in), or (1, k, k, channels) where there is a kernel for each channel."""
        small, self._small = self._small, False
        kernel = weight.shape[-1]
        # "same" pads as much before as behind only where the stride is 1
        same = stride == 1 and padding == kernel // 2
        if padding and not same:
            x, padding = self._pad(x, padding), 0
        edges = ((edge + 2 * padding - kernel) // stride + 1 for edge in x.shape[1:3])
        shape = (x.shape[0], *edges, len(weight))
        how: dict[str, Option] = {
            "padding": Padding.SAME if same else Padding.VALID,
            "strideH": stride,
            "strideW": stride,
        }
        if groups == 1:
            kind, weight, chosen = "CONV_2D", weight.transpose(0, 2, 3, 1), options("Conv2D", **how)
        else:
            kind, weight = "DEPTHWISE_CONV_2D", weight.transpose(1, 2, 3, 0)
            chosen = options("DepthwiseConv2D", **how, depthMultiplier=1)
        rounded = self._stored == np.int8 and groups == 1 and not small
        stored = self._rounded(weight) if rounded else self._weight(weight)
        return self._graph.op(
            kind, x, stored, self._graph.constant(bias), shape=shape, version=5 if rounded else 1, options=chosen
        )

    def norm(self, x: Value, kind: str, eps: float) -> Value:
        channels = x.shape[3]
        centred = x if kind == "rms" else self._op("SUB", x, self._mean(x, 3))
        power = self._mean(self._op("MUL", centred, centred), 3)
        if kind == "simple":
            power = self._op("MUL", power, np.float32(channels / (channels - 1)))
        factor = self._graph.op("RSQRT", self._op("ADD", power, np.float32(eps)))
        return self._op("MUL", centred if kind == "layer" else x, factor)

    def affine(self, x: Value, scale: np.ndarray, shift: np.ndarray) -> Value:
        return self._op("ADD", self._op("MUL", x, scale), shift)

    def act(self, x: Value, name: str) -> Value:
        if name in ("gelu", "gelu_tanh"):
            return self._graph.op("GELU", x, options=options("Gelu", approximate=name == "gelu_tanh"))
        if name == "silu":
            return self._op("MUL", x, self._graph.op("LOGISTIC", x))
        return self._graph.op("RELU", x)

    def grn(self, x: Value, gamma: np.ndarray) -> Value:
        response = self._graph.op("SQRT", self._reduce("SUM", self._op("MUL", x, x), 1, 2))
        share = self._op("DIV", response, self._op("ADD", self._mean(response, 3), np.float32(1e-6)))
        return self._op("MUL", x, self._op("ADD", self._op("MUL", share, gamma), np.float32(1)))

    def add(self, a: Value, b: Value) -> Value:
        return self._op("ADD", a, b)

    def pool(self, x: Value) -> Value:
        self._small = True
        return self._mean(x, 1, 2)

    def flatten(self, x: Value) -> Value:
        n, *_, channels = x.shape
        shape = self._graph.constant(np.array([-1, channels], np.int32))
        chosen = options("Reshape", newShape=[-1, channels])
        return self._graph.op("RESHAPE", x, shape, shape=(n, channels), options=chosen)

    def scores(self, logits: Value, problem: str, temperature: float) -> Value:
        """(N, classes) of what the problem (``card.Problem``) makes of logits."""
        if problem == "multi_label":
            return self._graph.op("LOGISTIC", logits)
        cooled = logits if temperature == 1 else self._op("MUL", logits, np.float32(1 / temperature))
        return self._graph.op("SOFTMAX", cooled, options=options("Softmax", beta=1.0))

    def _op(self, kind: str, a: Value, b: Value | np.ndarray | np.generic) -> Value:
        b = b if isinstance(b, Value) else self._graph.constant(b)
        return self._graph.op(kind, a, b, options=options(kind.capitalize()))

    def _mean(self, x: Value, *axes: int) -> Value:
        return self._reduce("MEAN", x, *axes)

    def _reduce(self, kind: str, x: Value, *axes: int) -> Value:
        shape = tuple(1 if axis in axes else extent for axis, extent in enumerate(x.shape))
        at = self._graph.constant(np.array(axes, np.int32))
        return self._graph.op(kind, x, at, shape=shape, options=options("Reducer", keepDims=True))

    def _pad(self, x: Value, padding: int) -> Value:
        n, height, width, channels = x.shape
        pads = self._graph.constant(np.array([[0, 0], [padding] * 2, [padding] * 2, [0, 0]], np.int32))
        shape = (n, height + 2 * padding, width + 2 * padding, channels)
        return self._graph.op("PAD", x, pads, shape=shape, options=options("Pad"))

    def _rounded(self, values: np.ndarray) -> Value:
        """(out, k, k, in) as int8, symmetric, by a step for each out."""
        steps = np.maximum(np.abs(values).max((1, 2, 3)), _TINY) / 127
        return self._graph.quantised(np.rint(values / steps[:, None, None, None]).astype(np.int8), steps)

    def _weight(self, values: np.ndarray) -> Value:
        if self._stored != np.float16:
            return self._graph.constant(values)
        with np.errstate(over="ignore"):
            narrow = values.astype(np.float16)
        if not np.isfinite(narrow).all():
            raise ModelError("a weight of the network is too large for float16", "take --dtype float32")
        widened = self._graph.constant(narrow)
        chosen = options("Dequantize")
        return self._graph.op("DEQUANTIZE", widened, dtype=np.float32, version=3, options=chosen)
