"""The whole calibration: what it keeps, how it decides, and files that were tampered with."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from convnext_cli import labels
from convnext_cli.base.errors import ModelError, UsageError
from convnext_cli.certainty.answer import NOT_SURE, OUT_OF_SCOPE
from convnext_cli.certainty.calibration import Calibration, MadeFor, fit_calibration
from convnext_cli.certainty.conformal import COVERAGES
from convnext_cli.certainty.out_of_scope import METHODS
from convnext_cli.certainty.probabilities import shortest, softmax
from convnext_cli.labels import LabelSet

LABELS = labels.load("tiny-imagenet-200")
MADE_FOR = MadeFor("weights", "labels", "preprocessing")
CHANNELS, PHOTOS = 24, 2000


def outputs(number: int, seed: int, label_set: LabelSet = LABELS) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Logits, features and true rows of a model that is right about half the time."""
    random = np.random.default_rng(seed)
    weights = np.random.default_rng(0).normal(size=(len(label_set), CHANNELS))
    truth = random.permutation(np.arange(number) % len(label_set))
    features = weights[truth] + 0.8 * random.normal(size=(number, CHANNELS))
    return (0.5 * features @ weights.T).astype(np.float32), features.astype(np.float32), truth


def fit(**changes: object) -> Calibration:
    logits, features, truth = outputs(PHOTOS, 1)
    values: dict[str, object] = {"temperature": 0.9, "made_for": MADE_FOR, "keys": np.arange(PHOTOS)[::-1], **changes}
    return fit_calibration(logits, features, truth, LABELS, **values)  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def calibration() -> Calibration:
    return fit()


@pytest.mark.parametrize("method", METHODS)
def test_it_is_the_same_after_it_was_stored(method: str) -> None:
    before = fit(method=method)
    arrays = before.arrays()
    after = Calibration.from_json(before.to_json(), arrays)
    assert after.to_json() == before.to_json()
    assert {name: array.tobytes() for name, array in after.arrays().items()} == {
        name: array.tobytes() for name, array in arrays.items()
    }
    logits, features, _ = outputs(50, 2)
    for sure, sets in ((0.8, 0.9), (None, 0.95), (0.5, None)):
        first, second = (kept.decider(LABELS, sure=sure, sets=sets) for kept in (before, after))
        decisions = [first(*photo) for photo in zip(logits, features, strict=True)]
        assert decisions == [second(*photo) for photo in zip(logits, features, strict=True)]
        assert all((decision.answer is None) == (sure is None) for decision in decisions)
        assert all((decision.prediction_set is None) == (sets is None) for decision in decisions)


def test_promises_hold_on_new_photos(calibration: Calibration) -> None:
    logits, features, truth = outputs(4000, 3)
    levels = set()
    for sure in (0.7, 0.8, 0.9):
        decide = calibration.decider(LABELS, sure=sure, sets=0.9)
        right, answered, covered = 0, 0, 0
        for photo, row in zip(zip(logits, features, strict=True), truth, strict=True):
            decision = decide(*photo)
            answer, prediction_set = decision.answer, decision.prediction_set
            assert answer is not None and prediction_set is not None
            levels.add(answer.level)
            covered += LABELS.names[row] in prediction_set.labels
            if answer.level == "none":
                assert answer.label is None and answer.id is None and answer.why in (NOT_SURE, OUT_OF_SCOPE)
                continue
            assert answer.why == "" and answer.score >= decide.threshold.value - 1e-6  # type: ignore[union-attr]
            kinds = {LABELS.ids[row], *labels.wordnet.ancestors(str(LABELS.ids[row]))}
            answered, right = answered + 1, right + (answer.id in kinds)
        assert right / answered > sure - 0.015
        assert abs(covered / 4000 - 0.9) < 0.03
    assert levels == {"class", "broader", "none"}


def test_the_score_of_a_class_is_that_of_the_ranked_labels(calibration: Calibration) -> None:
    logits, features, _ = outputs(200, 4)
    decide = calibration.decider(LABELS, sure=0.6)
    for photo in zip(logits, features, strict=True):
        answer = decide(*photo).answer
        assert answer is not None
        best = softmax(photo[0], 0.9)
        if answer.level == "class":
            assert (answer.label, answer.score) == (LABELS.names[int(best.argmax())], shortest(best.max()))
        assert answer.to_json() == {key: getattr(answer, key) for key in ("label", "id", "score", "level", "why")}


def test_too_much_is_refused(calibration: Calibration) -> None:
    with pytest.raises(UsageError, match="at most"):
        calibration.decider(LABELS, sure=0.9999)
    with pytest.raises(UsageError, match="no coverage"):
        calibration.decider(LABELS, sets=0.42)
    with pytest.raises(ModelError, match="200 classes"):
        calibration.decider(labels.load("imagenet-1k"), sure=0.8)


def test_doubts_are_in_words(calibration: Calibration) -> None:
    assert calibration.doubts == ""
    logits, features, truth = outputs(PHOTOS, 5)
    few = fit_calibration(
        logits[:100], features[:100], truth[:100], LABELS, temperature=1.0, made_for=MADE_FOR, keys=np.arange(100)
    )
    assert few.doubts == "the calibration rests on 100 photos, fewer than 200"
    kept = (truth != 7) | (np.cumsum(truth == 7) <= 3)
    rare = fit_calibration(
        *(logits[kept], features[kept], truth[kept], LABELS),
        temperature=1.0,
        made_for=MADE_FOR,
        keys=np.flatnonzero(kept),
    )
    assert "3 photos of one of the classes" in rare.doubts


