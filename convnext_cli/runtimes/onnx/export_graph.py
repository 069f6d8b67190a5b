"""The whole ONNX graph of an export: preprocessing, the network, the scores."""

from __future__ import annotations

from functools import cache

import numpy as np
import onnx
from onnx import TensorProto

from convnext_cli.base.errors import UsageError
from convnext_cli.base.libraries import load_onnxruntime
from convnext_cli.model.card import Card
from convnext_cli.model.config import ConvNextConfig
from convnext_cli.model.preprocessing import Preprocessing
from convnext_cli.runtimes.exporting.plan import Plan
from convnext_cli.runtimes.int8.onnx import RoundingOps, ranges
from convnext_cli.runtimes.int8.quantise import Range
from convnext_cli.runtimes.onnx import export_preprocessing
from convnext_cli.runtimes.onnx.graph import INPUT, OUTPUT, Ops, Value, is_large
from convnext_cli.runtimes.operations import Arrays, network, network_with_features

ort = load_onnxruntime()

OLDEST = 17  # the first opset with LayerNormalization
_TINY = ConvNextConfig(depths=(1,), hidden_sizes=(4,), num_labels=2, use_grn=True)
_SILENT = 4  # of ONNX Runtime's log: errors come as exceptions


def graph(card: Card, temperature: float, arrays: Arrays, plan: Plan, opset: int) -> onnx.ModelProto:
    """What the plan asks for. temperature: that logits are divided by before the softmax."""
    ops = Ops(opset, plan.dtype)
    if plan.calibration is not None:
        ops = RoundingOps(opset, ranges(card.config, arrays, plan.calibration(), opset, plan.threads))
    return _graph(card, temperature, arrays, plan, ops)


def _graph(card: Card, temperature: float, arrays: Arrays, plan: Plan, ops: Ops) -> onnx.ModelProto:
    config = card.config
    batch = plan.batch or "batch"
    shape = [batch, config.num_channels, *(plan.size or ("height", "width"))]
    name, kind, x = INPUT, TensorProto.FLOAT, INPUT
    if plan.preprocessing:
        name, kind, x = (
            export_preprocessing.INPUT,
            TensorProto.UINT8,
            export_preprocessing.tensors(ops, card.preprocessing),
        )
        shape = [batch, "height", "width", config.num_channels]
    tensors = Value(ops.narrow(x), config.num_channels)
    if plan.features:
        logits, features = network_with_features(config, arrays, ops, tensors)
    else:
        logits = network(config, arrays, ops, tensors)
    y = ops.wide(logits.name)
    if plan.scores and card.problem == "multi_label":
        y = ops.op("Sigmoid", y)
    elif plan.scores:
        y = ops.op("Softmax", ops.op("Div", y, ops.constant(np.float32(temperature))), axis=1)
    ops.output(y, "scores" if plan.scores else OUTPUT, TensorProto.FLOAT, [batch, logits.channels])
    if plan.features:
        ops.output(ops.wide(features.name), "features", TensorProto.FLOAT, [batch, features.channels])
    return ops.model(name, kind, shape, card.to_json(full=True))


def simplified(model: onnx.ModelProto, dtype: str) -> onnx.ModelProto:
    """The graph after onnxslim. Raises UsageError for weights in a second file."""
    import onnxslim

    if is_large(model):
        raise UsageError("onnxslim takes one file, below 2 GB", "leave --simplify out, or take --dtype float16")
    # weights that are stored in bfloat16 would be stored in float32 again
    smaller: onnx.ModelProto = onnxslim.slim(
        model, skip_optimizations=["constant_folding"] if dtype == "bfloat16" else None
    )
    return smaller


@cache
def newest_opset(dtype: str, preprocessing: bool) -> int:
    """The newest of those that ``onnx`` knows in which ONNX Runtime here runs such a graph: a small one is tried."""
    return next(
        opset for opset in range(onnx.defs.onnx_opset_version(), OLDEST - 1, -1) if runs(opset, dtype, preprocessing)
    )


@cache
def runs(opset: int, dtype: str, preprocessing: bool) -> bool:
    """Whether ONNX Runtime here runs a small network of the dtype in an opset."""
    arrays = {name: np.ones(shape, np.float32) for name, shape in _TINY.shapes().items()}
    ops = Ops(opset, dtype)
    if dtype == "int8":
        ops = RoundingOps(opset, [Range(np.full(n, -1.0), np.ones(n), np.zeros(n)) for n in (4, 16)])
    x: dict[str, np.ndarray] = {INPUT: np.ones((1, 3, 32, 32), np.float32)}
    if preprocessing:
        x = {export_preprocessing.INPUT: np.ones((1, 40, 32, 3), np.uint8)}
    card = Card(_TINY, Preprocessing(size=(32, 32), resize_to=(32, 32)))
    options = ort.SessionOptions()
    options.log_severity_level = _SILENT
    try:
        model = _graph(card, 1.0, arrays, Plan(size=None, preprocessing=preprocessing, scores=True), ops)
        ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"]).run(None, x)
    except Exception:  # its exceptions have no common base; nor have those of onnx, for an opset that it does not know
        return False
    return True
