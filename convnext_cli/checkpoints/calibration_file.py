"""Where the calibration of a model is kept: inside a canonical file, or in a file beside any other.

Both are safetensors with the calibration's JSON and a checksum in the metadata. In a canonical file the names of its
arrays begin with ``PREFIX``: they are not part of the network. The file beside the weights is called
``<weights>.calibration``, and comes before what a canonical file holds, because it is newer.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from convnext_cli.base.errors import ModelError
from convnext_cli.base.files import replacing
from convnext_cli.base.safetensors_header import read_header
from convnext_cli.checkpoints import companion_files

if TYPE_CHECKING:
    import numpy as np

    from convnext_cli.certainty.calibration import Calibration

SUFFIX = ".calibration"
PREFIX = "calibration."
METADATA_KEY = "calibration"
_CHECKSUM_KEY = "calibration_sha256"  # of the JSON and the arrays


def path_beside(model: Path) -> Path:
    """The file beside a model that holds its calibration.

    Args:
        model: a weights file, a folder that holds one, or an exported file.
    """
    try:
        weights = companion_files.find_weights(model)
    except ModelError:  # an exported folder
        weights = model
    return weights.with_name(weights.name + SUFFIX)


def read_calibration(model: Path) -> Calibration | None:
    """The calibration of a model; None where it has none.

    Args:
        model: a weights file, a folder that holds one, or an exported file.

    Raises:
        ModelError: the calibration is damaged, or of a newer version of this program.
    """
    beside = path_beside(model)
    if beside.is_file():
        return _read(beside)
    weights = beside.with_name(beside.name.removesuffix(SUFFIX))
    return _read(weights) if weights.suffix.lower() == ".safetensors" and weights.is_file() else None


def left_out(model: Path) -> list[str]:
    """A note for files that are made from a model without its calibration; none where it has none."""
    beside = path_beside(model)
    weights = beside.with_name(beside.name.removesuffix(SUFFIX))
    if not beside.is_file():
        try:
            if METADATA_KEY not in read_header(weights).get("__metadata__", {}):
                return []
        except (OSError, ValueError, AttributeError):  # no safetensors file
            return []
    return ["the calibration is left out: calibrate the new file for --sure and --sets"]


def write_beside(model: Path, calibration: Calibration) -> Path:
    """Write the file beside a model, and return its path.

    Raises:
        OutputError: it cannot be written; an existing one stays.
    """
    from safetensors.numpy import save

    path = path_beside(model)
    data = save(prefixed(calibration), metadata=metadata(calibration))
    with replacing(path) as file:
        file.write(data)
    return path


def metadata(calibration: Calibration) -> dict[str, str]:
    """What the metadata of a file with this calibration holds of it."""
    text = calibration.to_json()
    return {METADATA_KEY: text, _CHECKSUM_KEY: _checksum(text, calibration.arrays())}


def prefixed(calibration: Calibration) -> dict[str, np.ndarray]:
    """The arrays of a calibration, under the names that they have in files."""
    return {PREFIX + name: array for name, array in calibration.arrays().items()}


def _read(path: Path) -> Calibration | None:
    import safetensors

    from convnext_cli.certainty.calibration import Calibration

    try:
        with safetensors.safe_open(path, "numpy") as file:
            notes = file.metadata() or {}
            text = notes.get(METADATA_KEY)
            if text is None:
                return None
            names = [name for name in file.keys() if name.startswith(PREFIX)]  # noqa: SIM118 - not a dict
            arrays = {name.removeprefix(PREFIX): file.get_tensor(name) for name in names}
        if notes.get(_CHECKSUM_KEY) != _checksum(text, arrays):
            raise ModelError("the calibration is damaged: it does not match its checksum", _again(path))
        return Calibration.from_json(text, arrays)
    except (OSError, safetensors.SafetensorError, TypeError) as error:
        raise ModelError(f"{path.name} is damaged: {error}", _again(path)) from error
    except ModelError as error:
        raise ModelError(f"{path.name}: {error.message}", error.hint or _again(path)) from error


def _checksum(text: str, arrays: Mapping[str, np.ndarray]) -> str:
    digest = hashlib.sha256(text.encode("utf-8", "surrogatepass"))
    for name in sorted(arrays):
        array = arrays[name]
        digest.update(f"\n{name} {array.dtype.str} {array.shape}\n".encode())
        digest.update(array.tobytes())
    return digest.hexdigest()


def _again(path: Path) -> str:
    if path.suffix == SUFFIX:
        return "delete it, and calibrate the model again: convnext calibrate"
    return "download the file again"
