"""``convnext evaluate --sure``: figures equal to those counted from the rows, and photos that were calibrated on."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from convnext_cli import EvaluateRequest, PredictorOptions, checkpoints, evaluate
from convnext_cli.base.errors import UsageError
from convnext_cli.checkpoints import canonical
from convnext_cli.labels import LabelSet
from convnext_cli.photos.photo import Photo
from convnext_cli.predict.calibrated import calibration_of
from convnext_cli.predict.open import open_predictor
from tests.helpers.colour_classifier import write_classifier
from tests.helpers.command import Run
from tests.helpers.photos import encoded, picture
from tests.helpers.training import COLOURS, place

TORCH = ("-e", "torch", "-t", "1", "--by-index")
NAMES = ("cool/blue", "cool/green", "plain/grey", "plain/red")  # in the order of COLOURS


def write_grouped(path: Path, photos: int = 12) -> Path:
    """A model of the colours that is often unsure, and whose labels have groups."""
    checkpoint = checkpoints.load(write_classifier(path, photos=photos, sharpness=5.0))
    canonical.write(path, checkpoint.tensors, checkpoint.card.replace(labels=LabelSet.from_names("own", NAMES)))
    return path


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Photos to evaluate, ten of each colour."""
    return place(tmp_path_factory.mktemp("data"), 10, first=20)


