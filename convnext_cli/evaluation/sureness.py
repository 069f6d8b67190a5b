"""How well answers at ``--sure`` and sets at ``--sets`` keep their promise: kept as a few numbers a photo."""

from __future__ import annotations

import math
from array import array
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from convnext_cli.base.errors import ModelError, PhotoError
from convnext_cli.base.text import counted
from convnext_cli.certainty.answer import OUT_OF_SCOPE, Answer
from convnext_cli.certainty.calibration import Calibration
from convnext_cli.certainty.decider import Decider
from convnext_cli.certainty.probabilities import by_label, softmax
from convnext_cli.certainty.roll_up import GRID, summed
from convnext_cli.certainty.tree import Tree
from convnext_cli.evaluation.figures import Share, auroc
from convnext_cli.photos.photo import Photo
from convnext_cli.predict.predictor import Output, Predictor
from convnext_cli.predict.preprocess import Ready
from convnext_cli.predict.rows import Row

FAILED, CLASS, BROADER, NOT_SURE, STRANGE = range(5)  # the result for one photo
_KNOWN = 100  # of so many photos, one may be a photo of the calibration


@dataclass(frozen=True, eq=False)
class Records:
    """A few numbers for each of N photos.

    Args:
        result: (N,) int8: FAILED, CLASS, BROADER, NOT_SURE or STRANGE.
        right: (N,) bool: the answer contains the true label.
        depth: (N,) int16: the groups above the answer.
        highest: (N,) float64: the probability of the broadest group above the best label.
        wrong: (N,) float64: that of the last group without the true label; -1 where the best label is the true one.
        scope: (N,) float64: how strange the photo is; NaN where it failed.
        size: (N,) int32: labels in the set.
        covered: (N,) bool: the set contains the true label.
    """

    result: np.ndarray
    right: np.ndarray
    depth: np.ndarray
    highest: np.ndarray
    wrong: np.ndarray
    scope: np.ndarray
    size: np.ndarray
    covered: np.ndarray

    @classmethod
    def empty(cls, photos: int) -> Records:
        """Of photos that are all still to come."""
        return cls(
            np.full(photos, FAILED, np.int8),
            np.zeros(photos, bool),
            np.zeros(photos, np.int16),
            np.zeros(photos),
            np.full(photos, -1.0),
            np.full(photos, math.nan),
            np.zeros(photos, np.int32),
            np.zeros(photos, bool),
        )

    def of(self, kept: np.ndarray) -> Records:
        """The photos that a mask keeps."""
        return Records(**{name: values[kept] for name, values in vars(self).items()})


@dataclass(frozen=True)
class Step:
    """The answers at one threshold: how many there are, and how many of these are right."""

    threshold: float
    answered: int
    right: int


@dataclass(frozen=True, kw_only=True)
class Foreign:
    """Photos that are of none of the model's classes.

    Args:
        photos: that could be read.
        let_through: those that are not unlike anything that the model was trained on.
        answered: those with an answer.
        auroc: the share of pairs in which the foreign photo is stranger than the evaluated one.
        failures: photos that could not be read, and were left out, by path.
    """

    photos: int
    let_through: Share
    answered: Share
    auroc: float
    failures: tuple[tuple[str, PhotoError], ...] = ()


@dataclass(frozen=True, kw_only=True)
class Answered:
    """The answers at ``--sure``.

    Args:
        sure: the share of right answers that was asked for.
        threshold: the probability that an answer needed for it.
        photos: all of them.
        precision: the right ones of all answers.
        of_class: the right ones of the answers that are labels.
        of_broader: the right ones of the answers that are broader groups.
        not_sure: photos without an answer, for want of a probable one.
        strange: photos without an answer, because nothing like them was trained on.
        failed: photos that could not be read.
        depth: the mean number of groups above an answer; None without answers.
        curve: the answers at every threshold that has some, ascending.
        foreign: the same model on foreign photos; None where there were none.
    """

    sure: float
    threshold: float
    photos: int
    precision: Share
    of_class: Share
    of_broader: Share
    not_sure: int
    strange: int
    failed: int
    depth: float | None
    curve: tuple[Step, ...]
    foreign: Foreign | None = None


