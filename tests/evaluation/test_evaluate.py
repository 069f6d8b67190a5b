"""``convnext evaluate``: figures by hand or from the literature, no photo lost, and names that lead where they say."""

from __future__ import annotations

import csv
import json
import math
import os
import pickle
import re
import shutil
import subprocess
import sys
import zipfile
from collections import Counter
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from convnext_cli import EvaluateRequest, PredictorOptions, checkpoints, classify, evaluate, labels
from convnext_cli.base.errors import ModelError, UsageError
from convnext_cli.base.listener import Listener
from convnext_cli.checkpoints import canonical
from convnext_cli.evaluation import class_matching, figures, mistakes, plots, real_labels, truth
from convnext_cli.labels import LabelSet
from convnext_cli.predict import predictor
from tests.helpers.command import Run
from tests.helpers.photos import encoded, picture
from tests.helpers.weights import SMALL, random_tensors, write_model

EVALUATE = ("evaluate", "-e", "torch", "-t", "1")  # other engines would be prepared anew for each test
TEDDY = "n04399382"
PHOTOS = [encoded(picture(70 + i, 64, seed=i)) for i in range(30)]


class TestFigures:
    @pytest.mark.parametrize(
        ("right", "photos", "low", "high"),
        # R. G. Newcombe, Two-sided confidence intervals for the single proportion (Stat. Med. 17, 1998), method 3
        [(81, 263, 0.2553, 0.3662), (15, 148, 0.0624, 0.1605), (0, 20, 0.0, 0.1611), (1, 29, 0.0061, 0.1718)],
    )
    def test_wilson(self, right: int, photos: int, low: float, high: float) -> None:
        assert figures.wilson(right, photos) == pytest.approx((low, high), abs=5e-5)
        assert figures.wilson(photos - right, photos) == pytest.approx((1 - high, 1 - low), abs=5e-5)

    def test_wilson_of_nothing_all_and_none(self) -> None:
        assert figures.wilson(0, 0) == (0.0, 1.0)
        assert figures.wilson(0, 7)[0] == 0.0 and figures.wilson(7, 7)[1] == 1.0
        assert math.isnan(figures.Share.of(0, 0).value)

    def test_mcnemar(self) -> None:
        # 1 against 7, the example of Fagerland et al. (2013): (2 * (1 + 8) - 8) / 256
        assert figures.mcnemar(1, 7) == figures.mcnemar(7, 1) == pytest.approx(10 / 256)
        assert figures.mcnemar(0, 5) == pytest.approx(1 / 32)
        assert figures.mcnemar(2, 2) == pytest.approx(1 - 6 / 16 / 2)
        assert figures.mcnemar(0, 0) == 1.0
        assert 0 < figures.mcnemar(30_000, 31_000) < 1e-4

    def test_difference(self) -> None:
        first = np.array([True] * 1 + [True] * 1 + [False] * 7 + [False] * 12)
        second = np.array([True] * 1 + [False] * 1 + [True] * 7 + [False] * 12)
        found = figures.difference(first, second)
        assert (found.photos, found.both, found.first, found.second) == (21, 1, 1, 7)
        # 2 / 23 - 8 / 23, less and more 1.959964 * sqrt((10 / 23 - 36 / 529) / 23) = 0.247490
        assert (found.value, found.low, found.high) == pytest.approx((-6 / 21, -0.508359, -0.013380), abs=2e-6)
        assert found.p == pytest.approx(10 / 256)

    def test_calibration(self) -> None:
        scores = np.array([0.1, 0.1, 0.95, 0.99, 1.0, 0.5])
        right = np.array([False, True, True, True, False, False])
        bins = figures.reliability(scores, right)
        assert len(bins) == 15 and sum(each.photos for each in bins) == 6
        assert (bins[1].photos, bins[1].confidence, bins[1].accuracy) == (2, pytest.approx(0.1), 0.5)
        assert bins[14].photos == 3 and bins[3].accuracy is None
        gaps = 2 * 0.4 + 3 * (0.98 - 2 / 3) + 1 * 0.5
        assert figures.calibration_error(bins) == pytest.approx(gaps / 6)
        assert math.isnan(figures.calibration_error(figures.reliability(np.zeros(0), np.zeros(0, bool))))

    def test_thresholds(self) -> None:
        scores, right = np.array([0.9, 0.2, 0.5, 0.9]), np.array([True, False, False, True])
        found = figures.thresholds(scores, right, 5, (0.0, 0.5, 0.51, 0.9, 0.91))
        assert [(t.precision.right, t.precision.photos, t.coverage) for t in found] == [
            (2, 4, 0.8),
            (2, 3, 0.6),
            (2, 2, 0.4),
            (2, 2, 0.4),
            (0, 0, 0.0),
        ]

    def test_the_suggestion_is_the_lowest_that_reaches_it(self) -> None:
        scores = np.array([*np.linspace(0.6, 0.9, 90), *np.linspace(0.1, 0.5, 60)])
        right = np.array([*[True] * 85, *[False] * 5, *[False] * 60])
        found, best = figures.suggested(scores, right, 150, 0.9)
        assert found is not None and best.precision.photos == 90
        # the 90 sure ones have 94 %; with the next four unsure ones it is below 91 %, with the next five below 90 %
        lowest = sorted(scores)[-(90 + 4)]
        assert found.precision.right / found.precision.photos >= 0.9
        assert found.precision.photos == 94 and found.min_score <= lowest

    def test_the_suggestion_wants_enough_photos(self) -> None:
        scores, right = np.array([0.99] * 19 + [0.5] * 100), np.array([True] * 19 + [False] * 100)
        found, best = figures.suggested(scores, right, 119, 0.95)
        assert found is None and best.precision.photos == 119  # 19 right ones are no 95 %: 20 would be
        found, _ = figures.suggested(np.append(scores, 0.99), np.append(right, True), 120, 0.95)
        assert found is not None and (found.min_score, found.precision.photos) == (0.501, 20)

    def test_classes_and_confusions(self) -> None:
        true, answers = np.array([0, 0, 0, 2, 2, 5]), np.array([0, 0, 2, 2, -1, 0])
        found = {each.answer: each for each in figures.classes(true, answers)}
        assert (found[0].recall, found[0].precision) == (2 / 3, 2 / 3)
        assert (found[2].recall, found[2].precision) == (1 / 2, 1 / 2)
        assert (found[5].recall, found[5].precision) == (0.0, None)
        assert figures.confusions(true, answers) == {(0, 0): 2, (0, 2): 1, (2, -1): 1, (2, 2): 1, (5, 0): 1}


