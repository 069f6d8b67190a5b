"""``convnext label --sure`` and ``--sets``: answers are kept, and what works from labels works from answers."""

from __future__ import annotations

import csv
import json
import re
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from convnext_cli.certainty.answer import NOT_SURE, Answer
from convnext_cli.jobs.keywords.words import Keywords, keywords
from convnext_cli.predict.rows import Prediction, Row
from tests.helpers.colour_classifier import blended, write_classifier
from tests.helpers.command import Done, Run
from tests.helpers.photos import encoded, picture
from tests.helpers.training import place

TORCH = ("-e", "torch", "-t", "1")
# by name: its answer, and the level of that
ANSWERS = {"clear": ("red", "class"), "between": ("cold", "broader"), "apart": (None, "none")}


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_classifier(tmp_path_factory.mktemp("weights") / "colours.safetensors", grouped=True)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return place(tmp_path_factory.mktemp("data"), 15)


@pytest.fixture
def model(convnext: Run, weights: Path, data: Path) -> Path:
    if not weights.with_name(f"{weights.name}.calibration").exists():
        assert convnext("calibrate", "-m", weights, data, *TORCH).status == 0
    return weights


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """A photo for each kind of answer, and one that fails."""
    folder = tmp_path / "photos"
    folder.mkdir()
    (folder / "clear.png").write_bytes(blended("red", "green", 0.7))
    (folder / "between.png").write_bytes(blended("blue", "grey", 0.5))
    (folder / "apart.png").write_bytes(blended("green", "grey", 0.5))
    (folder / "empty.png").touch()
    return folder


def rows(path: Path) -> dict[str, dict[str, Any]]:
    """The rows of an output by the names of their photos."""
    text = path.read_text()
    lines = json.loads(text) if path.suffix == ".json" else [json.loads(line) for line in text.splitlines()]
    return {Path(row["path"]).stem: row for row in lines}


def label(convnext: Run, photos: Path, output: Path, model: Path, *options: object) -> Done:
    return convnext("label", photos, "-o", output, "-m", model, *TORCH, *options)


def answers(path: Path) -> dict[str, tuple[str | None, str]]:
    found = {name: row["answer"] for name, row in rows(path).items() if "answer" in row}
    return {name: (answer["label"], answer["level"]) for name, answer in found.items()}


@pytest.mark.parametrize("form", ["jsonl", "json", "csv", "tsv", "parquet"])
def test_rows_are_those_of_classify(convnext: Run, photos: Path, model: Path, tmp_path: Path, form: str) -> None:
    options = ("--sure", "90%", "--sets", "0.9", "-k", "2")
    one, other = tmp_path / f"label.{form}", tmp_path / f"classify.{form}"
    done = label(convnext, photos, one, model, *options)
    assert done.status == 1 and "answers: 1 a label, 1 a broader group, 1 unknown" in done.err
    assert "3 rows" not in done.err and "2 ok, 1 unknown" in done.err
    assert convnext("classify", photos, "-o", other, "-m", model, *TORCH, *options).status == 1
    if form == "parquet":
        parquet = pytest.importorskip("pyarrow.parquet")
        assert parquet.read_table(one).equals(parquet.read_table(other))
    else:
        assert one.read_bytes() == other.read_bytes()
    if form in ("json", "jsonl"):
        assert answers(one) == ANSWERS
        assert {name: row["status"] for name, row in rows(one).items()} == {
            "clear": "ok",
            "between": "ok",
            "apart": "unknown",
            "empty": "failed",
        }
        assert "red" in rows(one)["clear"]["set"] and rows(one)["clear"]["coverage"] == 0.9
    before = one.read_bytes()
    again = label(convnext, photos, one, model, *options)
    assert "nothing new" in again.err and one.read_bytes() == before
    one.unlink()
    assert convnext("label", "-o", one, "--rewrite").status == 0 and one.read_bytes() == before


def test_a_database_has_columns(convnext: Run, photos: Path, model: Path, tmp_path: Path) -> None:
    output = tmp_path / "labels.sqlite"
    assert label(convnext, photos, output, model, "--sure", "0.9", "--sets", "0.9").status == 1
    with closing(sqlite3.connect(output)) as database:
        query = 'SELECT path, status, answer, answer_level, answer_why, answer_score, "set", coverage FROM results'
        found = {Path(path).stem: values for path, *values in database.execute(query)}
    assert found["clear"][:4] == ["ok", "red", "class", ""] and found["between"][:4] == ["ok", "cold", "broader", ""]
    assert found["apart"][:4] == ["unknown", None, "none", NOT_SURE]
    assert found["empty"] == ["failed", *[None] * 6]
    assert json.loads(found["clear"][5])[0] == "red" and found["clear"][6] == 0.9


