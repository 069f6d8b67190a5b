"""OpenVINO IR: the graph of ``runtimes/openvino/engine.py``, with what the plan puts before and behind it.

Two files: a .xml with the graph and the card (in its rt_info), and a .bin with the weights. Half precision is how the
weights are kept; what a device computes in is asked of OpenVINO when the file is opened.
"""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from convnext_cli.base.errors import UnavailableError
from convnext_cli.model.card import Card
from convnext_cli.runtimes.exporting.plan import Plan
from convnext_cli.runtimes.exporting.preprocessing_support import refuse_preprocessing

if TYPE_CHECKING:
    from convnext_cli.checkpoints.checkpoint import Checkpoint


def refuse(card: Card, plan: Plan) -> None:
    """See ``Writer``."""
    if find_spec("openvino") is None:
        raise UnavailableError("openvino is not installed", "pip install openvino")
    if plan.preprocessing:
        refuse_preprocessing(card.preprocessing)


def write(checkpoint: Checkpoint, card: Card, plan: Plan, path: Path) -> None:
    """See ``Writer``."""
    from convnext_cli.runtimes.openvino import export_graph

    if plan.dtype == "float16":
        from convnext_cli.runtimes.exporting.float16 import refuse_overflow

        refuse_overflow(checkpoint)
    arrays = {name: tensor.numpy() for name, tensor in checkpoint.tensors.items()}
    export_graph.write(card, checkpoint.card.temperature or 1.0, arrays, plan, path)
