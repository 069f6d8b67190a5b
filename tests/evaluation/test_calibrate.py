"""``convnext calibrate``, and answers that rest on it."""

from __future__ import annotations

import csv
import io
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from convnext_cli import checkpoints
from convnext_cli.checkpoints import calibration_file
from tests.helpers.colour_classifier import write_classifier
from tests.helpers.command import Done, Run
from tests.helpers.photos import encoded, picture
from tests.helpers.training import place

TORCH = ("-e", "torch", "-t", "1")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Fifteen photos of each colour."""
    return place(tmp_path_factory.mktemp("data"), 15)


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_classifier(tmp_path_factory.mktemp("weights") / "colours.safetensors")


@pytest.fixture
def model(weights: Path, tmp_path: Path) -> Path:
    return Path(shutil.copy(weights, tmp_path / "colours.safetensors"))


@pytest.fixture
def calibrated(convnext: Run, model: Path, data: Path) -> Path:
    assert convnext("calibrate", "-m", model, data, *TORCH).status == 0
    return model


def rows(done: Done) -> list[dict[str, Any]]:
    return [json.loads(line) for line in done.out.splitlines()]


def test_a_calibration_beside_the_weights(convnext: Run, model: Path, data: Path) -> None:
    before = model.read_bytes()
    done = convnext("calibrate", "-m", model, data, *TORCH)
    assert done.status == 0 and "60 photos" in done.out
    assert "fewer than 200" in done.err and f"written: {model}.calibration" in done.err
    assert model.read_bytes() == before
    answers = rows(convnext("classify", "-m", model, "--sure", "90%", "-f", "jsonl", "-r", *TORCH, data))
    assert len(answers) == 60
    ok = [row for row in answers if row["status"] == "ok"]
    right = [row["answer"]["label"] == Path(row["path"]).parent.name for row in ok]
    assert len(ok) >= 40 and sum(right) >= 0.9 * len(ok)
    for row in ok:
        assert row["answer"]["level"] == "class" and row["answer"]["why"] == ""
        assert row["answer"]["score"] == pytest.approx(row["predictions"][0]["score"], abs=1e-6)


def test_a_calibration_in_a_new_file(convnext: Run, model: Path, data: Path, tmp_path: Path) -> None:
    out = tmp_path / "new.safetensors"
    assert convnext("calibrate", "-m", model, data, "-o", out, *TORCH).status == 0
    assert not calibration_file.path_beside(model).exists()
    ours, theirs = checkpoints.load(out, verify=True), checkpoints.load(model)
    assert ours.card.sha256 == theirs.card.sha256 and ours.tensors.keys() == theirs.tensors.keys()
    assert all(torch.equal(ours.tensors[name], theirs.tensors[name]) for name in ours.tensors)
    assert any(name.startswith("calibration.") for name in load_file(out))
    assert rows(convnext("classify", "-m", out, "--sure", "0.9", "-f", "jsonl", *TORCH, data / "red" / "300.png"))
    again = convnext("calibrate", "-m", model, data, "-o", out, *TORCH)
    assert again.status == 2 and "already exists" in again.err
    assert convnext("calibrate", "-m", model, data, "-o", out, "--overwrite", *TORCH).status == 0


def test_engines_without_torch_read_a_file_with_a_calibration(
    convnext: Run, home: Path, model: Path, data: Path, tmp_path: Path
) -> None:
    out = tmp_path / "new.safetensors"
    assert convnext("calibrate", "-m", model, data, "-o", out, *TORCH).status == 0
    for engine in ("openvino", "onnxruntime"):
        done = convnext("classify", "-m", out, "-e", engine, "--sure", "0.9", "-f", "jsonl", data / "red" / "300.png")
        (row,) = rows(done)
        assert row["answer"]["label"] == "red", engine


def test_a_model_that_was_never_calibrated(convnext: Run, model: Path, data: Path) -> None:
    done = convnext("classify", "-m", model, "--sure", "0.9", data / "red" / "300.png", *TORCH)
    assert done.status == 3 and "never calibrated" in done.err and f"convnext calibrate -m {model}" in done.err


def test_a_calibration_is_of_one_model(convnext: Run, calibrated: Path, data: Path, tmp_path: Path) -> None:
    photo = data / "red" / "300.png"
    sure = ("--sure", "0.9", *TORCH)
    done = convnext("classify", "-m", calibrated, *sure, "--size", "64", photo)
    assert done.status == 3 and "made for other preprocessing" in done.err
    done = convnext("classify", "-m", calibrated, *sure, "--classes", "red,blue", photo)
    assert done.status == 3 and "made for other labels" in done.err
    other = write_classifier(tmp_path / "other.safetensors", photos=4)
    shutil.copy(calibration_file.path_beside(calibrated), calibration_file.path_beside(other))
    done = convnext("classify", "-m", other, *sure, photo)
    assert done.status == 3 and "made for other weights" in done.err


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--sure", "0.99"), "calibrate on more photos"),
        (("--sure", "1"), "is not between 0 and 1"),
        (("--sure", "95"), "write 0.95 or 95%"),
        (("--sure", "0.9", "--min-score", "0.5"), "exclude each other"),
        (("--sure", "0.9", "--logits"), "scores that add up to 1"),
        (("--sets", "0.7"), "'0.7' is not one of"),
    ],
)
def test_promises_that_cannot_be_kept(
    convnext: Run, calibrated: Path, data: Path, options: tuple[str, ...], words: str
) -> None:
    done = convnext("classify", "-m", calibrated, *options, *TORCH, data / "red" / "300.png")
    assert done.status == 2 and words in done.err and not done.out


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("-m", "default"), "-o FILE.safetensors"),
        (("-m", "MODEL", "--overwrite"), "--overwrite is for -o"),
        (("-m", "MODEL", "-o", "x.bin"), "is not a .safetensors file"),
        (("-m", "MODEL", "-o", "x.safetensors", "--size", "64"), "keeps the model's own preprocessing"),
    ],
)
def test_impossible_calibrations(convnext: Run, model: Path, data: Path, options: tuple[str, ...], words: str) -> None:
    arguments = [str(model) if option == "MODEL" else option for option in options]
    done = convnext("calibrate", *arguments, data, *TORCH)
    assert done.status == 2 and words in done.err


def test_a_damaged_calibration_is_refused(convnext: Run, calibrated: Path, data: Path) -> None:
    file = calibration_file.path_beside(calibrated)
    whole = file.read_bytes()
    for byte in (len(whole) - 1, len(whole) - 2000, whole.index(b"temperature") + 16):  # an array, another, the JSON
        changed = bytearray(whole)
        changed[byte] ^= 1
        file.write_bytes(changed)
        done = convnext("classify", "-m", calibrated, "--sure", "0.8", data / "red" / "300.png", *TORCH)
        assert done.status == 3 and "is damaged" in done.err, byte
    file.write_bytes(whole[:-7])
    done = convnext("classify", "-m", calibrated, "--sure", "0.9", data / "red" / "300.png", *TORCH)
    assert done.status == 3 and f"{file.name} is damaged" in done.err and "convnext calibrate" in done.err


def test_a_photo_that_cannot_be_read_is_left_out(convnext: Run, model: Path, data: Path, tmp_path: Path) -> None:
    some = shutil.copytree(data, tmp_path / "some")
    (some / "red" / "bad.png").write_bytes(b"no photo")
    done = convnext("calibrate", "-m", model, some, "--json", *TORCH)
    document = json.loads(done.out)
    assert done.status == 1 and document["photos"] == 60
    assert [Path(failure["path"]).name for failure in document["failed"]] == ["bad.png"]


def test_what_is_unlike_everything_is_unknown(convnext: Run, calibrated: Path, data: Path, tmp_path: Path) -> None:
    noise = tmp_path / "noise.png"
    noise.write_bytes(encoded(picture(36, 36, seed=3)))
    (row,) = rows(convnext("classify", "-m", calibrated, "--sure", "0.9", "-f", "jsonl", *TORCH, noise))
    if row["status"] == "unknown":
        assert row["answer"]["level"] == "none" and row["answer"]["label"] is None and row["answer"]["why"]


def test_flat_formats_have_columns(convnext: Run, calibrated: Path, data: Path, tmp_path: Path) -> None:
    photo = data / "green" / "100.png"
    options = ("-m", calibrated, "--sure", "0.9", "--sets", "0.9", *TORCH, photo)
    (row,) = csv.DictReader(io.StringIO(convnext("classify", "-f", "csv", *options).out))
    assert row["answer"] == "green" and row["answer_level"] == "class"
    assert "green" in json.loads(row["set"]) and float(row["coverage"]) == 0.9
    parquet = pytest.importorskip("pyarrow.parquet")
    out = tmp_path / "rows.parquet"
    assert convnext("classify", "-o", out, *options).status == 0
    (record,) = parquet.read_table(out).to_pylist()
    assert record["answer"]["label"] == "green" and "green" in record["set"]
    assert convnext("classify", "-f", "lines", *options).out.split("\t")[1] == "green"
    table = convnext("classify", "-f", "table", *options).out
    assert "% sure" in table and "90 % set: " in table


def test_converted_and_exported_files_leave_it_out(convnext: Run, model: Path, data: Path, tmp_path: Path) -> None:
    out = tmp_path / "new.safetensors"
    assert convnext("calibrate", "-m", model, data, "-o", out, *TORCH).status == 0
    for layout, name in (("canonical", "c.safetensors"), ("timm", "t.safetensors")):
        done = convnext("convert", out, tmp_path / name, "--to", layout)
        assert done.status == 0 and "calibration is left out" in done.err + done.out, done.err
        assert not any(key.startswith("calibration.") for key in load_file(tmp_path / name))


def test_models_info_says_whether_a_model_is_calibrated(convnext: Run, model: Path, data: Path) -> None:
    lines = [line.split() for line in convnext("models", "info", model).out.splitlines()]
    assert ["calibrated", "no"] in lines
    assert convnext("calibrate", "-m", model, data, *TORCH).status == 0
    assert "on 60 photos" in convnext("models", "info", model).out
    facts = json.loads(convnext("models", "info", model, "--json").out)
    assert facts["calibration"]["photos"] == 60
    assert facts["calibration"]["file"] == str(calibration_file.path_beside(model))
