"""What is right: for each photo the label that is true, or several, for one model or two."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from convnext_cli.base.errors import ModelError
from convnext_cli.datasets import Dataset, LabelledPhoto, folder_drawing
from convnext_cli.evaluation import class_matching, real_labels
from convnext_cli.labels import LabelSet

NONE = -1  # no label
_SHOWN = 8  # classes in a message


@dataclass(frozen=True)
class Truth:
    """For one model, by photo.

    labels: the model's. answers: (N,) int32, the number of the true label, NONE where a photo has no class of its own.
    several: by photo, the labels of ReaL; empty where it has none; None without ReaL. names: what the data calls the
    label of each number.
    """

    labels: LabelSet
    answers: np.ndarray
    several: list[frozenset[int]] | None
    names: dict[int, tuple[str, ...]]

    @property
    def classes(self) -> bool:
        """Whether photos have classes of their own; else ReaL alone says what is right."""
        return bool((self.answers != NONE).any())

    def right(self, top: np.ndarray) -> np.ndarray:
        """(N,) bool: whether the true label is among ``top`` (N, k), by the data's own classes where there are some."""
        if not self.classes:
            return self.right_by_real(top)
        return np.asarray((top == self.answers[:, None]).any(1))

    def right_by_real(self, top: np.ndarray) -> np.ndarray:
        """The same by ReaL: whether one of a photo's labels is among ``top``; False where it has none."""
        assert self.several is not None
        pairs = zip(top.tolist(), self.several, strict=True)
        return np.array([not labels.isdisjoint(guesses) for guesses, labels in pairs], bool)

    def has_real(self) -> np.ndarray:
        """(N,) bool: whether ReaL has a label for the photo."""
        assert self.several is not None
        return np.array([bool(labels) for labels in self.several], bool)


@dataclass(frozen=True)
class Chosen:
    """photos: that can be judged, for every model. truths: one a model. left_out: how many photos, by why. unmatched:
    classes of theirs that a model does not have."""

    photos: tuple[LabelledPhoto, ...]
    truths: tuple[Truth, ...]
    left_out: dict[str, int]
    unmatched: tuple[str, ...] = ()


def find(
    dataset: Dataset, labels: LabelSet, *, by_index: bool, only_these: bool
) -> tuple[LabelSet, class_matching.Match]:
    """The data's classes among a model's labels; only_these: in a set of labels that has no others."""
    match = class_matching.match(dataset.classes, labels, by_index=by_index)
    if not only_these or not match.answers:
        return labels, match
    kept = {answer: place for place, answer in enumerate(sorted(set(match.answers.values())))}
    answers = {name: kept[answer] for name, answer in match.answers.items()}
    return class_matching.only(labels, kept), class_matching.Match(answers, match.unmatched, match.ambiguous)


def choose(
    photos: Sequence[LabelledPhoto],
    models: Sequence[tuple[LabelSet, class_matching.Match]],
    *,
    skip_unmatched: bool = False,
    reassessed: list[list[int]] | None = None,
) -> Chosen:
    """The photos whose class every model has, or whose labels ReaL has, and the right labels of these.

    Raises ModelError when nothing is left, or a class is not among a model's labels and ``skip_unmatched`` is not set.
    """
    left_out: Counter[str] = Counter()
    classes = {photo.label for photo in photos if photo.label is not None}
    if not classes and reassessed is None:
        raise ModelError("the photos have no classes", folder_drawing.HINT)
    unmatched: set[str] = set()
    for labels, match in models:
        lacking = [name for name in match.unmatched if name in classes]
        if lacking and (not skip_unmatched or len(lacking) == len(classes)):
            raise _unmatched(lacking, match, labels, len(classes), skip_unmatched)
        unmatched |= set(lacking)
    numbers = [None if reassessed is None else real_labels.number(photo.path) for photo in photos]
    if reassessed is not None and not any(numbers):
        raise ModelError(
            "no photo is called ILSVRC2012_val_00000001 or so: ReaL has no labels for them", real_labels.HINT
        )
    kept, places = list[LabelledPhoto](), list[int | None]()
    for photo, number in zip(photos, numbers, strict=True):
        why = _why_not(photo, models, bool(classes), reassessed, number)
        if why is None:
            kept.append(photo)
            places.append(number)
        else:
            left_out[why] += 1
    if not kept:
        raise ModelError(f"no photo is left: {counted_reasons(left_out)}", "look at the names of classes and photos")
    truths = tuple(_truth(kept, labels, match, reassessed, places) for labels, match in models)
    return Chosen(tuple(kept), truths, dict(left_out), tuple(sorted(unmatched)))


def counted_reasons(left_out: dict[str, int]) -> str:
    """How many photos are left out, and why."""
    return ", ".join(f"{count:,} {why}" for why, count in left_out.items())


def _why_not(
    photo: LabelledPhoto,
    models: Sequence[tuple[LabelSet, class_matching.Match]],
    classes: bool,
    reassessed: list[list[int]] | None,
    number: int | None,
) -> str | None:
    """Why a photo cannot be judged, or None."""
    if not classes:
        return None if number and reassessed and reassessed[number - 1] else "without a label in ReaL"
    if photo.label is None:
        return "without a class"
    return None if all(photo.label in match.answers for _, match in models) else "of a class that a model does not have"


def _truth(
    photos: Sequence[LabelledPhoto],
    labels: LabelSet,
    match: class_matching.Match,
    reassessed: list[list[int]] | None,
    numbers: Sequence[int | None],
) -> Truth:
    answers = np.array([match.answers.get(photo.label or "", NONE) for photo in photos], np.int32)
    several = None
    if reassessed is not None:
        known = real_labels.answers(reassessed, labels)
        several = [frozenset() if number is None else known[number - 1] for number in numbers]
    names: dict[int, tuple[str, ...]] = {}
    for name, answer in match.answers.items():
        names[answer] = (*names.get(answer, ()), name)
    return Truth(labels, answers, several, names)


def _unmatched(
    lacking: Sequence[str], match: class_matching.Match, labels: LabelSet, classes: int, skipped: bool
) -> ModelError:
    several = match.ambiguous
    names = [f"{name} ({' or '.join(several[name])})" if name in several else name for name in lacking[:_SHOWN]]
    more = f" and {len(lacking) - _SHOWN:,} more" if len(lacking) > _SHOWN else ""
    message = (
        f"{len(lacking):,} of the {classes:,} classes in the data are not among the model's {len(labels.names):,} "
        f"label{'s' * (len(labels.names) != 1)} ({labels.name or 'its own'}): {', '.join(names)}{more}"
    )
    hint = "take a model of these classes, or --labels FILE to name the model's as the data does"
    if all(name.isdecimal() for name in lacking):
        hint += "; --by-index where these are the numbers of the model's labels"
    if not skipped and len(lacking) < classes:
        hint += f"; --skip-unmatched evaluates the other {classes - len(lacking):,}"
    return ModelError(message, hint)
