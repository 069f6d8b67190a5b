"""A checksum at the end of a file whose own format has none: CRC-32, against accidents.

It is written as protobuf has an entry of ONNX's ``metadata_props``, where ONNX readers find one more key; ExecuTorch
and LiteRT do not look at what follows a program.
"""

from __future__ import annotations

from pathlib import Path

from convnext_cli.base.errors import ModelError
from convnext_cli.base.files import crc32

_MARK = b"r\x1a\n\x0econvnext_crc32\x12\x08"  # field 14: 26 bytes; of them field 1, the key, and field 2 of 8 bytes
_LENGTH = len(_MARK) + 8


def seal(path: Path) -> None:
    """Put the checksum of a whole file behind it."""
    end = _MARK + b"%08x" % crc32(path)
    with path.open("ab") as stream:
        stream.write(end)


def is_whole(path: Path) -> bool:
    """Whether a file is as it was when it was sealed. True for one that was not sealed, or cannot be read: its runtime
    says what is wrong with it."""
    try:
        length = path.stat().st_size - _LENGTH
        with path.open("rb") as stream:
            stream.seek(max(0, length))
            end = stream.read()
        return not end.startswith(_MARK) or end == _MARK + b"%08x" % crc32(path, length)
    except OSError:
        return True


def check(path: Path, hint: str) -> None:
    """Raises ModelError for a sealed file that is not whole."""
    if not is_whole(path):
        raise ModelError(f"{path.name} is damaged", hint)
