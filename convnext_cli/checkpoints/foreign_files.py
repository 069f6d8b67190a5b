"""Recognise files that are not PyTorch checkpoints by their first bytes or their contents, and name their kind."""

from __future__ import annotations

import contextlib
import zipfile
from pathlib import Path

from convnext_cli.base.errors import ModelError
from convnext_cli.checkpoints import pickle_check

FETCH_AGAIN = "download it again: it was probably cut off while it was copied or downloaded"
# The first bytes of files that are not PyTorch checkpoints, with the end of the message and the hint.
_FOREIGN: tuple[tuple[bytes, str, str], ...] = (
    (
        b"version https://git-lfs",
        "is a Git LFS pointer, not the weights themselves",
        "fetch the real file: git lfs pull, or download it from its web page",
    ),
    (b"<!doctype html", "is a web page, not weights", "download the file itself, not the page about it"),
    (b"<html", "is a web page, not weights", "download the file itself, not the page about it"),
    (b"<?xml", "is an XML message, not weights", "download the file again: the server sent an error"),
    (b"\x89hdf\r\n\x1a\n", "is an HDF5 file (Keras or TensorFlow)", ""),
    (b"gguf", "is a GGUF file", ""),
    (b"\x1f\x8b", "is compressed with gzip", "uncompress it first: gunzip FILE"),
    (b"\xfd7zxz", "is compressed with xz", "uncompress it first: unxz FILE"),
    (b"7z\xbc\xaf", "is a 7z archive", "unpack it, and name the weights in it"),
    (b"rar!", "is a RAR archive", "unpack it, and name the weights in it"),
)
_SAVE_AGAIN = "download it again from its publisher, or save only its tensors where it was made"
_MOST_UNPACKED = 4  # times its size; weights hardly shrink when they are compressed
PYTORCH_ONLY = "get the PyTorch weights of this model: .safetensors, .pth, .pt or .bin"


def refuse_foreign(path: Path, head: bytes) -> None:
    """Raise ModelError if the first bytes of a file are not those of weights."""
    start = head.lstrip(b"\xef\xbb\xbf \r\n\t").lower()
    for magic, what, hint in _FOREIGN:
        if start.startswith(magic):
            raise ModelError(f"{path.name} {what}", hint or PYTORCH_ONLY)
    if is_safetensors(path, head):
        return
    suffix = path.suffix.lower()
    if suffix == ".onnx" or (head[:1] == b"\x08" and b"pytorch" in head[:64]):
        raise ModelError(f"{path.name} is an ONNX graph, not a checkpoint", PYTORCH_ONLY)
    if suffix == ".msgpack" or head[:1] in b"\x81\x82\x83\x84\xde\xdf":
        raise ModelError(f"{path.name} is a msgpack file (Flax)", PYTORCH_ONLY)
    if head[4:8] == b"TFL3":
        raise ModelError(f"{path.name} is a TensorFlow Lite model", PYTORCH_ONLY)
    if head[:6] == b"\x93NUMPY":
        raise ModelError(f"{path.name} is a single numpy array", PYTORCH_ONLY)
    if head[257:262] == b"ustar":
        raise ModelError(f"{path.name} is a tar archive", "unpack it, and name the weights in it")


def is_safetensors(path: Path, head: bytes) -> bool:
    """Whether a file is, or claims to be, safetensors."""
    return path.suffix.lower() == ".safetensors" or (head[8:9] == b"{" and head[4:8] == b"\0" * 4)


def check_zip(path: Path) -> bool:
    """Whether torch can map a zipped checkpoint; False if it was zipped again, with compression.

    Raises:
        ModelError: ``torch.save`` did not write the archive, or it unpacks to far more than its size.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
            entries = archive.infolist()
    except Exception as error:  # zipfile raises all kinds for damaged archives
        raise ModelError(
            f"{path.name} is cut off: its list of contents, at the end, is missing", FETCH_AGAIN
        ) from error
    tails = {name.partition("/")[2] for name in names}
    if "constants.pkl" in tails or any(tail.startswith("code/") for tail in tails):
        raise ModelError(
            f"{path.name} is a TorchScript program, which contains code",
            'save only its tensors where it was made: torch.save(model.state_dict(), "weights.pth")',
        )
    if "data.pkl" in tails:
        return _check_sizes(path, entries)
    if any(name.endswith(".npy") for name in names):
        raise ModelError(f"{path.name} is a numpy archive (.npz)", PYTORCH_ONLY)
    if any(name.endswith(".h5") for name in names):
        raise ModelError(f"{path.name} is a Keras model", PYTORCH_ONLY)
    inside = [name for name in names if name.endswith((".safetensors", ".pth", ".pt", ".bin"))]
    raise ModelError(
        f"{path.name} is a zip archive, not a checkpoint" + (f"; it contains {inside[0]}" if inside else ""),
        "unpack it, and name the weights in it",
    )


def _check_sizes(path: Path, entries: list[zipfile.ZipInfo]) -> bool:
    pickled = [entry for entry in entries if entry.filename.partition("/")[2] == "data.pkl"]
    if len(pickled) > 1 or pickled[0].file_size > pickle_check.MOST_BYTES:
        size = sum(entry.file_size for entry in pickled)
        raise ModelError(f"{path.name} is refused: the description of its tensors has {size:,} bytes", _SAVE_AGAIN)
    unpacked = sum(entry.file_size for entry in entries)
    if unpacked > _MOST_UNPACKED * path.stat().st_size:
        raise ModelError(
            f"{path.name} is refused: it has {path.stat().st_size:,} bytes, and unpacks to {unpacked:,}", _SAVE_AGAIN
        )
    return all(entry.compress_type == zipfile.ZIP_STORED for entry in entries)


def pickle_of(archive: zipfile.ZipFile) -> zipfile.ZipInfo:
    """The entry of an archive that describes the tensors."""
    return next(entry for entry in archive.infolist() if entry.filename.partition("/")[2] == "data.pkl")


def named_globals(path: Path) -> list[str]:
    """The names that a pickle would import, read from its opcodes without running any."""
    import pickletools

    names: list[str] = []
    strings: list[str] = []
    with contextlib.suppress(ValueError, OSError), path.open("rb") as file:
        for opcode, argument, _ in pickletools.genops(file):
            if opcode.name == "GLOBAL":
                names.append(str(argument).replace(" ", "."))
            elif opcode.name == "STACK_GLOBAL":
                names.append(".".join(strings[-2:]))
            elif isinstance(argument, str):
                strings.append(argument)
    return sorted(set(names))
