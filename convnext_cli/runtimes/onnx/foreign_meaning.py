"""What the graph of another program's ONNX file means: what its scores are, and what its input takes.

Read from the operations alone, backwards from an output and forwards from the input. Whatever is not clear is None, and
``foreign_trial`` looks at what the file answers.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Literal, NamedTuple

import numpy as np

from convnext_cli.base.errors import UnavailableError

try:
    import onnx
    from onnx import numpy_helper
except ImportError as error:
    raise UnavailableError("ONNX is not installed", "pip install onnxruntime onnx") from error

Kind = Literal["logits", "softmax", "sigmoid"]  # "logits" may be the logarithms of a softmax

# Operations that hand their first input on: in another shape or type, or as it is
_PASS = {
    "Identity", "Cast", "CastLike", "Flatten", "Reshape", "Squeeze", "Unsqueeze", "Transpose", "Dropout", "Slice",
    "Gather", "QuantizeLinear", "DequantizeLinear", "Expand", "Split", "GatherND",
}  # fmt: skip
_PASS_ALONE = {"Concat", "Sum", "Max", "Min", "Mean"}  # of one input
_LINEAR = {"MatMul", "Gemm", "Conv", "Add", "Sub", "LogSoftmax", "MatMulInteger", "QLinearMatMul", "BatchNormalization"}
_MIXING = {"Mul", "Div", "Neg", "Sum", "Mean", "Max", "Min", "Concat"}  # and of scores these make scores again
_DEEPEST = 20_000  # steps back
_NEAR = 6  # operations between an output and the scores that it is made of
_SMALL = 4096  # elements of a constant that is looked at


class Scope(NamedTuple):
    """The values that a graph, or the body of an If or Loop in it, has by name."""

    makers: dict[str, onnx.NodeProto]
    constants: dict[str, onnx.TensorProto]
    outer: Scope | None = None

    @classmethod
    def of(cls, graph: onnx.GraphProto, outer: Scope | None = None) -> Scope:
        makers = {name: node for node in graph.node for name in node.output if name}
        return cls(makers, {weight.name: weight for weight in graph.initializer}, outer)

    def maker(self, name: str) -> tuple[onnx.NodeProto, Scope] | None:
        scope: Scope | None = self
        while scope is not None:
            if name in scope.makers:
                return scope.makers[name], scope
            scope = scope.outer
        return None

    def is_constant(self, name: str) -> bool:
        """Whether it is a constant of any size."""
        maker = self.maker(name)
        return name in self.constants or (maker is not None and maker[0].op_type == "Constant")

    def constant(self, name: str) -> np.ndarray | None:
        """The value of a small constant."""
        tensor, scope = None, self
        while tensor is None and scope is not None:
            tensor, scope = scope.constants.get(name), scope.outer  # type: ignore[assignment]
        maker = self.maker(name)
        if tensor is None and maker is not None:
            node, inner = maker
            if node.op_type in ("Identity", "Cast", "Reshape", "Unsqueeze", "Squeeze"):
                return inner.constant(node.input[0])
            if node.op_type == "Constant":
                tensor = next((attribute.t for attribute in node.attribute if attribute.name == "value"), None)
                for attribute in node.attribute:
                    if attribute.name in ("value_float", "value_int"):
                        return np.asarray(onnx.helper.get_attribute_value(attribute))
        if tensor is None or tensor.data_location == onnx.TensorProto.EXTERNAL or np.prod(tensor.dims) > _SMALL:
            return None
        return np.asarray(numpy_helper.to_array(tensor))


def inlined(model: onnx.ModelProto) -> onnx.ModelProto:
    """The model with the functions that it defines written out in its graph."""
    if not model.functions:
        return model
    from onnx.inliner import inline_local_functions

    whole_graph: onnx.ModelProto = inline_local_functions(model)
    return whole_graph


# The output -----------------------------------------------------------------------------------------------------------


def kind_of(scope: Scope, output: str) -> Kind | None:
    """What an output is, by the last operation that changes values; None where that is not clear."""
    name, at = output, scope
    for _ in range(_DEEPEST):
        if (maker := at.maker(name)) is None:
            return None
        node, at = maker
        if node.op_type in ("If", "Loop", "Scan"):
            kinds = {
                kind_of(Scope.of(body, at), body.output[place].name)
                for body, place in _bodies(node, list(node.output).index(name))
            }
            return kinds.pop() if len(kinds) == 1 else None
        follow = _passed(node, at)
        if follow is None:
            return _kind(node, at)
        name = follow
    return None


def _bodies(node: onnx.NodeProto, place: int) -> Iterator[tuple[onnx.GraphProto, int]]:
    for attribute in node.attribute:
        if attribute.type == onnx.AttributeProto.GRAPH:
            at = place + (node.op_type == "Loop")  # its first output says whether to go on
            if at < len(attribute.g.output):
                yield attribute.g, at


def _passed(node: onnx.NodeProto, scope: Scope) -> str | None:
    """The input that a node hands on without changing its values, if it does."""
    inputs = [name for name in node.input if name]
    if node.op_type in _PASS or (node.op_type in _PASS_ALONE and len(inputs) == 1):
        return str(inputs[0]) if inputs else None
    neutral = {"Mul": 1, "Div": 1, "Add": 0, "Sub": 0, "Pow": 1}.get(node.op_type)
    if neutral is not None and len(inputs) == 2:
        for place in (1, 0) if node.op_type in ("Mul", "Add") else (1,):
            value = scope.constant(inputs[place])
            if value is not None and np.all(value == neutral):
                return str(inputs[1 - place])
    return None


def _kind(node: onnx.NodeProto, scope: Scope) -> Kind | None:
    kind = node.op_type
    if kind == "Softmax":
        axis = next((a.i for a in node.attribute if a.name == "axis"), None)
        return None if axis == 0 else "softmax"  # over the photos of a batch, it gives no scores of a photo
    if kind in ("Sigmoid", "HardSigmoid"):
        return "sigmoid"
    if kind in ("Div", "Mul", "Reciprocal"):
        if written_out := _kind_written_out(node, scope):
            return written_out
        for place, name in enumerate(node.input):  # logits over a temperature
            other = node.input[1 - place] if len(node.input) == 2 else ""
            before = _before(scope, name)
            if before is not None and before.op_type in _LINEAR and scope.constant(other) is not None:
                return "logits" if _kind(before, scope) == "logits" else None
    if kind == "Exp" and (before := _before(scope, node.input[0])) and before.op_type == "LogSoftmax":
        return "softmax"
    if kind == "Log" and (before := _before(scope, node.input[0])) and before.op_type == "Softmax":
        return "logits"
    if kind == "LogSoftmax":
        return "logits"
    # an average of two softmaxes is linear too, and so is 0.5 + 0.5 · tanh(x / 2): what a file answers decides
    return "logits" if kind in _LINEAR and not _is_of_scores(node, scope, _NEAR) else None


def _before(scope: Scope, name: str) -> onnx.NodeProto | None:
    """The node that made a value, apart from those that hand it on."""
    at = scope
    for _ in range(_DEEPEST):
        if (maker := at.maker(name)) is None:
            return None
        node, at = maker
        if (follow := _passed(node, at)) is None:
            return node
        name = follow
    return None


def _is_of_scores(node: onnx.NodeProto, scope: Scope, most: int) -> bool:
    """Whether an operation is applied to scores, with others like it in between. most: how many are looked through."""
    for name in node.input:
        before = _before(scope, name)
        if before is None:
            continue
        kind = before.op_type
        if kind in ("Softmax", "Sigmoid", "HardSigmoid", "Tanh", "Exp") or _kind_written_out(before, scope):
            return True
        is_scaling = kind in _MIXING and (len(before.input) == 1 or any(map(scope.is_constant, before.input)))
        is_mixing = kind in _LINEAR - {"LogSoftmax"} or kind in _MIXING - {"Mul", "Div"} or is_scaling
        if most and is_mixing and _is_of_scores(before, scope, most - 1):
            return True
    return False


def _kind_written_out(node: onnx.NodeProto, scope: Scope) -> Kind | None:
    if node.op_type not in ("Div", "Mul", "Reciprocal"):
        return None
    if _is_logistic(node, scope):
        return "sigmoid"
    return "softmax" if _is_normalised_exp(node, scope) else None


def _is_logistic(node: onnx.NodeProto, scope: Scope) -> bool:
    """1 / (1 + exp(…)), with a division or a reciprocal."""
    if node.op_type == "Div":
        one = scope.constant(node.input[0])
        if one is None or not np.all(one == 1):
            return False
        below = node.input[1]
    elif node.op_type == "Reciprocal":
        below = node.input[0]
    else:
        return False
    total = _before(scope, below)
    if total is None or total.op_type != "Add":
        return False
    for one_at, other in ((0, 1), (1, 0)):
        one, rest = scope.constant(total.input[one_at]), _before(scope, total.input[other])
        if one is not None and np.all(one == 1) and rest is not None and rest.op_type == "Exp":
            return True
    return False


def _is_normalised_exp(node: onnx.NodeProto, scope: Scope) -> bool:
    """exp(x) / sum(exp(x)), with a division or a reciprocal."""
    if node.op_type == "Reciprocal":
        return False
    parts = [_before(scope, name) for name in node.input]
    if node.op_type == "Mul":
        parts.sort(key=lambda part: part is not None and part.op_type == "Reciprocal")
        last = parts[1]
        if last is None or last.op_type != "Reciprocal":
            return False
        parts[1] = _before(scope, last.input[0])
    above, below = parts
    if above is None or below is None or above.op_type != "Exp" or below.op_type != "ReduceSum":
        return False
    summed = _before(scope, below.input[0])
    return summed is not None and summed.op_type == "Exp" and summed.output[0] == above.output[0]


class Steps(NamedTuple):
    """How numbers were quantised: each is ``scale`` times its distance from ``zero``."""

    scale: float
    zero: float

    def numbers(self, quantised: np.ndarray) -> np.ndarray:
        """The numbers that quantised ones stand for, in float64."""
        return (quantised.astype(np.float64) - self.zero) * self.scale


def steps_of(scope: Scope, output: str) -> Steps | None:
    """How an output of bytes was quantised, by the operation that did it; None where none says so."""
    name, at = output, scope
    for _ in range(_DEEPEST):
        if (maker := at.maker(name)) is None:
            return None
        node, at = maker
        if node.op_type == "QuantizeLinear":
            scale = at.constant(node.input[1])
            zero = at.constant(node.input[2]) if len(node.input) > 2 else np.zeros(1)
            if scale is None or zero is None or scale.size != 1 or zero.size != 1:
                return None
            return Steps(float(scale.item()), float(zero.item()))
        if node.op_type in ("Cast", "CastLike") or (follow := _passed(node, at)) is None:
            return None
        name = follow
    return None


def is_sorted(scope: Scope, output: str) -> bool:
    """Whether an output has scores in the order of their size, so that nobody knows of which class each is."""
    node = _before(scope, output)
    return node is not None and node.op_type == "TopK"


def last_of(scope: Scope, outputs: list[str]) -> list[str]:
    """The outputs that no other of them is made from: scores, and not the features that they are made of."""
    return [name for name in outputs if not any(_feeds(scope, name, other) for other in outputs if other != name)]


def _feeds(scope: Scope, source: str, output: str) -> bool:
    """Whether an output is computed from a value."""
    waiting, seen = [output], set()
    while waiting:
        name = waiting.pop()
        if name == source and name != output:
            return True
        if name in seen:
            continue
        seen.add(name)
        if (maker := scope.maker(name)) is not None:
            if maker[0].op_type == "Identity" and source in maker[0].input:
                return True
            waiting += maker[0].input
    return False


# The input ------------------------------------------------------------------------------------------------------------


class InputMeaning(NamedTuple):
    """channels_last: whether (N, H, W, 3); None where no operation says so. scale, shift: what the graph itself makes
    of a pixel before its first layer, one number or one a channel; None where the first operation is a layer."""

    channels_last: bool | None
    scale: np.ndarray | None
    shift: np.ndarray | None


def input_of(graph: onnx.GraphProto, name: str) -> InputMeaning:
    """What becomes of the input before the first layer."""
    scope = Scope.of(graph)
    users: dict[str, list[onnx.NodeProto]] = {}
    for node in graph.node:
        for value in node.input:
            users.setdefault(value, []).append(node)
    scale, shift = np.ones(1), np.zeros(1)
    changed = False
    last: bool | None = None
    for _ in range(64):
        following = users.get(name, [])
        if len(following) != 1:
            break
        (node,) = following
        kind = node.op_type
        if kind == "Transpose":
            perm = next((list(a.ints) for a in node.attribute if a.name == "perm"), [])
            last = {(0, 3, 1, 2): True, (0, 2, 3, 1): False}.get(tuple(perm), last)
        elif kind == "DequantizeLinear" and len(node.input) > 1:
            factor = scope.constant(node.input[1])
            zero = scope.constant(node.input[2]) if len(node.input) > 2 else np.zeros(1)
            if factor is None or zero is None:
                break
            scale, shift = scale * factor, (shift - zero.astype(np.float64)) * factor
            changed = True
        elif kind in ("Mul", "Div", "Add", "Sub"):
            place = 1 if node.input[0] == name else 0
            value = scope.constant(node.input[place])
            if value is None or value.size not in (1, 3) or (kind in ("Div", "Sub") and place == 0):
                break
            value, changed = value.reshape(-1).astype(np.float64), True
            if kind in ("Mul", "Div"):
                factor = value if kind == "Mul" else 1 / value
                scale, shift = scale * factor, shift * factor
            else:
                shift = shift + (value if kind == "Add" else -value)
        elif kind not in ("Cast", "Identity", "QuantizeLinear"):
            if last is None and kind in ("Conv", "QLinearConv", "ConvInteger"):
                last = False
            break
        name = node.output[0]
    return InputMeaning(last, scale if changed else None, shift if changed else None)


def pixels_of(meaning: InputMeaning) -> Literal["bytes", "unit"] | None:
    """Whether a graph that normalises by itself takes pixels of 0 to 255 or of 0 to 1; None where it does not, or where
    that is not clear."""
    if meaning.scale is None or meaning.shift is None:
        return None
    width = float(np.abs(meaning.scale).mean())
    if 0.9 <= 255 * width <= 8:  # from [0, 1] to twice the deviation of the least usual normalisation
        return "bytes"
    centre = float(meaning.shift.mean())
    if width == 1 and -160 <= centre <= -80:  # means of bytes, not divided
        return "bytes"
    return "unit" if 1.5 <= width <= 8 else None


def made_by_tensorflow(model: onnx.ModelProto) -> bool:
    """Whether tf2onnx wrote it."""
    words: Any = (model.producer_name, model.graph.name)
    return any("tf2onnx" in word.lower() or "tensorflow" in word.lower() for word in words)
