"""Weights that are already on this machine: bundled, the user's, and what other libraries have downloaded.

Looks where huggingface_hub and torch hub (and timm and torchvision through them) keep their files, and takes them
where they lie. Nothing here opens a connection, or a weights file beyond its first bytes.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING

from convnext_cli.zoo.settings import folders

if TYPE_CHECKING:
    from convnext_cli.card import Card
    from convnext_cli.zoo.entry import Entry

SUFFIXES = (".safetensors", ".pth", ".pt", ".bin", ".ckpt")
# In the order of preference; every repository has one of them.
WEIGHT_FILES = (
    "model.safetensors",
    "pytorch_model.bin",
    "open_clip_model.safetensors",
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


def usable(path: Path) -> bool:
    """Whether it is a whole file of weights: not a Git LFS pointer, not a download that has not ended."""
    try:
        if path.suffix in (".incomplete", ".partial", ".part") or not path.is_file():
            return False
        with path.open("rb") as file:
            head = file.read(40)
    except OSError:
        return False
    return bool(head) and not head.startswith(b"version https://git-lfs")


def hub_caches() -> list[Path]:
    """Where huggingface_hub keeps repositories, by its own variables."""
    if cache := os.environ.get("HF_HUB_CACHE") or os.environ.get("HUGGINGFACE_HUB_CACHE"):
        return [Path(cache).expanduser()]
    if home := os.environ.get("HF_HOME"):
        return [Path(home).expanduser() / "hub"]
    return [_user_cache() / "huggingface" / "hub"]


def torch_hub() -> Path:
    """Where torch hub keeps files, by its own variables; timm and torchvision use the same folder."""
    home = os.environ.get("TORCH_HOME")
    return (Path(home).expanduser() if home else _user_cache() / "torch") / "hub" / "checkpoints"


def _user_cache() -> Path:
    # Both libraries take ~/.cache on every system, Windows and macOS too.
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser()


def find(entry: Entry, wish: str = "") -> list[Path]:
    """All copies of a checkpoint, the one to take first: the user's folder, then the hub's cache, then torch hub's.

    wish: a hub repository whose copy goes before all others, because the user named it.
    """
    weights = folders().weights
    repositories = sorted(entry.repositories, key=lambda r: r.casefold() != wish.casefold())
    in_hub = [path for cache in hub_caches() for r in repositories for path in _snapshots(cache, r)]
    named = [path for path in in_hub if wish and repository(path).casefold() == wish.casefold()]
    names = (*WEIGHT_FILES, *entry.files)
    ours = [weights / entry.name / name for name in names]
    ours += [weights / f"{entry.name}{suffix}" for suffix in SUFFIXES]
    loose = [folder / name for folder in (weights, torch_hub()) for name in entry.files]
    return [path for path in dict.fromkeys([*named, *ours, *in_hub, *loose]) if usable(path)]


def _snapshots(cache: Path, repository: str) -> list[Path]:
    """The weights of a cached repository: of the revision that ``main`` points at, then of others, newest first."""
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
    return [
        path
        for revision in revisions
        for path in [next((revision / n for n in WEIGHT_FILES if usable(revision / n)), None)]
        if path
    ]


def repository(path: Path) -> str:
    """The hub repository that a path in a hub cache belongs to, "" for any other path."""
    for parent in path.parents:
        if parent.name.startswith("models--") and parent.name.count("--") >= 2:
            return parent.name.removeprefix("models--").replace("--", "/", 1)
    return ""


def own(name: str) -> Path | None:
    """A model of the user's own, put into the weights folder as a file or a folder of this name."""
    if not name or Path(name).name != name or name in (".", ".."):
        return None
    weights = folders().weights
    try:
        for path in (weights / name, *(weights / f"{name}{suffix}" for suffix in SUFFIXES)):
            if path.is_dir() and holds_weights(path):
                return path
            if path.suffix in SUFFIXES and usable(path):
                return path
    except (OSError, ValueError):  # no name that a file can have
        pass
    return None


def holds_weights(folder: Path) -> bool:
    """Whether a folder has a weights file, or the index of one, directly in it."""
    try:
        return any(
            p.name.endswith((".safetensors.index.json", ".bin.index.json")) or (p.suffix in SUFFIXES and usable(p))
            for p in folder.iterdir()
        )
    except OSError:
        return False


def embedded_card(path: Path) -> Card | None:
    """The card in the header of one of the project's own files; None when there is none.

    Reads the header only, and needs neither torch nor numpy. Raises ModelError when the card is damaged.
    """
    from convnext_cli.card import Card

    try:
        with path.open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
            header = json.loads(file.read(length)) if length < 100_000_000 else {}
        text = header["__metadata__"]["convnext"]
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return Card.from_json(text)