@dataclass(frozen=True, kw_only=True)
class Sets:
    """The sets at ``--sets``.

    Args:
        asked: the coverage that was asked for.
        coverage: the photos whose set contains the true label, of those that could be read.
        size: the mean number of labels in a set; None without sets.
    """

    asked: float
    coverage: Share
    size: float | None


@dataclass(frozen=True, kw_only=True)
class Sureness:
    """What calibrated answers are worth; None for a part that was not asked for."""

    answers: Answered | None
    sets: Sets | None


class Meter:
    """Fills the records of one model as photos stream through.

    Args:
        predictor: the model, with a decider.
        calibration: that its decider rests on.
        truth: (N,) the number of the true label of each photo.
    """

    def __init__(self, predictor: Predictor, calibration: Calibration, truth: np.ndarray) -> None:
        assert predictor.decider is not None
        self.predictor, self.decider, self.calibration = predictor, predictor.decider, calibration
        self.records = Records.empty(len(truth))
        self.foreign: Foreign | None = None
        self._truth, self._labels = truth, predictor.labels
        self._tree = Tree.of(predictor.labels)

    def keep(self, place: int, row: Row, output: Output | None) -> None:
        """Record one photo.

        Args:
            place: of the photo among all.
            row: its row.
            output: of the network; None where the photo failed.
        """
        if row.error is not None or output is None:
            return
        records, number = self.records, int(self._truth[place])
        if row.prediction_set is not None:
            records.size[place] = len(row.prediction_set.labels)
            records.covered[place] = self._labels.names[number] in row.prediction_set.labels
        if row.answer is None or self.decider.threshold is None:
            records.result[place] = NOT_SURE
            return
        probabilities = softmax(output.logits, self.decider.temperature)
        highest, wrong = self._sums(probabilities, number)
        records.highest[place], records.wrong[place] = highest, wrong
        records.scope[place] = self._strangeness(output)
        records.result[place] = _result(row.answer)
        if row.answer.level != "none":
            records.right[place] = wrong < self.decider.threshold.value
            records.depth[place] = len(row.answer.above)

    def ask_foreign(self, photos: Iterator[Photo], done: Callable[[Row], None]) -> None:
        """Answer photos that are of none of the model's classes.

        Args:
            photos: these.
            done: called with the row of each.

        Raises:
            ModelError: none of them can be read.
        """
        scores, failures, let_through, answered = array("d"), list[tuple[str, PhotoError]](), 0, 0
        predictor = replace(self.predictor, k=1)
        for ready, output in predictor.outputs(photos, features=predictor.reads_features):
            row = predictor.row(ready, output)
            done(row)
            if row.error is not None or output is None or row.answer is None:
                failures.append((row.path, row.error or PhotoError("not_finite", "the network gave no scores")))
                continue
            scores.append(self._strangeness(output))
            let_through += row.answer.why != OUT_OF_SCOPE
            answered += row.answer.level != "none"
        if not scores:
            raise ModelError("none of the foreign photos can be read", "name others with --foreign")
        own = self.records.scope[self.records.result != FAILED]
        self.foreign = Foreign(
            photos=len(scores),
            let_through=Share.of(let_through, len(scores)),
            answered=Share.of(answered, len(scores)),
            auroc=auroc(own, np.array(scores)),
            failures=tuple(failures),
        )

    def _strangeness(self, output: Output) -> float:
        features = None if output.features is None else output.features[None]
        return float(self.calibration.scope.scorer.scores(output.logits[None], features)[0])

    def _sums(self, probabilities: np.ndarray, number: int) -> tuple[float, float]:
        """As ``roll_up.sums``, of one photo, with exactly the numbers that its answer was decided by."""
        groups = self._labels.groups
        row = number if groups is None else groups[number][0]
        highest, wrong = 0.0, -1.0
        for node in self._tree.chains[int(by_label(probabilities, groups).argmax())]:
            highest = summed(node, probabilities)
            if not (node.rows == row).any():
                wrong = highest
        return highest, wrong


