"""Files that an earlier version wrote are read by this one (tests/data/earlier/README.md)."""

from __future__ import annotations

import json
import os
import shutil
import sqlite3
from pathlib import Path

import pytest

from benchmarks.profiles import display_p3
from convnext_cli.photos.decode import decode
from tests.helpers.command import Run
from tests.helpers.photos import encoded, picture

EARLIER = Path(__file__).parent.parent / "data" / "earlier"
WRITTEN_IN = "/tmp/earlier"


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The files as if they had been written here: a job knows photos by their full paths and times."""
    shutil.copytree(EARLIER, tmp_path / "e")
    place = tmp_path / "e"
    monkeypatch.chdir(place)
    log = place / "sorted.log"
    log.write_text(log.read_text().replace(WRITTEN_IN, str(place)))
    job = sqlite3.connect(place / "labels.jsonl.job")
    before, now = (str(Path(folder)).replace("/", "\0").encode() for folder in (WRITTEN_IN, place))
    for key, path, time in job.execute("SELECT key, path, mtime_ns FROM photos").fetchall():
        job.execute("UPDATE photos SET key = ? WHERE key = ?", (key.replace(before, now), key))
        os.utime(place / path, ns=(time, time))
    output = (place / "labels.jsonl").stat()
    job.execute("UPDATE job SET value = ? WHERE name = 'output'", (json.dumps([[output.st_size, output.st_mtime_ns]]),))
    job.commit()
    job.close()
    return place


def test_a_job_goes_on(convnext: Run, place: Path) -> None:
    before = (place / "labels.jsonl").read_bytes()
    done = convnext("label", "photos", "-o", "labels.jsonl", "-m", "model.safetensors", "-k", "2")
    assert done.status == 1 and "nothing new among 4 photos" in done.err
    assert (place / "labels.jsonl").read_bytes() == before


def test_a_job_goes_on_with_colour_profiles_applied_first(convnext: Run, place: Path) -> None:
    photo = encoded(picture(300, 200), "PNG", icc_profile=display_p3())
    (place / "photos" / "wide.png").write_bytes(photo)
    model = ("-m", "model.safetensors", "-k", "2")
    job = ("label", "photos", "-o", "labels.jsonl", *model)
    rows = (place / "labels.jsonl").read_text().splitlines()

    def score() -> float:
        *others, row = map(json.loads, (place / "labels.jsonl").read_text().splitlines())
        assert row["path"] == str(Path("photos", "wide.png"))
        assert [other["path"] for other in others] == [json.loads(line)["path"] for line in rows]
        return float(row["predictions"][0]["score"])

    done = convnext(*job)
    assert done.status == 1 and "an earlier version began this job" in done.err and "--relabel" in done.err
    first = score()
    assert (place / "labels.jsonl").read_text().splitlines()[:-1] == rows
    whole = decode(photo).image
    (place / "converted.png").write_bytes(encoded(whole, "PNG"))
    now, earlier = (
        json.loads(convnext("classify", path, *model, "-f", "jsonl").out)["predictions"][0]["score"]
        for path in ("photos/wide.png", "converted.png")
    )
    apart = abs(earlier - now)  # far more than the size of a batch changes
    assert apart > 2e-6 and abs(first - earlier) < apart / 4
    assert "nothing new" in convnext(*job).err
    done = convnext(*job, "--relabel")
    assert done.status == 1 and "an earlier version" not in done.err
    assert abs(score() - now) < apart / 4


def test_an_output_is_written_again_from_its_job(convnext: Run, place: Path) -> None:
    before = (place / "labels.jsonl").read_bytes()
    (place / "labels.jsonl").unlink()
    assert convnext("label", "--rewrite", "-o", "labels.jsonl").status == 0
    assert (place / "labels.jsonl").read_bytes() == before


def test_a_sort_is_taken_back(convnext: Run, place: Path) -> None:
    for line in map(json.loads, (place / "sorted.log").read_text().splitlines()):
        if line.get("do") == "folder":
            Path(line["path"]).mkdir()
        elif line.get("do") == "copy":
            shutil.copy2(line["source"], line["target"])
    assert len(list((place / "sorted").rglob("*.png"))) == 3
    assert convnext("label", "--undo", "sorted.log").status == 0
    assert not (place / "sorted").exists() and len(list((place / "photos").glob("*.png"))) == 3


@pytest.mark.parametrize("model", ["model.safetensors", "model.onnx", "model.xml", "run"])
def test_models_answer_as_they_did(convnext: Run, place: Path, model: str) -> None:
    if model == "model.onnx":
        pytest.importorskip("onnxruntime")
    photos = [f"photos/{name}.png" for name in ("blue", "green", "red")]
    done = convnext("classify", *photos, "-m", model, "-k", "2", "-f", "jsonl")
    assert done.status == 0
    rows = [json.loads(line) for line in done.out.splitlines()]
    answers = (place / f"answers-{model.replace('.', '-')}.jsonl").read_text().splitlines()
    for row, answer in zip(rows, map(json.loads, answers), strict=True):
        assert row["model_sha256"] == answer["model_sha256"] and row["path"] == answer["path"]
        assert [guess["label"] for guess in row["predictions"]] == [guess["label"] for guess in answer["predictions"]]
        for guess, before in zip(row["predictions"], answer["predictions"], strict=True):
            assert guess["score"] == pytest.approx(before["score"], abs=1e-5)
