"""Finds problems in data before it is used: by names alone, by bytes, or by decoding."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from convnext_cli.base.errors import PhotoError
from convnext_cli.datasets.decoding import decoded
from convnext_cli.datasets.labelled import Dataset, LabelledPhoto
from convnext_cli.photos.decode import DEFAULT_MAX_PIXELS
from convnext_cli.storage.addresses import is_url

Kind = Literal[
    "folder_aside",
    "no_label",
    "wrong_path",
    "alike_names",
    "empty_class",
    "one_photo_class",
    "missing_in_split",
    "two_labels",
]
SHOWN = 5  # names in a line


@dataclass(frozen=True)
class Problem:
    """A problem in the data.

    Args:
        kind: of the problem.
        what: a clause such as "2 classes have no photo".
        names: the classes, paths or folders that have it.
    """

    kind: Kind
    what: str
    names: tuple[str, ...]

    def __str__(self) -> str:
        """One line, with the first of the names."""
        more = f" and {len(self.names) - SHOWN:,} more" if len(self.names) > SHOWN else ""
        return f"{self.what}: {', '.join(self.names[:SHOWN])}{more}"


def by_name(dataset: Dataset) -> list[Problem]:
    """The problems that paths and labels show; no photo is opened."""
    photos = dataset.photos
    of_class = Counter(photo.label for photo in photos)
    empty = [name for name in dataset.classes if not of_class[name]]
    single = [name for name in dataset.classes if of_class[name] == 1]
    contradictory = frozenset(dataset.contradictory)
    unlabelled = [photo.path for photo in photos if photo.label is None and photo.path not in contradictory]
    paths = [photo.path for photo in photos if not is_url(photo.path)] if dataset.form == "table" else []
    wrong = [path for path in paths if not Path(path).exists()]
    problems = [
        _problem("folder_aside", dataset.aside, "folder", "are beside the splits, and left out"),
        _problem("no_label", unlabelled, "photo", "have no class"),
        _problem("two_labels", dataset.contradictory, "photo", "have more than one class (left out)"),
        _problem("wrong_path", wrong, "path", "lead to no file"),
        *_alike(dataset.classes),
        _problem("empty_class", empty, "class", "have no photo"),
        _problem("one_photo_class", single, "class", "have only one photo"),
        *_missing(dataset, frozenset(empty)),
    ]
    return [problem for problem in problems if problem is not None]


def bad_photos(
    dataset: Dataset,
    photos: Iterable[LabelledPhoto],
    *,
    threads: int = 1,
    max_pixels: int = DEFAULT_MAX_PIXELS,
    timeout: float | None = None,
    progress: Callable[[int], None] = lambda _: None,
) -> Iterator[tuple[LabelledPhoto, PhotoError]]:
    """The photos that cannot be decoded, and why. Every photo is decoded at full size.

    Args:
        dataset: the data.
        photos: photos of it.
        threads: how many decode.
        max_pixels: larger photos fail.
        timeout: as for ``Preprocessor``.
        progress: called with the number of photos so far.
    """

    looked = decoded(dataset, photos, lambda _: True, threads=threads, max_pixels=max_pixels, timeout=timeout)
    for number, (photo, answer) in enumerate(looked, 1):
        progress(number)
        if isinstance(answer, PhotoError):
            yield photo, answer


def _problem(kind: Kind, names: Iterable[str], noun: str, are: str) -> Problem | None:
    """A problem such as "2 classes have …"; None if no name has it."""
    paths = tuple(names)
    if not paths:
        return None
    many = noun + ("es" if noun.endswith("s") else "s")
    verb, _, rest = are.partition(" ")
    one = {"have": "has", "are": "is", "lead": "leads"}[verb]
    return Problem(kind, f"1 {noun} {one} {rest}" if len(paths) == 1 else f"{len(paths):,} {many} {are}", paths)


def _alike(classes: Iterable[str]) -> Iterator[Problem]:
    """Classes that are probably the same: their names differ only in capitals or spaces."""
    groups: defaultdict[str, list[str]] = defaultdict(list)
    for name in classes:
        groups["".join(name.casefold().split())].append(name)
    pairs = [" = ".join(map(repr, names)) for names in groups.values() if len(names) > 1]
    if pairs:
        many = "class has" if len(pairs) == 1 else "classes have"
        yield Problem("alike_names", f"{len(pairs):,} {many} names that differ in capitals or spaces", tuple(pairs))


def _missing(dataset: Dataset, empty: frozenset[str]) -> Iterator[Problem]:
    """Classes that are missing in one split and present in another."""
    for split in dataset.splits():
        present = {photo.label for photo in dataset.photos if photo.split == split}
        lacking = tuple(name for name in dataset.classes if name not in present and name not in empty)
        if lacking:
            many = "class is" if len(lacking) == 1 else "classes are"
            yield Problem("missing_in_split", f"{len(lacking):,} {many} missing in {split}", lacking)
