"""Class folders: ``DATA/dog/a.jpg``, or ``DATA/train/dog/a.jpg`` where the data is split."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from convnext_cli.base.errors import ModelError
from convnext_cli.datasets.labelled import Dataset, LabelledPhoto, sorted_classes, split_of
from convnext_cli.photos.find import Finder
from convnext_cli.storage.addresses import is_url

Parts = tuple[str, ...]  # of a path below the data's folder


@dataclass(frozen=True)
class Layout:
    """The meaning of folders.

    Args:
        split: whether the folders at the top are splits.
        aside: other folders beside the splits.
    """

    split: bool
    aside: frozenset[str] = frozenset()

    def place(self, parts: Parts) -> tuple[str | None, str | None]:
        """Label and split of a photo, by its folders."""
        folders = parts[:-1]
        split = split_of(folders[0]) if self.split and folders else None
        named = folders[1:] if self.split else folders
        return (named[0] if named else None), split


def layout(photos: Iterable[Parts]) -> Layout:
    """The meaning of the folders at the top, from the paths of all photos.

    They are splits if those named train, val, test … contain folders with photos, and no others do. If others do (a
    class may be named train), at least two different splits are needed.
    """
    depths: dict[str, int] = {}
    for parts in photos:
        if len(parts) > 1:
            depths[parts[0]] = max(len(parts), depths.get(parts[0], 0))
    words = {name for name in depths if split_of(name) is not None}
    others = frozenset(depths.keys() - words)
    deep = any(depths[name] > 2 for name in words)
    if not deep or (others and len({split_of(name) for name in words}) < 2):
        return Layout(split=False)
    return Layout(split=True, aside=others)


def read(folder: str) -> Dataset:
    """The photos of a folder of class folders, at any depth below them.

    A photo that is not in a class folder has no label. Links to folders are followed, never in a circle.

    Raises:
        ModelError: there is no photo, or a folder cannot be listed.
    """
    finder = Finder(recursive=True, links=True)
    paths: list[str] = []
    for photo in finder.named([folder]):
        if photo.problem is not None:
            raise ModelError(
                f"{photo.path}: {photo.problem.message}", "make it readable first: its photos would be missing"
            )
        paths.append(photo.path)
    if not paths:
        raise ModelError(f"there is no photo in {folder}", "name a folder that has a folder of photos for each class")
    below = [_parts(folder, path) for path in paths]
    how = layout(below)
    photos = tuple(
        LabelledPhoto(path, *how.place(parts))
        for path, parts in zip(paths, below, strict=True)
        if parts[0] not in how.aside
    )
    classes = sorted_classes(photos, _class_folders(folder, how))
    return Dataset(folder, "folders", classes, photos, passed_over=finder.passed_over, aside=tuple(sorted(how.aside)))


def _parts(folder: str, path: str) -> Parts:
    if is_url(folder):
        return tuple(
            part for part in path.removeprefix(folder.partition("::")[0]).partition("::")[0].split("/") if part
        )
    return Path(path).parts[len(Path(folder).parts) :]


def _class_folders(folder: str, how: Layout) -> Sequence[str]:
    """The classes by their folders, which may be empty; a store has no empty ones."""
    if is_url(folder):
        return ()
    top = _folders(folder)
    if not how.split:
        return top
    return [name for split in top if split_of(split) for name in _folders(Path(folder, split))]


def _folders(folder: str | Path) -> list[str]:
    with os.scandir(folder) as entries:
        return sorted(entry.name for entry in entries if entry.is_dir() and not entry.name.startswith("."))
