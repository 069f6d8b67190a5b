"""Which photos are being worked on: a small file that says so after the process was ended, however it was ended.

The file is mapped into memory, and nothing is synchronised: what a process has written stays with the system when the
process is killed. And unlike a call of the system, a note lets no other thread of Python in between. A decoding thread
has a slot, the engine one for its batch, and a photo that is tried alone one more. The next run reads them (``read``).
"""

from __future__ import annotations

import json
import mmap
import os
import struct
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from convnext_cli.storage.addresses import is_url

_HEAD = struct.Struct("<Id")  # bytes that follow, and when the note was made
_NONE = bytes(_HEAD.size)
_LATER = struct.Struct("<d")  # when the photo that is tried alone was still worked on
_SLOT, _MOST = 4096, 256  # bytes of a slot, where what is longer is cut; photos that are noted at the same time
_STILL, _ALONE, _BATCH, _SLOTS = (
    2048,
    4096,
    8192,
    1 << 17,
)  # where they begin; before them stands a line about the process
_SIZE = _SLOTS + _MOST * _SLOT
# Seconds. Work that began less than this before an orderly end did not cause it.
LONG = 10.0


@dataclass(frozen=True)
class Notes:
    """What an earlier process worked on, as absolute paths or URLs.

    folder: that relative ones began from. alone: the photo that it tried by itself, or None. seconds: for which it had
    tried that. in_network: whether the network was at work.
    """

    folder: str
    paths: tuple[str, ...] = ()
    alone: str | None = None
    seconds: float = 0.0
    in_network: bool = False

    def __post_init__(self) -> None:
        object.__setattr__(self, "paths", tuple(map(self._from_root, self.paths)))
        object.__setattr__(self, "alone", None if self.alone is None else self._from_root(self.alone))

    def _from_root(self, path: str) -> str:
        return path if is_url(path) else os.path.join(self.folder, path)  # noqa: PTH118 - surrogates


class InFlight:
    """The notes of this process. Where the file cannot be made there are none."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._free = list(range(_MOST))[::-1]
        self._map: mmap.mmap | None = None
        if os.name == "nt":
            return
        with suppress(OSError):  # the folder that paths begin from may be gone, too
            head = json.dumps({"pid": os.getpid(), "folder": str(Path.cwd())}).encode() + b"\n"
            file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC, 0o666)
            try:
                # all of it has its place on the disk from the start: no note finds that full
                if os.write(file, head.ljust(_SIZE, b"\0")) == _SIZE:
                    self._map = mmap.mmap(file, _SIZE)
            finally:
                os.close(file)

    def begin(self, path: str) -> int:
        """Note that a thread begins with a photo; returns its slot."""
        try:
            slot = self._free.pop()
        except IndexError:
            return -1
        self._write(_SLOTS + slot * _SLOT, path.encode("utf-8", "surrogatepass")[: _SLOT - _HEAD.size])
        return slot

    def end(self, slot: int) -> None:
        """Note that the thread is done with it."""
        if slot >= 0:
            self._clear(_SLOTS + slot * _SLOT)
            self._free.append(slot)

    @contextmanager
    def batch(self, paths: Iterable[str]) -> Iterator[None]:
        """The engine is at these photos."""
        data = b"\0".join(path.encode("utf-8", "surrogatepass") for path in paths)
        self._write(_BATCH, data[: _SLOTS - _BATCH - _HEAD.size])
        yield
        self._clear(_BATCH)

    @contextmanager
    def alone(self, path: str) -> Iterator[None]:
        """Nothing is worked on but this photo, be it in another process."""
        self._write(_ALONE, path.encode("utf-8", "surrogatepass")[: _BATCH - _ALONE - _HEAD.size])
        self.still_alone()
        yield
        self._clear(_ALONE)

    def still_alone(self) -> None:
        """The photo that is tried alone is still worked on."""
        notes = self._map
        if notes is not None:
            with suppress(ValueError):
                notes[_STILL : _STILL + _LATER.size] = _LATER.pack(time.time())

    def _write(self, place: int, data: bytes) -> None:
        notes = self._map
        if notes is not None:
            with suppress(ValueError):  # closed at this moment
                notes[place : place + _HEAD.size + len(data)] = _HEAD.pack(len(data), time.time()) + data

    def _clear(self, place: int) -> None:
        notes = self._map
        if notes is not None:
            with suppress(ValueError):
                notes[place : place + _HEAD.size] = _NONE

    def __reduce__(self) -> tuple[type[None], tuple[()]]:
        """Another process has no notes: slots are given out in this one."""
        return type(None), ()

    def close(self) -> None:
        """An orderly end: only what was being worked on for long is left for the next run."""
        self._clear(_ALONE)
        notes, self._map = self._map, None
        if notes is None:
            return
        notes.close()
        if not _notes(self.path, before=time.time() - LONG).paths:
            with suppress(OSError):
                self.path.unlink()


def read(path: Path) -> Notes:
    """What the last process that wrote this file worked on when it ended; nothing when there is no such file."""
    return _notes(path, before=None)


def _notes(path: Path, before: float | None) -> Notes:
    """before: only what was begun before this moment."""
    try:
        with path.open("rb") as file:
            folder = json.loads(file.read(_STILL).rstrip(b"\0"))["folder"]
            (still,) = _LATER.unpack(file.read(_LATER.size))
            slots = list(_slots(file.fileno(), before))
    except (OSError, ValueError, KeyError, TypeError, struct.error):
        return Notes("")
    paths = dict.fromkeys(_text(path) for place, _, data in slots for path in _split(place, data))
    for place, begun, data in slots:
        if place == _ALONE:
            in_network = any(other == _BATCH for other, _, _ in slots)
            return Notes(str(folder), tuple(paths), _text(data), still - begun, in_network)
    return Notes(str(folder), tuple(paths))


def _slots(file: int, before: float | None) -> Iterator[tuple[int, float, bytes]]:
    """Where a note stands, when it was made, and what it says."""
    for place in (_ALONE, _BATCH, *range(_SLOTS, _SIZE, _SLOT)):
        head = os.pread(file, _HEAD.size, place)
        if len(head) == _HEAD.size:
            length, begun = _HEAD.unpack(head)
            if length and (before is None or begun < before):
                yield place, begun, os.pread(file, min(length, _SLOTS), place + _HEAD.size)


def _split(place: int, data: bytes) -> list[bytes]:
    return data.split(b"\0") if place == _BATCH else [data]


def _text(data: bytes) -> str:
    return data.decode("utf-8", "surrogatepass" if _whole(data) else "replace")


def _whole(data: bytes) -> bool:
    try:
        data.decode("utf-8", "surrogatepass")
    except UnicodeDecodeError:  # cut within a character
        return False
    return True
