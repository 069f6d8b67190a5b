"""torch.export: the program as a graph of torch's own operations, in an archive of torch's.

torch promises no more than that the release that wrote a file reads it: "saved files may not be usable in newer
versions", its page of torch.export says. What made a file is in its card.
"""

from __future__ import annotations

from io import BytesIO
from pathlib import Path

import torch

from convnext_cli.checkpoints.checkpoint import Checkpoint
from convnext_cli.model.card import Card
from convnext_cli.runtimes.exporting.plan import Plan
from convnext_cli.runtimes.silence import quiet
from convnext_cli.runtimes.torch import program as torch_program
from convnext_cli.runtimes.torch.program_file import CARD


def refuse(card: Card, plan: Plan) -> None:
    """See ``protocol.Writer``."""
    torch_program.refuse(card, plan)
    torch_program.refuse_old_torch()


def write(checkpoint: Checkpoint, card: Card, plan: Plan, path: Path) -> None:
    """See ``protocol.Writer``."""
    with quiet():
        program = torch_program.exported(checkpoint, card, plan)
        buffer = BytesIO()  # torch's own writer ends the process when a disk is full
        torch.export.save(program, buffer, extra_files={CARD: card.to_json(full=True)})
    path.write_bytes(buffer.getbuffer())