@pytest.fixture(scope="module")
def foreign(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("foreign")
    for seed in range(6):
        (folder / f"{seed}.png").write_bytes(encoded(picture(40, 40, seed=seed)))
    return folder


@pytest.fixture(scope="module")
def known(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Photos to calibrate on."""
    return place(tmp_path_factory.mktemp("known"), 15)


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_grouped(tmp_path_factory.mktemp("weights") / "colours.safetensors")


@pytest.fixture
def model(convnext: Run, weights: Path, known: Path, tmp_path: Path) -> tuple[str, ...]:
    """The options of a calibrated model."""
    options = ("-m", str(shutil.copy(weights, tmp_path / "colours.safetensors")), *TORCH)
    assert convnext("calibrate", known, *options).status == 0
    return options


def rows_of(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "predictions.jsonl").read_text().splitlines()]


def is_right(row: dict[str, Any]) -> bool:
    """Whether the answer of a row is the true label, or a group above it."""
    true, label = NAMES[list(COLOURS).index(row["class"])], row["answer"]["label"]
    return label is not None and (true == label or true.startswith(f"{label}/"))


def test_figures_equal_those_counted_from_the_rows(
    convnext: Run, model: tuple[str, ...], data: Path, foreign: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    steps = {}
    for sure in (0.6, 0.8, 0.9):
        done = convnext(
            *("evaluate", data, *model, "--sure", sure, "--sets", "0.9", "--foreign", foreign),
            *("--json", "-o", out, "--overwrite"),
        )
        assert done.status == 0, done.err
        document, rows = json.loads(done.out), rows_of(out)
        assert json.loads((out / "evaluation.json").read_text()) == document
        figures, levels = document["sure"], [row["answer"]["level"] for row in rows]
        by_level = {level: [row for row in rows if row["answer"]["level"] == level] for level in ("class", "broader")}
        for level, answered in by_level.items():
            counts = figures[level]["right"], figures[level]["photos"]
            assert counts == (sum(map(is_right, answered)), len(answered)), level
        assert figures["precision"]["photos"] == 40 - levels.count("none")
        assert figures["precision"]["right"] == figures["class"]["right"] + figures["broader"]["right"]
        whys = [row["answer"]["why"] for row in rows]
        assert figures["not_sure"] == whys.count("not sure enough")
        assert figures["out_of_scope"] == whys.count("unlike anything this model was trained on")
        # one group is above each label, and none above a group
        answered = figures["precision"]["photos"]
        assert figures["depth"] == pytest.approx(levels.count("class") / answered)
        covered = sum(NAMES[list(COLOURS).index(row["class"])] in row["set"] for row in rows)
        sets = document["sets"]
        assert (sets["asked"], sets["coverage"]["right"], sets["coverage"]["photos"]) == (0.9, covered, 40)
        assert sets["size"] == pytest.approx(np.mean([len(row["set"]) for row in rows]))
        # the curve is the same at any threshold that is asked for
        curve = {step["threshold"]: (step["answered"], step["right"]) for step in figures["curve"]}
        steps[figures["threshold"]] = (answered, figures["precision"]["right"])
        assert all(curve[threshold] == counts for threshold, counts in steps.items())
    assert len(steps) > 1 and len(set(steps.values())) > 1
    assert (out / "precision.png").read_bytes().startswith(b"\x89PNG")


def test_foreign_photos(convnext: Run, model: tuple[str, ...], data: Path, foreign: Path) -> None:
    classified = convnext("classify", foreign, *model[:-1], "--sure", "0.6", "-f", "jsonl")
    answers = [json.loads(line)["answer"] for line in classified.out.splitlines()]
    done = convnext("evaluate", data, *model, "--sure", "0.6", "--foreign", foreign, "--json")
    figures = json.loads(done.out)["sure"]["foreign"]
    assert figures["photos"] == len(answers) == 6
    assert figures["answered"]["right"] == sum(answer["level"] != "none" for answer in answers)
    assert figures["let_through"]["right"] == sum(not answer["why"].startswith("unlike") for answer in answers)
    options = PredictorOptions.of(model=model[1], engine="torch", threads=1, sure=0.6)
    predictor = open_predictor(options)
    preprocessing = predictor.preprocessor.preprocessing
    scorer = calibration_of(Path(model[1]), predictor.engine, predictor.labels, preprocessing).scope.scorer
    own, other = [], []
    for folder, scores in ((data, own), (foreign, other)):
        for _, output in predictor.outputs([Photo(str(path)) for path in folder.rglob("*.png")], features=True):
            assert output is not None and output.features is not None
            scores += scorer.scores(output.logits[None], output.features[None]).tolist()
    pairs = [(strange > near) + (strange == near) / 2 for strange in other for near in own]
    assert figures["auroc"] == pytest.approx(np.mean(pairs), abs=1e-6)


def test_foreign_photos_that_cannot_be_read(
    convnext: Run, model: tuple[str, ...], data: Path, foreign: Path, tmp_path: Path
) -> None:
    bad = tmp_path / "bad.png"
    bad.write_bytes(b"no photo")
    done = convnext("evaluate", data, *model, "--sure", "0.6", "--foreign", foreign, "--foreign", bad)
    assert done.status == 1 and f"foreign photo left out: {bad}" in done.err and "of 6 foreign photos" in done.out
    done = convnext("evaluate", data, *model, "--sure", "0.6", "--foreign", bad)
    assert done.status == 3 and "none of the foreign photos can be read" in done.err


def test_photos_that_cannot_be_read_have_no_answer(
    convnext: Run, model: tuple[str, ...], data: Path, tmp_path: Path
) -> None:
    copy = Path(shutil.copytree(data, tmp_path / "copy"))
    (copy / "red" / "bad.png").write_bytes(b"no photo")
    before = json.loads(convnext("evaluate", data, *model, "--sure", "0.8", "--json").out)["sure"]
    counted = convnext("evaluate", copy, *model, "--sure", "0.8", "--json")
    figures = json.loads(counted.out)["sure"]
    assert counted.status == 1 and (figures["photos"], figures["failed"]) == (41, 1)
    assert figures["precision"] == before["precision"]
    skipped = convnext("evaluate", copy, *model, "--sure", "0.8", "--json", "--skip-bad")
    assert skipped.status == 0 and json.loads(skipped.out)["sure"] == before


def test_photos_that_the_model_was_calibrated_on(
    convnext: Run, model: tuple[str, ...], data: Path, known: Path, tmp_path: Path
) -> None:
    done = convnext("evaluate", known, *model, "--sure", "0.8", "-o", tmp_path / "out")
    assert done.status == 3 and "was calibrated on more than a hundredth of these photos" in done.err
    assert not (tmp_path / "out").exists() and not done.out
    # one of a hundred is a copy by accident, two are not
    many = place(tmp_path / "many", 30, first=40)
    shutil.copy(known / "red" / "300.png", many / "red" / "copy.png")
    done = convnext("evaluate", many, *model, "--sure", "0.8")
    assert done.status == 0 and "was calibrated on 1 photo of these" in done.err
    shutil.copy(known / "red" / "301.png", many / "red" / "another.png")
    assert convnext("evaluate", many, *model, "--sure", "0.8").status == 3
    assert convnext("evaluate", known, *model).status == 0  # without a promise there is nothing to test


def test_a_second_model_is_measured_with_its_own_calibration(
    convnext: Run, model: tuple[str, ...], known: Path, data: Path, tmp_path: Path
) -> None:
    other = write_grouped(tmp_path / "other.safetensors", photos=6)
    both = ("evaluate", data, *model, "--sure", "0.6", "--against", other)
    refused = convnext(*both)
    assert refused.status == 3 and f"convnext calibrate -m {other}" in refused.err
    assert convnext("calibrate", data, "-m", other, *TORCH).status == 0
    # the second model was calibrated on the photos: noticed before it has a turn
    refused = convnext(*both)
    assert refused.status == 3 and "other was calibrated on" in refused.err
    assert convnext("calibrate", known, "-m", other, *TORCH).status == 0
    document = json.loads(convnext(*both, "--json").out)
    alone = json.loads(convnext("evaluate", data, "-m", other, *TORCH, "--sure", "0.6", "--json").out)
    assert document["against"]["sure"] == alone["sure"] != document["sure"]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--foreign", "DATA"), "--foreign is for --sure"),
        (("--sure", "0.6", "--foreign", "missing"), "'missing' does not exist"),
        (("--sure", "0.6", "--foreign", "-"), "cannot be standard input"),
        (("--sure", "0.6", "--only-these"), "--sure and --only-these exclude each other"),
        (("--sets", "0.9", "--classes", "red"), "--sets and --classes exclude each other"),
        (("--sure", "0.999"), "calibrate on more photos"),
        (("--sure", "95"), "write 0.95 or 95%"),
    ],
)
def test_refused(convnext: Run, model: tuple[str, ...], data: Path, options: tuple[str, ...], words: str) -> None:
    arguments = [str(data) if option == "DATA" else option for option in options]
    done = convnext("evaluate", data, *model, *arguments)
    assert done.status == 2 and words in done.err and not done.out


def test_a_model_that_was_never_calibrated(convnext: Run, weights: Path, data: Path) -> None:
    done = convnext("evaluate", data, "-m", weights, *TORCH, "--sure", "0.6")
    assert done.status == 3 and f"convnext calibrate -m {weights}" in done.err


def test_from_python(model: tuple[str, ...], data: Path, foreign: Path) -> None:
    options = PredictorOptions.of(model=model[1], engine="torch", threads=1, sure=0.6)
    result = evaluate(EvaluateRequest(data=(data,), predictor=options, by_index=True, foreign=(foreign,)))
    sureness = result.models[0].sureness
    assert sureness is not None and sureness.sets is None and sureness.answers is not None
    assert sureness.answers.precision.right == result.document["sure"]["precision"]["right"]
    assert sureness.answers.foreign is not None and sureness.answers.foreign.photos == 6
    with pytest.raises(UsageError, match="must be a tuple"):
        EvaluateRequest(data=(data,), predictor=options, foreign="others/")  # type: ignore[arg-type]
