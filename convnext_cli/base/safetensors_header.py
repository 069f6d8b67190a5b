"""The header of a safetensors file: eight bytes with its length, then JSON (github.com/huggingface/safetensors)."""

from __future__ import annotations

from pathlib import Path

from convnext_cli.base.text import JsonObject, json_value

HEADER_LIMIT = 10_000_000  # bytes; the largest published one has 0.1 MB


def read_header(path: Path) -> JsonObject:
    """The header of a file: its tensors, and ``__metadata__``. This needs neither torch nor numpy.

    Raises:
        OSError: the file cannot be read.
        ValueError: the header is damaged or missing.
    """
    with path.open("rb") as file:
        start = file.read(8)
        length = int.from_bytes(start, "little")
        if len(start) < 8 or length > HEADER_LIMIT:
            raise ValueError(f"its first bytes are not the length of a header of at most {HEADER_LIMIT // 10**6} MB")
        header = json_value(file.read(length))
    if not isinstance(header, dict):
        raise ValueError("its header is not a JSON object")
    return header
