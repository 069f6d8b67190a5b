"""The project's own file: safetensors with the official repositories' names and the card in the metadata.

The metadata holds ``{"format": "pt", "convnext": <card as JSON>}``; reading the file needs no other
file. docs/formats.md describes it for other programs.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import IO, TYPE_CHECKING

from convnext_cli.base.files import replacing, unwritten
from convnext_cli.model.card import METADATA_KEY

if TYPE_CHECKING:
    from torch import Tensor

    from convnext_cli.model.card import Card

DTYPES = {
    "torch.float64": "F64",
    "torch.float32": "F32",
    "torch.float16": "F16",
    "torch.bfloat16": "BF16",
}


def fingerprint(tensors: dict[str, Tensor]) -> str:
    """The sha256 of names, dtypes, shapes and bytes, sorted by name: the same for every file with these weights."""
    digest = hashlib.sha256()
    for name in sorted(tensors):
        tensor = tensors[name]
        digest.update(f"{name} {DTYPES[str(tensor.dtype)]} {','.join(map(str, tensor.shape))}\n".encode())
        digest.update(_bytes(tensor))
    return digest.hexdigest()


def write(path: Path, tensors: dict[str, Tensor], card: Card) -> None:
    """Write a canonical file, as ``files.replacing`` does: the old file stays until the new one is on the disk.

    Tensors are written one by one, so that no copy of all of them is made.

    Raises:
        OutputError: the file cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise unwritten(path, error) from error
    with replacing(path) as file:
        dump(file, tensors, card)


def dump(file: IO[bytes], tensors: dict[str, Tensor], card: Card) -> None:
    """Write safetensors with the card in the metadata, under any names. Errors of the stream are passed on."""
    header: dict[str, object] = {"__metadata__": {"format": "pt", METADATA_KEY: card.to_json()}}
    at = 0
    for name, tensor in tensors.items():
        end = at + tensor.nbytes
        header[name] = {"dtype": DTYPES[str(tensor.dtype)], "shape": list(tensor.shape), "data_offsets": [at, end]}
        at = end
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-(8 + len(text)) % 64)  # readers map the file and want aligned tensors
    file.write(len(text).to_bytes(8, "little") + text)
    for tensor in tensors.values():
        file.write(_bytes(tensor))


def _bytes(tensor: Tensor) -> memoryview:
    import torch

    return tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data