def test_photos_are_known_again(calibration: Calibration) -> None:
    assert calibration.seen(np.array([0, 5, PHOTOS - 1, PHOTOS, 2**63], np.uint64)) == 3
    assert MADE_FOR.differences(MadeFor("weights", "other", "preprocessing")) == ("labels",)
    assert MADE_FOR.differences(MADE_FOR) == ()


def test_no_features_and_two_classes() -> None:
    own = LabelSet.from_names("own", ["cat", "dog"])
    random = np.random.default_rng(1)
    truth = random.integers(0, 2, 300)
    logits = random.normal(size=(300, 2)).astype(np.float32) + 3 * np.eye(2, dtype=np.float32)[truth]
    made = fit_calibration(logits, None, truth, own, temperature=1.0, made_for=MADE_FOR, keys=np.arange(300))
    assert made.channels is None
    decide = made.decider(own, sure=0.8, sets=0.9)
    answers = [decide(row).answer for row in logits]
    assert {answer.level for answer in answers if answer} == {"class", "none"}
    assert sum(answer.why == OUT_OF_SCOPE for answer in answers if answer) == 14  # of 300, at most 5 %


@pytest.mark.parametrize("broken", ["no photos", "rows", "truth", "features"])
def test_arrays_that_do_not_fit_are_refused(broken: str) -> None:
    logits, features, truth = outputs(50, 1)
    if broken == "no photos":
        logits, features, truth = logits[:0], features[:0], truth[:0]
    elif broken == "rows":
        logits = logits[:, :-1]
    elif broken == "truth":
        truth = truth + 200
    else:
        features = features[:-1]
    with pytest.raises(ModelError):
        fit_calibration(logits, features, truth, LABELS, temperature=1.0, made_for=MADE_FOR, keys=np.arange(50))


Damage = Callable[[dict[str, Any]], object]
DAMAGE: list[tuple[str, Damage]] = [
    ("a missing part", lambda values: values.pop("temperature")),
    ("no scope", lambda values: values.pop("scope")),
    ("a list", lambda values: values.update(scope=[])),
    ("another method", lambda values: values.update(scope={"method": "magic", "limit": 1})),
    ("a method of other arrays", lambda values: values.update(scope={"method": "energy", "limit": 1})),
    (
        "a limit that is not a number",
        lambda values: values.update(scope={"method": "energy", "limit": float("nan")}),
    ),
    ("an infinite temperature", lambda values: values.update(temperature=float("inf"))),
    ("a temperature of 0", lambda values: values.update(temperature=0)),
    ("a temperature in words", lambda values: values.update(temperature="1")),
    ("true for a number", lambda values: values.update(temperature=True)),
    ("a negative count", lambda values: values.update(photos=-1)),
    ("fewer photos than answers", lambda values: values.update(photos=3, fewest=0)),
    ("more of a class than in all", lambda values: values.update(fewest=10**6)),
    ("a huge count", lambda values: values.update(photos=10**30)),
    ("no rows", lambda values: values.update(rows=0)),
    ("a quantile above 1", lambda values: values.update(sets={"lac": {"0.9": 7}, "aps": {}})),
    ("a negative quantile", lambda values: values.update(sets={"lac": {"0.9": -0.1}, "aps": {}})),
    ("another coverage", lambda values: values.update(sets={"lac": {"0.123": 0.1}, "aps": {}})),
    ("no sets", lambda values: values.update(sets=None)),
    ("fingerprints that are numbers", lambda values: values.update(made_for={"weights": 1, "labels": 2})),
    ("a newer schema", lambda values: values.update(schema_version=99)),
    ("a schema in words", lambda values: values.update(schema_version="1")),
]


@pytest.mark.parametrize(("name", "damage"), DAMAGE, ids=[name for name, _ in DAMAGE])
def test_damaged_json_is_refused(calibration: Calibration, name: str, damage: Damage) -> None:
    values = json.loads(calibration.to_json())
    damage(values)
    with pytest.raises(ModelError):
        Calibration.from_json(json.dumps(values), calibration.arrays())


@pytest.mark.parametrize("text", ["", "[]", "null", "1", "{}", "[" * 100_000, '{"schema_version": null}'])
def test_other_texts_are_refused(calibration: Calibration, text: str) -> None:
    with pytest.raises(ModelError):
        Calibration.from_json(text, calibration.arrays())


@pytest.mark.parametrize("name", fit().arrays().keys())
def test_damaged_arrays_are_refused(calibration: Calibration, name: str) -> None:
    arrays = calibration.arrays()
    array = arrays[name]
    damaged = [array[:-1], array[None], array.astype(np.int8), array.astype(np.complex64)]
    if array.dtype.kind == "f":
        damaged += [array * np.nan, array[:0]]
    if name in ("answered", "right"):
        damaged += [array + PHOTOS + 1, array[::-1], np.full_like(array, 2**32 - 1)]
    if name in ("thresholds", "keys"):
        damaged += [array[::-1], np.zeros_like(array)]
    if name in ("keys", "scope.bank"):
        damaged = damaged[1:]  # fewer photos are not damage
    for broken in damaged:
        with pytest.raises(ModelError):
            Calibration.from_json(calibration.to_json(), {**arrays, name: broken})
    with pytest.raises(ModelError):
        Calibration.from_json(calibration.to_json(), {key: value for key, value in arrays.items() if key != name})


def test_every_coverage_has_a_quantile(calibration: Calibration) -> None:
    assert set(json.loads(calibration.to_json())["sets"]["lac"]) == {f"{coverage:g}" for coverage in COVERAGES}
