"""Run a .mlpackage that ``convnext export`` wrote, in Core ML, which macOS alone has."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from convnext_cli.base.errors import ModelError, UnavailableError
from convnext_cli.model.card import METADATA_KEY, Card
from convnext_cli.runtimes.silence import quiet

if TYPE_CHECKING:
    from coremltools.models import MLModel

_AGAIN = "fetch or export it again"
_UNITS = {"auto": "ALL", "cpu": "CPU_ONLY", "mps": "CPU_AND_GPU"}


def open_file(path: Path, *, device: str, threads: int) -> tuple[CoreMLPackage, Card | None]:
    """The package, and the card in its metadata. threads: Core ML takes what it likes.

    Raises as ``protocol.Reader`` says.
    """
    if sys.platform != "darwin":
        raise UnavailableError(
            "Core ML runs on macOS alone", "open the package there, or export with --to tflite or onnx"
        )
    if device not in _UNITS:
        raise UnavailableError(f"Core ML has no device {device!r}", f"-d {', '.join(_UNITS)}; auto is the best of all")
    try:
        with quiet() as output:
            import coremltools as ct

            model = ct.models.MLModel(str(path), compute_units=ct.ComputeUnit[_UNITS[device]])
    except ImportError as error:
        raise UnavailableError(f"coremltools cannot be loaded: {error}", "pip install coremltools") from error
    except Exception as error:  # coremltools raises bare ones
        why = " ".join(str(error).split())[:200] or output.last()
        raise ModelError(f"{path.name} is damaged or no Core ML package: {why}", _AGAIN) from error
    text = model.user_defined_metadata.get(METADATA_KEY)
    return CoreMLPackage(model, device), None if text is None else Card.from_json(text)


class CoreMLPackage:
    """``protocol.Runtime`` of a Core ML model. A batch larger than it takes is split."""

    name = "coreml"

    def __init__(self, model: MLModel, device: str) -> None:
        self.device = device
        self.notes: list[str] = []
        self._model = model
        description = model.get_spec().description
        self._input: str = description.input[0].name
        self._outputs = [output.name for output in description.output]
        kind = description.input[0].type.multiArrayType
        ranges = kind.shapeRange.sizeRanges
        self._most: int = ranges[0].upperBound if ranges else kind.shape[0]

    def run(self, x: np.ndarray) -> list[np.ndarray]:
        """See ``protocol.Runtime``."""
        parts = [self._model.predict({self._input: x[i : i + self._most]}) for i in range(0, len(x), self._most)]
        return [np.concatenate([part[name] for part in parts]) for name in self._outputs]

    def close(self) -> None:
        """Let go of the model and its memory."""
        del self._model
