"""The card of a file of ``convnext export``, read from its container: nothing of the file is run, and no runtime opens
it. ``models info`` is the command that people use to find out whether to trust a file."""

from __future__ import annotations

import json
import mmap
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from convnext_cli.base.errors import ConvNextError, ModelError, UnavailableError
from convnext_cli.model.card import Card
from convnext_cli.runtimes.checksum import is_whole

_CARD = "convnext"  # what the card is called in all containers
_AGAIN = "fetch or export it again: convnext export"
_MOST = 16 << 20  # bytes of a card
# In a file that has no directory: how a card begins, as ``Card.to_json`` writes it
_START = b'{"schema_version"'


def inspect(path: Path) -> tuple[Card | None, list[str]]:
    """The card in a file or package, None when there is none, and remarks.

    Raises ModelError for a file that is damaged, UnavailableError where a library is missing that reads the container.
    """
    if not path.exists():
        raise ModelError(f"{path} does not exist", "check the path")
    read = _READERS[path.suffix.lower()]
    notes: list[str] = []
    if path.is_file() and not is_whole(path):
        if path.suffix.lower() != ".onnx":
            raise ModelError(f"{path.name} is damaged", _AGAIN)
        notes.append(f"{path.name} is damaged, or another program changed it after it was exported")
    try:
        text = read(path)
        return (None if text is None else Card.from_json(text)), notes
    except (ConvNextError, MemoryError):
        raise
    except Exception as error:  # parsers of eight formats
        why = " ".join(str(error).split())[:200] or type(error).__name__
        raise ModelError(f"{path.name} is damaged: {why}", _AGAIN) from error


def _text(data: bytes) -> str:
    if len(data) > _MOST:
        raise ValueError(f"its card has {len(data):,} bytes")
    return data.decode("utf-8")


def _zip(path: Path) -> str | None:
    """torch's archives: an extra file, or the metadata of a compiled program."""
    with zipfile.ZipFile(path) as archive:
        if bad := archive.testzip():
            raise ModelError(f"{path.name} is damaged: {bad} has another checksum", _AGAIN)
        for entry in archive.infolist():
            name = entry.filename.partition("/")[2]
            if entry.file_size > _MOST:
                continue
            if name == f"extra/{_CARD}":
                return _text(archive.read(entry))
            if name.startswith("data/aotinductor/") and name.endswith("_metadata.json"):
                card = json.loads(archive.read(entry)).get(_CARD)
                return None if card is None else str(card)
    return None


def _onnx(path: Path) -> str | None:
    """Field 14 of the outermost message: entries of a key (field 1) and a value (field 2)."""
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        for field, value in _fields(data, 0, len(data)):
            if field == 14:
                entry = {key: data[start:end] for key, (start, end) in _fields(data, *value)}
                if entry.get(1) == _CARD.encode():
                    return _text(entry.get(2, b""))
    return None


def _fields(data: Any, at: int, end: int) -> list[tuple[int, tuple[int, int]]]:
    """The fields of a protobuf message that have a length: number, and where the value begins and ends."""
    found = []
    while at < end:
        key, at = _varint(data, at)
        kind = key & 7
        length = {1: 8, 5: 4}.get(kind, 0)
        if kind == 0:
            _, at = _varint(data, at)
        elif kind == 2:
            length, at = _varint(data, at)
            found.append((key >> 3, (at, at + length)))
        elif kind not in (1, 5):
            raise ValueError("it is no ONNX file")
        at += length
    if at != end:
        raise ValueError("it is cut off, or no ONNX file")
    return found


def _varint(data: Any, at: int) -> tuple[int, int]:
    value = 0
    for place in range(10):
        byte = data[at + place]
        value |= (byte & 0x7F) << 7 * place
        if byte < 0x80:
            return value, at + place + 1
    raise ValueError("it is no ONNX file")


def _openvino(path: Path) -> str | None:
    """An attribute in the .xml."""
    from xml.etree import ElementTree

    from convnext_cli.runtimes.openvino.ir_file import WEIGHTS, checksum

    weights = path.with_suffix(".bin")
    if not weights.is_file():
        raise ModelError(f"{path.name} has its weights in {weights.name}, which is missing", _AGAIN)
    info = ElementTree.parse(path).getroot().find("rt_info")
    if info is None:
        return None
    noted = info.find(WEIGHTS)
    if noted is not None and noted.get("value") != checksum(weights):
        raise ModelError(f"{weights.name} is damaged, or not of {path.name}", _AGAIN)
    card = info.find(_CARD)
    return None if card is None else card.get("value")


def _tflite(path: Path) -> str | None:
    """A buffer of the model."""
    from convnext_cli.runtimes.litert import tflite_file

    return tflite_file.metadata(path).get(tflite_file.METADATA_KEY)


def _embedded(path: Path) -> str | None:
    """A text of the program, with its length before it."""
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        at = data.find(_START)
        while at >= 4:
            length = int.from_bytes(data[at - 4 : at], "little")
            if len(_START) < length <= len(data) - at:
                return _text(data[at : at + length])
            at = data.find(_START, at + 1)
    return None


def _coreml(path: Path) -> str | None:
    """The metadata of the model's description."""
    from convnext_cli.runtimes.silence import quiet

    try:
        with quiet():
            from coremltools.models.utils import load_spec
    except ImportError as error:
        raise UnavailableError(f"coremltools cannot be loaded: {error}", "pip install coremltools") from error
    card = load_spec(str(path)).description.metadata.userDefined.get(_CARD)
    return str(card) if card else None


_READERS: dict[str, Callable[[Path], str | None]] = {
    ".onnx": _onnx,
    ".xml": _openvino,
    ".ts": _zip,
    ".pt2": _zip,
    ".mlpackage": _coreml,
    ".tflite": _tflite,
    ".pte": _embedded,
}
