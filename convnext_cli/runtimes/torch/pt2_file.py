"""The two kinds of .pt2 that ``convnext export`` makes: torch.export's programs, and AOTInductor's compiled ones.

Both are a zip; its entries say which it is. A compiled one holds machine code, which loading it runs. A program is a
graph of torch's operations, and reading it is as unsafe: torch.export.load evaluates expressions of the file as Python
(sympy's ``sympify``), and falls back to pickle without limits where pickle with limits refuses (torch 2.14,
``_export/serde/serialize.py``). Ours hold tensors alone, so here pickle is held to these; what needs more is refused,
and nothing is loaded of a file without our card. That is against accidents: open only what you trust (docs/export.md).
"""

from __future__ import annotations

import json
import os
import platform
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

from convnext_cli.base.errors import ModelError, UnavailableError
from convnext_cli.base.text import JsonObject
from convnext_cli.model.card import Card
from convnext_cli.runtimes.silence import quiet
from convnext_cli.runtimes.torch.devices import pick_device
from convnext_cli.runtimes.torch.program_file import AGAIN, CARD, ProgramRuntime, card_of, damage_said, entries_of, read

PROCESSOR = "convnext_processor"  # of the metadata of a compiled program
_PROGRAM, _COMPILED = "models/model.json", "data/aotinductor/"
_PICKLES = ("data/constants/custom_obj", "data/constants/opaque_obj")
_ONLY_TENSORS = "TORCH_FORCE_WEIGHTS_ONLY_LOAD"  # of torch.load


def open_file(path: Path, *, device: str, threads: int) -> tuple[ProgramRuntime, Card | None]:
    """The program and its card. Raises ModelError for a damaged file, and one that is not ours; UnavailableError for a
    device that is not there, and for a compiled one of another kind of processor."""
    entries = entries_of(path)
    if _PROGRAM in entries:
        return _program(path, entries, device, threads)
    if any(name.startswith(_COMPILED) for name in entries):
        return _compiled(path, entries, device, threads)
    raise ModelError(f"{path.name} is damaged, or holds no program of torch.export or AOTInductor", AGAIN)


def _program(path: Path, entries: dict[str, str], device: str, threads: int) -> tuple[ProgramRuntime, Card]:
    card = card_of(path, read(path, entries.get(f"extra/{CARD}")))
    if any(name.startswith(_PICKLES) for name in entries):
        raise ModelError(f"{path.name} holds pickled objects, which are not opened", AGAIN)
    place = pick_device(device)
    with damage_said(path), quiet(), _only_tensors():
        program = torch.export.load(path)
        if place.type != "cpu":
            from torch.export.passes import move_to_device_pass

            program = move_to_device_pass(program, place)
        return ProgramRuntime("torch-export", program.module(), card, place, threads), card


def _compiled(path: Path, entries: dict[str, str], device: str, threads: int) -> tuple[ProgramRuntime, Card]:
    metadata = _metadata(path, entries)
    card = card_of(path, metadata.get(CARD))
    if device not in ("auto", "cpu"):
        raise UnavailableError(f"{path.name} is compiled for the CPU, not for {device}", "leave -d out")
    _refuse_machine(path, metadata)
    with damage_said(path), quiet():
        # What libtorch's guide has for C++, too. torch._inductor.aoti_load_package is built on it, and takes seconds
        # more: it compiles test programs to learn what processor this is.
        loader = torch._C._aoti.AOTIModelPackageLoader(os.fspath(path), "model", False, 1, -1)
    return ProgramRuntime("aoti", lambda x: loader.run([x]), card, torch.device("cpu"), threads), card


def _metadata(path: Path, entries: dict[str, str]) -> JsonObject:
    """Of a compiled program: what torch says of the machine, and the card."""
    for name, entry in entries.items():
        if name.startswith(_COMPILED) and name.endswith("_metadata.json"):
            with damage_said(path):
                return dict(json.loads(read(path, entry) or b"{}"))
    return {}


def processor() -> str:
    """What machine code for this processor may use, and so asks of another: words with blanks between."""
    capabilities = torch.cpu.get_capabilities()
    return " ".join(
        [sys.platform, platform.machine(), *sorted(name for name, has_it in capabilities.items() if has_it is True)]
    )


def _refuse_machine(path: Path, metadata: JsonObject) -> None:
    """Raise UnavailableError for machine code that would end the process here; torch only warns, and of less."""
    missing = set(str(metadata.get(PROCESSOR, "")).split()) - set(processor().split())
    if missing:
        raise UnavailableError(
            f"{path.name} is compiled for another kind of processor: this one lacks {', '.join(sorted(missing))}",
            "export it again on this machine, or take --to torch-export, which runs on all",
        )


@contextmanager
def _only_tensors() -> Iterator[None]:
    """Have torch.load make tensors alone, whatever its caller asks for."""
    before = os.environ.get(_ONLY_TENSORS)
    os.environ[_ONLY_TENSORS] = "1"
    try:
        yield
    finally:
        if before is None:
            del os.environ[_ONLY_TENSORS]
        else:
            os.environ[_ONLY_TENSORS] = before
