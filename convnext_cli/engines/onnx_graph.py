"""The network of ``network.py`` as an ONNX graph, without torch; and what a graph says of itself.

Opset 20, the first with Gelu as one operation: runtimes compute it faster than its five parts, and every ONNX Runtime
from 1.17 reads it. Pointwise layers are 1×1 convolutions, which ONNX Runtime computes in its blocked layout from the
depthwise convolution to the sum; as matrix products with a bias, they were a tenth slower on AVX-512.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from convnext_cli import __version__
from convnext_cli.card import Card
from convnext_cli.config import ConvNextConfig
from convnext_cli.engines.network import Arrays, network
from convnext_cli.errors import UnavailableError

try:
    import onnx
    from onnx import TensorProto, helper, numpy_helper
except ImportError as error:
    raise UnavailableError("ONNX is not installed", "pip install onnxruntime onnx") from error

FILE = "model.onnx"  # of a prepared engine
METADATA_KEY = "convnext"  # the card as JSON, as in safetensors
INPUT, OUTPUT = "pixel_values", "logits"
_OPSET, _IR_VERSION = 20, 9
_MOST = 2**31 - 2**20  # bytes of weights that one protobuf file holds, with room for the graph
_QUANTISED = {
    "QuantizeLinear", "DynamicQuantizeLinear", "ConvInteger", "MatMulInteger", "QLinearConv", "QLinearMatMul",
}  # fmt: skip
_FLOATS = {TensorProto.FLOAT: "float32", TensorProto.FLOAT16: "float16", TensorProto.BFLOAT16: "bfloat16"}


def graph(config: ConvNextConfig, tensors: Arrays, card: Card | None = None) -> onnx.ModelProto:
    """The network as float32 ONNX: "pixel_values" (N, 3, H, W) to "logits" (N, classes), all but the channels open.

    tensors: by canonical name. card: kept in the metadata, so that the file needs nothing beside it.
    """
    ops = _Ops()
    last = network(config, tensors, ops, _Value(INPUT, config.num_channels))
    ops.nodes[-1].output[0] = OUTPUT
    body = helper.make_graph(
        ops.nodes,
        "convnext",
        [helper.make_tensor_value_info(INPUT, TensorProto.FLOAT, ["batch", config.num_channels, "height", "width"])],
        [helper.make_tensor_value_info(OUTPUT, TensorProto.FLOAT, ["batch", last.channels])],
        ops.weights,
    )
    model: onnx.ModelProto = helper.make_model(
        body,
        opset_imports=[helper.make_opsetid("", _OPSET)],
        ir_version=_IR_VERSION,
        producer_name="convnext",
        producer_version=__version__,
    )
    if card is not None:
        helper.set_model_props(model, {METADATA_KEY: card.to_json()})
    return model


def save(model: onnx.ModelProto, path: Path) -> None:
    """Write a graph. Weights of 2 GB and more go to a file of their own beside it, and out of ``model``."""
    large = sum(len(weight.raw_data) for weight in model.graph.initializer) > _MOST
    onnx.save(model, path, save_as_external_data=large, location=f"{path.name}.data" if large else None)


class Facts(NamedTuple):
    """dtype: what the graph computes in. softmax: whether one makes its output, by name."""

    dtype: str
    softmax: dict[str, bool]


def facts(model: Path | bytes) -> Facts:
    """What the operations and weights of an ONNX file say; weights in files of their own are left there."""
    read = onnx.load_from_string(model) if isinstance(model, bytes) else onnx.load(model, load_external_data=False)
    makers = {name: node.op_type for node in read.graph.node for name in node.output}
    softmax = {output.name: makers.get(output.name) == "Softmax" for output in read.graph.output}
    if _QUANTISED & set(makers.values()):
        return Facts("int8", softmax)
    sizes = dict.fromkeys(_FLOATS.values(), 0)
    for weight in read.graph.initializer:
        if weight.data_type in _FLOATS:
            sizes[_FLOATS[weight.data_type]] += math.prod(weight.dims)
    return Facts(max(sizes, key=lambda name: sizes[name]), softmax)


class _Value(NamedTuple):
    """pooled: (N, C) instead of (N, C, H, W)."""

    name: str
    channels: int
    pooled: bool = False


class _Ops:
    """``network.Ops``: collects nodes and weights."""

    def __init__(self) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.weights: list[onnx.TensorProto] = []
        self._norms: dict[str, onnx.NodeProto] = {}

    def conv(
        self, x: _Value, weight: np.ndarray, bias: np.ndarray, *, stride: int = 1, padding: int = 0, groups: int = 1
    ) -> _Value:
        out, kernel = len(weight), weight.shape[-1]
        if x.pooled:
            y = self._op("Gemm", x.name, self._weight(weight[:, :, 0, 0]), self._weight(bias), transB=1)
            return _Value(y, out, pooled=True)
        shape = {"kernel_shape": [kernel] * 2, "strides": [stride] * 2, "pads": [padding] * 4, "group": groups}
        return _Value(self._op("Conv", x.name, self._weight(weight), self._weight(bias), **shape), out)

    def norm(self, x: _Value, kind: str, eps: float) -> _Value:
        y = x.name if x.pooled else self._op("Transpose", x.name, perm=[0, 2, 3, 1])
        if kind == "layer":
            y = self._op("LayerNormalization", y, self._weight(np.ones(x.channels, np.float32)), epsilon=eps)
            made = self.nodes[-1]
        else:
            y = self._op("Div", y, self._deviation(y, kind, eps, x.channels))
            made = None
        y = y if x.pooled else self._op("Transpose", y, perm=[0, 3, 1, 2])
        if made is not None:
            self._norms[y] = made
        return x._replace(name=y)

    def _deviation(self, y: str, kind: str, eps: float, channels: int) -> str:
        """The root of the mean square ("rms"), or the unbiased deviation ("simple"), over the last axis."""
        last, divisor = self._weight(np.array([-1])), channels
        if kind == "simple":
            y, divisor = self._op("Sub", y, self._op("ReduceMean", y, last)), channels - 1
        power = self._op("ReduceSum", self._op("Mul", y, y), last)
        power = self._op("Mul", power, self._weight(np.float32(1 / divisor)))
        return self._op("Sqrt", self._op("Add", power, self._weight(np.float32(eps))))

    def affine(self, x: _Value, scale: np.ndarray, shift: np.ndarray) -> _Value:
        if norm := self._norms.get(x.name):  # ONNX's LayerNormalization has the affine part in it
            norm.input[1:] = [self._weight(scale), self._weight(shift)]
            return x
        scaled = self._op("Mul", x.name, self._channels(scale, x))
        return x._replace(name=self._op("Add", scaled, self._channels(shift, x)))

    def act(self, x: _Value, name: str) -> _Value:
        if name in ("gelu", "gelu_tanh"):
            y = self._op("Gelu", x.name, approximate="tanh" if name == "gelu_tanh" else "none")
        elif name == "silu":
            y = self._op("Mul", x.name, self._op("Sigmoid", x.name))
        else:
            y = self._op("Relu", x.name)
        return x._replace(name=y)

    def grn(self, x: _Value, gamma: np.ndarray) -> _Value:
        # ReduceL2 says the same, slower
        squares = self._op("ReduceSum", self._op("Mul", x.name, x.name), self._weight(np.array([2, 3])))
        response = self._op("Sqrt", squares)
        mean = self._op("ReduceMean", response, self._weight(np.array([1])))
        share = self._op("Div", response, self._op("Add", mean, self._weight(np.float32(1e-6))))
        factor = self._op("Mul", share, self._channels(gamma, x))
        return x._replace(name=self._op("Mul", x.name, self._op("Add", factor, self._weight(np.float32(1)))))

    def add(self, a: _Value, b: _Value) -> _Value:
        return a._replace(name=self._op("Add", a.name, b.name))

    def pool(self, x: _Value) -> _Value:
        return _Value(self._op("ReduceMean", x.name, self._weight(np.array([2, 3])), keepdims=0), x.channels, True)

    def flatten(self, x: _Value) -> _Value:
        return x  # since the pool

    def _op(self, kind: str, *inputs: str, **attributes: Any) -> str:
        name = f"{kind}_{len(self.nodes)}"
        self.nodes.append(helper.make_node(kind, inputs, [name], name, **attributes))
        return name

    def _weight(self, values: np.ndarray | np.generic) -> str:
        name = f"weight_{len(self.weights)}"
        self.weights.append(numpy_helper.from_array(np.asarray(values), name))
        return name

    def _channels(self, values: np.ndarray, x: _Value) -> str:
        return self._weight(values if x.pooled else values.reshape(-1, 1, 1))
