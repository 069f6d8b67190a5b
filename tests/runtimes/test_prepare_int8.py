"""``convnext prepare --dtype int8``: from a folder of photos to an engine."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from PIL import Image

from convnext_cli.labels import LabelSet, load
from convnext_cli.runtimes.int8 import calibration
from tests.helpers.command import Run
from tests.helpers.paths import SAMPLES


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """40 photos, parts of the samples, in folders called by classes of the default, and one that is broken."""
    labels = load("tiny-imagenet-200")
    for i in range(40):
        place = tmp_path / "photos" / str(labels.ids[i % 4])
        place.mkdir(parents=True, exist_ok=True)
        with Image.open(SAMPLES[i % 3]) as photo:
            photo.crop((i, i, 200 + 3 * i, 200 + 2 * i)).save(place / f"{i}.png")
    (place / "broken.jpg").write_bytes(b"\xff\xd8\xff\xe0 no more")
    return tmp_path / "photos"


def test_int8_is_prepared_told_and_used(convnext: Run, folder: Path) -> None:
    refused = convnext("classify", "--dtype", "int8", SAMPLES[0])
    assert refused.status == 4
    assert "prepare" in refused.err
    done = convnext("prepare", "--dtype", "int8", "--calibrate", str(folder), "--json")
    assert done.status == 0, done.err
    told = json.loads(done.out)
    assert told["photos"] + 20 in (40, 41)
    assert told["float32_accuracy"] is not None
    assert "1 photo could not be read" in done.err
    assert ("warning: int8 does not pay" in done.err) != told["pays"]
    answer = convnext("classify", "--dtype", "int8", "-v", "--json", SAMPLES[1])
    assert "openvino on cpu in int8" in answer.err
    assert json.loads(answer.out)[0]["predictions"][0]["label"] == "espresso"


def test_without_classes_no_accuracy_is_told(convnext: Run, folder: Path) -> None:
    for place in list(folder.iterdir()):
        place.rename(folder / f"{place.name} and more")
    done = convnext("prepare", "--dtype", "int8", "--calibrate", str(folder))
    assert done.status == 0, done.err
    assert "same top-1, %" in done.out
    assert "\ntop-1" not in done.out


def test_too_few_photos(convnext: Run, tmp_path: Path) -> None:
    (tmp_path / "one.jpg").write_bytes(Path(SAMPLES[0]).read_bytes())
    done = convnext("prepare", "--dtype", "int8", "--calibrate", str(tmp_path))
    assert done.status == 2
    assert "at least 32" in done.err
    assert convnext("prepare", "--dtype", "int8", "--calibrate", str(tmp_path / "gone")).status == 2


def test_a_folder_is_no_class_when_two_classes_have_its_name() -> None:
    labels = LabelSet.from_names("birds", ["crane", "owl", "Crane", "newt"])
    assert calibration._classes(labels) == {"owl": 1, "newt": 3}
