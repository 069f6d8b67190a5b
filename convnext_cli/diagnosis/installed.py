"""The libraries and folders of this installation. Nothing heavy is imported, and nothing is created."""

from __future__ import annotations

import os
import platform
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from convnext_cli import __version__, zoo
from convnext_cli.base import machine
from convnext_cli.base.errors import ConvNextError
from convnext_cli.runtimes import cache
from convnext_cli.zoo.settings import config_file

# Module, distribution, what it is for, and how to get it.
ENGINES = {
    "torch": ("torch", "pip install torch"),
    "openvino": ("openvino", "pip install openvino"),
    "onnxruntime": ("onnxruntime", "pip install onnxruntime onnx"),
}
LIBRARIES = {
    "pillow": ("photos", "pip install pillow"),
    "pillow-heif": ("HEIC photos", "pip install pillow-heif"),
    "rawpy": ("camera raw", "pip install rawpy"),
    "pyarrow": ("Parquet", "pip install pyarrow"),
    "onnx": ("ONNX files", "pip install onnxruntime onnx"),
    "matplotlib": ("plots", "pip install matplotlib"),
}


def this_machine() -> dict[str, Any]:
    """The program, Python, and the processor; ``usable_threads`` is what affinity and quota leave."""
    return {
        "convnext": __version__,
        "python": platform.python_version(),
        "executable": sys.executable,
        **machine.describe(),
    }


def libraries() -> list[dict[str, Any]]:
    """Name, version (None when it is not there), what for, and the line that installs it."""
    return [
        {"name": name, "version": machine.version_of(name), "for": purpose, "install": install}
        for name, (purpose, install) in LIBRARIES.items()
    ]


def is_there(module: str) -> bool:
    """Whether a module can be found; whether it can be imported is seen by doing it."""
    try:
        return find_spec(module) is not None
    except (ImportError, ValueError):
        return False


def folders() -> dict[str, Any]:
    """Paths, what is in the cache, the default model, and where other libraries keep weights."""
    ours = zoo.folders()
    entries = cache.entries()
    size = sum(path.stat().st_size for path in _files(ours.cache))
    try:
        default, problem = zoo.default_model(), None
    except ConvNextError as error:
        default, problem = None, [error.message, error.hint]
    path = None
    if default is not None:
        try:
            path = str(zoo.resolve(default).absolute())
        except ConvNextError as error:
            problem = [error.message, error.hint]
    return {
        "weights": str(ours.weights),
        "models": sorted(zoo.owned()) + [e.name for e in zoo.entries() if (ours.weights / e.name).is_dir()],
        "cache": str(ours.cache),
        "cache_bytes": size,
        "prepared": len(entries),
        "prepared_damaged": sum(not entry.intact() for entry in entries),
        "config": str(config_file()),
        "default_model": default,
        "default_model_path": path,
        "default_model_problem": problem,
        "hub_caches": [str(path) for path in (*zoo.local_files.hub_caches(), zoo.local_files.torch_hub())],
        "unwritable": [str(path) for path in (ours.weights, ours.cache) if not _writable(path)],
    }


def _files(folder: Path) -> list[Path]:
    try:
        return [path for path in folder.rglob("*") if path.is_file() and not path.is_symlink()]
    except OSError:
        return []


def _writable(folder: Path) -> bool:
    """Whether a folder, or the first above it that exists, may be written to."""
    there = next((path for path in (folder, *folder.parents) if path.exists()), folder)
    return there.is_dir() and os.access(there, os.W_OK)
