"""The zoo: every known checkpoint by name, the copies on this machine, and the default.

Neither torch nor numpy is needed, and no connection is opened; ``zoo.pull`` is the one module that does.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path

from convnext_cli.base.errors import ModelError
from convnext_cli.base.files import user_path
from convnext_cli.base.text import is_well_formed
from convnext_cli.storage.addresses import scrub
from convnext_cli.zoo import local_files
from convnext_cli.zoo.catalogue import Entry, entries
from convnext_cli.zoo.settings import default_model, folders

__all__ = [
    "Entry",
    "default_model",
    "entries",
    "entry_for_file",
    "find",
    "folders",
    "local_files",
    "nearest",
    "owned",
    "resolve",
]

_PREFIXES = ("https://huggingface.co/", "hf-hub:", "hf_hub:", "timm:")


def find(name: str) -> Entry | None:
    """The checkpoint with this name or alias; None if unknown. Case, dashes and underscores do not matter."""
    return _names().get(_key(name))


def nearest(name: str, count: int = 3) -> list[str]:
    """The names of the checkpoints that are nearest to a misspelt name, the nearest first."""
    from difflib import SequenceMatcher

    matcher = SequenceMatcher(b=_key(name))
    best: dict[str, float] = {}
    for key, entry in _names().items():
        matcher.set_seq1(key)
        if matcher.real_quick_ratio() > best.get(entry.name, 0.0):
            best[entry.name] = max(best.get(entry.name, 0.0), matcher.ratio())
    return sorted(best, key=lambda n: -best[n])[:count]


def entry_for_file(path: str | Path) -> Entry | None:
    """The checkpoint of a file or folder, by its name: the publisher's file name, a hub cache, our own folders.

    Short aliases do not count, since a file called tiny.pth may be anything.
    """
    path = Path(path).absolute()  # not resolved: in a hub cache the file itself is a blob without a name
    entries_by_file = _file_names()
    folder = path
    stem = local_files.stem(path)
    if path.name in local_files.WEIGHT_FILES:
        folder = path.parent
    elif stem is not None:
        return entries_by_file.get(path.name.casefold()) or entries_by_file.get(stem.casefold())
    return entries_by_file.get(local_files.repository(folder / "_").casefold()) or entries_by_file.get(
        folder.name.casefold()
    )


def resolve(model: str | Path | None = None) -> Path:
    """Find the weights that a name or a path means, as a file or a folder on this machine.

    A path that exists goes before a name; a folder counts when it holds weights.

    Args:
        model: a name, an alias or a path; None for the user's default. "default" is always the bundled model.

    Raises:
        ModelError: a known checkpoint is not on this machine (the hint is the command that pulls it), or nothing is
            known under the name (the hint has the three nearest names).
        UsageError: `model` is None, and the settings cannot be read.
    """
    model = model or default_model()
    name, path = str(model), Path(model)
    if not is_well_formed(name):
        raise ModelError(
            f"the path {name} is not valid UTF-8, and the libraries that read weights cannot open it", "rename it"
        )
    if name == "default":
        if (bundled := local_files.bundled()) is None:
            raise ModelError(
                "the bundled model is missing from this installation", "pip install --force-reinstall convnext-cli"
            )
        return bundled
    try:
        path = user_path(path)
        folder = path.is_dir() and (local_files.holds_weights(path) or path.suffix == ".mlpackage")
        if folder or path.is_file():
            return path
        exists = path.exists()
    except (OSError, ValueError):  # no name that a file can have
        exists = False
    if entry := find(name):
        if copies := local_files.find(entry, wish=name):
            return copies[0]
        raise ModelError(f"{entry.name} is not on this machine", pull_line(entry))
    if copy := local_files.own(name) or local_files.cached(_bare(name)):
        return copy
    if exists:
        raise ModelError(f"there are no weights in {name}", "name the file itself, or a folder that holds it")
    if local_files.stem(path) is not None or name.startswith(("/", "./", "../", "~")) or "\\" in name:
        raise ModelError(
            f"the file {scrub(name)} does not exist", "check the path; `convnext models list` shows all names"
        )
    raise ModelError(
        f"no model is called {scrub(name)!r}",
        f"the nearest names are {', '.join(nearest(name))}; see `convnext models list`",
    )


def owned() -> dict[str, Path]:
    """The user's own models in the weights folder, by name; by path where another model has the name."""
    try:
        paths = sorted(path for path in folders().weights.iterdir() if not path.name.startswith("."))
    except OSError:
        return {}
    files = {}
    for path in filter(local_files.is_model, paths):
        entry = entry_for_file(path)
        if entry is None or not (path.name == entry.name or path in local_files.find(entry)):
            names = (local_files.stem(path) or path.name, path.name)
            files[next((n for n in names if find(n) is None and local_files.own(n) == path), str(path))] = path
    return files


def pull_line(entry: Entry) -> str:
    """The command that pulls a checkpoint to this machine."""
    if not entry.hub and not entry.url:
        return f"download it from its publisher, and put it into {folders().weights}"
    return f"convnext models pull {entry.name}" + (f"    ({entry.license}: {entry.terms})" if entry.terms else "")


def _bare(name: str) -> str:
    name = name.strip().rstrip("/")
    for prefix in _PREFIXES:
        name = name.removeprefix(prefix)
    return name


def _key(name: str) -> str:
    return _bare(name).casefold().replace("_", "-")


@cache
def _names() -> dict[str, Entry]:
    """All names and aliases; full names first, so that no alias can take one."""
    names = {_key(entry.name): entry for entry in entries()}
    for entry in entries():
        for alias in (*entry.aliases, *entry.files, *(Path(f).stem for f in entry.files)):
            names.setdefault(_key(alias), entry)
    return names


@cache
def _file_names() -> dict[str, Entry]:
    """Names that only these weights have: the full name, publishers' files, hub repositories with and without owner."""
    entries_by_file: dict[str, Entry] = {}
    for entry in entries():
        tails = [r.rpartition("/")[2] for r in entry.repositories]
        for name in (entry.name, *entry.files, *entry.repositories, *tails):
            entries_by_file.setdefault(name.casefold(), entry)
    return entries_by_file
