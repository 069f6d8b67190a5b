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
from itertools import count
from pathlib import Path

from convnext_cli.base.file_names import checksum, name_key, safe_name
from convnext_cli.labels import bundled

UNKNOWN = "unknown"
_LONGEST_FILE = 255
_LONGEST_SUFFIX = 32  # a longer part behind the last dot is not a type
_MARK = re.compile(r"~[0-9a-f]{8}\Z")


class Folders:
    """Gives every label its folder.

    labels: the model's, if known. Of labels that differ only in capitals or in how Unicode composes them, one has the
    plain name: the one of this list (its first), else the one of a bundled set, else the one in small letters.
    """

    def __init__(self, labels: Iterable[str] = ()) -> None:
        self._spelt: dict[str, str] = {}
        self._folders: dict[str, str] = {}
        for label in labels:
            self._spelt.setdefault(name_key(label), label)

    def name(self, label: str) -> str:
        """The folder of a label: one component of a path, good on any file system, and no other label's."""
        if label not in self._folders:
            self._folders[label] = self._make(label)
        return self._folders[label]

    def _make(self, label: str) -> str:
        name, key = safe_name(label), name_key(label)
        if name == label and key != UNKNOWN and not _MARK.search(key) and label == self._usual(key):
            return label
        return f"{name}~{checksum(label.encode('utf-8', 'surrogatepass'))}"

    def _usual(self, key: str) -> str:
        return self._spelt.get(key) or _bundled().get(key) or key


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


@cache
def _bundled() -> dict[str, str]:
    """The labels of the bundled sets by key, those of ImageNet-1k before all others."""
    spelt: dict[str, str] = {}
    for row in sorted(bundled.rows(), key=lambda row: "k" not in row.sets):
        for name in (row.short, f"{row.short} ({row.meaning})"):
            spelt.setdefault(name_key(name), name)
    return spelt
