"""What is trained on: classes, and the photos of each split; what is wrong with them is found before it begins."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

import torch

from convnext_cli.base.errors import ModelError, UsageError
from convnext_cli.datasets import Dataset, LabelledPhoto, folder_drawing, problems, split
from convnext_cli.labels import LabelSet, bundled

# What training cannot make good, and goes on without only if asked to.
BAD = ("no_label", "two_labels", "wrong_path", "empty_class")
FEW = 50_000  # photos below which training from scratch is warned of (the figure; ImageNet has 1.2 million)
SHARE = 0.15  # of the photos, that val and test get
Progress = Callable[[str, int, int], None]  # what is done, how many of the photos are, and how many there are
OWN = "own"  # the name of a label set that is not bundled
_WITHOUT = {
    "val": "without val the last weights are taken, even if earlier ones were better, and no temperature is fitted",
    "test": "without test nothing measures the model on photos that had no part in its making",
}
_HINT = "fix that, or leave such photos and classes out with --skip-bad"


@dataclass(frozen=True)
class TrainingData:
    """Photos with their classes and splits.

    Args:
        dataset: reads the photos.
        classes: in the order of the classifier's rows.
        train, val, test: photos, each with a label of ``classes``.
        is_split_here: whether the data had no splits.
        notes: for the user.
    """

    dataset: Dataset
    classes: tuple[str, ...]
    train: tuple[LabelledPhoto, ...]
    val: tuple[LabelledPhoto, ...]
    test: tuple[LabelledPhoto, ...]
    is_split_here: bool
    notes: tuple[str, ...] = field(default=())

    @property
    def rows(self) -> dict[str | None, int]:
        """The classifier's row of each class."""
        return {name: row for row, name in enumerate(self.classes)}

    def label_set(self) -> LabelSet:
        """Names for the card: a bundled set's where the classes are WordNet ids or names of one."""
        labels = bundled.recognise(OWN, self.classes) or LabelSet.from_names(OWN, self.classes)
        same = (name for name in bundled.names() if bundled.SETS[name].size == len(labels))
        return next((known for known in map(bundled.load, same) if known.ids == labels.ids), labels)

    def without(self, bad: Sequence[LabelledPhoto]) -> TrainingData:
        """The same without some photos, and without classes that lose all that they have in train.

        Raises ModelError when fewer than two classes are left, or no photo for val.
        """
        gone = frozenset(photo.path for photo in bad)
        train, val, test = (
            tuple(photo for photo in photos if photo.path not in gone) for photos in (self.train, self.val, self.test)
        )
        known = {photo.label for photo in train}
        classes = tuple(name for name in self.classes if name in known)
        val, test = (tuple(photo for photo in photos if photo.label in known) for photos in (val, test))
        if len(classes) < 2 or (self.val and not val):
            what = "val has none" if len(classes) > 1 else f"{len(classes) or 'no'} class has any"
            raise ModelError(f"of the photos that can be read, {what}", "give it other photos")
        return replace(self, classes=classes, train=train, val=val, test=test)

    def counts(self) -> list[int]:
        """Training photos of each class."""
        numbers = Counter(photo.label for photo in self.train)
        return [numbers[name] for name in self.classes]

    def weights(self) -> torch.Tensor:
        """(classes,): so that every class counts as much as any other, and photos count 1 on average."""
        counts = torch.tensor(self.counts(), dtype=torch.float64)
        return (counts.sum() / (len(counts) * counts)).float()


def arrange(
    dataset: Dataset,
    *,
    val: float = SHARE,
    test: float = SHARE,
    seed: int = 0,
    skip_bad: bool = False,
    say: Callable[[str], None] = lambda _: None,
    progress: Progress = lambda *_: None,
) -> TrainingData:
    """Part photos into train, val and test, by the data's own splits where it has train.

    val, test: shares of data that is split here; where the data has train and test alone, val is taken from train.
    Raises ModelError for photos without a class, paths that lead nowhere, empty classes (unless ``skip_bad``), fewer
    than two classes, and a class that val or test has and train has not; UsageError for shares that are none.
    """
    folder_drawing.check(dataset)
    problems_by_name = problems.by_name(dataset)
    bad = [problem for problem in problems_by_name if problem.kind in BAD]
    notes = [str(problem) for problem in problems_by_name if problem not in bad]
    if bad and not skip_bad:
        raise ModelError("; ".join(map(str, bad)), _HINT)
    notes += [f"left out: {problem}" for problem in bad]
    wrong = {path for problem in bad if problem.kind == "wrong_path" for path in problem.names}
    photos = [photo for photo in dataset.photos if photo.label is not None and photo.path not in wrong]
    if not photos:
        raise ModelError("no photo has a class", "name a folder that has a folder of photos for each class")
    splits = {photo.split for photo in photos}
    is_split_here = "train" not in splits or "val" not in splits
    if is_split_here:
        photos = _part(dataset, photos, splits, val, test, seed, say, progress)
    of = {name: tuple(photo for photo in photos if photo.split == name) for name in ("train", "val", "test")}
    trained = {photo.label for photo in of["train"]}
    classes = tuple(name for name in dataset.classes if name in trained)
    for name in ("val", "test"):
        unknown = sorted({str(photo.label) for photo in of[name]} - {str(label) for label in trained})
        if unknown:
            names = f"{', '.join(unknown[: problems.SHOWN])}{', …' if len(unknown) > problems.SHOWN else ''}"
            if not skip_bad:
                raise ModelError(f"{name} has photos of classes that train does not have: {names}", _HINT)
            notes.append(f"left out: classes of {name} that train does not have: {names}")
            of[name] = tuple(photo for photo in of[name] if photo.label in trained)
    if not classes:
        raise ModelError("train has no photo", "put photos of two classes or more into it")
    if len(classes) < 2:
        message = f"there is one class alone, {classes[0]}"
        if dataset.form in ("folders", "zip"):
            message += f"\n{folder_drawing.class_folders(dataset, photos)}"
        raise ModelError(message, "add photos of a second class")
    if not of["val"] and val:
        raise ModelError("no photo is left for val", "give each class more photos, or val a larger share: --val 0.3")
    notes += [_WITHOUT[name] for name, share in (("val", val), ("test", test)) if not of[name] and not share]
    return TrainingData(dataset, classes, of["train"], of["val"], of["test"], is_split_here, tuple(notes))


def _part(
    dataset: Dataset,
    photos: list[LabelledPhoto],
    splits: set[str | None],
    val: float,
    test: float,
    seed: int,
    say: Callable[[str], None],
    progress: Progress,
) -> list[LabelledPhoto]:
    """Photos with a split each. Those that have one keep it, but val may be taken from train."""
    ours = [photo for photo in photos if photo.split in (None, "train")]
    if not ours:
        raise ModelError("the data has no photos to train on", "call that split train, or leave the splits out")
    shares = {"val": val} if "val" not in splits and val else {}
    if splits == {None} and test:
        shares["test"] = test
    if sum(shares.values()) >= 1:
        raise UsageError("--val and --test must be below 1 together", "leave them out for 0.15 each")
    digests = []
    for digest in split.digests(dataset, ours) if shares else ():
        digests.append(digest)
        progress("comparing the photos, for splits without copies", len(digests), len(ours))
    twice = len(digests) - len(set(digests))
    if twice:
        say(f"{twice:,} photos occur more than once; copies stay in one split")
    places = split.stratified(ours, digests, shares, seed) if shares else ["train"] * len(ours)
    placed = dict(zip((id(photo) for photo in ours), places, strict=True))
    return [replace(photo, split=placed.get(id(photo), photo.split)) for photo in photos]
