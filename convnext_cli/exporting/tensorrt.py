"""TensorRT: an engine for the GPU that it is built on, from the ONNX graph of ``exporting.onnx``.

An engine file has no place for text, so the card lies beside it as FILE.json. Written after NVIDIA's developer guide
(docs.nvidia.com/deeplearning/tensorrt, "Python API"); it was not run here for want of a GPU.
"""

from __future__ import annotations

import os
import tempfile
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from convnext_cli.card import Card
from convnext_cli.checkpoints.checkpoint import Checkpoint
from convnext_cli.errors import ModelError, UnavailableError, UsageError
from convnext_cli.exporting import onnx
from convnext_cli.exporting.plan import Plan

_OPSET = 20  # that its parser takes since 10.0
_USUAL, _MOST = 8, 64  # photos a call where the batch is open: what it is tuned for, and what it takes


def refuse(card: Card, plan: Plan) -> None:
    """See ``exporting.Writer``."""
    if find_spec("tensorrt") is None:
        raise UnavailableError("TensorRT is not installed", "pip install tensorrt, on a machine with an NVIDIA GPU")
    import torch

    if not torch.cuda.is_available():
        raise UnavailableError(
            "TensorRT builds an engine on the GPU that will run it, and there is none here",
            "export on the machine with the GPU, or take --to onnx",
        )
    if plan.dtype == "int8":
        raise UsageError("int8 is not written for TensorRT", "take --dtype float16, which its GPUs compute best in")
    if plan.size is None:
        raise UsageError("a TensorRT engine is tuned for one size", "leave --size any out")
    if plan.preprocessing:
        raise UsageError("a TensorRT engine is tuned for one size, and photos have many", "take --to onnx for that")
    onnx.refuse(card, _onnx_plan(plan))


def made_with() -> dict[str, str]:
    """See ``exporting.Writer``."""
    return {"tensorrt": version("tensorrt")}


def write(checkpoint: Checkpoint, card: Card, plan: Plan, path: Path) -> None:
    """See ``exporting.Writer``."""
    import tensorrt as trt

    logger = trt.Logger(trt.Logger.ERROR)
    builder = trt.Builder(logger)
    # types as the ONNX graph has them, whose norms are float32
    network = builder.create_network(1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
    parser = trt.OnnxParser(network, logger)
    with tempfile.TemporaryDirectory() as folder:
        graph = Path(folder) / "model.onnx"
        onnx.write(checkpoint, card, _onnx_plan(plan), graph)
        if not parser.parse_from_file(os.fspath(graph)):
            why = "; ".join(parser.get_error(i).desc() for i in range(parser.num_errors))
            raise ModelError(f"TensorRT does not take the network: {why}", "take --to onnx")
    config = builder.create_builder_config()
    config.clear_flag(trt.BuilderFlag.TF32)  # float32 means float32
    if plan.batch is None and plan.size is not None:
        profile = builder.create_optimization_profile()
        shapes = [(n, checkpoint.card.config.num_channels, *plan.size) for n in (1, _USUAL, _MOST)]
        profile.set_shape(network.get_input(0).name, *shapes)
        config.add_optimization_profile(profile)
    built: Any = builder.build_serialized_network(network, config)
    if built is None:
        raise ModelError("TensorRT could not build the engine", "free memory of the GPU, or take --to onnx")
    path.write_bytes(built)
    path.with_name(f"{path.name}.json").write_text(card.to_json(whole=True), "utf-8")


def _onnx_plan(plan: Plan) -> Plan:
    from dataclasses import replace

    return replace(plan, opset=_OPSET)
