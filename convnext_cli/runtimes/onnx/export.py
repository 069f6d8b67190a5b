"""ONNX: the network of ``runtimes/onnx/graph.py``, with what the plan puts before and behind it.

One file with the weights and the card inside. Weights of 2 GB and more, which one protobuf message cannot hold, are
beside it in a second file.
"""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from convnext_cli.base.errors import UnavailableError, UsageError
from convnext_cli.model.card import Card
from convnext_cli.runtimes.checksum import seal
from convnext_cli.runtimes.exporting.plan import Plan
from convnext_cli.runtimes.exporting.preprocessing_support import refuse_preprocessing

if TYPE_CHECKING:
    from convnext_cli.checkpoints.checkpoint import Checkpoint

_OLDEST = 17


def refuse(card: Card, plan: Plan) -> None:
    """See ``Writer``."""
    for library in ("onnx", "onnxruntime", *(["onnxslim"] if plan.simplify else [])):
        if find_spec(library) is None:
            needed = "onnxslim" if library == "onnxslim" else "onnx onnxruntime"
            raise UnavailableError(f"{library} is not installed", f"pip install {needed}")
    if plan.opset is not None and plan.opset < _OLDEST:
        raise UsageError(f"opset {plan.opset} has no LayerNormalization", f"--opset {_OLDEST} or newer")
    if plan.preprocessing:
        refuse_preprocessing(card.preprocessing)


def write(checkpoint: Checkpoint, card: Card, plan: Plan, path: Path) -> None:
    """See ``Writer``."""
    import onnx

    from convnext_cli.runtimes.onnx import export_graph, graph
    from convnext_cli.runtimes.onnx.session import ort

    opset = plan.opset or export_graph.newest_opset(plan.dtype, plan.preprocessing)
    if not export_graph.runs(opset, plan.dtype, plan.preprocessing):
        newest = export_graph.newest_opset(plan.dtype, plan.preprocessing)
        libraries = f"onnxruntime {ort.__version__} with onnx {onnx.__version__}"
        raise UsageError(
            f"{libraries} does not run {plan.dtype} in opset {opset}",
            f"--opset {newest} or older; or pip install --upgrade onnx onnxruntime",
        )
    if plan.dtype == "float16":
        from convnext_cli.runtimes.exporting.float16 import refuse_overflow

        refuse_overflow(checkpoint)
    arrays = {name: tensor.numpy() for name, tensor in checkpoint.tensors.items()}
    model = export_graph.graph(card, checkpoint.card.temperature or 1.0, arrays, plan, opset)
    if plan.simplify:
        model = export_graph.simplified(model, plan.dtype)
    graph.save(model, path)
    seal(path)
