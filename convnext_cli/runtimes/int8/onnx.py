"""int8 for ONNX: the pointwise layers in eight bits, written as quantise-dequantise pairs.

What is rounded and how is what ``runtimes/int8/quantise.py`` does for OpenVINO, with the same steps. Two things differ,
since ONNX Runtime computes a matrix product of dequantised values in integers and gives floats, but a convolution only
when its result is rounded too, which costs accuracy, and is quick to round a whole tensor, but not channel by channel:

- Pointwise layers are matrix products, channels last. The downsampling convolutions keep their weights in eight bits,
  which makes the file small, and are computed in float32.
- The factors of the channels are the scale of the LayerNormalization before, and a multiplication where there is none.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from onnx import TensorProto

from convnext_cli.base.errors import ModelError
from convnext_cli.base.libraries import load_onnxruntime
from convnext_cli.model.config import ConvNextConfig
from convnext_cli.runtimes.int8.quantise import Range, added, ranges_over, round_weights, rounding_of
from convnext_cli.runtimes.onnx.graph import INPUT, Ops, Value
from convnext_cli.runtimes.operations import Arrays, network

ort = load_onnxruntime()
_LOOKS = ("ReduceMin", "ReduceMax", "ReduceMean")


def ranges(
    config: ConvNextConfig, arrays: Arrays, photos: Iterable[np.ndarray], opset: int, threads: int
) -> list[Range]:
    """What the layers to be rounded read, in the order of the network.

    photos: (3, H, W) float32. Raises UsageError for too few of them, ModelError when there is nothing to round.
    """
    ops = _Watching(opset)
    network(config, arrays, ops, Value(INPUT, config.num_channels))
    if not ops.read:
        raise ModelError("the network has no layer that int8 makes smaller", "take --dtype float32")
    for i, (name, look) in enumerate((name, look) for name in ops.read for look in _LOOKS):
        ops.output(ops.reduce(look, name, 0, 2, 3, keepdims=0), f"seen_{i}", TensorProto.FLOAT, ["channels"])
    model = ops.model(INPUT, TensorProto.FLOAT, ["batch", config.num_channels, "height", "width"], None)
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    session = ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return ranges_over(photos, lambda photo: session.run(None, {INPUT: photo[None]}))


class _Layers(Ops):
    """``Ops`` that know the layers to be rounded: all but the stem, which reads pixels, depthwise layers, and the
    classifier, which costs nothing."""

    _stem = True

    def conv(
        self, x: Value, weight: np.ndarray, bias: np.ndarray, *, stride: int = 1, padding: int = 0, groups: int = 1
    ) -> Value:
        stem, self._stem = self._stem, False
        if stem or groups > 1 or x.pooled:
            return super().conv(x, weight, bias, stride=stride, padding=padding, groups=groups)
        return self.large(x, weight, bias, stride, padding)

    def large(self, x: Value, weight: np.ndarray, bias: np.ndarray, stride: int, padding: int) -> Value:
        return super().conv(x, weight, bias, stride=stride, padding=padding)


class _Watching(_Layers):
    """Remembers what they read."""

    def __init__(self, opset: int) -> None:
        super().__init__(opset)
        self.read: list[str] = []

    def large(self, x: Value, weight: np.ndarray, bias: np.ndarray, stride: int, padding: int) -> Value:
        self.read.append(x.name)
        return super().large(x, weight, bias, stride, padding)


class RoundingOps(_Layers):
    """``Ops`` with these layers in eight bits. seen: what they read, in the order of the network."""

    def __init__(self, opset: int, seen: list[Range]) -> None:
        super().__init__(opset)
        self._seen = iter(seen)

    def large(self, x: Value, weight: np.ndarray, bias: np.ndarray, stride: int, padding: int) -> Value:
        seen, weight = next(self._seen), weight.astype(np.float64)
        if weight.shape[-1] > 1:
            steps, step = round_weights(weight)
            kept = self.constant((bias - added(weight, steps, step) @ seen.mean).astype(np.float32))
            inputs = (x.name, self._dequantised(steps, step, 0), kept)
            return Value(self.op("Conv", *inputs, strides=[stride] * 2, pads=[padding] * 4), len(weight))
        rounding = rounding_of(seen, weight)
        shares = (1 / rounding.factor).astype(np.float32)
        if norm := self.norms.get(x.name):  # without an affine part, which is in the weights
            self.forget(norm.input[1])
            norm.input[1] = self.constant(shares)
            y = self.op("Transpose", x.name, perm=[0, 2, 3, 1])
        else:
            y = self.op("Mul", self.op("Transpose", x.name, perm=[0, 2, 3, 1]), self.constant(shares))
        width = (rounding.high - rounding.low) / 255
        steps_of_x = self.constant(np.float32(width)), self.constant(np.uint8(round(-rounding.low / width)))
        y = self.op("DequantizeLinear", self.op("QuantizeLinear", y, *steps_of_x), *steps_of_x)
        y = self.op("MatMul", y, self._dequantised(rounding.steps[:, :, 0, 0].T, rounding.step, 1))
        y = self.op("Add", y, self.constant((bias - rounding.shift).astype(np.float32)))
        return Value(self.op("Transpose", y, perm=[0, 3, 1, 2]), len(weight))

    def _dequantised(self, steps: np.ndarray, step: np.ndarray, axis: int) -> str:
        zeros = self.constant(np.zeros(len(step), np.int8))
        weights = self.constant(np.ascontiguousarray(steps))
        return self.op("DequantizeLinear", weights, self.constant(step), zeros, axis=axis)
