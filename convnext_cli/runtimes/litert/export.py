"""LiteRT (TensorFlow Lite): the network of ``runtimes/operations.py`` in its built-in operations.

The graph is written, not converted: that needs neither TensorFlow nor JAX, and batch and size stay open, which
converters from torch fix. The photos for int8 are not looked at: its ranges are measured in each photo
(``tflite_ops.Ops``).
"""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import numpy as np

from convnext_cli.base.errors import UnavailableError, UsageError
from convnext_cli.checkpoints.checkpoint import Checkpoint
from convnext_cli.model.card import METADATA_KEY, Card
from convnext_cli.runtimes.checksum import seal
from convnext_cli.runtimes.exporting.plan import Plan
from convnext_cli.runtimes.exporting.preprocessing_support import refuse_preprocessing
from convnext_cli.runtimes.operations import network, network_with_features

_MOST = 2**31 - 2**24  # bytes of weights that one flatbuffer holds, with room for the graph
_BYTES = {"float32": 4, "float16": 2, "int8": 1}


def refuse(card: Card, plan: Plan) -> None:
    """See ``protocol.Writer``."""
    if find_spec("ai_edge_litert") is None:
        raise UnavailableError("LiteRT is not installed", "pip install ai-edge-litert")
    if plan.dtype == "bfloat16":
        raise UsageError("LiteRT has no arithmetic in bfloat16", "take --dtype float16, which makes as small a file")
    size = card.config.num_parameters * _BYTES[plan.dtype]
    if size > _MOST:
        raise UsageError(
            f"the weights take {size / 1e9:.1f} GB in {plan.dtype}, and a .tflite file holds 2 GB at most",
            "take --dtype float16, or --to openvino",
        )
    if plan.preprocessing:
        refuse_preprocessing(card.preprocessing)


def write(checkpoint: Checkpoint, card: Card, plan: Plan, path: Path) -> None:
    """See ``protocol.Writer``."""
    from convnext_cli.runtimes.exporting.float16 import refuse_overflow
    from convnext_cli.runtimes.litert.export_preprocessing import tensor_of
    from convnext_cli.runtimes.litert.graph import Graph
    from convnext_cli.runtimes.litert.operations import Ops

    if plan.dtype == "float16":
        refuse_overflow(checkpoint)
    graph = Graph()
    ops = Ops(graph, {"float16": np.float16, "int8": np.int8}.get(plan.dtype, np.float32))
    batch, first = plan.batch or 1, plan.batch or -1
    height, width = plan.size or card.preprocessing.size
    if plan.preprocessing:
        name = "photos"
        source = graph.input(np.uint8, (batch, height, width, 3), (first, -1, -1, 3))
        x = tensor_of(source, graph, card.preprocessing)
    else:
        name, channels = "pixel_values", card.config.num_channels
        open_or_not = plan.size or (-1, -1)
        source = graph.input(np.float32, (batch, channels, height, width), (first, channels, *open_or_not))
        x = ops.channels_last(source)
    arrays = {key: tensor.numpy() for key, tensor in checkpoint.tensors.items()}
    outputs = {}
    if plan.features:
        outputs["logits"], outputs["features"] = network_with_features(card.config, arrays, ops, x)
    else:
        outputs["logits"] = network(card.config, arrays, ops, x)
    if plan.scores:
        scores = ops.scores(outputs["logits"], card.problem, checkpoint.card.temperature or 1.0)
        outputs = {"scores": scores} | {key: value for key, value in outputs.items() if key != "logits"}
    graph.save(path, (name, source), outputs, {METADATA_KEY: card.to_json(full=True)})
    seal(path)
