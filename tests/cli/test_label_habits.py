"""Habits from other programs: an output without a name, zips, lines in a log, failures by name."""

from __future__ import annotations

import csv
import threading
import zipfile
from pathlib import Path

import pytest

from convnext_cli.cli import label_view, render
from convnext_cli.predict import preprocess
from tests.helpers.command import Run
from tests.helpers.photos import encoded, picture
from tests.helpers.weights import write_model


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A current folder with photos in a folder, and a model."""
    (tmp_path / "holiday" / "b").mkdir(parents=True)
    for number, name in enumerate(("a.jpg", "b/c.jpg", "b/d.JPG")):
        (tmp_path / "holiday" / name).write_bytes(encoded(picture(50, 60, seed=number), "JPEG"))
    write_model(tmp_path / "small.safetensors")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def rows(target: Path) -> dict[str, dict[str, str]]:
    with target.open(newline="") as file:
        return {row["path"]: row for row in csv.DictReader(file)}


@pytest.mark.parametrize(
    ("named", "output"),
    [
        ("holiday", "holiday-labels.csv"),
        ("holiday/", "holiday-labels.csv"),
        ("./holiday/b/", "b-labels.csv"),
        ("holiday/a.jpg", "a-labels.csv"),
    ],
)
def test_an_output_without_a_name_is_called_after_the_folder(
    convnext: Run, place: Path, named: str, output: str
) -> None:
    done = convnext("label", named, "-m", "small.safetensors")
    assert done.status == 0
    assert done.err.splitlines()[0] == f"writing labels to {output} (-o FILE names another file)"
    assert (place / output).exists()
    again = convnext("label", named, "-m", "small.safetensors")
    assert "nothing new" in again.err


def test_the_format_names_it_too(convnext: Run, place: Path) -> None:
    assert convnext("label", "holiday", "-m", "small.safetensors", "-f", "jsonl").status == 0
    assert (place / "holiday-labels.jsonl").exists()


def test_nothing_is_written_among_photos_without_being_asked(
    convnext: Run, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for here, named in (("holiday", "."), ("holiday/b", ".."), (".", str(place)), (".", "holiday/*.jpg holiday/b")):
        monkeypatch.chdir(place / here)
        before = sorted(place.rglob("*"))
        done = convnext("label", *named.split(), "-m", place / "small.safetensors")
        assert (done.status, sorted(place.rglob("*"))) == (2, before), named
        assert "-o" in done.err


def test_another_folder_of_the_same_name_is_refused(convnext: Run, place: Path) -> None:
    convnext("label", "holiday", "-m", "small.safetensors")
    before = (place / "holiday-labels.csv").read_bytes()
    (place / "other").mkdir()
    (place / "holiday" / "b").rename(place / "other" / "holiday")
    done = convnext("label", "other/holiday", "-m", "small.safetensors")
    assert done.status == 2
    assert str(place / "holiday") in done.err
    assert (place / "holiday-labels.csv").read_bytes() == before


def test_a_zip_is_a_folder(convnext: Run, place: Path) -> None:
    with zipfile.ZipFile(place / "data.zip", "w", zipfile.ZIP_DEFLATED) as file:
        for path in sorted((place / "holiday").rglob("*")):
            file.write(path, path.relative_to(place / "holiday"))
        file.writestr("readme.txt", "no photo")
        file.writestr("__MACOSX/._a.jpg", "of the system")
        file.writestr("empty.jpg", "")
        file.writestr("../../up.jpg", (place / "holiday" / "a.jpg").read_bytes())
    assert convnext("label", "holiday", "-m", "small.safetensors").status == 0
    done = convnext("label", "data.zip", "-m", "small.safetensors")
    assert done.status == 1
    assert "skipped 1 file (1 .txt)" in done.err
    folder, found = rows(place / "holiday-labels.csv"), rows(place / "data-labels.csv")
    assert set(found) == {
        "data.zip/a.jpg",
        "data.zip/b/c.jpg",
        "data.zip/b/d.JPG",
        "data.zip/empty.jpg",
        "data.zip/up.jpg",
    }
    assert found["data.zip/empty.jpg"]["error_kind"] == "empty"
    for path, row in folder.items():
        other = found[path.replace("holiday/", "data.zip/")]
        assert other == row | {"path": other["path"]}
    again = convnext("label", "data.zip", "-m", "small.safetensors")
    assert "nothing new among 5 photos" in again.err


def test_a_zip_in_a_folder_is_a_file_among_others(convnext: Run, place: Path) -> None:
    with zipfile.ZipFile(place / "holiday" / "backup.zip", "w") as file:
        file.write(place / "holiday" / "a.jpg", "a.jpg")
    done = convnext("label", "holiday", "-m", "small.safetensors")
    assert done.status == 0
    assert len(rows(place / "holiday-labels.csv")) == 3
    assert "1 .zip" in done.err


def test_zips_that_are_damaged_or_hostile_are_rows(convnext: Run, place: Path) -> None:
    photo = (place / "holiday" / "a.jpg").read_bytes()
    with zipfile.ZipFile(place / "data.zip", "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("a.jpg", photo)
        file.writestr("b.jpg", photo[::-1])
        file.writestr("c.jpg", photo)
    data = bytearray((place / "data.zip").read_bytes())
    start = data.index(b"b.jpg") + 40
    data[start : start + 40] = bytes(40)
    (place / "data.zip").write_bytes(data)
    (place / "cut.zip").write_bytes(data[: len(data) // 2])
    (place / "empty.zip").touch()
    done = convnext("label", "data.zip", "cut.zip", "empty.zip", "-m", "small.safetensors", "-o", "labels.csv")
    assert done.status == 1
    kinds = {path: row["error_kind"] for path, row in rows(place / "labels.csv").items()}
    assert kinds == {
        "data.zip/a.jpg": "",
        "data.zip/b.jpg": "corrupt",
        "data.zip/c.jpg": "",
        "cut.zip": "corrupt",
        "empty.zip": "empty",
    }


def test_failures_are_named_the_first_ten(convnext: Run, place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(12):
        (place / "holiday" / f"x{number:02}.jpg").touch()
    done = convnext("label", "holiday", "-m", "small.safetensors")
    assert done.status == 1
    assert "failed: 12 empty" in done.err
    named = [line for line in done.err.splitlines() if line.startswith("  holiday/x")]
    assert named == [f"  holiday/x{number:02}.jpg: empty: the file is empty" for number in range(10)]
    assert "and 2 more: see the rows of holiday-labels.csv with status failed" in done.err
    quiet = convnext("label", "holiday", "-m", "small.safetensors", "-q")
    assert quiet.status == 1
    assert quiet.err == "12 of 15 photos failed; holiday-labels.csv says which and why\n"
    monkeypatch.setenv("FORCE_COLOR", "1")  # as on a terminal
    assert "12 of 15 photos failed" in convnext("label", "holiday", "-m", "small.safetensors", "-q").err


def test_a_log_has_lines_while_one_photo_takes_long(
    convnext: Run, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    written, real_note, real_read = threading.Event(), render.note, preprocess.read_file

    def note(text: str) -> None:
        real_note(text)
        if "of 3 photos" in text:
            written.set()

    def read(path: str) -> bytes:
        assert not path.endswith("d.JPG") or written.wait(60)  # it takes as long as there is no line
        return real_read(path)

    monkeypatch.setattr(label_view, "EVERY", 0.001)
    monkeypatch.setattr(render, "note", note)
    monkeypatch.setattr(preprocess, "read_file", read)
    done = convnext("label", "holiday", "-m", "small.safetensors")
    assert done.status == 0
    lines = [line for line in done.err.splitlines() if " of 3 photos, " in line]
    assert lines
    assert all(line.endswith(" 0 failed") and "/s" in line for line in lines)
    assert convnext("label", "holiday", "-m", "small.safetensors", "-q").err == ""