class TestMatch:
    def test_by_wordnet_id_into_any_set(self) -> None:
        ids = [str(i) for i in labels.load("imagenet-1k").ids]
        larger = class_matching.match(ids, labels.load("imagenet-22k"))
        assert larger.unmatched == (TEDDY,) and len(larger.answers) == 999
        small = [str(i) for i in labels.load("tiny-imagenet-200").ids]
        one = labels.load("imagenet-1k")
        found = class_matching.match(small, one)
        assert not found.unmatched
        assert all(one.ids[answer] == name for name, answer in found.answers.items())

    @pytest.mark.parametrize(
        ("name", "row"),
        [
            ("tabby", 281),
            ("Tabby  Cat", 281),
            ("tiger_cat", 282),
            ("tench, Tinca tinca", 0),
            ("n02085620-Chihuahua", 151),
            ("crane (bird)", 134),
            ("maillot", 638),
            ("maillot, tank suit", 639),
            ("great_white_shark", 2),
        ],
    )
    def test_by_name_in_any_writing(self, name: str, row: int) -> None:
        assert class_matching.match([name], labels.load("imagenet-1k")).answers == {name: row}

    def test_a_name_of_two_labels_is_none_of_them(self) -> None:
        found = class_matching.match(["crane", "unicorn"], labels.load("imagenet-1k"))
        assert found.unmatched == ("crane", "unicorn") and not found.answers
        assert found.ambiguous == {"crane": ("crane (bird)", "crane (machine)")}

    def test_breeds_belong_to_the_dog_that_gathers_them(self) -> None:
        chosen = labels.select(["dog", "tabby"], labels.load("imagenet-1k"))
        found = class_matching.match(["n02085620", "n02099601", "n02123045", "n01440764", "Chihuahua"], chosen)
        assert found.answers == {"n02085620": 0, "n02099601": 0, "n02123045": 1, "Chihuahua": 0}
        assert found.unmatched == ("n01440764",)

    def test_by_index(self) -> None:
        base = LabelSet.from_names("x", ["a", "b", "c"])
        assert class_matching.match(["2", "0", "10"], base, by_index=True).answers == {"2": 2, "0": 0}
        assert class_matching.match(["cat", "dog"], base, by_index=True).answers == {"cat": 0, "dog": 1}
        assert class_matching.match(["2", "0"], base).unmatched == ("2", "0")

    def test_only_these(self) -> None:
        one = labels.load("imagenet-1k")
        found = class_matching.only(one, [281, 0])
        assert found.names == (one.names[0], one.names[281]) and found.groups == ((0,), (281,))
        assert class_matching.match(["n02123045"], found).answers == {"n02123045": 1}


class TestReal:
    @pytest.fixture
    def file(self, tmp_path: Path) -> Path:
        lists: list[list[int]] = [[] for _ in range(real_labels.PHOTOS)]
        lists[0], lists[1], lists[2] = [281, 282], [0], [850]
        (tmp_path / "real.json").write_text(json.dumps(lists))
        return tmp_path / "real.json"

    def test_read_and_translate(self, file: Path) -> None:
        found = real_labels.answers(real_labels.read(file)[:4], labels.load("imagenet-22k"))
        ids = labels.load("imagenet-22k").ids
        assert {ids[answer] for answer in found[0]} == {"n02123045", "n02123159"}
        assert found[2:] == [frozenset({real_labels.LACKING}), frozenset()]  # a teddy, which 22k has not; and nothing

    def test_no_answer_is_never_right(self) -> None:
        judged = truth.Truth(labels.load("imagenet-22k"), np.array([-1]), [frozenset({real_labels.LACKING})], {})
        assert not judged.right(np.array([[-1]])).any() and judged.has_real().all()

    @pytest.mark.parametrize(
        ("name", "number"),
        [
            ("val/n01440764/ILSVRC2012_val_00000293.JPEG", 293),
            ("a.parquet/3/ILSVRC2012_val_00050000_n02113186.JPEG", 50_000),
            ("ILSVRC2012_val_00000293/cat.jpg", None),
            ("ILSVRC2012_val_00050001.JPEG", None),
        ],
    )
    def test_numbers(self, name: str, number: int | None) -> None:
        assert real_labels.number(name) == number

    @pytest.mark.parametrize("text", ["[]", "{}", "words", "[[1000]]"])
    def test_another_file(self, tmp_path: Path, text: str) -> None:
        (tmp_path / "x.json").write_text(text)
        with pytest.raises(ModelError):
            real_labels.read(tmp_path / "x.json")

    def test_a_list_of_the_right_length_with_wrong_numbers(self, tmp_path: Path) -> None:
        (tmp_path / "x.json").write_text(json.dumps([[1000]] * real_labels.PHOTOS))
        with pytest.raises(ModelError, match="numbers from 0 to 999"):
            real_labels.read(tmp_path / "x.json")


