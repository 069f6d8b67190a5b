"""OpenVINO IR that ``convnext export`` made: a .xml with the graph and the card, beside it a .bin with the weights."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from convnext_cli.base.errors import ModelError, UnavailableError, lacks_memory
from convnext_cli.base.files import crc32
from convnext_cli.model.card import Card
from convnext_cli.runtimes.floating_point import Borrowed
from convnext_cli.runtimes.openvino.engine import NEEDS, PRECISIONS, properties
from convnext_cli.runtimes.openvino.runtime import ov

CARD, WEIGHTS = "convnext", "convnext_weights"  # in the model's rt_info: the card as JSON, and the checksum of the .bin
_AGAIN = "fetch or export it again: the .xml and the .bin of the same name belong together"


def open_file(path: Path, *, device: str, threads: int) -> tuple[OpenVINORuntime, Card | None]:
    """The file, compiled for the CPU, and its card.

    Raises ModelError for a damaged file, UnavailableError for another device.
    """
    if device not in ("auto", "cpu"):
        raise UnavailableError(f"{path.name} runs on the CPU, not on {device}", "leave -d out")
    weights = path.with_suffix(".bin")
    if not weights.is_file():
        raise ModelError(f"{path.name} has its weights in {weights.name}, which is not there", _AGAIN)
    core = ov.Core()
    try:
        model = core.read_model(path, weights)
    except RuntimeError as error:
        raise ModelError(f"{path.name} is damaged or no OpenVINO model: {_why(error)}", _AGAIN) from error
    if model.has_rt_info(WEIGHTS) and model.get_rt_info(WEIGHTS).astype(str) != checksum(weights):
        raise ModelError(f"{weights.name} is damaged, or not of {path.name}", _AGAIN)
    card = Card.from_json(model.get_rt_info(CARD).astype(str)) if model.has_rt_info(CARD) else None
    dtype = card.export.dtype if card is not None and card.export is not None else "float32"
    precision, notes = PRECISIONS.get(dtype, "f32"), []
    if NEEDS.get(dtype, "FP32") not in core.get_property("CPU", "OPTIMIZATION_CAPABILITIES"):
        precision = "f32"
        notes.append(f"this processor does not compute in {dtype}: {path.name} runs in float32")
    environment = Borrowed()
    try:
        with environment.opening():
            compiled = core.compile_model(model, "CPU", properties(precision, threads))
    except RuntimeError as error:
        raise ModelError(f"OpenVINO {ov.__version__} cannot compile {path.name}: {_why(error)}", _AGAIN) from error
    return OpenVINORuntime(compiled, notes, environment), card


def checksum(weights: Path) -> str:
    """Of the .bin, as the .xml has it."""
    return f"{crc32(weights):08x}"


class OpenVINORuntime:
    """``protocol.Runtime`` of a compiled model. notes: where it does not do as its card says."""

    name = "openvino"
    device = "cpu"

    def __init__(self, compiled: ov.CompiledModel, notes: list[str], environment: Borrowed) -> None:
        self.notes = notes
        self._environment = environment
        self._request = compiled.create_infer_request()
        self._outputs = len(compiled.outputs)

    def run(self, x: np.ndarray) -> list[np.ndarray]:
        """See ``protocol.Runtime``."""
        try:
            with self._environment.computing():
                result = self._request.infer([x], share_inputs=True)
        except RuntimeError as error:
            if not lacks_memory(error):
                raise
            raise MemoryError(str(error)) from None
        return [np.asarray(result[i]) for i in range(self._outputs)]

    def close(self) -> None:
        """Let go of the compiled form."""
        del self._request


def _why(error: Exception) -> str:
    return str(error).strip().splitlines()[-1].strip().partition(" Please")[0][:200]
