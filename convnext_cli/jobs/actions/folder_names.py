"""Names in a sorted tree: no label leads out of it, and no two labels share a folder.

A label that is a good name for a folder is taken as it is. Any other is made into one and gets a checksum of the label
behind it, as in ``AC_DC~08e80cef``. Which of the two depends on the label and on the model's list of labels, never on
the other photos: what was sorted yesterday is found again today.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator
from functools import cache
from hashlib import blake2b
from itertools import count
from pathlib import Path
from unicodedata import normalize

from convnext_cli.labels import bundled

UNKNOWN = "unknown"
_LONGEST_FOLDER = 200  # bytes; with the checksum behind it below the 255 that file systems take
_LONGEST_FILE = 255
_LONGEST_SUFFIX = 32  # a longer part behind the last dot is not a type
_FORBIDDEN = frozenset('/\\:*?"<>|')  # on one system or another
_MARK = re.compile(r"~[0-9a-f]{8}\Z")
# Windows takes these for devices, whatever follows a dot.
_DEVICES = {"con", "prn", "aux", "nul", "conin$", "conout$"}
_DEVICES |= {f"{port}{number}" for port in ("com", "lpt") for number in "0123456789¹²³"}


class Folders:
    """Gives every label its folder.

    labels: the model's, if known. Of labels that differ only in capitals or in how Unicode composes them, one has the
    plain name: the one of this list (its first), else the one of a bundled set, else the one in small letters.
    """

    def __init__(self, labels: Iterable[str] = ()) -> None:
        self._spelt: dict[str, str] = {}
        self._folders: dict[str, str] = {}
        for label in labels:
            self._spelt.setdefault(key_of(label), label)

    def name(self, label: str) -> str:
        """The folder of a label: one component of a path, good on any file system, and no other label's."""
        if label not in self._folders:
            self._folders[label] = self._make(label)
        return self._folders[label]

    def _make(self, label: str) -> str:
        name, key = _cleaned(label), key_of(label)
        if name == label and key != UNKNOWN and not _MARK.search(key) and label == self._usual(key):
            return label
        return f"{name}~{checksum(label.encode('utf-8', 'surrogatepass'))}"

    def _usual(self, key: str) -> str:
        return self._spelt.get(key) or _bundled().get(key) or key


def key_of(text: str) -> str:
    """What is the same for names that some file system takes for one: capitals and composition do not count."""
    return normalize("NFC", normalize("NFD", text).casefold())


def file_names(source: Path) -> Iterator[str]:
    """Names for a photo in its new folder, without end: its own, then with a checksum of where it comes from."""
    yield source.name
    stem, suffix = source.stem, source.suffix
    if len(suffix) > _LONGEST_SUFFIX:
        stem, suffix = source.name, ""
    mark = f"~{checksum(os.fsencode(source))}"
    for number in count(1):
        tail = f"{mark}{f'-{number}' if number > 1 else ''}{suffix}"
        while len(os.fsencode(stem + tail)) > _LONGEST_FILE:
            stem = stem[:-1]
        yield stem + tail


def checksum(data: bytes) -> str:
    """Eight characters that tell texts apart."""
    return blake2b(data, digest_size=4).hexdigest()


def _cleaned(label: str) -> str:
    text = "".join(c if c.isprintable() and c not in _FORBIDDEN else "_" for c in normalize("NFC", label))
    text = text.encode()[:_LONGEST_FOLDER].decode("utf-8", "ignore").strip(". ")  # a dot in front would hide it
    return f"_{text}" if not text or text.partition(".")[0].rstrip().casefold() in _DEVICES else text


@cache
def _bundled() -> dict[str, str]:
    """The labels of the bundled sets by key, those of ImageNet-1k before all others."""
    spelt: dict[str, str] = {}
    for row in sorted(bundled.rows(), key=lambda row: "k" not in row.sets):
        for name in (row.short, f"{row.short} ({row.meaning})"):
            spelt.setdefault(key_of(name), name)
    return spelt
