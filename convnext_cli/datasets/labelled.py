"""LabelledPhoto and Dataset: the class of each photo, and access to its bytes."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from typing import Literal, Protocol

from convnext_cli.base.errors import PhotoError
from convnext_cli.base.text import well_formed
from convnext_cli.photos.decode import read_file
from convnext_cli.photos.find import Photo
from convnext_cli.predict.preprocess import InFlight
from convnext_cli.storage.addresses import is_url

SPLITS = ("train", "val", "test")
Form = Literal["folders", "table", "parquet", "tar", "zip"]
Key = tuple[int, ...]
_WORDS = {
    "train": ("train", "training"),
    "val": ("val", "valid", "validation", "dev"),
    "test": ("test", "testing"),
}
_SPLIT_OF = {word: split for split, words in _WORDS.items() for word in words}


@dataclass(frozen=True, slots=True)
class LabelledPhoto:
    """A photo and its class; small, so that a million of them fit into memory.

    Args:
        path: as it is reported: of a file, or of a shard followed by the place in it.
        label: the class in the data; None for none.
        split: one of SPLITS; None if the data has no splits.
        key: its place in the source, for ``Source.read``; empty for a file of its own.
    """

    path: str
    label: str | None
    split: str | None = None
    key: Key = ()

    def __post_init__(self) -> None:
        if self.label is not None and not self.label.isascii():
            object.__setattr__(self, "label", well_formed(self.label))  # as in label sets


class Source(Protocol):
    """A file that contains photos."""

    def read(self, key: Key) -> bytes:
        """The bytes of one photo; may be called from any thread.

        Raises:
            PhotoError: the photo cannot be read.
        """
        ...

    def size(self, key: Key) -> int:
        """The size of one photo in bytes, if it is known before the photo is read; otherwise 0."""
        ...

    def close(self) -> None: ...


@dataclass(frozen=True)
class Dataset:
    """Labelled photos, in an order that is the same on every machine.

    Args:
        path: as the user named it.
        form: the form of the data.
        classes: every class of the data, even those without photos: sorted by name, or in the data's own order.
        photos: all photos.
        source: contains the bytes of the photos; None if they are files.
        passed_over: counts, by type, the files that are not photos.
        aside: folders beside the splits, whose photos are left out.
        contradictory: paths of photos with several labels in the data, which have none here.
        in_flight: records the photos that are being decoded.
    """

    path: str
    form: Form
    classes: tuple[str, ...]
    photos: tuple[LabelledPhoto, ...]
    source: Source | None = None
    passed_over: Counter[str] = field(default_factory=Counter)
    aside: tuple[str, ...] = ()
    contradictory: tuple[str, ...] = ()
    in_flight: InFlight | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "classes", tuple(dict.fromkeys(map(well_formed, self.classes))))

    def splits(self) -> tuple[str, ...]:
        """The splits that have photos, in the order of SPLITS."""
        names = {photo.split for photo in self.photos}
        return tuple(split for split in SPLITS if split in names)

    def of(self, split: str | None) -> tuple[LabelledPhoto, ...]:
        """The photos of a split; None for all."""
        return self.photos if split is None else tuple(photo for photo in self.photos if photo.split == split)

    def read(self, photo: LabelledPhoto) -> bytes:
        """The bytes of a photo; may be called from any thread, in any order.

        Raises:
            PhotoError: the photo cannot be read.
        """
        return read_file(photo.path) if self.source is None else self.source.read(photo.key)

    def size(self, photo: LabelledPhoto) -> int:
        """The size of a photo in bytes, if it is known before the photo is read; otherwise 0."""
        if self.source is not None:
            return self.source.size(photo.key)
        try:
            return 0 if is_url(photo.path) else os.stat(photo.path).st_size  # noqa: PTH116 - pathlib refuses some names
        except (OSError, ValueError):  # reading it will say why
            return 0

    def stream(self, photos: Iterable[LabelledPhoto]) -> Iterator[Photo]:
        """The photos for ``Predictor.rows``, each read when it is needed; an unreadable one gives a failed row."""
        for photo in photos:
            if self.source is None:  # the decoding threads read files
                yield Photo(photo.path)
                continue
            try:
                yield Photo(photo.path, self.source.read(photo.key))
            except PhotoError as error:
                yield Photo(photo.path, problem=error)

    def close(self) -> None:
        if self.source is not None:
            self.source.close()


def split_of(word: str) -> str | None:
    """The split that the name of a folder or file, or a cell, stands for; None if it is not one."""
    return _SPLIT_OF.get(word.strip().casefold())


def without_contradictions(
    labelled: Iterable[tuple[LabelledPhoto, frozenset[str]]],
) -> tuple[tuple[LabelledPhoto, ...], tuple[str, ...]]:
    """Give each photo its label, and find photos with several labels.

    Args:
        labelled: photos with their labels. A path that occurs several times has the labels of all its occurrences.

    Returns:
        The photos, and the paths of those with several labels, which have none now.
    """
    photos, labels = list[LabelledPhoto](), dict[str, frozenset[str]]()
    for photo, answers in labelled:
        photos.append(photo)
        before = labels.get(photo.path)
        labels[photo.path] = answers if before is None else before | answers
    contradictory = tuple(path for path, answers in labels.items() if len(answers) > 1)
    label = {path: next(iter(answers)) for path, answers in labels.items() if len(answers) == 1}
    interned = {text: text for text in label.values()}  # one text a class, not one a photo
    decided = (replace(photo, label=interned.get(label.get(photo.path, ""))) for photo in photos)
    return tuple(decided), contradictory


def sorted_classes(photos: Iterable[LabelledPhoto], more: Iterable[str] = ()) -> tuple[str, ...]:
    """Every class of these photos and ``more``, by name."""
    return tuple(sorted({photo.label for photo in photos if photo.label is not None} | set(more)))
