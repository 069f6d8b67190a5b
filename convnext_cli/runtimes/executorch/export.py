"""ExecuTorch: ``model/network.py`` as a torch.export program for its runtime, computed by XNNPACK wherever it can.

After the guides of docs.pytorch.org/executorch: "Model Export and Lowering" and "XNNPACK Backend". The card is a method
of the program, ``convnext``, that gives its JSON: a program that runs the file can read it. Memory is planned when a
program is written, for the largest input that it will get: so the batch has a bound, and the size is fixed. The photos
for int8 are not looked at: its ranges are measured at each call.
"""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from convnext_cli.base.errors import ModelError, UnavailableError, UsageError
from convnext_cli.model.card import Card
from convnext_cli.runtimes.checksum import seal
from convnext_cli.runtimes.exporting.plan import Plan

if TYPE_CHECKING:
    from convnext_cli.checkpoints.checkpoint import Checkpoint


def refuse(card: Card, plan: Plan) -> None:
    """See ``protocol.Writer``."""
    if find_spec("executorch") is None:
        raise UnavailableError("ExecuTorch is not installed", "pip install executorch")
    if plan.dtype == "bfloat16":
        raise UsageError(
            "XNNPACK has no bfloat16, and ExecuTorch's own kernels for it are hundreds of times slower",
            "take --dtype float16, which makes as small a file",
        )
    if plan.preprocessing or plan.size is None:
        what = "photos of any size" if plan.preprocessing else "any size"
        raise UsageError(
            f"ExecuTorch plans its memory for the largest input, and there is none for {what}",
            "leave --with-preprocessing out" if plan.preprocessing else "--size PIXELS",
        )


def write(checkpoint: Checkpoint, card: Card, plan: Plan, path: Path) -> None:
    """See ``protocol.Writer``."""
    from convnext_cli.runtimes.exporting.float16 import refuse_overflow
    from convnext_cli.runtimes.silence import quiet

    if plan.dtype == "float16":
        refuse_overflow(checkpoint)
    try:
        with quiet():
            from convnext_cli.runtimes.executorch import program as executorch_program
    except (ImportError, OSError) as error:
        raise UnavailableError(f"ExecuTorch cannot be loaded: {error}", "pip install executorch") from error
    try:
        with quiet() as output:
            program = executorch_program.lowered(checkpoint, card, plan)
    except (OSError, MemoryError, UnavailableError):
        raise
    except Exception as error:  # of any kind, for a compiler is at work
        why = " ".join(str(error).split()) or output.last()
        raise ModelError(f"ExecuTorch cannot write this network: {why[:300]}", "take --to tflite") from error
    with path.open("wb") as file:
        program.write_to_file(file)
    seal(path)