# The command ----------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Seven classes, class_0 to class_6."""
    return varied(tmp_path_factory.mktemp("model") / "small.safetensors")


@pytest.fixture(scope="module")
def other(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Another one of the same classes."""
    return varied(tmp_path_factory.mktemp("model") / "other.safetensors", seed=3)


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Thirty photos in folders of five of the classes, without regard to what they show."""
    folder = tmp_path / "data"
    for i, data in enumerate(PHOTOS):
        path = folder / f"class_{i % 5}" / f"{i:02}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    return folder


def varied(path: Path, seed: int = 0) -> str:
    """Random weights whose head is scaled so that each class is the answer for some of the photos."""
    write_model(path, seed=seed)
    rows = classify(PHOTOS, model=path, engine="torch", scores="logits", k=0)
    logits = torch.tensor([[g.score for g in sorted(row.predictions, key=lambda g: g.index)] for row in rows])
    tensors, card = random_tensors(SMALL, seed), checkpoints.load(path).card
    tensors["head.bias"] = (tensors["head.bias"] - logits.mean(0)) / logits.std(0)
    tensors["head.weight"] /= logits.std(0)[:, None]
    canonical.write(path, tensors, card.replace(sha256=canonical.fingerprint(tensors)))
    return str(path)


def document(done: Any) -> dict[str, Any]:
    assert done.err.find("Traceback") < 0
    return json.loads(done.out)


def answers(model: str, folder: Path, **options: Any) -> dict[str, list[tuple[str, float]]]:
    """By path, what ``classify`` says."""
    paths = sorted(str(path) for path in folder.rglob("*.png"))
    rows = classify(paths, model=model, engine="torch", **options)
    return {row.path: [(guess.label, guess.score) for guess in row.predictions] for row in rows}


@pytest.mark.parametrize("engine", ["torch", "openvino"])
def test_figures_are_those_of_classify(convnext: Run, model: str, data: Path, engine: str) -> None:
    done = convnext(*EVALUATE, data, "-m", model, "-e", engine, "--json")
    assert done.status == 0
    found, said = document(done), answers(model, data)
    true = {path: Path(path).parent.name for path in said}
    assert found["photos"] == found["top1"]["photos"] == 30 and found["data"]["classes"] == 5
    assert found["top1"]["right"] == sum(said[path][0][0] == true[path] for path in said)
    assert found["top5"]["right"] == sum(true[path] in [label for label, _ in said[path]] for path in said)
    assert 0 < found["top1"]["right"] < found["top5"]["right"] < 30  # else nothing is shown
    pairs = Counter((true[path], said[path][0][0]) for path in said)
    assert {(p["true"], p["answer"]): p["photos"] for p in found["pairs"]} == {
        pair: count for pair, count in pairs.items() if pair[0] != pair[1]
    }
    for each in found["classes"]:
        mine = [path for path in said if true[path] == each["label"]]
        right = sum(said[path][0][0] == each["label"] for path in mine)
        answered = sum(said[path][0][0] == each["label"] for path in said)
        assert (each["photos"], each["recall"]) == (len(mine), right / len(mine))
        assert each["precision"] == (right / answered if answered else None)
    assert [w["score"] for w in found["wrong"]] == sorted((w["score"] for w in found["wrong"]), reverse=True)
    assert {w["path"] for w in found["wrong"]} == {path for path in said if said[path][0][0] != true[path]}
    for wrong in found["wrong"]:
        guess, score = said[wrong["path"]][0]
        assert (wrong["true"], wrong["answer"]) == (true[wrong["path"]], guess)
        assert wrong["score"] == pytest.approx(score, abs=1e-5)
        if wrong["true_rank"]:
            label, score = said[wrong["path"]][wrong["true_rank"] - 1]
            assert label == wrong["true"] and wrong["true_score"] == pytest.approx(score, abs=1e-5)
            assert wrong["true_score_at_most"] is None
        else:
            assert wrong["true_score_at_most"] == pytest.approx(said[wrong["path"]][4][1], abs=1e-5)


def test_the_table(convnext: Run, model: str, data: Path) -> None:
    done = convnext(*EVALUATE, data, "-m", model)
    assert done.status == 0 and "\x1b" not in done.out
    assert f"small on {data}\n" in done.out
    assert re.search(r"top-1 +\d+\.\d\d +\d+\.\d\d to \d+\.\d\d +\d+ of 30", done.out)
    assert all(word in done.out for word in ("top-5", "ECE", "most confused", "worst classes", "--min-score"))
    assert "no --min-score makes 95 % of the answers right" in done.out
    assert "30 photos in" in done.err


def test_zip_and_table_are_the_same_photos(convnext: Run, model: str, data: Path, tmp_path: Path) -> None:
    def figures_of(*arguments: str | Path) -> dict[str, Any]:
        found = document(convnext(*EVALUATE, *arguments, "-m", model, "--json"))
        return {name: found[name] for name in ("top1", "top5", "calibration", "classes", "pairs", "thresholds")}

    paths = sorted(data.rglob("*.png"))
    with zipfile.ZipFile(tmp_path / "data.zip", "w") as file:
        for path in paths:
            file.write(path, path.relative_to(data))
    lines = [f"{path},{path.parent.name.upper().replace('_', ' ')}" for path in paths]  # a name in other writing
    (tmp_path / "data.csv").write_text("\n".join(["path,label", *lines]))
    expected = figures_of(data)
    assert figures_of(tmp_path / "data.zip") == expected
    table = figures_of(tmp_path / "data.csv")
    for each in (*expected["classes"], *table["classes"]):
        del each["classes"]
    assert table == expected


def test_bad_photos_are_wrong_and_named_or_left_out(convnext: Run, model: str, data: Path) -> None:
    before = document(convnext(*EVALUATE, data, "-m", model, "--json"))
    (data / "class_1" / "bad.png").write_bytes(b"no photo")
    (data / "class_2" / "half.png").write_bytes(encoded(picture(50, 50))[:-30])
    done = convnext(*EVALUATE, data, "-m", model, "--json")
    found = document(done)
    assert done.status == 1
    assert found["top1"]["photos"] == 32 and found["top1"]["right"] == before["top1"]["right"]
    assert [each["error"]["kind"] for each in found["failed"]] == ["not_an_image", "truncated"]
    assert f"failed: {data}/class_1/bad.png: not_an_image" in done.err
    assert {c["label"]: c["photos"] for c in found["classes"]}["class_1"] == 7
    assert found["pairs"] == before["pairs"]
    assert found["thresholds"][0]["coverage"] == 30 / 32
    done = convnext(*EVALUATE, data, "-m", model, "--json", "--skip-bad")
    found = document(done)
    assert done.status == 0
    assert f"left out: {data}/class_1/bad.png: not_an_image" in done.err
    assert found["data"]["left_out"] == {"that cannot be read": 2}
    assert {name: found[name] for name in ("top1", "classes", "wrong")} == {
        name: before[name] for name in ("top1", "classes", "wrong")
    }


def test_nothing_can_be_read(convnext: Run, model: str, tmp_path: Path) -> None:
    (tmp_path / "bad" / "class_1").mkdir(parents=True)
    (tmp_path / "bad" / "class_1" / "a.png").write_bytes(b"no photo")
    done = convnext(*EVALUATE, tmp_path / "bad", "-m", model, "--json")
    assert done.status == 1 and document(done)["top1"]["value"] == 0.0
    assert convnext(*EVALUATE, tmp_path / "bad", "-m", model).status == 1
    done = convnext(*EVALUATE, tmp_path / "bad", "-m", model, "--skip-bad")
    assert done.status == 3 and "none of the photos can be read" in done.err


def test_classes_that_the_model_does_not_have(convnext: Run, model: str, data: Path) -> None:
    (data / "class_4").rename(data / "dress")
    done = convnext(*EVALUATE, data, "-m", model, "--json")
    assert done.status == 3 and not done.out
    assert "1 of the 5 classes in the data are not among the model's 7 labels (numbered): dress" in done.err
    assert "--labels FILE" in done.err and "--skip-unmatched evaluates the other 4" in done.err
    done = convnext(*EVALUATE, data, "-m", model, "--json", "--skip-unmatched")
    assert done.status == 0 and document(done)["top1"]["photos"] == 24
    assert "left out: 6 of a class that a model does not have: dress\n" in done.err
    assert document(done)["data"]["unmatched"] == ["dress"]


def test_no_class_matches(convnext: Run, data: Path) -> None:
    done = convnext(*EVALUATE, data, "--skip-unmatched")
    assert done.status == 3
    assert "5 of the 5 classes in the data are not among the model's 200 labels (tiny-imagenet-200)" in done.err
    assert "--skip-unmatched" not in done.err  # it was said, and leaves nothing


def test_numbers_are_indices_only_when_said(convnext: Run, model: str, data: Path) -> None:
    expected = document(convnext(*EVALUATE, data, "-m", model, "--json"))
    for number in range(5):
        (data / f"class_{number}").rename(data / str(number))
    done = convnext(*EVALUATE, data, "-m", model)
    assert done.status == 3 and "--by-index" in done.err
    found = document(convnext(*EVALUATE, data, "-m", model, "--by-index", "--json"))
    assert found["top1"] == expected["top1"] and found["pairs"] == expected["pairs"]


def test_own_labels_and_only_these(convnext: Run, model: str, data: Path, tmp_path: Path) -> None:
    (tmp_path / "names.txt").write_text("\n".join("ABCDEFG"))
    for number in range(5):
        (data / f"class_{number}").rename(data / "abcde"[number])
    for name in "cde":
        shutil.rmtree(data / name)
    free = document(convnext(*EVALUATE, data, "-m", model, "--labels", tmp_path / "names.txt", "--json"))
    assert {each["answer"] for each in free["wrong"]} - {"A", "B"}
    bound = document(
        convnext(*EVALUATE, data, "-m", model, "--labels", tmp_path / "names.txt", "--json", "--only-these")
    )
    said = answers(model, data, labels=tmp_path / "names.txt", classes="A,B")
    right = sum(said[path][0][0].lower() == Path(path).parent.name for path in said)
    assert bound["top1"]["right"] == right > free["top1"]["right"]
    assert {each["answer"] for each in bound["wrong"]} <= {"A", "B"}
    assert bound["labels"]["count"] == 2


def test_two_models(convnext: Run, model: str, other: str, data: Path) -> None:
    found = document(convnext(*EVALUATE, data, "-m", model, "--against", other, "--json"))
    first, second = answers(model, data), answers(other, data)
    right = [[said[path][0][0] == Path(path).parent.name for path in first] for said in (first, second)]
    alone = sum(a and not b for a, b in zip(*right, strict=True)), sum(b and not a for a, b in zip(*right, strict=True))
    difference = found["difference"]
    assert (difference["first_alone_right"], difference["second_alone_right"]) == alone
    assert difference["top1"] == (alone[0] - alone[1]) / 30
    assert difference["p"] == figures.mcnemar(*alone)
    assert found["against"]["top1"]["right"] == sum(right[1]) and found["against"]["model"] == "other"
    assert sum(difference[k] for k in ("both_right", "first_alone_right", "second_alone_right", "neither_right")) == 30
    table = convnext(*EVALUATE, data, "-m", model, "--against", model).out
    assert "difference in top-1: +0.00 points" in table and "not significant" in table


def test_splits(convnext: Run, model: str, data: Path, tmp_path: Path) -> None:
    shutil.copytree(data, tmp_path / "whole" / "train")
    shutil.copytree(data / "class_1", tmp_path / "whole" / "val" / "class_1")
    done = convnext(*EVALUATE, tmp_path / "whole", "-m", model, "--json")
    assert document(done)["photos"] == 6 and document(done)["data"]["split"] == "val"
    assert "note: of the splits train, val this is val; --split takes another" in done.err
    assert "note: 4 classes are missing in val: class_0, class_2, class_3, class_4" in done.err
    assert document(convnext(*EVALUATE, tmp_path / "whole", "-m", model, "--json", "--split", "all"))["photos"] == 36
    done = convnext(*EVALUATE, tmp_path / "whole", "-m", model, "--split", "test")
    assert done.status == 2 and "its splits are train, val" in done.err


def test_fail_below(convnext: Run, model: str, data: Path) -> None:
    right = document(convnext(*EVALUATE, data, "-m", model, "--json"))["top1"]["right"]
    assert convnext(*EVALUATE, data, "-m", model, "--fail-below", str(100 * right / 30 - 0.01)).status == 0
    done = convnext(*EVALUATE, data, "-m", model, "--fail-below", str(100 * (right + 1) / 30))
    assert done.status == 1 and "error: top-1 is" in done.err and "top-1" in done.out


def test_fail_below_is_exact() -> None:
    """57 of 100 are not below 57 %, though 100 * 0.57 is 56.99999999999999."""
    share = figures.Share.of(57, 100)
    assert 100 * share.value < 57
    assert not share.is_below(57.0) and share.is_below(57.001)


class Heard(Listener):
    """Keeps what a verb reports."""

    def __init__(self) -> None:
        self.notes: list[str] = []
        self.stages: dict[str, list[int | None]] = {}

    def note(self, text: str) -> None:
        self.notes.append(text)

    def stage(self, name: str, total: int | None = None) -> None:
        self.stages[name] = [total, 0, 0]

    def advance(self, done: int = 1, *, failed: int = 0) -> None:
        _, photos, failures = counts = self.stages[list(self.stages)[-1]]
        counts[1:] = [(photos or 0) + done, (failures or 0) + failed]


class TestFromPython:
    def request(self, data: Path, model: str, **changes: Any) -> EvaluateRequest:
        predictor = PredictorOptions.of(model=model, engine="torch", threads=1)
        return replace(EvaluateRequest(data=(data,), predictor=predictor), **changes)

    def test_as_the_command(self, convnext: Run, model: str, other: str, data: Path, tmp_path: Path) -> None:
        (data / "class_1" / "bad.png").write_bytes(b"no photo")
        request = self.request(data, model, against=other, output=tmp_path / "called", fail_below=99.0, mistakes=3)
        request = pickle.loads(pickle.dumps(request))
        assert request == self.request(
            data, model, against=other, output=tmp_path / "called", fail_below=99.0, mistakes=3
        )
        heard = Heard()
        result = evaluate(request, listener=heard)
        done = convnext(
            *(*EVALUATE, data, "-m", model, "--against", other, "-o", tmp_path / "typed"),
            *("--mistakes", "3", "--fail-below", "99", "--json"),
        )
        assert done.status == 1 and result.document == document(done)
        for path in (tmp_path / "typed").iterdir():
            assert path.read_bytes() == (result.output / path.name).read_bytes(), path.name  # type: ignore[operator]
        assert heard.stages == {"small": [31, 31, 1], "other": [31, 31, 1]}
        first, second = result.models
        assert first.top1.right == result.document["top1"]["right"] and first.model == "small"
        assert second.top5 is not None and second.top5.right == result.document["against"]["top5"]["right"]
        assert first.calibration_error == result.document["calibration"]["ece"]
        assert (result.photos, result.failed, result.falls_short) == (31, 1, True)
        ((path, error),) = result.failures
        assert path == f"{data}/class_1/bad.png" and error.kind == "not_an_image"

    def test_notes_are_heard(self, model: str, data: Path) -> None:
        shutil.move(data / "class_4", data / "class_x")
        heard = Heard()
        assert not evaluate(self.request(data, model, skip_unmatched=True), listener=heard).failures
        assert any("class_x" in note for note in heard.notes)

    @pytest.mark.parametrize(
        "changes",
        [
            {"data": "photos/"},
            {"data": ()},
            {"split": "validation"},
            {"precision": 1.0},
            {"fail_below": 101},
            {"overwrite": True},
            {"mistakes": 3},
            {"mistakes": -1, "output": "x"},
            {"output": ""},
            {"predictor": PredictorOptions.of(k=3)},
            {"predictor": PredictorOptions.of(min_score=0.5)},
            {"predictor": PredictorOptions.of(floors={"a": 0.5})},
            {"predictor": PredictorOptions.of(scores="logits")},
        ],
        ids=str,
    )
    def test_impossible_requests(self, changes: dict[str, Any]) -> None:
        with pytest.raises(UsageError):
            EvaluateRequest(**({"data": ("photos/",)} | changes))

    def test_offline_forbids_data_behind_urls(self) -> None:
        with pytest.raises(UsageError, match="not on this machine"):
            evaluate(EvaluateRequest(data=("s3://bucket/photos",), offline=True))


class TestReaLOnPhotos:
    @pytest.fixture
    def photos(self, tmp_path: Path) -> Path:
        """The bundled model's photos: three with labels of ReaL, the third's wrong, and one without."""
        samples = sorted((Path(__file__).parent.parent.parent / "samples").glob("*.jpg"))
        folder = tmp_path / "val"
        folder.mkdir()
        for number, sample in enumerate([*samples, samples[0]], 1):
            shutil.copy(sample, folder / f"ILSVRC2012_val_{number:08}.JPEG")
        one = labels.load("imagenet-1k").ids
        best = [one.index(row.predictions[0].id) for row in classify([str(s) for s in samples])]
        lists: list[list[int]] = [[] for _ in range(real_labels.PHOTOS)]
        lists[:3] = [[999, best[0]], [best[1]], [999]]
        (tmp_path / "real.json").write_text(json.dumps(lists))
        return folder

    def test_without_classes(self, convnext: Run, photos: Path, tmp_path: Path) -> None:
        done = convnext(*EVALUATE, photos, "--real", tmp_path / "real.json", "--json", "-o", tmp_path / "out")
        found = document(done)
        assert done.status == 0
        assert (found["top1"]["right"], found["top1"]["photos"]) == (2, 3)
        assert found["real"]["top1"]["right"] == 2 and found["classes"] == found["pairs"] == []
        assert found["data"]["left_out"] == {"without a label in ReaL": 1}
        assert not (tmp_path / "out" / "confusion.csv").exists()
        rows = [json.loads(line) for line in (tmp_path / "out" / "predictions.jsonl").read_text().splitlines()]
        assert [row["right"] for row in rows] == [True, True, False]
        assert convnext(*EVALUATE, photos, "--real", tmp_path / "real.json").status == 0

    def test_with_classes_both_are_told(self, convnext: Run, photos: Path, tmp_path: Path) -> None:
        names = [labels.load("tiny-imagenet-200").ids[0]] * 4
        for path, name in zip(sorted(photos.glob("*.JPEG")), names, strict=True):
            (photos / str(name)).mkdir(exist_ok=True)
            path.rename(photos / str(name) / path.name)
        found = document(convnext(*EVALUATE, photos, "--real", tmp_path / "real.json", "--json"))
        assert (found["top1"]["right"], found["top1"]["photos"]) == (0, 4)
        assert (found["real"]["top1"]["right"], found["real"]["photos"]) == (2, 3)
        assert "ReaL top-1" in convnext(*EVALUATE, photos, "--real", tmp_path / "real.json").out

    def test_other_photos(self, convnext: Run, photos: Path, data: Path, model: str, tmp_path: Path) -> None:
        done = convnext(*EVALUATE, data, "-m", model, "--real", tmp_path / "real.json")
        assert done.status == 3 and "ILSVRC2012_val_00000001" in done.err
        done = convnext(*EVALUATE, photos)
        assert done.status == 3 and "is in a class folder" in done.err


class TestFolder:
    def test_what_is_in_it(self, convnext: Run, model: str, data: Path, tmp_path: Path) -> None:
        (data / "class_1" / "bad.png").write_bytes(b"no photo")
        out = tmp_path / "out"
        done = convnext(*EVALUATE, data, "-m", model, "--json", "-o", out)
        found = document(done)
        names = "confusion.csv confusion.png evaluation.json mistakes.html predictions.jsonl reliability.png"
        assert sorted(path.name for path in out.iterdir()) == names.split()
        assert json.loads((out / "evaluation.json").read_text()) == found
        with (out / "confusion.csv").open(newline="") as file:
            header, *lines = csv.reader(file)
        assert header[0] == "true" and header[1:6] == [line[0] for line in lines] and header[-1] == "(failed)"
        matrix = {(line[0], name): int(n) for line in lines for name, n in zip(header[1:], line[1:], strict=True)}
        assert sum(matrix.values()) == 31 and matrix["class_1", "(failed)"] == 1
        assert sum(matrix[name, name] for name in header[1:6]) == found["top1"]["right"]
        assert all(matrix[pair["true"], pair["answer"]] == pair["photos"] for pair in found["pairs"])
        rows = [json.loads(line) for line in (out / "predictions.jsonl").read_text().splitlines()]
        assert len(rows) == 31 and sum(row["right"] for row in rows) == found["top1"]["right"]
        assert all(row["class"] == Path(row["path"]).parent.name for row in rows)
        assert [row["path"] for row in rows if row["status"] == "failed"] == [f"{data}/class_1/bad.png"]
        assert all((out / name).read_bytes().startswith(b"\x89PNG") for name in ("confusion.png", "reliability.png"))

    def test_a_class_with_a_carriage_return(self, convnext: Run, model: str, data: Path, tmp_path: Path) -> None:
        names = [f"class\r{row}" for row in range(7)]
        for row, name in enumerate(names[:5]):
            (data / f"class_{row}").rename(data / name)
        (tmp_path / "names.json").write_text(json.dumps(names))
        done = convnext(*EVALUATE, data, "-m", model, "--labels", tmp_path / "names.json", "-o", tmp_path / "out")
        assert done.status == 0, done.err
        with (tmp_path / "out" / "confusion.csv").open(newline="") as file:
            header, *lines = csv.reader(file)
        assert header[1:6] == names[:5] == [line[0] for line in lines] and set(header[6:]) <= set(names[5:])

    def test_two_models_have_two_lists(self, convnext: Run, model: str, other: str, data: Path, tmp_path: Path) -> None:
        convnext(*EVALUATE, data, "-m", model, "--against", other, "-o", tmp_path / "out")
        second = (tmp_path / "out" / "predictions-against.jsonl").read_text().splitlines()
        assert {json.loads(line)["model"] for line in second} == {"other"} and len(second) == 30

    def test_the_same_again(self, convnext: Run, model: str, data: Path, tmp_path: Path) -> None:
        for name in "ab":
            assert convnext(*EVALUATE, data, "-m", model, "-o", tmp_path / name, "-t", "2", "-j", "2").status == 0
        for path in (tmp_path / "a").iterdir():
            assert path.read_bytes() == (tmp_path / "b" / path.name).read_bytes(), path.name

    def test_nothing_else_is_ever_replaced(self, convnext: Run, model: str, data: Path, tmp_path: Path) -> None:
        out = tmp_path / "out"
        arguments = (*EVALUATE, data, "-m", model, "-o", out)
        out.mkdir()
        assert convnext(*arguments).status == 0  # an empty folder is as good as none
        done = convnext(*arguments)
        assert done.status == 2 and "--overwrite" in done.err
        assert convnext(*arguments, "--overwrite").status == 0
        (out / "thesis.tex").write_text("years of work")
        done = convnext(*arguments, "--overwrite")
        assert done.status == 2 and "holds other things, such as thesis.tex" in done.err
        assert (out / "thesis.tex").exists()
        assert convnext(*EVALUATE, data, "-m", model, "-o", out / "thesis.tex").status == 2
        assert convnext(*EVALUATE, data, "-m", model, "-o", tmp_path / "no" / "out").status == 74

    def test_interrupted(
        self, convnext: Run, model: str, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        ask = predictor.Predictor._predict
        calls = iter(range(100))

        def interrupt(*arguments: Any) -> Any:
            if next(calls) == 20:
                raise KeyboardInterrupt
            return ask(*arguments)

        monkeypatch.setattr(predictor.Predictor, "_predict", interrupt)
        before = sorted(tmp_path.iterdir())
        done = convnext(*EVALUATE, data, "-m", model, "-o", tmp_path / "out")
        assert done.status == 130 and not done.out
        assert sorted(tmp_path.iterdir()) == before

    def test_without_matplotlib(
        self, convnext: Run, model: str, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(plots, "available", lambda: False)
        done = convnext(*EVALUATE, data, "-m", model, "-o", tmp_path / "out")
        assert done.status == 0
        assert "confusion.png and reliability.png not drawn: pip install matplotlib" in done.err
        names = {path.name for path in (tmp_path / "out").iterdir()}
        assert names == {"confusion.csv", "evaluation.json", "mistakes.html", "predictions.jsonl"}

    def test_names_of_any_bytes(self, convnext: Run, model: str, data: Path, tmp_path: Path) -> None:
        name = b"caf\xe9\n\xe2\x80\xae.png".decode("utf-8", "surrogateescape")
        (data / "class_3" / "28.png").rename(data / "class_3" / name)
        (data / "class_2" / "bad\xff<b>.png").write_bytes(b"no photo")
        done = convnext(*EVALUATE, data, "-m", model, "--json", "-o", tmp_path / "out")
        found = document(done)
        assert os.fsencode(name) in [os.fsencode(Path(w["path"]).name) for w in found["wrong"]]
        assert len((tmp_path / "out" / "predictions.jsonl").read_bytes().splitlines()) == 31
        (tmp_path / "out" / "mistakes.html").read_bytes().decode()


class Parsed(HTMLParser):
    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attributes)))

    def handle_data(self, data: str) -> None:
        self.words.append(data)


