"""Refuse an ONNX file whose operations ask for far more memory or time than its size suggests."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path

from convnext_cli.base.errors import ModelError, UnavailableError
from convnext_cli.runtimes.onnx import graph as onnx_graph
from convnext_cli.runtimes.onnx.foreign_meaning import Scope

try:
    import onnx
except ImportError as error:
    raise UnavailableError("ONNX is not installed", "pip install onnxruntime onnx") from error

LOOKED_AT = 64 << 20  # bytes of a file; larger ones have weights, and cost what they weigh
SECONDS = 15.0  # of processor time, for opening it, and for the first photo
_HARMLESS = 10_000_000  # bytes of our own files that are tried too: anybody can write a card into a file
_MEMORY, _MEMORY_EACH, _MOST_MEMORY = 1 << 30, 64 << 20, 4 << 30  # bytes for it, for each one more of a fixed batch
_MOST_NODES = 50_000  # the largest ConvNeXt has 2,000
_MOST_VALUES = 1 << 27  # of a value that is made from its shape alone
_HINT = "export it again without this operation"
# Operations that make values of any size, and the input that says how many
_SHAPED = {"ConstantOfShape": 0, "Expand": 1, "Tile": 1, "RandomNormal": None, "RandomUniform": None}
_LOOPS = {"Loop", "Scan"}


def check(model: Path | bytes, file: str, key: str) -> int:
    """Bytes of memory in which one call of the file has to be tried before it is used; 0 for a file that need not.

    A file is tried when it is small, and has loops, is another program's, or is so small that it cannot be a network of
    ours in full precision.

    Args:
        model: the file, or its bytes.
        file: how it is named in messages.
        key: of the metadata of our own files.

    Raises:
        ModelError: the graph is refused; a damaged file is left to its runtime.
    """
    size = len(model) if isinstance(model, bytes) else model.stat().st_size
    if size > LOOKED_AT:
        return 0
    try:
        proto = onnx_graph.read(model)
    except Exception:  # protobuf's own, and decoding errors
        return 0
    count, loops = 0, False
    for graph, scope in _graphs(proto):
        count += len(graph.node)
        for node in graph.node:
            loops = loops or node.op_type in _LOOPS
            values = _values(node, scope)
            if values > _MOST_VALUES:
                raise ModelError(f"{file} is refused: its {node.op_type} makes {values:,} values", _HINT)
    if count > _MOST_NODES:
        raise ModelError(f"{file} is refused: it has {count:,} operations", "use the graph of a ConvNeXt")
    if not loops and size > _HARMLESS and any(entry.key == key for entry in proto.metadata_props):
        return 0
    batches = [one.type.tensor_type.shape.dim[:1] for one in proto.graph.input]
    batch = max((extent[0].dim_value for extent in batches if extent), default=1)
    return min(_MEMORY + max(0, batch - 1) * _MEMORY_EACH, _MOST_MEMORY)


def _graphs(model: onnx.ModelProto) -> Iterator[tuple[onnx.GraphProto, Scope]]:
    """All graphs in a model: also the bodies of its loops and branches, and its functions."""
    waiting = [(model.graph, Scope.of(model.graph))]
    for function in model.functions:
        graph = onnx.GraphProto(node=function.node)
        waiting.append((graph, Scope.of(graph)))
    while waiting:
        graph, scope = waiting.pop()
        yield graph, scope
        for node in graph.node:
            for attribute in node.attribute:
                bodies = [attribute.g] if attribute.type == onnx.AttributeProto.GRAPH else attribute.graphs
                waiting += [(body, Scope.of(body, scope)) for body in bodies]


def _values(node: onnx.NodeProto, scope: Scope) -> int:
    """How many values an operation makes, where a constant says so; 0 otherwise."""
    if node.op_type not in _SHAPED:
        return 0
    place = _SHAPED[node.op_type]
    if place is None:
        shape = next((list(attribute.ints) for attribute in node.attribute if attribute.name == "shape"), [])
        return math.prod(map(abs, shape))
    value = scope.constant(node.input[place]) if place < len(node.input) else None
    return 0 if value is None else math.prod(abs(int(edge)) for edge in value.reshape(-1))
