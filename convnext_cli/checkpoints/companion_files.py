"""The files of a model's folder: the weights, and the JSON that describes them."""

from __future__ import annotations

from pathlib import Path

from convnext_cli.base.errors import ModelError
from convnext_cli.base.files import read_json as files_read_json
from convnext_cli.base.text import JsonObject
from convnext_cli.zoo.local_files import SUFFIXES, WEIGHT_FILES, shards

STANDARD = WEIGHT_FILES
_OTHER = {".h5": "Keras", ".msgpack": "Flax", ".onnx": "ONNX", ".keras": "Keras", ".npz": "numpy", ".pb": "TensorFlow"}
WEIGHTS, CONFIG, PROCESSOR = "model.safetensors", "config.json", "preprocessor_config.json"
_JSON = (CONFIG, PROCESSOR, "open_clip_config.json")


def find_weights(path: Path) -> Path:
    """The weights file of a path: the file itself, or the one in the folder.

    Raises:
        ModelError: there is no such file, or there are several and none has a standard name.
    """
    if not path.exists():
        raise ModelError(f"{path} does not exist", "check the path, or name a model: convnext models list")
    if not path.is_dir():
        if not path.is_file():
            raise ModelError(f"{path} is neither a file nor a folder", "name a weights file or its folder")
        return path
    for name in STANDARD:
        if (path / name).is_file():
            return path / name
    files = sorted(file for file in path.iterdir() if file.is_file())
    candidates = [file for file in files if file.name.lower().endswith(SUFFIXES)]
    if len(candidates) == 1:
        return candidates[0]
    if candidates:
        names = ", ".join(file.name for file in candidates[:8]) + (" …" if len(candidates) > 8 else "")
        raise ModelError(f"{path} contains {len(candidates)} weights files: {names}", "name one of them")
    others = [f"{file.name} ({_OTHER[file.suffix]})" for file in files if file.suffix in _OTHER]
    if others:
        raise ModelError(
            f"{path} contains no PyTorch weights, only {', '.join(others)}", "download model.safetensors too"
        )
    raise ModelError(f"{path} contains no weights", "name a weights file, or a folder with model.safetensors")


def files(path: Path) -> list[Path]:
    """All files of a model: the weights, their shards, and the JSON that describes them.

    Raises:
        ModelError: as for ``find_weights``.
    """
    weights = find_weights(path)
    parts = shards(weights) if weights.name.endswith(".index.json") else []
    beside = [weights.parent / name for name in _JSON] if path.is_dir() or weights.name in STANDARD else []
    return [weights, *parts, *(file for file in beside if file.is_file())]


def read_json(weights: Path, *, asked: Path) -> dict[str, JsonObject]:
    """The JSON beside the weights, by file name.

    The JSON counts if the user named the folder, or if the weights have a standard name. A file with another name may
    be in a folder with unrelated files.

    Args:
        weights: the weights file.
        asked: the path that the user named.

    Raises:
        ModelError: a file is not readable JSON.
    """
    if not (asked.is_dir() or weights.name in STANDARD):
        return {}
    documents = {}
    for name in _JSON:
        path = weights.parent / name
        if not path.is_file():
            continue
        try:
            content = files_read_json(path)
        except (OSError, ValueError) as error:
            raise ModelError(f"{path} is not readable JSON: {error}", "download the file again") from error
        if not isinstance(content, dict):
            raise ModelError(f"{path} does not contain a JSON object", "download the file again")
        documents[name] = content
    return documents
