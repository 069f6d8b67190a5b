"""TorchScript: the network as traced, behind a script of the preprocessing where the plan wants it inside.

Tracing follows one input, and nothing of the network asks for a size; the preprocessing does, and is compiled instead.
``torch.jit`` is deprecated since torch 2.5, which says so at each call now, and from Python 3.14 on it is not
supported. It is for programs that have libtorch and no Python; its successors are ``torch-export`` and ``aoti``.
"""

from __future__ import annotations

from io import BytesIO
from pathlib import Path

import torch

from convnext_cli.checkpoints.checkpoint import Checkpoint
from convnext_cli.model.card import Card
from convnext_cli.runtimes.exporting.plan import Plan
from convnext_cli.runtimes.silence import quiet
from convnext_cli.runtimes.torch import program
from convnext_cli.runtimes.torch.program_file import CARD


def refuse(card: Card, plan: Plan) -> None:
    """See ``protocol.Writer``."""
    program.refuse(card, plan)


@torch.no_grad()
def write(checkpoint: Checkpoint, card: Card, plan: Plan, path: Path) -> None:
    """See ``protocol.Writer``."""
    with quiet():
        module = program.program(checkpoint, card, plan)
        if isinstance(module, program.PhotoNetwork):
            module.prepare = torch.jit.script(module.prepare)
        inputs = program.example(card, plan)
        traced: torch.jit.ScriptModule = torch.jit.trace(module, inputs, check_trace=False)  # type: ignore[no-untyped-call]
        buffer = BytesIO()  # torch's own writer ends the process when a disk is full
        torch.jit.save(traced, buffer, _extra_files={CARD: card.to_json(full=True)})
    path.write_bytes(buffer.getbuffer())
