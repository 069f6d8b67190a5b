"""Run a .pte file that ``convnext export`` wrote, in ExecuTorch's runtime on the CPU."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import torch

from convnext_cli.base.errors import ModelError, UnavailableError
from convnext_cli.model.card import Card
from convnext_cli.runtimes.checksum import check
from convnext_cli.runtimes.silence import quiet

try:
    with quiet():  # it warns of being experimental
        from executorch.extension.pybindings import portable_lib
        from executorch.runtime import Method, Runtime
except (ImportError, OSError) as error:
    raise UnavailableError(f"ExecuTorch cannot be loaded: {error}", "pip install executorch") from error

METHOD = "convnext"  # gives the card as JSON
_AGAIN = "fetch or export it again"
_PLACE = re.compile(r"^\[\S+:\d+\] ")  # in its sources


def open_file(path: Path, *, device: str, threads: int) -> tuple[ExecuTorchFile, Card | None]:
    """The file, and the card that its method ``convnext`` gives. Raises as ``protocol.Reader`` says."""
    if device not in ("auto", "cpu"):
        raise UnavailableError(f"{path.name} runs on the CPU, not on {device}", "leave -d out")
    check(path, _AGAIN)  # the runtime checks no weights
    try:
        with quiet() as output:
            portable_lib._unsafe_reset_threadpool(threads)
            program = Runtime.get().load_program(path)
            text = program.load_method(METHOD).execute(())[0] if METHOD in program.method_names else None
            method = program.load_method("forward")
    except (RuntimeError, ValueError) as error:
        why = _PLACE.sub("", output.last()) or " ".join(str(error).split())[:200]
        raise ModelError(f"{path.name} is damaged or no ExecuTorch program: {why}", _AGAIN) from error
    return ExecuTorchFile(method), None if text is None else Card.from_json(text)


class ExecuTorchFile:
    """``protocol.Runtime`` of a program's method ``forward``. A batch larger than it has memory for is split."""

    name = "executorch"
    device = "cpu"

    def __init__(self, method: Method) -> None:
        self._method = method
        self.notes: list[str] = []
        self._most: int = method.metadata.input_tensor_meta(0).sizes()[0]

    def run(self, x: np.ndarray) -> list[np.ndarray]:
        """See ``protocol.Runtime``."""
        parts = [self._method.execute((torch.from_numpy(x[i : i + self._most]),)) for i in range(0, len(x), self._most)]
        return [np.concatenate([output.numpy() for output in outputs]) for outputs in zip(*parts, strict=True)]

    def close(self) -> None:
        """Let go of the method and its memory."""
        del self._method