class TestMistakes:
    HOSTILE = "</title><script>alert(1)</script><img src=x onerror=\"alert('x')\">$facts\u202egpj\x00caf\udce9"

    def page(self, **more: Any) -> str:
        wrong = {"path": "a.png", "true": "cat", "answer": "dog", "score": 0.9, "true_rank": 2, "true_score": 0.1}
        shown = b"".join(mistakes.page("title", "facts", [wrong | more], lambda _: encoded(picture(300, 200))))
        return shown.decode()

    def test_names_are_never_markup(self) -> None:
        plain = Parsed(self.page()).tags
        for name in ("path", "true", "answer"):
            hostile = Parsed(self.page(**{name: self.HOSTILE}))
            assert hostile.tags == plain
            text = "".join(hostile.words)
            assert "<script>" in text and "\\u202egpj\\x00caf\\xe9" in text and "$facts" in text

    def test_it_loads_and_runs_nothing(self) -> None:
        tags = Parsed(self.page()).tags
        assert not {"script", "link", "iframe", "form", "a"} & {tag for tag, _ in tags}
        (policy,) = [a["content"] for tag, a in tags if a.get("http-equiv") == "Content-Security-Policy"]
        assert policy is not None and policy.startswith("default-src 'none'; img-src data:; style-src 'sha256-")
        (image,) = [attributes for tag, attributes in tags if tag == "img"]
        assert (image["width"], image["height"]) == ("200", "133")
        assert str(image["src"]).startswith("data:image/jpeg;base64,")

    def test_what_it_says(self) -> None:
        words = "".join(Parsed(self.page()).words)
        assert "is cat 10.0\xa0%" in words and "taken for dog 90.0\xa0%" in words
        assert "10.0" not in "".join(Parsed(self.page(true_rank=None, true_score=None)).words)
        beyond = self.page(true_rank=None, true_score=None, true_score_at_most=0.034)
        assert "is cat at most 3.4\xa0%" in "".join(Parsed(beyond).words)

    def test_a_photo_that_went_away(self) -> None:
        from convnext_cli.base.errors import PhotoError

        def gone(_: str) -> bytes:
            raise PhotoError("missing", "gone")

        wrong = {"path": "a.png", "true": None, "answer": "dog", "score": 0.9, "true_rank": None, "true_score": None}
        assert "cannot be shown" in b"".join(mistakes.page("", "", [wrong], gone)).decode()

    def test_the_surest_come_first_and_no_more_than_wanted(
        self, convnext: Run, model: str, data: Path, tmp_path: Path
    ) -> None:
        done = convnext(*EVALUATE, data, "-m", model, "--json", "-o", tmp_path / "out", "--mistakes", "4")
        text = (tmp_path / "out" / "mistakes.html").read_text()
        worst = [wrong["path"] for wrong in document(done)["wrong"]]
        assert len(worst) > 4
        places = [text.find(path) for path in worst[:4]]
        assert -1 not in places and places == sorted(places) and text.find(worst[4]) == -1


