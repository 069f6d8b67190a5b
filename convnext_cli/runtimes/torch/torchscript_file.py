"""TorchScript that ``convnext export`` made: a zip of a program, which torch interprets, and of its weights.

Opening it runs it (docs/export.md, "Trust"): a module's ``__setstate__`` while it is loaded, ``forward`` later. No
Python is in it, but among the operations are some that read and write files. So a file without our card is refused
before anything of it is loaded, which is against accidents; against malice there is only not to open it.

``torch.jit`` is deprecated, and says so in a warning at each call of torch 2.14.
"""

from __future__ import annotations

from pathlib import Path

import torch

from convnext_cli.base.errors import ModelError
from convnext_cli.model.card import Card
from convnext_cli.runtimes.silence import quiet
from convnext_cli.runtimes.torch.devices import pick_device
from convnext_cli.runtimes.torch.program_file import AGAIN, CARD, ProgramRuntime, card_of, damage_said, entries_of, read


def open_file(path: Path, *, device: str, threads: int) -> tuple[ProgramRuntime, Card | None]:
    """The program and its card. Raises ModelError for a damaged file, and one that is not ours; UnavailableError for a
    device that is not there."""
    entries = entries_of(path)
    if not any(name.startswith("code/") for name in entries):
        raise ModelError(f"{path.name} is damaged, or holds no TorchScript", AGAIN)
    card = card_of(path, read(path, entries.get(f"extra/{CARD}")))
    place = pick_device(device)
    with damage_said(path), quiet():
        program = torch.jit.load(path, map_location=place)  # type: ignore[no-untyped-call]
    return ProgramRuntime("torchscript", program, card, place, threads), card
