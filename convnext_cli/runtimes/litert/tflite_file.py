"""Run a .tflite file that ``convnext export`` wrote, in LiteRT on the CPU."""

from __future__ import annotations

import mmap
from pathlib import Path

import numpy as np

from convnext_cli.base.errors import ModelError, UnavailableError
from convnext_cli.model.card import METADATA_KEY, Card
from convnext_cli.runtimes.checksum import check
from convnext_cli.runtimes.silence import quiet

try:
    from ai_edge_litert.interpreter import Interpreter
    from ai_edge_litert.schema_py_generated import Buffer, Model
except ImportError as error:
    raise UnavailableError(f"LiteRT cannot be loaded: {error}", "pip install ai-edge-litert") from error

_AGAIN = "fetch or export it again"


def open_file(path: Path, *, device: str, threads: int) -> tuple[LiteRTFile, Card | None]:
    """The file, and the card in its metadata. Raises as ``protocol.Reader`` says."""
    if device not in ("auto", "cpu"):
        raise UnavailableError(f"{path.name} runs on the CPU, not on {device}", "leave -d out")
    check(path, _AGAIN)  # the runtime checks no weights
    runtime = LiteRTFile(path, threads)
    text = metadata(path).get(METADATA_KEY)
    return runtime, None if text is None else Card.from_json(text)


class LiteRTFile:
    """``protocol.Runtime`` of an interpreter, whose input is resized when a batch has another shape."""

    name = "litert"
    device = "cpu"

    def __init__(self, path: Path, threads: int) -> None:
        self._path, self._threads = path, threads
        self.notes: list[str] = []
        self._shape: tuple[int, ...]
        self._outputs: list[int]
        self._open()

    def run(self, x: np.ndarray) -> list[np.ndarray]:
        """See ``protocol.Runtime``."""
        interpreter = self._interpreter
        try:
            if x.shape != self._shape:
                interpreter.resize_tensor_input(self._input, x.shape)
                interpreter.allocate_tensors()
                self._shape = x.shape
            interpreter.set_tensor(self._input, x)
            interpreter.invoke()
        except (ValueError, RuntimeError) as error:
            self._open()  # what failed once ends the process the next time
            if len(x) > 1:  # it says nothing of memory, but less of it is all that one photo takes
                raise MemoryError(_why(error)) from None
            raise ModelError(
                f"{self._path.name} does not run on an input of {x.shape}: {_why(error)}",
                "free some memory, or take smaller photos",
            ) from error
        return [interpreter.get_tensor(output) for output in self._outputs]

    def close(self) -> None:
        """Let go of the interpreter and its memory."""
        del self._interpreter

    def _open(self) -> None:
        try:
            with quiet():
                self._interpreter = Interpreter(str(self._path), num_threads=self._threads)
                (details,) = self._interpreter.get_input_details()
                self._interpreter.allocate_tensors()
        except (ValueError, RuntimeError) as error:
            raise ModelError(f"{self._path.name} is damaged or no LiteRT model: {_why(error)}", _AGAIN) from error
        self._input, self._shape = details["index"], tuple(map(int, details["shape"]))
        self._outputs = [output["index"] for output in self._interpreter.get_output_details()]


def metadata(path: Path) -> dict[str, str]:
    """The texts in a file, by name; the weights are not read."""
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        model = Model.GetRootAs(data, 0)
        entries = [model.Metadata(i) for i in range(model.MetadataLength())]
        return {
            entry.Name().decode(): _bytes(model.Buffers(entry.Buffer())).decode("utf-8", "replace") for entry in entries
        }


def _bytes(buffer: Buffer) -> bytes:
    return bytes(buffer.DataAsNumpy()) if buffer.DataLength() else b""


def _why(error: Exception) -> str:
    """What the runtime says, in one line."""
    return " ".join(str(error).split())[:200]
