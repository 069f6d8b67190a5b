"""The libraries and folders of this installation. Nothing heavy is imported, and nothing is created."""

from __future__ import annotations

import os
import platform
import sys
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from convnext_cli import __version__, zoo
from convnext_cli.base import machine
from convnext_cli.base.errors import ConvNextError
from convnext_cli.runtimes import cache
from convnext_cli.runtimes.registry import ENGINES as PACKAGES
from convnext_cli.zoo.settings import config_file

# By engine, the command that installs it. Torch first, which everything else needs.
ENGINES = {
    name: f"pip install {PACKAGES[name]}"
    for name in sorted(PACKAGES, key=lambda name: name != "torch")
    if PACKAGES[name]
}
# By distribution, what it is for, and the command that installs it.
LIBRARIES = {
    "pillow": ("photos", "pip install pillow"),
    "pillow-heif": ("HEIC photos", "pip install pillow-heif"),
    "rawpy": ("camera raw", "pip install rawpy"),
    "pyarrow": ("Parquet", "pip install pyarrow"),
    "onnx": ("ONNX files", "pip install onnxruntime onnx"),
    "matplotlib": ("plots", "pip install matplotlib"),
}


@dataclass(frozen=True)
class Library:
    """An optional library.

    Args:
        name: of the distribution.
        version: None when it is not installed.
        purpose: what it is for, in a word or two.
        install: the command that installs it.
    """

    name: str
    version: str | None
    purpose: str
    install: str

    def to_dict(self) -> dict[str, str | None]:
        """As ``doctor --json`` has it."""
        return {"name": self.name, "version": self.version, "for": self.purpose, "install": self.install}


@dataclass(frozen=True)
class Folders:
    """The folders of this user.

    Args:
        weights: of pulled and own models.
        models: the names of these.
        cache: of prepared engines.
        cache_bytes: the size of all files in it.
        prepared: how many engines are in it.
        prepared_damaged: how many of these are not as they were written.
        config: the file of the settings.
        default_model: the name or path; None when the settings cannot be read.
        default_model_path: where its weights are; None when it cannot be used.
        default_model_problem: message and hint, when it cannot be used.
        hub_caches: where other libraries keep weights.
        unwritable: those of the folders that cannot be written to.
    """

    weights: str
    models: list[str]
    cache: str
    cache_bytes: int
    prepared: int
    prepared_damaged: int
    config: str
    default_model: str | None
    default_model_path: str | None
    default_model_problem: tuple[str, str | None] | None
    hub_caches: list[str]
    unwritable: list[str]


class ThisMachine(machine.Machine):
    """The machine, this program and Python, as plain JSON values."""

    convnext: str
    python: str
    executable: str


def this_machine() -> ThisMachine:
    """The program, Python, and the processor; ``usable_threads`` is limited by affinity and quota."""
    return {
        "convnext": __version__,
        "python": platform.python_version(),
        "executable": sys.executable,
        **machine.describe(),
    }


def libraries() -> list[Library]:
    """The optional libraries, installed or not."""
    return [Library(name, _version_of(name), purpose, install) for name, (purpose, install) in LIBRARIES.items()]


def _version_of(name: str) -> str | None:
    """A distribution's version. A fork of Pillow has another name than Pillow, and the same module."""
    version = machine.version_of(name)
    if name == "pillow" and version is None and is_installed("PIL"):
        from PIL import __version__ as version
    return version


def is_installed(module: str) -> bool:
    """Whether a module is installed; importing it may still fail."""
    try:
        return find_spec(module) is not None
    except (ImportError, ValueError):
        return False


def folders() -> Folders:
    """Paths, the contents of the cache, the default model, and where other libraries keep weights."""
    ours = zoo.folders()
    entries = cache.entries()
    default = path = problem = None
    try:
        default = zoo.default_model()
        path = str(zoo.resolve(default).absolute())
    except ConvNextError as error:
        problem = (error.message, error.hint)
    return Folders(
        weights=str(ours.weights),
        models=sorted(zoo.owned()) + [e.name for e in zoo.entries() if (ours.weights / e.name).is_dir()],
        cache=str(ours.cache),
        cache_bytes=sum(file.stat().st_size for file in _files(ours.cache)),
        prepared=len(entries),
        prepared_damaged=sum(not entry.intact() for entry in entries),
        config=str(config_file()),
        default_model=default,
        default_model_path=path,
        default_model_problem=problem,
        hub_caches=[str(place) for place in (*zoo.local_files.hub_caches(), zoo.local_files.torch_hub())],
        unwritable=[str(folder) for folder in (ours.weights, ours.cache) if not _writable(folder)],
    )


def _files(folder: Path) -> list[Path]:
    try:
        return [path for path in folder.rglob("*") if path.is_file() and not path.is_symlink()]
    except OSError:
        return []


def _writable(folder: Path) -> bool:
    """Whether a folder, or the first above it that exists, may be written to."""
    existing = next((path for path in (folder, *folder.parents) if path.exists()), folder)
    return existing.is_dir() and os.access(existing, os.W_OK)
