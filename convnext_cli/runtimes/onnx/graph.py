"""The network of ``operations.py`` as an ONNX graph, without torch; and what a graph says of itself.

Opset 20 when nothing else is said, the first with Gelu as one operation: runtimes compute it faster than its five
parts, and every ONNX Runtime from 1.17 reads it. Pointwise layers are 1×1 convolutions, which ONNX Runtime computes in
its blocked layout from the depthwise convolution to the sum; as matrix products with a bias, they were a tenth slower
on AVX-512.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from itertools import count
from pathlib import Path
from typing import NamedTuple, TypeAlias

import numpy as np
from numpy.typing import ArrayLike

from convnext_cli import __version__
from convnext_cli.base.errors import UnavailableError
from convnext_cli.model.card import METADATA_KEY, Card
from convnext_cli.model.config import ConvNextConfig
from convnext_cli.runtimes.operations import Arrays, network, network_with_features

try:
    import onnx
    from onnx import TensorProto, helper, numpy_helper
except ImportError as error:
    raise UnavailableError("ONNX is not installed", "pip install onnxruntime onnx") from error

FILE = "model.onnx"  # of a prepared engine
INPUT, OUTPUT, FEATURES = "pixel_values", "logits", "features"
OPSET = 20
_MOST = 2**31 - 2**20  # bytes of weights that one protobuf file holds, with room for the graph
_QUANTISED = {
    "QuantizeLinear", "DynamicQuantizeLinear", "ConvInteger", "MatMulInteger", "QLinearConv", "QLinearMatMul",
}  # fmt: skip
# A setting of an operation; graphs are the branches of If
Attribute: TypeAlias = int | float | str | Sequence[int] | onnx.GraphProto
_FLOATS = {TensorProto.FLOAT: "float32", TensorProto.FLOAT16: "float16", TensorProto.BFLOAT16: "bfloat16"}


def graph(config: ConvNextConfig, tensors: Arrays, card: Card | None = None, *, opset: int = OPSET) -> onnx.ModelProto:
    """The network as float32 ONNX: "pixel_values" (N, 3, H, W) to "logits" (N, classes) and pooled "features" (N, C).

    All but the channels is open; a network without a classifier has no second output.

    tensors: by canonical name. card: kept in the metadata, so that the file needs nothing beside it.
    """
    ops = Ops(opset)
    photos = Value(INPUT, config.num_channels)
    if config.num_labels:
        last, features = network_with_features(config, tensors, ops, photos)
        ops.output(last.name, OUTPUT, TensorProto.FLOAT, ["batch", last.channels])
        ops.output(features.name, FEATURES, TensorProto.FLOAT, ["batch", features.channels])
    else:
        last = network(config, tensors, ops, photos)
        ops.output(last.name, OUTPUT, TensorProto.FLOAT, ["batch", last.channels])
    shape: list[int | str] = ["batch", config.num_channels, "height", "width"]
    return ops.model(INPUT, TensorProto.FLOAT, shape, card.to_json() if card is not None else None)


def is_large(model: onnx.ModelProto) -> bool:
    """Whether its weights are more than one file holds."""
    return sum(len(weight.raw_data) for weight in model.graph.initializer) > _MOST


def save(model: onnx.ModelProto, path: Path) -> None:
    """Write a graph. Weights of 2 GB and more go to a file of their own beside it, and out of ``model``."""
    large = is_large(model)
    onnx.save(model, path, save_as_external_data=large, location=f"{path.name}.data" if large else None)


def read(model: Path | bytes) -> onnx.ModelProto:
    """An ONNX file; weights in files of their own are left there."""
    return onnx.load_from_string(model) if isinstance(model, bytes) else onnx.load(model, load_external_data=False)


def dtype_of(model: onnx.ModelProto) -> str:
    """What a graph computes in, as its operations and weights say."""
    if _QUANTISED & {node.op_type for node in model.graph.node}:
        return "int8"
    sizes = dict.fromkeys(_FLOATS.values(), 0)
    for weight in model.graph.initializer:
        if weight.data_type in _FLOATS:
            sizes[_FLOATS[weight.data_type]] += math.prod(weight.dims)
    return max(sizes, key=lambda name: sizes[name])


class Value(NamedTuple):
    """pooled: (N, C) instead of (N, C, H, W)."""

    name: str
    channels: int
    pooled: bool = False


class Ops:
    """``operations.Ops``: collects the nodes, weights and outputs of a graph.

    opset: 17 or newer. dtype: of weights and values. "float16": norms and sums over positions are computed in float32
    all the same, where squares do not overflow. "bfloat16": weights alone, since ONNX has convolutions of it from opset
    22 on and ONNX Runtime none for processors; the values are float32.
    """

    def __init__(self, opset: int = OPSET, dtype: str = "float32") -> None:
        self.opset = opset
        self.nodes: list[onnx.NodeProto] = []
        self._count = count()
        self._dtype = dtype
        self._weights: list[onnx.TensorProto] = []
        self._outputs: list[onnx.ValueInfoProto] = []
        self._names: dict[str, str] = {}  # of outputs, by those that they had as values
        self.norms: dict[str, onnx.NodeProto] = {}  # the LayerNormalization of a value that comes from one

    def conv(
        self, x: Value, weight: np.ndarray, bias: np.ndarray, *, stride: int = 1, padding: int = 0, groups: int = 1
    ) -> Value:
        out, kernel = len(weight), weight.shape[-1]
        if x.pooled:
            y = self.op("Gemm", x.name, self.weight(weight[:, :, 0, 0]), self.weight(bias), transB=1)
            return Value(y, out, pooled=True)
        name = self.op(
            *("Conv", x.name, self.weight(weight), self.weight(bias)),
            kernel_shape=[kernel] * 2,
            strides=[stride] * 2,
            pads=[padding] * 4,
            group=groups,
        )
        return Value(name, out)

    def norm(self, x: Value, kind: str, eps: float) -> Value:
        y = x.name if x.pooled else self.op("Transpose", x.name, perm=[0, 2, 3, 1])
        layer_norm = None
        if kind == "layer":  # its mean and deviation are float32 in any dtype ("stash_type")
            ones = np.ones(x.channels, np.float16 if self._dtype == "float16" else np.float32)
            y = self.op("LayerNormalization", y, self.constant(ones), epsilon=eps)
            layer_norm = self.nodes[-1]
        else:
            wide = self.wide(y)
            y = self.narrow(self.op("Div", wide, self._deviation(wide, kind, eps, x.channels)))
        y = y if x.pooled else self.op("Transpose", y, perm=[0, 3, 1, 2])
        if layer_norm is not None:
            self.norms[y] = layer_norm
        return x._replace(name=y)

    def _deviation(self, y: str, kind: str, eps: float, channels: int) -> str:
        """The root of the mean square ("rms"), or the unbiased deviation ("simple"), over the last axis."""
        divisor = channels
        if kind == "simple":
            y, divisor = self.op("Sub", y, self.reduce("ReduceMean", y, -1)), channels - 1
        power = self.op("ReduceSum", self.op("Mul", y, y), self.constant([-1]))
        power = self.op("Mul", power, self.constant(np.float32(1 / divisor)))
        return self.op("Sqrt", self.op("Add", power, self.constant(np.float32(eps))))

    def affine(self, x: Value, scale: np.ndarray, shift: np.ndarray) -> Value:
        if norm := self.norms.get(x.name):  # ONNX's LayerNormalization has the affine part in it
            self.forget(norm.input[1])
            norm.input[1:] = [self.weight(scale), self.weight(shift)]
            return x
        scaled = self.op("Mul", x.name, self.weight(_channels(scale, x)))
        return x._replace(name=self.op("Add", scaled, self.weight(_channels(shift, x))))

    def act(self, x: Value, name: str) -> Value:
        if name in ("gelu", "gelu_tanh"):
            return x._replace(name=self._gelu(x.name, tanh=name == "gelu_tanh"))
        y = self.op("Mul", x.name, self.op("Sigmoid", x.name)) if name == "silu" else self.op("Relu", x.name)
        return x._replace(name=y)

    def _gelu(self, x: str, *, tanh: bool) -> str:
        """One operation from opset 20 on; before, its parts, in the order in which ONNX Runtime knows them again."""
        if self.opset >= 20:
            return self.op("Gelu", x, approximate="tanh" if tanh else "none")
        x = self.wide(x)  # x³ overflows in half precision
        one, half = self.constant(np.float32(1)), self.constant(np.float32(0.5))
        if tanh:
            cube = self.op("Pow", x, self.constant(np.float32(3)))
            inner = self.op("Add", x, self.op("Mul", cube, self.constant(np.float32(0.044715))))
            bent = self.op("Tanh", self.op("Mul", inner, self.constant(np.float32(math.sqrt(2 / math.pi)))))
            return self.narrow(self.op("Mul", self.op("Mul", x, half), self.op("Add", bent, one)))
        bent = self.op("Erf", self.op("Div", x, self.constant(np.float32(math.sqrt(2)))))
        return self.narrow(self.op("Mul", self.op("Mul", x, self.op("Add", bent, one)), half))

    def grn(self, x: Value, gamma: np.ndarray) -> Value:
        # ReduceL2 says the same, slower
        y = self.wide(x.name)
        response = self.op("Sqrt", self.op("ReduceSum", self.op("Mul", y, y), self.constant([2, 3])))
        share = self.op(
            "Div", response, self.op("Add", self.reduce("ReduceMean", response, 1), self.constant(np.float32(1e-6)))
        )
        factor = self.op("Mul", share, self.constant(_channels(gamma, x)))
        y = self.op("Mul", y, self.op("Add", factor, self.constant(np.float32(1))))
        return x._replace(name=self.narrow(y))

    def add(self, a: Value, b: Value) -> Value:
        return a._replace(name=self.op("Add", a.name, b.name))

    def pool(self, x: Value) -> Value:
        return Value(
            self.narrow(self.reduce("ReduceMean", self.wide(x.name), 2, 3, keepdims=0)), x.channels, pooled=True
        )

    def flatten(self, x: Value) -> Value:
        return x  # since the pool

    def reduce(self, kind: str, x: str, *axes: int, keepdims: int = 1) -> str:
        """ReduceMean, ReduceMin or ReduceMax."""
        if self.opset < 18:
            return self.op(kind, x, axes=axes, keepdims=keepdims)
        return self.op(kind, x, self.constant(axes), keepdims=keepdims)

    def wide(self, x: str) -> str:
        """A value of the graph's dtype in float32."""
        return self.op("Cast", x, to=TensorProto.FLOAT) if self._dtype == "float16" else x

    def narrow(self, x: str) -> str:
        """The inverse of ``wide``."""
        return self.op("Cast", x, to=TensorProto.FLOAT16) if self._dtype == "float16" else x

    def op(self, kind: str, *inputs: str, **attributes: Attribute) -> str:
        """Add a node, and return the name of its output."""
        name = self._fresh(kind)
        node = helper.make_node(kind, inputs, [name], name)
        node.attribute.extend(helper.make_attribute(key, value) for key, value in sorted(attributes.items()))
        self.nodes.append(node)
        return name

    def choose(self, condition: str, yes: Callable[[], str], no: Callable[[], str]) -> str:
        """What one of two parts of the graph gives, which may use all values so far."""
        return self.op("If", condition, then_branch=self._branch(yes), else_branch=self._branch(no))

    def _branch(self, part: Callable[[], str]) -> onnx.GraphProto:
        outer, self.nodes = self.nodes, []
        value = part()
        inner, self.nodes = self.nodes, outer
        return helper.make_graph(inner, self._fresh("branch"), [], [onnx.ValueInfoProto(name=value)])

    def weight(self, values: np.ndarray) -> str:
        """A parameter, float32, kept in the graph's dtype."""
        if self._dtype == "bfloat16":
            kept = helper.make_tensor(
                self._fresh("weight"), TensorProto.BFLOAT16, values.shape, _bfloat16(values), raw=True
            )
            self._weights.append(kept)
            return self.op("Cast", kept.name, to=TensorProto.FLOAT)
        with np.errstate(over="ignore"):  # what float16 does not hold becomes infinite, and is found out
            return self.constant(values.astype(np.float16) if self._dtype == "float16" else values)

    def constant(self, values: ArrayLike) -> str:
        """A number or an array, in its own dtype; whole numbers are int64."""
        self._weights.append(numpy_helper.from_array(np.asarray(values), self._fresh("weight")))
        return self._weights[-1].name

    def forget(self, name: str) -> None:
        """Take back a constant that nothing reads any more."""
        self._weights = [weight for weight in self._weights if weight.name != name]

    def _fresh(self, kind: str) -> str:
        return f"{kind}_{next(self._count)}"

    def output(self, x: str, name: str, dtype: int, shape: Sequence[int | str]) -> None:
        """Make a value an output of the graph."""
        if x in self._names:  # is one already
            x = self.op("Identity", self._names[x])
        self._names[x] = name
        for node in self.nodes:
            for names in (node.input, node.output):
                names[:] = [name if value == x else value for value in names]
        self._outputs.append(helper.make_tensor_value_info(name, dtype, shape))

    def model(self, name: str, dtype: int, shape: Sequence[int | str], card: str | None) -> onnx.ModelProto:
        """The graph of an input. card: JSON for the metadata."""
        opsets = [helper.make_opsetid("", self.opset)]
        proto: onnx.ModelProto = helper.make_model(
            helper.make_graph(
                self.nodes,
                "convnext",
                [helper.make_tensor_value_info(name, dtype, shape)],
                self._outputs,
                self._weights,
            ),
            opset_imports=opsets,
            ir_version=helper.find_min_ir_version_for(opsets),
            producer_name="convnext",
            producer_version=__version__,
        )
        if card is not None:
            helper.set_model_props(proto, {METADATA_KEY: card})
        return proto


def _channels(values: np.ndarray, x: Value) -> np.ndarray:
    return values if x.pooled else values.reshape(-1, 1, 1)


def _bfloat16(values: np.ndarray) -> bytes:
    """The upper halves of float32 numbers, rounded to nearest, ties to even; little-endian."""
    bits = np.ascontiguousarray(values, "<f4").view("<u4")
    return np.asarray((bits + 0x7FFF + (bits >> 16 & 1)) >> 16, "<u2").tobytes()
