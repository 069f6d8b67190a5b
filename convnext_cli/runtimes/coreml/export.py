"""Core ML: the network of ``runtimes/operations.py`` as an ML program, in a .mlpackage.

The program is written with the builder of coremltools, operation by operation; nothing is traced, so that no release of
torch matters. Core ML runs on macOS alone: elsewhere the file can be written but not run.
"""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from convnext_cli.base.errors import ModelError, UnavailableError, UsageError
from convnext_cli.model.card import Card
from convnext_cli.runtimes.exporting.plan import Plan

if TYPE_CHECKING:
    from convnext_cli.checkpoints.checkpoint import Checkpoint


def refuse(card: Card, plan: Plan) -> None:
    """See ``protocol.Writer``."""
    if find_spec("coremltools") is None:
        raise UnavailableError("coremltools is not installed", "pip install coremltools")
    if plan.dtype == "bfloat16":
        raise UsageError("Core ML has no bfloat16", "take --dtype float16, which its processors compute in")
    if plan.dtype == "int8":
        raise UsageError(
            "int8 is judged by its answers on photos, and Core ML gives some on macOS alone: it is not written",
            "take --dtype float16, which its processors compute in",
        )
    if plan.preprocessing:
        raise UsageError(
            "Core ML has no arrays of bytes, and takes photos as images one at a time, which it resizes itself",
            "leave --with-preprocessing out",
        )


def write(checkpoint: Checkpoint, card: Card, plan: Plan, path: Path) -> None:
    """See ``protocol.Writer``."""
    from convnext_cli.runtimes.exporting.float16 import refuse_overflow
    from convnext_cli.runtimes.exporting.placement import probe
    from convnext_cli.runtimes.silence import quiet

    if plan.dtype == "float16":
        refuse_overflow(checkpoint)
    arrays = {name: tensor.numpy() for name, tensor in checkpoint.tensors.items()}
    try:
        with quiet():
            from convnext_cli.runtimes.coreml import program
    except (ImportError, OSError) as error:
        raise UnavailableError(f"coremltools cannot be loaded: {error}", "pip install coremltools") from error
    try:
        with quiet() as output:
            program.save(card, checkpoint.card.temperature or 1.0, arrays, plan, path)
    except (ValueError, RuntimeError, TypeError) as error:
        probe(path.parent, sum(array.nbytes for array in arrays.values()))
        why = " ".join(str(error).split()) or output.last()
        raise ModelError(f"coremltools cannot write this network: {why[:300]}", "take --to tflite") from error
