"""The project's own file: safetensors with the official repositories' names and the card in the metadata.

The metadata holds ``{"format": "pt", "convnext": <card as JSON>}``; reading the file needs no other. docs/formats.md
describes it for other programs.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from convnext_cli.base.errors import OutputError

if TYPE_CHECKING:
    from torch import Tensor

    from convnext_cli.model.card import Card

METADATA_KEY = "convnext"
DTYPES = {
    "torch.float64": "F64",
    "torch.float32": "F32",
    "torch.float16": "F16",
    "torch.bfloat16": "BF16",
}


def fingerprint(tensors: dict[str, Tensor]) -> str:
    """sha256 over names, dtypes, shapes and bytes, by sorted name: the same for any file that holds these weights."""
    digest = hashlib.sha256()
    for name in sorted(tensors):
        tensor = tensors[name]
        digest.update(f"{name} {DTYPES[str(tensor.dtype)]} {','.join(map(str, tensor.shape))}\n".encode())
        digest.update(_bytes(tensor))
    return digest.hexdigest()


def write(path: Path, tensors: dict[str, Tensor], card: Card) -> None:
    """Write under a temporary name, flush to the disk, then put in place.

    Tensors go out one by one, so that writing needs no memory of its own. Raises OutputError; what was at ``path``
    before is then untouched.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with temporary.open("wb") as file:
            dump(file, tensors, card)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError as error:
        raise OutputError(
            f"cannot write {path}: {error.strerror}", "check free space and permissions, or name another place"
        ) from error
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink()


def dump(file: IO[bytes], tensors: dict[str, Tensor], card: Card) -> None:
    """Write safetensors with the card in the metadata, under any names. Raises what the stream raises."""
    header: dict[str, Any] = {"__metadata__": {"format": "pt", METADATA_KEY: card.to_json()}}
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