class CalibrationPhotos:
    """Notices photos that a calibration rests on: a model is surer of these than of others.

    Args:
        calibrations: by the name of the model.
        photos: that will be evaluated.
    """

    def __init__(self, calibrations: Sequence[tuple[str, Calibration]], photos: int) -> None:
        self._calibrations, self._photos = calibrations, photos
        self._known = [0] * len(calibrations)

    def look_at(self, ready: Ready) -> None:
        """Look at one photo. Raises ModelError as soon as more than a hundredth of all photos are known."""
        if ready.content is None:
            return
        key = np.array([int(ready.content[:16], 16)], np.uint64)
        for place, (model, calibration) in enumerate(self._calibrations):
            keys = calibration.keys
            at = int(np.searchsorted(keys, key[0]))
            self._known[place] += at < len(keys) and bool(keys[at] == key[0])
            if self._known[place] * _KNOWN > self._photos:
                raise ModelError(
                    f"{model} was calibrated on more than a hundredth of these photos: its figures would be too good",
                    "evaluate other photos, for example with --split test, or calibrate on others",
                )

    def notes(self) -> list[str]:
        """A note for each model that was calibrated on a few of the photos."""
        return [
            f"{model} was calibrated on {counted(known, 'photo')} of these, which is too few to matter"
            for known, (model, _) in zip(self._known, self._calibrations, strict=True)
            if known
        ]


def measure(records: Records, decider: Decider, sets: float | None, foreign: Foreign | None) -> Sureness:
    """The figures of photos that were recorded.

    Args:
        records: of these.
        decider: that answered them.
        sets: the coverage that sets were asked for; None for no sets.
        foreign: the same model on foreign photos.
    """
    return Sureness(
        answers=None if decider.threshold is None else _answers(records, decider, foreign),
        sets=None if sets is None else _sets(records, sets),
    )


def _answers(records: Records, decider: Decider, foreign: Foreign | None) -> Answered:
    assert decider.threshold is not None
    result, counts = records.result, np.bincount(records.result, minlength=5).tolist()
    right = [int(records.right[result == kind].sum()) for kind in (CLASS, BROADER)]
    answered = counts[CLASS] + counts[BROADER]
    has_answer = (result == CLASS) | (result == BROADER)
    return Answered(
        sure=decider.threshold.precision,
        threshold=decider.threshold.value,
        photos=len(result),
        precision=Share.of(sum(right), answered),
        of_class=Share.of(right[0], counts[CLASS]),
        of_broader=Share.of(right[1], counts[BROADER]),
        not_sure=counts[NOT_SURE],
        strange=counts[STRANGE],
        failed=counts[FAILED],
        depth=float(records.depth[has_answer].mean()) if answered else None,
        curve=_curve(records),
        foreign=foreign,
    )


def _curve(records: Records) -> tuple[Step, ...]:
    inside = (records.result != FAILED) & (records.result != STRANGE)
    highest, wrong = np.sort(records.highest[inside]), np.sort(records.wrong[inside])
    answered = len(highest) - np.searchsorted(highest, GRID, "left")
    right = answered - (len(wrong) - np.searchsorted(wrong, GRID, "left"))
    steps = zip(GRID.tolist(), answered.tolist(), right.tolist(), strict=True)
    return tuple(Step(*step) for step in steps if step[1])


def _sets(records: Records, asked: float) -> Sets:
    read = records.result != FAILED
    photos = int(read.sum())
    return Sets(
        asked=asked,
        coverage=Share.of(int(records.covered[read].sum()), photos),
        size=float(records.size[read].mean()) if photos else None,
    )


def _result(answer: Answer) -> int:
    if answer.level == "none":
        return STRANGE if answer.why == OUT_OF_SCOPE else NOT_SURE
    return CLASS if answer.level == "class" else BROADER
