"""Tar shards as WebDataset writes them: ``key.jpg`` beside ``key.cls``, ``key.json`` or ``key.txt``, read in place.

The shards are read once, for names, labels and offsets; a photo's bytes are read when it is used. Names decide which
label file belongs to which photo (``tar_keys.py``). The label is the text of ``.cls``, else ``label``, ``class``
or ``cls`` of ``.json``, else the text of ``.txt``. A photo with two labels has none, and is reported.
"""

from __future__ import annotations

import io
import os
import re
import tarfile
import threading
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

from convnext_cli.base.errors import ModelError, PhotoError
from convnext_cli.base.text import json_value
from convnext_cli.datasets import tar_keys
from convnext_cli.datasets.labelled import Dataset, Key, LabelledPhoto, sorted_classes, split_of, without_contradictions
from convnext_cli.photos.containers.tar import clean, entries
from convnext_cli.photos.decode import IMAGE_SUFFIXES, check_bytes, checked
from convnext_cli.storage.addresses import is_url
from convnext_cli.storage.reading import opened_file

_FIELDS = ("label", "class", "cls", "class_name")
_LONGEST = 1 << 16  # bytes; longer text is not a label
_FIRST_WORD = re.compile(r"[a-z]+", re.IGNORECASE)


class TarSource:
    """Photos by (shard, offset, size)."""

    def __init__(self, streams: Sequence[io.BufferedIOBase]) -> None:
        self._streams = streams
        self._lock = threading.Lock()

    def read(self, key: Key) -> bytes:
        shard, place, size = key
        check_bytes(size)
        try:
            with self._lock:
                self._streams[shard].seek(place)
                return checked(self._streams[shard].read(size))
        except OSError:
            raise PhotoError("corrupt", "the shard is damaged at this photo") from None

    def size(self, key: Key) -> int:
        return key[2]

    def close(self) -> None:
        for stream in self._streams:
            stream.close()


def read(paths: Sequence[str], named: str) -> Dataset:
    """The photos of shards, in their order.

    Args:
        paths: of the shards.
        named: the path that the user named, for messages.

    Raises:
        ModelError: a shard is damaged, or there are no photos.
    """
    streams: list[io.BufferedIOBase] = []
    labelled: list[tuple[LabelledPhoto, frozenset[str]]] = []
    passed_over: Counter[str] = Counter()
    for number, path in enumerate(paths):
        try:
            stream = opened_file(path) if is_url(path) else Path(path).open("rb")  # noqa: SIM115 - the source keeps it open
            streams.append(stream)
            labelled += _photos(path, number, stream, passed_over)
        except (tarfile.TarError, OSError, ValueError, OverflowError) as error:
            raise ModelError(f"{path} cannot be read as a tar: {error}", "download or write the file again") from error
    photos, contradictory = without_contradictions(labelled)
    if not photos:
        raise ModelError(f"there are no photos in {named}", "put photos and labels into the tar as key.jpg and key.cls")
    classes = sorted_classes(photos)
    return Dataset(
        named, "tar", classes, photos, TarSource(streams), passed_over=passed_over, contradictory=contradictory
    )


def _photos(
    path: str, shard: int, stream: io.BufferedIOBase, passed_over: Counter[str]
) -> Iterator[tuple[LabelledPhoto, frozenset[str]]]:
    """The photos of a shard, still without labels, each with the labels that the label files give to it."""
    word = _FIRST_WORD.match(os.path.basename(path))  # noqa: PTH119 - URLs
    split = split_of(word[0]) if word else None
    texts: dict[str, dict[str, list[str]]] = {}  # of label files, by stem and suffix
    names: list[tuple[str, str, tuple[int, int, int]]] = []
    for tar, entry in entries(stream, "r:"):
        name = clean(entry.name)
        stem, suffix = os.path.splitext(name)  # noqa: PTH122
        suffix = suffix.lower()
        if entry.issparse():
            raise tarfile.ReadError(f"{name} is a sparse file: pack the shard without --sparse")
        if not entry.isreg() or not name or name.rpartition("/")[2].startswith("."):
            continue
        if suffix in IMAGE_SUFFIXES:
            names.append((name, stem, (shard, entry.offset_data, entry.size)))
        elif suffix in tar_keys.SUFFIXES and entry.size <= _LONGEST:
            file = tar.extractfile(entry)
            text = _label(suffix, b"" if file is None else file.read())
            if text is not None:
                texts.setdefault(stem, {}).setdefault(suffix, []).append(text)
        else:
            passed_over[suffix or "no suffix"] += 1
    labels = tar_keys.labels([stem for _, stem, _ in names], texts)
    for (name, _, place), answers in zip(names, labels, strict=True):
        yield LabelledPhoto(f"{path}/{name}", None, split, place), answers


def _label(suffix: str, data: bytes) -> str | None:
    text = data.decode("utf-8-sig", "replace").strip()
    if suffix != ".json":
        return text or None
    try:
        values = json_value(text)
    except ValueError:  # not JSON, or nested without end
        return None
    if not isinstance(values, dict):
        return None
    labels = (values.get(name) for name in _FIELDS)
    value = next((label for label in labels if isinstance(label, str | int) and not isinstance(label, bool)), None)
    return None if value is None else str(value)
