"""The project's own file: safetensors with the official repositories' names and the card in the metadata.

The metadata holds ``{"format": "pt", "convnext": <card as JSON>}``; reading the file needs no other
file. docs/formats.md describes it for other programs.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import IO, TYPE_CHECKING

import numpy as np

from convnext_cli.base.files import replacing, unwritten
from convnext_cli.checkpoints import calibration_file
from convnext_cli.model.card import METADATA_KEY

if TYPE_CHECKING:
    from torch import Tensor

    from convnext_cli.certainty.calibration import Calibration
    from convnext_cli.model.card import Card

DTYPES = {
    "torch.float64": "F64",
    "torch.float32": "F32",
    "torch.float16": "F16",
    "torch.bfloat16": "BF16",
}
_ARRAYS = {
    "float64": "F64",
    "float32": "F32",
    "float16": "F16",
    "uint32": "U32",
    "uint64": "U64",
}


def fingerprint(tensors: dict[str, Tensor]) -> str:
    """The sha256 of names, dtypes, shapes and bytes, sorted by name: the same for every file with these weights."""
    digest = hashlib.sha256()
    for name in sorted(tensors):
        tensor = tensors[name]
        digest.update(f"{name} {DTYPES[str(tensor.dtype)]} {','.join(map(str, tensor.shape))}\n".encode())
        digest.update(_bytes(tensor))
    return digest.hexdigest()


def write(path: Path, tensors: dict[str, Tensor], card: Card, calibration: Calibration | None = None) -> None:
    """Write a canonical file, as ``files.replacing`` does: the old file stays until the new one is on the disk.

    Tensors are written one by one, so that no copy of all of them is made.

    Args:
        path: the file.
        tensors: by canonical name.
        card: of the model.
        calibration: what the model knows about its own limits; None for nothing.

    Raises:
        OutputError: the file cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise unwritten(path, error) from error
    with replacing(path) as file:
        dump(file, tensors, card, calibration)


def dump(file: IO[bytes], tensors: dict[str, Tensor], card: Card, calibration: Calibration | None = None) -> None:
    """Write safetensors with the card in the metadata, under any names. Errors of the stream are passed on."""
    metadata, arrays = {"format": "pt", METADATA_KEY: card.to_json()}, dict[str, np.ndarray]()
    if calibration is not None:
        metadata |= calibration_file.metadata(calibration)
        arrays = calibration_file.prefixed(calibration)
    header: dict[str, object] = {"__metadata__": metadata}
    at = 0
    sizes: list[tuple[str, str, tuple[int, ...], int]] = []
    for name, tensor in tensors.items():
        sizes.append((name, DTYPES[str(tensor.dtype)], tuple(tensor.shape), tensor.nbytes))
    for name, array in arrays.items():
        sizes.append((name, _ARRAYS[array.dtype.name], array.shape, array.nbytes))
    for name, kind, shape, size in sizes:
        header[name] = {"dtype": kind, "shape": list(shape), "data_offsets": [at, at + size]}
        at += size
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-(8 + len(text)) % 64)  # readers map the file and want aligned tensors
    file.write(len(text).to_bytes(8, "little") + text)
    for tensor in tensors.values():
        file.write(_bytes(tensor))
    for array in arrays.values():
        file.write(np.ascontiguousarray(array).data)


def _bytes(tensor: Tensor) -> memoryview:
    import torch

    return tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data