def test_without_the_options_rows_have_no_answers(convnext: Run, photos: Path, model: Path, tmp_path: Path) -> None:
    assert label(convnext, photos, tmp_path / "a.jsonl", model).status == 1
    assert all("answer" not in row and "set" not in row for row in rows(tmp_path / "a.jsonl").values())
    assert label(convnext, photos, tmp_path / "a.csv", model).status == 1
    with (tmp_path / "a.csv").open(newline="") as file:
        assert not any(name.startswith("answer") for name in csv.DictReader(file).fieldnames or ())


def test_sets_alone_leave_the_threshold(convnext: Run, photos: Path, model: Path, tmp_path: Path) -> None:
    output = tmp_path / "a.jsonl"
    assert label(convnext, photos, output, model, "--sets", "0.9", "--min-score", "0.9").status == 1
    found = rows(output)
    assert {name: row["status"] for name, row in found.items() if name != "empty"} == {
        "clear": "ok",
        "between": "unknown",
        "apart": "unknown",
    }
    assert all("set" in row and "answer" not in row for name, row in found.items() if name != "empty")
    assert label(convnext, photos, output, model, "--sets", "0.9", "--min-score", "0.1").status == 1
    assert rows(output)["apart"]["status"] == "ok" and rows(output)["apart"]["set"] == found["apart"]["set"]


def test_another_precision_is_another_setting(convnext: Run, photos: Path, model: Path, tmp_path: Path) -> None:
    output = tmp_path / "a.jsonl"
    assert label(convnext, photos, output, model, "--sure", "0.9").status == 1
    before = output.read_bytes()
    done = label(convnext, photos, output, model, "--sure", "0.8")
    assert done.status == 2 and "precision of answers (--sure) 0.9 → 0.8" in done.err and "--relabel" in done.err
    done = label(convnext, photos, output, model)
    assert done.status == 2 and "precision of answers (--sure) 0.9 → none" in done.err
    assert "calibration" not in done.err
    done = label(convnext, photos, output, model, "--sure", "0.9", "--sets", "0.9")
    assert done.status == 2 and "coverage of sets (--sets) none → 0.9" in done.err and output.read_bytes() == before
    (photos / "new.png").write_bytes(blended("blue", "grey", 0.5))
    assert label(convnext, photos, output, model, "--mix").status == 1  # the new one has no answer
    assert answers(output) == ANSWERS and "answer" not in rows(output)["new"]
    assert label(convnext, photos, output, model, "--sure", "0.8", "--relabel").status == 1
    assert answers(output)["new"] == answers(output)["between"] == ("blue", "class")
    assert label(convnext, photos, output, model, "--relabel").status == 1
    assert answers(output) == {} and rows(output)["apart"]["status"] == "ok"


def test_another_calibration_is_another_setting(
    convnext: Run, photos: Path, model: Path, tmp_path: Path, data: Path
) -> None:
    weights = tmp_path / "colours.safetensors"
    weights.write_bytes(model.read_bytes())
    assert convnext("calibrate", "-m", weights, data, *TORCH).status == 0
    output = tmp_path / "a.jsonl"
    assert label(convnext, photos, output, weights, "--sure", "0.9").status == 1
    some = place(tmp_path / "some", 12, first=5)
    assert convnext("calibrate", "-m", weights, some, *TORCH).status == 0
    done = label(convnext, photos, output, weights, "--sure", "0.8")
    assert done.status == 2 and re.search(r"--sure\) 0.9 → 0.8; calibration\n", done.err)


def test_fewer_guesses_leave_the_answers(convnext: Run, photos: Path, model: Path, tmp_path: Path) -> None:
    output = tmp_path / "a.jsonl"
    assert label(convnext, photos, output, model, "--sure", "0.9", "-k", "4").status == 1
    first = rows(output)
    done = label(convnext, photos, output, model, "--sure", "0.9", "-k", "1")
    assert done.status == 1 and "nothing new" in done.err
    for name, row in rows(output).items():
        assert row == first[name] | {"predictions": first[name]["predictions"][:1]}


def test_folders_are_named_after_answers(convnext: Run, photos: Path, model: Path, tmp_path: Path) -> None:
    into = tmp_path / "sorted"
    done = label(convnext, photos, tmp_path / "a.csv", model, "--sure", "0.9", "--sort-into", into)
    assert done.status == 1
    placed = {str(path.relative_to(into)) for path in into.rglob("*.png")}
    expected = (("red", "clear.png"), ("cold", "between.png"), ("unknown", "apart.png"))
    assert placed == {str(Path(*parts)) for parts in expected}


