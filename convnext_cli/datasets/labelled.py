"""LabelledPhoto and Dataset: what is known of each photo, and how its bytes are had."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any, Literal, Protocol

from convnext_cli.base.errors import PhotoError
from convnext_cli.base.text import well_formed
from convnext_cli.photos.decode import read_file
from convnext_cli.photos.find import Photo
from convnext_cli.predict.preprocess import InFlight
from convnext_cli.storage.addresses import is_url

SPLITS = ("train", "val", "test")
Form = Literal["folders", "table", "parquet", "tar", "zip"]
_WORDS = {
    "train": ("train", "training"),
    "val": ("val", "valid", "validation", "dev"),
    "test": ("test", "testing"),
}
_SPLIT_OF = {word: split for split, words in _WORDS.items() for word in words}


@dataclass(frozen=True, slots=True)
class LabelledPhoto:
    """A photo and its class; small, so that a million of them fit into memory.

    path: as it is reported: a file, or for what lies in another file that one's name and the place in it.
    label: the class as the data has it, None where it has none. split: one of SPLITS, None where the data has none.
    key: what ``Source.read`` wants; None for a file of its own.
    """

    path: str
    label: str | None
    split: str | None = None
    key: Any = None

    def __post_init__(self) -> None:
        if self.label is not None and not self.label.isascii():
            object.__setattr__(self, "label", well_formed(self.label))  # as in label sets


class Source(Protocol):
    """A file that holds photos."""

    def read(self, key: Any) -> bytes:
        """The bytes of one photo; called from any thread. Raises PhotoError."""
        ...

    def size(self, key: Any) -> int:
        """The bytes of one photo, as far as they are known before it is read; else 0."""
        ...

    def close(self) -> None: ...


@dataclass(frozen=True)
class Dataset:
    """Labelled photos, in an order that is the same on every machine.

    path: as the user named it. classes: every class of the data, also those without a photo: sorted by name, or in the
    data's own order where it has one. source: where the bytes are, None for files. passed_over: by type, what is no
    photo. aside: folders beside the splits that are none, whose photos are left out. contradictory: paths of photos to
    which the data gives several labels, which have none here. in_flight: is informed of what is being decoded.
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
        found = {photo.split for photo in self.photos}
        return tuple(split for split in SPLITS if split in found)

    def of(self, split: str | None) -> tuple[LabelledPhoto, ...]:
        """The photos of a split; None for all."""
        return self.photos if split is None else tuple(photo for photo in self.photos if photo.split == split)

    def read(self, photo: LabelledPhoto) -> bytes:
        """The bytes of its file; from any thread, in any order. Raises PhotoError."""
        return read_file(photo.path) if self.source is None else self.source.read(photo.key)

    def size(self, photo: LabelledPhoto) -> int:
        """The bytes of its file, as far as they are known before it is read; else 0."""
        if self.source is not None:
            return self.source.size(photo.key)
        try:
            return 0 if is_url(photo.path) else os.stat(photo.path).st_size  # noqa: PTH116 - pathlib refuses some names
        except (OSError, ValueError):  # reading it will say why
            return 0

    def stream(self, photos: Iterable[LabelledPhoto]) -> Iterator[Photo]:
        """The photos for ``Predictor.rows``, each read when it is its turn; what cannot be read says so in its row."""
        for photo in photos:
            if self.source is None:  # the pipeline's threads read files
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
    """The split that a folder, a file or a cell of this name means, or None."""
    return _SPLIT_OF.get(word.strip().casefold())


def without_contradictions(
    labelled: Iterable[tuple[LabelledPhoto, frozenset[str]]],
) -> tuple[tuple[LabelledPhoto, ...], tuple[str, ...]]:
    """Photos with the one label that is given to each, and the paths of those to which several are given.

    labelled: each photo with the labels that are known of it; a path that occurs repeatedly has those of all places.
    """
    photos, labels = list[LabelledPhoto](), dict[str, frozenset[str]]()
    for photo, found in labelled:
        photos.append(photo)
        before = labels.get(photo.path)
        labels[photo.path] = found if before is None else before | found
    contradictory = tuple(path for path, found in labels.items() if len(found) > 1)
    label = {path: next(iter(found)) for path, found in labels.items() if len(found) == 1}
    known = {text: text for text in label.values()}  # one text a class, not one a photo
    decided = (replace(photo, label=known.get(label.get(photo.path, ""))) for photo in photos)
    return tuple(decided), contradictory


def sorted_classes(photos: Iterable[LabelledPhoto], more: Iterable[str] = ()) -> tuple[str, ...]:
    """Every class of these photos and ``more``, by name."""
    return tuple(sorted({photo.label for photo in photos if photo.label is not None} | set(more)))
