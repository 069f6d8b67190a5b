"""AOTInductor: the program of torch.export compiled to machine code, with the weights, in one package.

Compiling takes a C++ compiler, and a quarter of a minute or more. The package runs on the same operating system and
kind of processor alone (its instructions are kept in it, and compared by ``runtimes/torch/pt2_file.py``), and was tried
with no other torch than the one that made it; libtorch loads it without Python. It holds the C++ source of its kernels
too, and paths of the machine that it was made on.

Options: docs.pytorch.org, "AOTInductor: Ahead-Of-Time Compilation"; ``torch/_inductor/config.py``.
"""

from __future__ import annotations

import os
import shutil
import sys
from io import BytesIO
from pathlib import Path

import torch

from convnext_cli.base.errors import UnavailableError
from convnext_cli.checkpoints.checkpoint import Checkpoint
from convnext_cli.model.card import Card
from convnext_cli.runtimes.exporting.placement import probe
from convnext_cli.runtimes.exporting.plan import Plan
from convnext_cli.runtimes.silence import quiet
from convnext_cli.runtimes.torch import program as torch_program
from convnext_cli.runtimes.torch.program_file import CARD
from convnext_cli.runtimes.torch.pt2_file import PROCESSOR, processor

_OPTIONS = {
    # weights in the layout of the CPU's library, and folded as far as they go: twice as fast
    "freezing": True,
    # as many threads as the process has when it runs, not as when it was compiled
    "cpp.dynamic_threads": True,
    # no pool of workers: the compiler runs twice
    "compile_threads": 1,
}


def refuse(card: Card, plan: Plan) -> None:
    """See ``protocol.Writer``."""
    torch_program.refuse(card, plan)
    torch_program.refuse_old_torch()
    if shutil.which(_compiler()) is None:
        raise UnavailableError(
            f"AOTInductor compiles C++, and there is no compiler {_compiler()!r} here",
            "install one (Debian: apt install g++; macOS: xcode-select --install), or name it in the variable CXX; "
            "--to torch-export needs none",
        )


def _compiler() -> str:
    """The compiler that torch takes by default."""
    return os.environ.get("CXX") or {"win32": "cl", "darwin": "clang++"}.get(sys.platform, "g++")


@torch.no_grad()  # or else nothing is frozen
def write(checkpoint: Checkpoint, card: Card, plan: Plan, path: Path) -> None:
    """See ``protocol.Writer``."""
    with quiet() as output:
        import torch._inductor
        from torch._inductor.utils import fresh_inductor_cache

        program = torch_program.exported(checkpoint, card, plan)
        metadata = {CARD: card.to_json(full=True), PROCESSOR: processor()}
        options = _OPTIONS | {"aot_inductor.metadata": metadata, "cpp.cxx": (_compiler(),)}
        buffer = BytesIO()  # torch's own writer ends the process when a disk is full
        try:
            with fresh_inductor_cache(), torch_program.any_size():
                torch._inductor.aoti_compile_and_package(program, package_path=buffer, inductor_configs=options)
        except RuntimeError as error:  # of the compiler too
            why = str(error)
        else:
            path.write_bytes(buffer.getbuffer())
            return
    probe(path.parent, 2 * sum(tensor.nbytes for tensor in checkpoint.tensors.values()))
    lines = [line.strip() for line in why.splitlines() if line.strip()]
    raise UnavailableError(
        f"AOTInductor could not compile the program with {_compiler()}: {(lines or [output.last()])[-1][:300]}",
        "install a newer compiler, or name another in the variable CXX; --to torch-export needs none",
    )
