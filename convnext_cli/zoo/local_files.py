"""Weights that are already on this machine: bundled, the user's, and downloads of other libraries.

The caches of huggingface_hub and torch hub (which timm and torchvision use) are searched, and their files are used in
place. Nothing here opens a connection, or a weights file beyond its first bytes.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from convnext_cli.base.files import read_json, user_path
from convnext_cli.base.safetensors_header import read_header
from convnext_cli.zoo import record
from convnext_cli.zoo.settings import folders

if TYPE_CHECKING:
    from convnext_cli.model.card import Card
    from convnext_cli.zoo.catalogue import Entry

SUFFIXES = (".safetensors", ".pth", ".pt", ".bin", ".ckpt", ".pth.tar")
# The names that libraries give to weights, the safer and more complete first. An index names its shards.
WEIGHT_FILES = (
    "model.safetensors",
    "model.safetensors.index.json",
    "pytorch_model.safetensors",
    "pytorch_model.bin",
    "pytorch_model.bin.index.json",
    "open_clip_model.safetensors",
    "open_clip_pytorch_model.safetensors",
    "open_clip_pytorch_model.bin",
)
_PACKAGE = Path(__file__).resolve().parent.parent


def bundled() -> Path | None:
    """The default model that comes with the program.

    A wheel carries it in the package; in an editable install it is beside the package, at the top of the checkout.
    """
    for folder in (_PACKAGE / "weights", _PACKAGE.parent / "weights"):
        if usable(path := folder / "default.safetensors"):
            return path
    return None


def stem(path: Path) -> str | None:
    """The name of a weights file without its suffix; None for other files."""
    endings = [suffix for suffix in SUFFIXES if path.name.lower().endswith(suffix)]
    return path.name[: -len(max(endings, key=len))] if endings else None


def usable(path: Path) -> bool:
    """Whether this is a complete file of weights, or the index of complete shards.

    A Git LFS pointer and an unfinished download are not.
    """
    try:
        if path.suffix in (".incomplete", ".partial", ".part") or not path.is_file():
            return False
        if path.name.endswith(".index.json"):
            return bool(parts := shards(path)) and all(map(usable, parts))
        with path.open("rb") as file:
            head = file.read(40)
    except OSError:
        return False
    return bool(head) and not head.startswith(b"version https://git-lfs")


def shards(index: Path) -> list[Path]:
    """The files that an index of sharded weights names; empty if it is damaged."""
    try:
        names = set(read_json(index)["weight_map"].values())
        return sorted(index.parent / name for name in names)
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return []


def hub_caches() -> list[Path]:
    """The folders in which huggingface_hub keeps repositories, by its own variables."""
    if cache := os.environ.get("HF_HUB_CACHE") or os.environ.get("HUGGINGFACE_HUB_CACHE"):
        return [user_path(cache)]
    if home := os.environ.get("HF_HOME"):
        return [user_path(home) / "hub"]
    return [_user_cache() / "huggingface" / "hub"]


def torch_hub() -> Path:
    """The folder in which torch hub keeps files, by its own variables; timm and torchvision use the same folder."""
    home = os.environ.get("TORCH_HOME")
    return (user_path(home) if home else _user_cache() / "torch") / "hub" / "checkpoints"


def _user_cache() -> Path:
    # Both libraries use ~/.cache on every system, Windows and macOS too.
    return user_path(os.environ.get("XDG_CACHE_HOME") or "~/.cache")


def find(entry: Entry, wish: str = "") -> list[Path]:
    """All copies of a checkpoint, in order of preference: the user's folder, then the hub's cache, then torch hub's.

    In the user's folder, the file of a pull comes first.

    Args:
        entry: the checkpoint.
        wish: a hub repository that the user named; its copy comes before all others.
    """
    weights = folders().weights
    repositories = sorted(entry.repositories, key=lambda r: r.casefold() != wish.casefold())
    in_hub = [path for cache in hub_caches() for r in repositories for path in _snapshots(cache, r)]
    named = [path for path in in_hub if wish and repository(path).casefold() == wish.casefold()]
    names = (*WEIGHT_FILES, *entry.files)
    pulled = record.complete(weights / entry.name)
    ours = [*([pulled] if pulled else []), *(weights / entry.name / name for name in names)]
    ours += [weights / f"{entry.name}{suffix}" for suffix in SUFFIXES]
    loose = [folder / name for folder in (weights, torch_hub()) for name in entry.files]
    return [path for path in dict.fromkeys([*named, *ours, *in_hub, *loose]) if usable(path)]


def _snapshots(cache: Path, repository: str) -> list[Path]:
    """The weights in a cached repository: first those of the revision that ``main`` points at, then the newest."""
    folder = cache / f"models--{repository.replace('/', '--')}"
    try:
        revisions = sorted((folder / "snapshots").iterdir(), key=lambda p: p.stat().st_mtime, reverse=True)
    except OSError:
        return []
    try:
        main = (folder / "refs" / "main").read_text("utf-8").strip()
    except (OSError, ValueError):
        main = ""
    revisions.sort(key=lambda p: p.name != main)
    return [path for revision in revisions if (path := _weights_of(revision))]


def _weights_of(folder: Path) -> Path | None:
    """The weights file with a standard name in a folder, or the folder if its weights have another name."""
    usual = next((folder / name for name in WEIGHT_FILES if usable(folder / name)), None)
    return usual or (folder if holds_weights(folder) else None)


def cached(name: str) -> Path | None:
    """The weights of any hub repository ("owner/name") that huggingface_hub or timm has downloaded."""
    if name.count("/") != 1 or "\0" in name:
        return None
    return next((path for cache in hub_caches() for path in _snapshots(cache, name)), None)


def repository(path: Path) -> str:
    """The hub repository to which a path in a hub cache belongs; "" for any other path."""
    for parent in path.parents:
        if parent.name.startswith("models--") and parent.name.count("--") >= 2:
            return parent.name.removeprefix("models--").replace("--", "/", 1)
    return ""


def own(name: str) -> Path | None:
    """The user's own model of this name: a file or a folder in the weights folder; None if there is none."""
    if not name or Path(name).name != name or name in (".", ".."):
        return None
    weights = folders().weights
    try:
        candidates = (weights / name, *(weights / f"{name}{suffix}" for suffix in SUFFIXES))
        return next((path for path in candidates if is_model(path)), None)
    except (OSError, ValueError):  # no name that a file can have
        return None


def is_model(path: Path) -> bool:
    """Whether a path is a weights file, or a folder that holds one."""
    return holds_weights(path) if path.is_dir() else stem(path) is not None and usable(path)


def holds_weights(folder: Path) -> bool:
    """Whether a folder directly contains a weights file."""
    try:
        return any(stem(path) is not None and usable(path) for path in folder.iterdir())
    except OSError:
        return False


def embedded_card(path: Path) -> Card | None:
    """The card in the header of one of the project's own files; None if it has none.

    Reads the header only, and needs neither torch nor numpy.

    Raises:
        ModelError: the card is damaged.
    """
    from convnext_cli.model.card import METADATA_KEY, Card

    if path.suffix.lower() != ".safetensors":
        return None
    try:
        text = read_header(path)["__metadata__"][METADATA_KEY]
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return Card.from_json(text)
