"""A checksum at the end of a file whose own format has none: CRC-32, against accidents.

It is written as protobuf has an entry of ONNX's ``metadata_props``, where ONNX readers find one more key; ExecuTorch
and LiteRT do not look at what follows a program.
"""

from __future__ import annotations

import zlib
from pathlib import Path

_MARK = b"r\x1a\n\x0econvnext_crc32\x12\x08"  # field 14: 26 bytes; of them field 1, the key, and field 2 of 8 bytes
_LENGTH = len(_MARK) + 8


def seal(path: Path) -> None:
    """Put the checksum of a whole file behind it."""
    with path.open("r+b") as stream:
        stream.seek(0, 2)
        found = _checksum(path, stream.tell())
        stream.write(_MARK + found)


def is_whole(path: Path) -> bool:
    """Whether a file is as it was when it was sealed; True for one that was not."""
    length = path.stat().st_size - _LENGTH
    if length < 0:
        return True
    with path.open("rb") as stream:
        stream.seek(length)
        end = stream.read(_LENGTH)
    return not end.startswith(_MARK) or end[len(_MARK) :] == _checksum(path, length)


def _checksum(path: Path, length: int) -> bytes:
    """Of the first bytes, in eight digits."""
    found = 0
    with path.open("rb") as stream:
        while length and (part := stream.read(min(length, 1 << 22))):
            found, length = zlib.crc32(part, found), length - len(part)
    return b"%08x" % found
