"""What ``convnext label`` does with its rows, as its user sees it; the parts have tests of their own."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from convnext_cli.predict import preprocess
from tests.helpers.command import Run
from tests.helpers.paths import SAMPLES


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    folder = tmp_path / "photos"
    folder.mkdir()
    for sample in SAMPLES:
        shutil.copy(sample, folder)
    (folder / "empty.jpg").touch()
    return folder


def tree(folder: Path) -> dict[str, tuple[bytes, int]]:
    return {
        str(p.relative_to(folder)): (p.read_bytes(), p.stat().st_mtime_ns) for p in folder.rglob("*") if p.is_file()
    }


@pytest.mark.parametrize("mode", ["copy", "link", "hardlink", "move"])
def test_sort_and_undo_leave_the_tree_as_it_was(convnext: Run, photos: Path, tmp_path: Path, mode: str) -> None:
    before, target = tree(photos), tmp_path / "labels.jsonl"
    command = ("label", photos, "-o", target, "--sort-into", photos / "sorted", "--mode", mode)
    planned = convnext(*command, "--dry-run", "--min-score", "0.9")
    assert "cat/" not in planned.out  # it is not sure
    assert "sorted/espresso/coffee.jpg" in planned.out
    assert tree(photos) == before
    done = convnext(*command, "--min-score", "0.9", "--yes")
    assert done.status == 1  # of the empty photo
    sorted_ = {str(p.relative_to(photos / "sorted")) for p in (photos / "sorted").rglob("*.jpg")}
    assert sorted_ == {"espresso/coffee.jpg", "unknown/cat.jpg", "unknown/rocket.jpg"}
    if mode != "move":
        again = convnext(*command, "--min-score", "0.9", "--yes")  # what is sorted is no photo anew
        assert "nothing new among 4 photos" in again.err
        assert "already" in again.err
        assert "nothing new among 4 photos" in convnext("label", photos, "-o", target, "--min-score", "0.9").err
    assert convnext("label", "--undo", photos / "sorted.log").status == 0
    (photos / "sorted.log").unlink()
    assert tree(photos) == before


def test_a_log_that_was_taken_back_takes_nothing_else(convnext: Run, photos: Path, tmp_path: Path) -> None:
    command = ("label", photos, "-o", tmp_path / "labels.jsonl", "--sort-into", tmp_path / "sorted", "--yes")
    convnext(*command)
    convnext("label", "--undo", tmp_path / "sorted.log")
    convnext(*command)
    before = tree(tmp_path / "sorted")
    done = convnext("label", "--undo", tmp_path / "sorted.log")
    assert "undone before" in done.err
    assert tree(tmp_path / "sorted") == before
    again = convnext(*command, "--mode", "link")  # in another way, it is there all the same
    assert "3 already" in again.err
    assert tree(tmp_path / "sorted") == before


def test_a_photo_that_is_a_link_gets_no_keywords_inside(convnext: Run, photos: Path, tmp_path: Path) -> None:
    if shutil.which("exiftool") is None:
        pytest.skip("exiftool is not installed")
    shutil.move(photos / "cat.jpg", tmp_path / "cat.jpg")
    (photos / "cat.jpg").symlink_to(tmp_path / "cat.jpg")
    before = (tmp_path / "cat.jpg").read_bytes()
    done = convnext("label", photos, "-o", tmp_path / "labels.jsonl", "--xmp", "embed", "--yes")
    assert done.status == 1
    assert "it is a link" in done.err
    assert (tmp_path / "cat.jpg").read_bytes() == before


def test_ids_name_folders_too(convnext: Run, photos: Path, tmp_path: Path) -> None:
    convnext("label", photos, "-o", tmp_path / "l.csv", "--sort-into", tmp_path / "sorted", "--by", "id", "-y")
    assert (tmp_path / "sorted" / "n07920052" / "coffee.jpg").read_bytes() == (photos / "coffee.jpg").read_bytes()


def test_keywords_come_and_go(convnext: Run, photos: Path, tmp_path: Path) -> None:
    before, target = tree(photos), tmp_path / "labels.jsonl"
    command = ("label", photos, "-o", target, "--xmp", "sidecar", "--xmp-root", "Robots")
    convnext(*command, "--xmp-naming", "replace", "--yes")
    assert "Robots|food|drink|espresso" in (photos / "coffee.xmp").read_text()
    assert not (photos / "empty.xmp").exists()
    convnext(*command, "--xmp-remove")
    assert tree(photos) == before


@pytest.mark.skipif(shutil.which("exiftool") is None, reason="exiftool is not installed")
def test_a_photo_with_new_keywords_is_not_labelled_again(
    convnext: Run, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = tmp_path / "labels.jsonl"
    convnext("label", photos, "-o", target, "--xmp", "embed", "--yes")
    assert b"espresso" in (photos / "coffee.jpg").read_bytes()
    seen: list[str] = []
    real = preprocess.read_file
    monkeypatch.setattr(preprocess, "read_file", lambda path: seen.append(path) or real(path))
    convnext("label", photos, "-o", target)
    assert not seen
    convnext("label", photos, "-o", target, "--xmp", "embed", "--xmp-remove")
    assert {name: data for name, (data, _) in tree(photos).items()} == {
        Path(sample).name: Path(sample).read_bytes() for sample in SAMPLES
    } | {"empty.jpg": b""}


def test_the_report_is_written(convnext: Run, photos: Path, tmp_path: Path) -> None:
    page = tmp_path / "report.html"
    convnext("label", photos, "-o", tmp_path / "labels.jsonl", "--report", page)
    text = page.read_text()
    assert all(word in text for word in ("espresso", "coffee.jpg", "the file is empty"))
    assert json.loads((tmp_path / "labels.jsonl").read_text().splitlines()[0])


@pytest.mark.parametrize(
    ("arguments", "status", "said"),
    [
        (["--undo", "gone.log"], 2, "gone.log"),
        (["--undo", "photos/cat.jpg"], 2, "not the log"),
        (["photos", "-o", "l.csv", "--dry-run"], 2, "--dry-run is for --sort-into"),
        (["photos", "-o", "l.csv", "--mode", "link"], 2, "--mode is for --sort-into"),
        (["photos", "-o", "l.csv", "--by", "id"], 2, "--by is for --sort-into"),
        (["photos", "-o", "l.csv", "--xmp-remove"], 2, "--xmp"),
        (["photos", "-o", "l.csv", "--xmp", "sidecar", "--xmp-root", ""], 2, "root"),
        (["photos", "-o", "l.csv", "--report", "no/r.html"], 74, "mkdir"),
        (["photos", "-o", "l.csv", "--report", "photos"], 2, "report"),
        (["photos", "-o", "l.csv", "--report", "photos/cat.jpg"], 2, ".html"),
        (["photos", "-o", "l.csv", "--report", "mine.html"], 2, "not a report"),
        (["photos", "-o", "l.csv", "--undo", "gone.log"], 2, "--undo"),
        (["photos", "-o", "l.csv", "--sort-into", "photos/cat.jpg"], 2, "folder"),
    ],
)
def test_mistakes_are_told_before_anything_is_done(
    convnext: Run,
    photos: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    arguments: list,
    status: int,
    said: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.html").write_text("my own page")
    before = tree(tmp_path)
    done = convnext("label", *arguments)
    assert (done.status, said in done.err) == (status, True), done.err
    assert tree(tmp_path) == before


def test_embedding_without_exiftool_is_told(
    convnext: Run, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    done = convnext("label", photos, "-o", tmp_path / "l.csv", "--xmp", "embed", "--yes")
    assert done.status == 4
    assert "libimage-exiftool-perl" in done.err