def test_keywords_are_answers(convnext: Run, photos: Path, model: Path, tmp_path: Path) -> None:
    command = (convnext, photos, tmp_path / "a.csv", model, "--xmp", "sidecar")
    assert label(*command).status == 1
    assert ">blue<" in (photos / "between.png.xmp").read_text() and (photos / "apart.png.xmp").exists()
    assert label(*command, "--sure", "0.9", "--relabel").status == 1
    words = (photos / "between.png.xmp").read_text()
    assert ">cold<" in words and ">AI|cold<" in words and "blue" not in words
    assert ">red<" in (photos / "clear.png.xmp").read_text()
    assert not (photos / "apart.png.xmp").exists()


def test_a_broader_keyword_stands_on_its_shelf() -> None:
    guesses = (Prediction(1, 281, "n02123045", "tabby", 0.5), Prediction(2, 282, "n02123159", "tiger cat", 0.4))
    answer = Answer("feline", "n02120997", 0.96, "broader", above=("animal", "carnivore"))
    row = Row("cat.jpg", "ok", 9, 9, guesses, "tiny", "0", answer=answer)
    assert keywords(row, top=2) == Keywords(("feline",), ("AI|animal|mammal|feline",))
    assert answer.details == " (animal › carnivore), 96 % sure"


def test_the_report_shows_answers(convnext: Run, photos: Path, model: Path, tmp_path: Path) -> None:
    page = tmp_path / "report.html"
    assert label(convnext, photos, tmp_path / "a.csv", model, "--sure", "0.9", "--report", page).status == 1
    (block,) = re.findall(r'class="photos">(.*?)</script>', page.read_text())
    values = json.loads(block)
    names = values["names"]
    shown = {
        row[1]: row[7] and (names[row[7][0]] if row[7][0] >= 0 else "", names[row[7][2]]) for row in values["photos"]
    }
    assert shown["between.png"][0] == "cold" and re.fullmatch(r", 9\d % sure", shown["between.png"][1])
    assert shown["clear.png"] == ("red", " (vivid), 99 % sure")
    assert shown["apart.png"] == ("", f": {NOT_SURE}") and shown["empty.png"] == 0


@pytest.mark.parametrize(
    "change",
    [
        "answer_level = 'perhaps'",
        "answer = NULL",
        "answer_score = 'high'",
        "answer_above = '[1]'",
        "answer_above = 'no JSON'",
        "answer_above = NULL",
        "answer_why = NULL",
        "\"set\" = '3'",
        "\"set\" = '[]'",
        "coverage = 7.0",
        "status = 'unknown'",
    ],
)
def test_damaged_answers_are_noticed(convnext: Run, photos: Path, model: Path, tmp_path: Path, change: str) -> None:
    output = tmp_path / "a.jsonl"
    assert label(convnext, photos, output, model, "--sure", "0.9", "--sets", "0.9").status == 1
    with closing(sqlite3.connect(tmp_path / "a.jsonl.job")) as database, database:
        database.execute(f"UPDATE photos SET {change} WHERE path LIKE '%clear.png'")
    output.unlink()
    done = convnext("label", "-o", output, "--rewrite")
    assert done.status == 3 and "is damaged" in done.err and not output.exists()


def test_a_model_that_was_never_calibrated(convnext: Run, photos: Path, weights: Path, tmp_path: Path) -> None:
    other = write_classifier(tmp_path / "other.safetensors", photos=4)
    done = label(convnext, photos, tmp_path / "a.csv", other, "--sure", "0.9")
    assert done.status == 3 and f"convnext calibrate -m {other}" in done.err
    assert not list(tmp_path.glob("a.csv*"))


def test_a_photo_that_comes_last_has_an_answer(convnext: Run, photos: Path, model: Path, tmp_path: Path) -> None:
    """Photos that an earlier run was ended at are decoded in another process, and answered like all others."""
    from convnext_cli.jobs import suspects
    from convnext_cli.jobs.in_flight import InFlight

    output = tmp_path / "a.jsonl"
    notes = InFlight(suspects.file_beside(tmp_path / "a.jsonl.job"))
    notes.begin(str(photos / "between.png"))
    notes = None  # the process is gone
    done = label(convnext, photos, output, model, "--sure", "0.9")
    assert done.status == 1 and "an earlier run ended while it was working on" in done.err
    assert answers(output) == ANSWERS


def test_noise_is_no_label(convnext: Run, photos: Path, model: Path, tmp_path: Path) -> None:
    (photos / "noise.png").write_bytes(encoded(picture(36, 36, seed=3)))
    assert label(convnext, photos, tmp_path / "a.jsonl", model, "--sure", "0.9").status == 1
    row = rows(tmp_path / "a.jsonl")["noise"]
    assert (row["status"] == "unknown") == (row["answer"]["level"] == "none")
