"""Roll-up, beside the plainest reference: a loop over photos and thresholds."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from scipy import stats

from convnext_cli import labels
from convnext_cli.base.errors import UsageError
from convnext_cli.certainty.probabilities import softmax
from convnext_cli.certainty.roll_up import GRID, RollUp, climb
from convnext_cli.certainty.tree import Tree
from convnext_cli.labels import LabelSet


def photos(label_set: LabelSet, number: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Probabilities and true rows; about half of the best guesses are right."""
    random = np.random.default_rng(seed)
    truth = random.integers(0, len(label_set), number)
    logits = random.normal(size=(number, len(label_set)))
    logits[np.arange(number), truth] += 3
    return softmax(logits.astype(np.float32), 0.7), truth


def plain_answer(tree: Tree, probabilities: np.ndarray, threshold: float) -> set[int] | None:
    """The rows of the answer: the first node from the best label upward whose sum reaches the threshold."""
    groups = tree.labels.groups or [(row,) for row in range(len(tree.labels))]
    best = max(range(len(groups)), key=lambda label: probabilities[list(groups[label])].sum())
    for node in tree.chains[best]:
        if sum(float(probabilities[row]) for row in node.rows) >= threshold:
            return set(node.rows.tolist())
    return None


OWN = LabelSet.from_names("own", ["a/w", "a/x", "a/b/y", "a/b/z", "c/d", "c/e", "f", "g", "h"])
MERGED = dataclasses.replace(OWN, names=("ab", "c", "f"), groups=((2, 3, 0), (4, 5), (6,)))


@pytest.mark.parametrize("label_set", [labels.load("tiny-imagenet-200"), OWN, MERGED], ids=["wordnet", "own", "merged"])
def test_counts_equal_a_plain_reference(label_set: LabelSet) -> None:
    tree = Tree.of(label_set)
    probabilities, truth = photos(label_set, 60, 3)
    in_scope = np.arange(60) % 7 != 0
    roll_up = RollUp.fit(tree, probabilities, truth, in_scope)
    for place in [*range(0, 1000, 111), 990, 999, 1010, len(GRID) - 1]:
        answers = [
            plain_answer(tree, row, GRID[place]) if inside else None
            for row, inside in zip(probabilities, in_scope, strict=True)
        ]
        assert roll_up.answered[place] == sum(answer is not None for answer in answers)
        assert roll_up.right[place] == sum(t in answer for t, answer in zip(truth, answers, strict=True) if answer)
    assert len(set(roll_up.right.tolist())) > 10


@pytest.mark.parametrize("label_set", [labels.load("tiny-imagenet-200"), OWN], ids=["wordnet", "own"])
def test_one_photo_is_answered_as_the_reference_answers(label_set: LabelSet) -> None:
    tree = Tree.of(label_set)
    probabilities, _ = photos(label_set, 80, 4)
    places = set()
    for row in probabilities:
        for threshold in (0.05, 0.3, 0.6, 0.9, 0.999):
            chain = tree.chains[int(row.argmax())]
            place, total = climb(chain, row, threshold)
            expected = plain_answer(tree, row, threshold)
            assert (set(chain[place].rows.tolist()) if place >= 0 else None) == expected
            assert total == pytest.approx(float(row[chain[place].rows].sum()), abs=1e-6)
            places.add(place)
    assert {-1, 0, 1, 2} <= places


def test_answers_never_jump_to_another_branch() -> None:
    tree = Tree.of(LabelSet.from_names("own", ["a/1", "b/1", "b/2", "c"]))
    probabilities = np.array([0.4, 0.3, 0.29, 0.01], np.float32)
    assert climb(tree.chains[0], probabilities, 0.5)[0] == -1, "b has 0.59, but the best class is not below it"


def test_the_threshold_is_the_smallest_that_holds() -> None:
    label_set = labels.load("tiny-imagenet-200")
    probabilities, truth = photos(label_set, 3000, 5)
    roll_up = RollUp.fit(Tree.of(label_set), probabilities, truth, np.ones(3000, bool))
    for precision in (0.5, 0.8, 0.9):
        threshold = roll_up.threshold(precision)
        holds = [
            stats.beta.ppf(0.05, right, answered - right + 1) >= precision
            for right, answered in zip(roll_up.right, roll_up.answered, strict=True)
        ]
        place = holds.index(True)
        assert threshold.value == GRID[place]
        assert (threshold.right, threshold.answered) == (roll_up.right[place], roll_up.answered[place])


def test_a_precision_that_cannot_be_shown_is_refused_with_the_highest_that_can() -> None:
    label_set = labels.load("tiny-imagenet-200")
    probabilities, truth = photos(label_set, 60, 6)
    roll_up = RollUp.fit(Tree.of(label_set), probabilities, truth, np.ones(60, bool))
    highest, _ = roll_up.highest()
    shown = roll_up.right > 0
    bounds = stats.beta.ppf(0.05, roll_up.right[shown], (roll_up.answered - roll_up.right)[shown] + 1)
    assert 0 <= max(bounds) - highest < 0.001
    assert roll_up.threshold(highest).answered > 0
    with pytest.raises(UsageError, match=f"at most {highest:g}"):
        roll_up.threshold(0.999)


@pytest.mark.parametrize("precision", [0.0, 1.0, -1.0, 2.0, float("nan")])
def test_impossible_precisions_are_refused(precision: float) -> None:
    roll_up = RollUp(GRID, np.full(len(GRID), 500), np.full(len(GRID), 500))
    with pytest.raises(UsageError):
        roll_up.threshold(precision)
