"""The card in an ONNX file, which is a protobuf message; read without the library of that name."""

from __future__ import annotations

import mmap
from pathlib import Path

from convnext_cli.runtimes.card_text import CARD, decoded


def read_card(path: Path) -> str | None:
    """See ``protocol.CardReader``. Field 14 of the outermost message has entries of a key (field 1) and a value (2)."""
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        for field, value in _fields(data, 0, len(data)):
            if field == 14:
                entry = {key: data[start:end] for key, (start, end) in _fields(data, *value)}
                if entry.get(1) == CARD.encode():
                    return decoded(entry.get(2, b""))
    return None


def _fields(data: mmap.mmap, at: int, end: int) -> list[tuple[int, tuple[int, int]]]:
    """The fields of a protobuf message that have a length: number, and where the value begins and ends."""
    fields = []
    while at < end:
        key, at = _varint(data, at)
        kind = key & 7
        length = {1: 8, 5: 4}.get(kind, 0)
        if kind == 0:
            _, at = _varint(data, at)
        elif kind == 2:
            length, at = _varint(data, at)
            fields.append((key >> 3, (at, at + length)))
        elif kind not in (1, 5):
            raise ValueError("it is not an ONNX file")
        at += length
    if at != end:
        raise ValueError("it is cut off, or not an ONNX file")
    return fields


def _varint(data: mmap.mmap, at: int) -> tuple[int, int]:
    value = 0
    for place in range(10):
        byte = data[at + place]
        value |= (byte & 0x7F) << 7 * place
        if byte < 0x80:
            return value, at + place + 1
    raise ValueError("it is not an ONNX file")