def test_the_threshold_means_what_min_score_does(convnext: Run, model: str, data: Path) -> None:
    found = document(convnext(*EVALUATE, data, "-m", model, "--json"))
    answered = {each["min_score"]: each["precision"]["photos"] for each in found["thresholds"]}
    assert 0 < answered[0.5] < 30
    rows = classify([str(path) for path in data.rglob("*.png")], model=model, engine="torch", min_score=0.5)
    assert sum(row.status == "ok" for row in rows) == answered[0.5]


@pytest.mark.parametrize(
    ("arguments", "status", "said"),
    [
        (["gone"], 2, "'gone' does not exist"),
        ([], 2, "Missing argument"),
        (["{data}", "--precision", "1"], 2, "--precision"),
        (["{data}", "--split", "val"], 2, "it is not split"),
        (["{data}", "{data}"], 2, "several at a time"),
        (["{data}", "--real", "gone.json"], 3, "gone.json"),
        (["{data}/class_0/00.png"], 3, "a single photo"),
        (["{data}", "-m", "gone.pth"], 3, "gone.pth"),
    ],
)
def test_what_cannot_be_done(convnext: Run, data: Path, arguments: list[str], status: int, said: str) -> None:
    done = convnext(*EVALUATE, *(argument.format(data=data) for argument in arguments))
    assert done.status == status and said in done.err and not done.out
    assert done.err.splitlines()[-1].startswith("hint: ")


def test_a_reader_that_has_enough(home: Path, data: Path) -> None:
    for number, name in enumerate(labels.load("tiny-imagenet-200").ids[:5]):
        (data / f"class_{number}").rename(data / str(name))
    command = f"{sys.executable} -m convnext_cli evaluate {data} --only-these -q | head -1; exit ${{PIPESTATUS[0]}}"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, env=os.environ)
    assert (done.returncode, done.stderr) == (0, "") and done.stdout.startswith("default on ")


def test_truth_of_a_class_without_photos_in_the_split() -> None:
    base = LabelSet.from_names("x", ["a", "b"])
    from convnext_cli.datasets import Dataset, LabelledPhoto

    photos = (LabelledPhoto("1", "a", "test"), LabelledPhoto("2", "unknown", "train"))
    dataset = Dataset("x", "folders", ("a", "unknown"), photos)
    found = truth.find(dataset, base, by_index=False, only_these=False)
    assert found[1].unmatched == ("unknown",)
    assert len(truth.choose(dataset.of("test"), [found]).photos) == 1  # what is not evaluated need not match
