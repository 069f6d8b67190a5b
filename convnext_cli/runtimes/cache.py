"""Prepared engines: what is kept in the cache folder so that the next start needs neither torch nor a proof.

    models/<file>.json     what a weights file holds: its card, by the paths, sizes and times of all files it depends on
    engines/<key>/         a graph in its runtime's own format, and entry.json: what it was made from and its proof
    choices/<key>.json     how fast each engine was on this machine

Keys are hashes over all that an answer depends on: the weights' checksum, the network's shape, the versions of this
program and of the runtime, the precision; choices also hang on the processor. An entry whose files have changed since
they were written is removed and made again, never used. Entries unused for 60 days go when another is written.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import sys
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

from convnext_cli import __version__, zoo
from convnext_cli.base import machine
from convnext_cli.base.errors import ConvNextError
from convnext_cli.base.files import crc32
from convnext_cli.base.text import JsonObject, json_value
from convnext_cli.checkpoints import companion_files
from convnext_cli.model.card import Card

_UNUSED = 60 * 24 * 3600  # seconds until an entry goes
_CLEARLY = 1.1  # times as fast; less is within what one measurement on a busy machine tells
_FORM = 3  # of the entries; raised when older ones cannot be read any more


@dataclass(frozen=True)
class Known:
    """A weights file that was read before. notes: what was inferred while reading it."""

    card: Card
    notes: list[str]


@dataclass(frozen=True)
class Entry:
    """A prepared engine.

    name: the model's. files: names and CRC-32 of its files. proof: ``reference.difference`` from network.py.
    """

    folder: Path
    name: str
    engine: str
    dtype: str
    versions: dict[str, str]
    files: dict[str, int]
    proof: float
    report: JsonObject = field(default_factory=dict)

    @property
    def size(self) -> int:
        """Bytes on the disk."""
        return sum(path.stat().st_size for path in self.folder.iterdir())

    def to_dict(self) -> dict[str, object]:
        """A JSON object of ``prepare --list --json``."""
        return {
            "model": self.name,
            "engine": self.engine,
            "dtype": self.dtype,
            "versions": self.versions,
            "difference": self.proof,
            "bytes": self.size,
            "path": str(self.folder),
        }

    def intact(self) -> bool:
        """Whether its files are those that were written; reads them all."""
        try:
            return all(crc32(self.folder / name) == checksum for name, checksum in self.files.items())
        except OSError:
            return False


@dataclass(frozen=True)
class Choice:
    """The engine for each job, by what was measured: milliseconds a photo, by job and engine."""

    measured: dict[str, dict[str, float]]

    def best(self, job: str) -> str:
        """The fastest engine for a job; "torch" where no other could be prepared.

        OpenVINO, which needs no other library, stays where another is not clearly faster.
        """
        times = self.measured.get(job, {})
        fastest = min(times, key=lambda engine: times[engine], default="torch")
        if "openvino" in times and times["openvino"] < _CLEARLY * times[fastest]:
            return "openvino"
        return fastest


def root() -> Path:
    """The cache folder."""
    return zoo.folders().cache


def writable() -> bool:
    """Whether something can be kept; makes the folder."""
    import tempfile

    try:
        root().mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=root()):
            return True
    except OSError:
        return False


def known(path: Path) -> Known | None:
    """What is known of the weights at ``path``, None when they are new or were changed."""
    values = _read(_model_file(path))
    try:
        return Known(Card.from_json(values["card"]), list(values["notes"])) if values else None
    except (ConvNextError, LookupError, TypeError):
        return None


def remember(path: Path, card: Card, notes: list[str]) -> None:
    """Note what the weights at ``path`` hold. Raises OSError when the cache cannot be written."""
    _write(_model_file(path), {"card": card.to_json(), "notes": notes})


def find(card: Card, engine: str, dtype: str) -> Entry | None:
    """The prepared engine for these weights; whether its files are intact is for ``Entry.intact`` to say."""
    folder = _folder(card, engine, dtype)
    if (entry := _entry(folder)) is not None:
        with contextlib.suppress(OSError):
            os.utime(folder / "entry.json")
    return entry


@contextlib.contextmanager
def making(card: Card, engine: str, dtype: str, proof: float, report: JsonObject | None = None) -> Iterator[Path]:
    """A folder to write an engine's files into; it becomes the entry when all went well, and nothing is left if not.

    Raises OSError when the cache cannot be written.
    """
    import shutil
    import tempfile

    folder = _folder(card, engine, dtype)
    folder.parent.mkdir(parents=True, exist_ok=True)
    _prune(folder.parent)
    temporary = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
    try:
        yield temporary
        entry = {
            "name": card.name,
            "engine": engine,
            "dtype": dtype,
            "versions": _versions(engine),
            "files": {path.name: crc32(path) for path in sorted(temporary.iterdir())},
            "proof": proof,
            "report": report or {},
        }
        for path in temporary.iterdir():
            with path.open("rb") as file:
                os.fsync(file.fileno())
        _write(temporary / "entry.json", entry)
        if folder.exists():
            shutil.rmtree(folder)
        # where two make the same at once, one of the two stays
        with contextlib.suppress(FileExistsError):
            temporary.rename(folder)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def discard(entry: Entry) -> None:
    """Remove an entry that cannot be used."""
    import shutil

    shutil.rmtree(entry.folder, ignore_errors=True)


def choice(card: Card, dtype: str) -> Choice | None:
    """What was measured on this machine for these weights, None when nothing was."""
    values = _read(_choice_file(card, dtype))
    try:
        return Choice({job: dict(times) for job, times in values["measured"].items()}) if values else None
    except (LookupError, AttributeError, TypeError, ValueError):
        return None


def remember_choice(card: Card, dtype: str, choice: Choice) -> None:
    """Raises OSError when the cache cannot be written."""
    _write(_choice_file(card, dtype), {"measured": choice.measured})


def complete(path: Path, dtype: str) -> bool:
    """Whether all that was chosen for these weights is there."""
    if (weights := known(path)) is None or (chosen_before := choice(weights.card, dtype)) is None:
        return False
    chosen = {chosen_before.best("latency"), chosen_before.best("throughput")}
    return all(e.startswith("torch") or find(weights.card, e, dtype) is not None for e in chosen)


def entries() -> list[Entry]:
    """All prepared engines, broken ones left out."""
    try:
        folders = sorted((root() / "engines").iterdir())
    except OSError:
        return []
    return [entry for entry in map(_entry, folders) if entry is not None]


def clear() -> int:
    """Remove all that is prepared, and say how many bytes that were."""
    import shutil

    freed = 0
    for name in ("models", "engines", "choices"):
        folder = root() / name
        freed += sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
        shutil.rmtree(folder, ignore_errors=True)
    return freed


class Check:
    """``Entry.intact`` in a thread of its own, while the runtime is loaded."""

    def __init__(self, entry: Entry) -> None:
        pool = ThreadPoolExecutor(1, "check")
        self._result: Future[bool] = pool.submit(entry.intact)
        pool.shutdown(wait=False)

    def __call__(self) -> bool:
        return self._result.result()


def _entry(folder: Path) -> Entry | None:
    try:
        return Entry(folder, **(_read(folder / "entry.json") or {}))
    except TypeError:
        return None


def _model_file(path: Path) -> Path:
    depends: list[object] = [__version__, _FORM]
    for file in companion_files.files(path):
        status = file.stat()
        depends.append([str(file.absolute()), status.st_size, status.st_mtime_ns, status.st_ino])
    return root() / "models" / f"{_key(depends)}.json"


def _folder(card: Card, engine: str, dtype: str) -> Path:
    return root() / "engines" / _key([_FORM, card.sha256, card.config.to_dict(), _versions(engine), engine, dtype])


def _choice_file(card: Card, dtype: str) -> Path:
    runtimes = [_versions(engine) for engine in ("openvino", "onnxruntime", "torch")]
    here = [machine.processor(), machine.instruction_sets()]
    return root() / "choices" / f"{_key([_FORM, card.sha256, card.config.to_dict(), dtype, runtimes, here])}.json"


def _versions(engine: str) -> dict[str, str]:
    return {"convnext": __version__, engine: installed().get(engine, "")}


@cache
def installed() -> dict[str, str]:
    """Versions of the installed packages, by the names of their folders: importlib.metadata takes long to import."""
    versions: dict[str, str] = {}
    for folder in map(Path, sys.path):
        with contextlib.suppress(OSError):
            for name in os.listdir(folder):  # noqa: PTH208 - the quickest
                if match := re.fullmatch(r"(\w+?)-([^-]+)\.dist-info", name):
                    versions.setdefault(match[1].lower(), match[2])
    return versions


def _key(values: list[object]) -> str:
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()[:32]


def _read(path: Path) -> JsonObject | None:
    try:
        values = json_value(path.read_text("utf-8"))
    except (OSError, ValueError):
        return None
    return values if isinstance(values, dict) else None


def _write(path: Path, values: Mapping[str, object]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        temporary.write_text(json.dumps(values), "utf-8")
        temporary.replace(path)
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink()


def _prune(folder: Path) -> None:
    import shutil

    limit = time.time() - _UNUSED
    for entry in folder.iterdir():
        with contextlib.suppress(OSError):
            mark = entry / "entry.json"
            if (mark if mark.exists() else entry).stat().st_mtime < limit:
                shutil.rmtree(entry, ignore_errors=True)
