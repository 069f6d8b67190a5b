"""A TensorFlow Lite graph, operation by operation.

The format is schema.fbs of LiteRT (google-ai-edge/LiteRT, tflite/converter/schema), whose Python classes come with
ai-edge-litert. All operations are built-in ones, so that every interpreter runs the file.
"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple, TypeAlias

import numpy as np
from ai_edge_litert import schema_py_generated as schema
from flatbuffers import Builder
from numpy.typing import ArrayLike, DTypeLike

_TYPES = {
    np.dtype(np.float32): schema.TensorType.FLOAT32,
    np.dtype(np.float16): schema.TensorType.FLOAT16,
    np.dtype(np.int64): schema.TensorType.INT64,
    np.dtype(np.int32): schema.TensorType.INT32,
    np.dtype(np.int8): schema.TensorType.INT8,
    np.dtype(np.uint8): schema.TensorType.UINT8,
    np.dtype(np.bool_): schema.TensorType.BOOL,
}
Options: TypeAlias = object  # of an operation, of one of the schema's many classes
Option: TypeAlias = bool | int | float | list[int]
_SIGNATURE = "serving_default"  # as TensorFlow calls the only one of a model


class Value(NamedTuple):
    """A tensor of the graph. at: its place in it. shape: where an extent is open, that of a photo of the usual size."""

    at: int
    shape: tuple[int, ...]
    dtype: np.dtype[np.generic]


class Graph:
    """Collects tensors and operations."""

    def __init__(self) -> None:
        self._tensors: list[schema.TensorT] = []
        self._operators: list[schema.OperatorT] = []
        self._codes: dict[tuple[int, int], int] = {}
        self._buffers = [_Buffer()]  # the first is empty by rule

    def input(self, dtype: DTypeLike, shape: tuple[int, ...], signature: tuple[int, ...]) -> Value:
        """signature: the shape, with -1 where any extent will do."""
        return self._tensor("input", np.dtype(dtype), shape, signature=signature)

    def constant(self, values: ArrayLike) -> Value:
        array = np.asarray(values)
        self._buffers.append(_Buffer(np.ascontiguousarray(array).reshape(-1)))
        at = len(self._buffers) - 1
        return self._tensor(f"constant_{at}", array.dtype, array.shape, buffer=at)

    def quantised(self, values: np.ndarray, steps: np.ndarray) -> Value:
        """int8 weights (out, …), to be multiplied by steps, one for each out."""
        weights = self.constant(values)
        how = schema.QuantizationParametersT()
        how.scale, how.zeroPoint, how.quantizedDimension = steps.astype(np.float32), [0] * len(steps), 0
        self._tensors[weights.at].quantization = how
        return weights

    def op(
        self,
        kind: str,
        *inputs: Value,
        shape: tuple[int, ...] | None = None,
        dtype: DTypeLike | None = None,
        version: int = 1,
        options: Options | None = None,
    ) -> Value:
        """One operation and its one output.

        kind: a name of schema.BuiltinOperator. shape: of the output, that to which the inputs broadcast when None.
        dtype: of the output, the first input's when None. version: of the operation, which rises with what it is asked
        to do. options: an object of its class (``options``), or None where it has none.
        """
        operator = schema.OperatorT()
        key = (getattr(schema.BuiltinOperator, kind), version)
        operator.opcodeIndex = self._codes.setdefault(key, len(self._codes))
        operator.inputs = [value.at for value in inputs]
        if options is not None:
            operator.builtinOptions = options
            operator.builtinOptionsType = getattr(schema.BuiltinOptions, type(options).__name__.removesuffix("T"))
        if shape is None:
            shape = np.broadcast_shapes(*(value.shape for value in inputs))
        name = f"{kind.lower()}_{len(self._operators)}"
        output = self._tensor(name, np.dtype(dtype or inputs[0].dtype), shape)
        operator.outputs = [output.at]
        self._operators.append(operator)
        return output

    def save(self, path: Path, source: tuple[str, Value], outputs: dict[str, Value], metadata: dict[str, str]) -> None:
        """Write the file. source: the input and its name. outputs, metadata: by name."""
        graph = schema.SubGraphT()
        graph.name, graph.tensors, graph.operators = "main", self._tensors, self._operators
        signature = schema.SignatureDefT()
        signature.signatureKey, signature.subgraphIndex = _SIGNATURE, 0
        graph.inputs, signature.inputs = self._named(dict([source]))
        graph.outputs, signature.outputs = self._named(outputs)
        model = schema.ModelT()
        model.version, model.description = 3, "convnext"
        model.subgraphs, model.signatureDefs = [graph], [signature]
        model.operatorCodes = [_code(*key) for key in self._codes]
        model.buffers, model.metadata = list(self._buffers), []
        for name, text in metadata.items():
            entry = schema.MetadataT()
            entry.name, entry.buffer = name, len(model.buffers)
            model.buffers.append(_Buffer(np.frombuffer(text.encode(), np.uint8)))
            model.metadata.append(entry)
        room = sum(len(buffer) for buffer in model.buffers)
        builder = Builder(room + 2**20)
        builder.Finish(model.Pack(builder), file_identifier=b"TFL3")
        with path.open("wb") as file:
            file.write(memoryview(builder.Bytes)[builder.Head() :])

    def _named(self, values: dict[str, Value]) -> tuple[list[int], list[schema.TensorMapT]]:
        maps = []
        for name, value in values.items():
            self._tensors[value.at].name = name
            maps.append(schema.TensorMapT())
            maps[-1].name, maps[-1].tensorIndex = name, value.at
        return [value.at for value in values.values()], maps

    def _tensor(
        self,
        name: str,
        dtype: np.dtype[np.generic],
        shape: tuple[int, ...],
        *,
        buffer: int = 0,
        signature: tuple[int, ...] | None = None,
    ) -> Value:
        tensor = schema.TensorT()
        tensor.name, tensor.type, tensor.shape, tensor.buffer = name, _TYPES[dtype], list(shape), buffer
        tensor.shapeSignature = None if signature in (None, shape) else list(signature or ())
        self._tensors.append(tensor)
        return Value(len(self._tensors) - 1, shape, dtype)


def options(kind: str, **values: Option) -> Options:
    """Options of an operation, of the schema's class ``<kind>OptionsT``."""
    chosen = getattr(schema, f"{kind}OptionsT")()
    for name, value in values.items():
        if not hasattr(chosen, name):
            raise AttributeError(f"{kind}Options has no field {name}")
        setattr(chosen, name, value)
    return chosen


def type_of(dtype: DTypeLike) -> int:
    """A numpy dtype as schema.TensorType."""
    return int(_TYPES[np.dtype(dtype)])


class _Buffer(schema.BufferT):  # type: ignore[misc]
    """Bytes at a multiple of 16, as the schema asks for; the generated class does not see to that."""

    def __init__(self, data: np.ndarray | None = None) -> None:
        super().__init__(data=data)

    def __len__(self) -> int:
        return 0 if self.data is None else int(self.data.nbytes) + 64

    def Pack(self, builder: Builder) -> object:
        if self.data is None:
            return super().Pack(builder)
        builder.StartVector(1, self.data.nbytes, 16)
        builder.head -= self.data.nbytes
        builder.Bytes[builder.head : builder.head + self.data.nbytes] = memoryview(self.data).cast("B")
        data = builder.EndVector()
        schema.BufferStart(builder)
        schema.BufferAddData(builder, data)
        return schema.BufferEnd(builder)


def _code(builtin: int, version: int) -> schema.OperatorCodeT:
    code = schema.OperatorCodeT()
    # the first, of one byte, is read by interpreters that know no others
    code.deprecatedBuiltinCode, code.builtinCode, code.version = min(builtin, 127), builtin, version
    return code
