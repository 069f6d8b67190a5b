"""What files of torch's programs share, TorchScript and .pt2: a zip with our card in it, and how it is run."""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path

import numpy as np
import torch

from convnext_cli.base.errors import ModelError, lacks_memory
from convnext_cli.model.card import Card
from convnext_cli.model.preprocessing import MOST
from convnext_cli.runtimes.torch.real_float32 import real_float32

CARD = "convnext"  # the card as JSON, of torch's extra files
AGAIN = "fetch or export it again: convnext export"
_DAMAGE = (zipfile.BadZipFile, zlib.error, OSError, ValueError, NotImplementedError)

Program = Callable[[torch.Tensor], torch.Tensor | Sequence[torch.Tensor]]


class ProgramRuntime:
    """``protocol.Runtime`` of a program of torch's. program: a tensor -> one, or several. threads: until ``close``."""

    def __init__(self, name: str, program: Program, card: Card, device: torch.device, threads: int) -> None:
        self.name, self.device = name, str(device)
        self.notes: list[str] = []
        self._program: Program | None = program
        self._card, self._place = card, device
        self._threads_before = torch.get_num_threads()
        torch.set_num_threads(threads)

    @torch.inference_mode()
    def run(self, x: np.ndarray) -> list[np.ndarray]:
        """See ``protocol.Runtime``. Raises ModelError for a size that the program does not take."""
        assert self._program is not None, "closed"
        self._refuse(x)
        tensor = torch.from_numpy(x if x.flags.writeable else x.copy()).to(self._place)
        try:
            with nullcontext() if self._place.type == "cpu" else real_float32():
                outputs = self._program(tensor)
        except RuntimeError as error:
            if not lacks_memory(error):
                raise
            raise MemoryError(str(error)) from None
        return [output.cpu().numpy() for output in ([outputs] if isinstance(outputs, torch.Tensor) else outputs)]

    def close(self) -> None:
        """Let go of the program, and give the process its own number of threads back."""
        self._program = None
        torch.set_num_threads(self._threads_before)

    def _refuse(self, x: np.ndarray) -> None:
        """Machine code checks no size, and reads past the end of a small input."""
        export = self._card.export
        if export is not None and not export.photos and export.size is None:
            least = self._card.config.stride
            if not all(least <= edge <= MOST for edge in x.shape[2:]):
                height, width = x.shape[2:]
                raise ModelError(f"the file takes {least} to {MOST} pixels an edge, not {height}×{width}", "see --size")


def entries_of(path: Path) -> dict[str, str]:
    """What is in the zip: the whole name by the name without the folder that torch puts all into.

    Raises ModelError for a file that is not a zip, or damaged anywhere: torch checks no checksum.
    """
    if not path.is_file():
        raise ModelError(f"{path} is not a file", "name a file that convnext export made")
    try:
        with zipfile.ZipFile(path) as archive:
            if bad := archive.testzip():
                raise ModelError(f"{path.name} is damaged: {bad} has another checksum", AGAIN)
            return {name.partition("/")[2]: name for name in archive.namelist()}
    except _DAMAGE as error:
        what = "damaged, or no program of torch's" if path.stat().st_size else "empty"
        raise ModelError(f"{path.name} is {what}", AGAIN) from error


def read(path: Path, name: str | None) -> bytes | None:
    """An entry of the zip by its whole name. Raises ModelError when it is damaged."""
    if name is None:
        return None
    try:
        with zipfile.ZipFile(path) as archive:
            return archive.read(name)
    except _DAMAGE as error:
        raise ModelError(f"{path.name} is damaged: {error}", AGAIN) from error


def card_of(path: Path, text: bytes | str | None) -> Card:
    """Raises ModelError when it is damaged or missing: other programs' files are refused before anything runs."""
    if text is None:
        raise ModelError(f"{path.name} has no card of convnext, and is a program, which is not run for a look", AGAIN)
    return Card.from_json(text if isinstance(text, str) else text.decode("utf-8", "replace"))


@contextmanager
def damage_said(path: Path) -> Iterator[None]:
    """ModelError for whatever torch raises while it loads a file."""
    try:
        yield
    except MemoryError:
        raise
    except Exception as error:  # parsers of several formats
        last = [line.strip() for line in str(error).splitlines() if line.strip()][:1]
        raise ModelError(
            f"torch {torch.__version__} cannot load {path.name}: {''.join(last)[:200] or type(error).__name__}", AGAIN
        ) from error
