"""``convnext label --watch``: what arrives is labelled when it is complete; press Ctrl-C to stop."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from convnext_cli.jobs import session
from convnext_cli.jobs.watch import changes
from convnext_cli.photos.find import Finder
from tests.helpers.command import Run
from tests.helpers.containers import parquet_of, tar_of
from tests.helpers.photos import encoded, picture
from tests.helpers.weights import write_model

pytest.importorskip("watchfiles")
LIMIT = 60.0  # seconds until a test gives up


def rows(target: Path) -> list[dict[str, Any]]:
    from pyarrow import parquet

    return parquet.read_table(target).to_pylist()  # type: ignore[no-any-return]


class PreprocessingChanges:
    """The batches of changes of a folder, gathered by a thread."""

    def __init__(self, folder: Path) -> None:
        self._stop, self.news, self.paths = threading.Event(), threading.Condition(), list[str]()
        self._thread = threading.Thread(target=self._run, args=(str(folder),), daemon=True)
        self._thread.start()

    def _run(self, folder: str) -> None:
        for batch in changes([folder], self._stop):
            with self.news:
                self.paths += batch
                self.news.notify_all()

    def until(self, wanted: Callable[[list[str]], bool]) -> None:
        with self.news:
            assert self.news.wait_for(lambda: wanted(self.paths), LIMIT), self.paths

    def close(self) -> None:
        self._stop.set()
        self._thread.join()


@pytest.fixture
def watched(tmp_path: Path) -> Iterator[tuple[Path, PreprocessingChanges]]:
    made = PreprocessingChanges(tmp_path)
    ready = tmp_path / "ready"
    for _ in range(30):  # until the watcher is there; a file that is touched all the time never stands still
        ready.touch()
        with made.news:
            if made.news.wait_for(lambda: made.paths, 2.0):
                break
    assert made.paths
    made.paths.clear()
    yield tmp_path, made
    made.close()


def test_new_renamed_and_removed_files_come(watched: tuple[Path, PreprocessingChanges]) -> None:
    folder, found = watched
    (folder / "a.jpg").write_bytes(b"1")
    found.until(lambda paths: str(folder / "a.jpg") in paths)
    found.paths.clear()
    (folder / "a.jpg").rename(folder / "b.jpg")
    found.until(lambda paths: {str(folder / "a.jpg"), str(folder / "b.jpg")} <= set(paths))
    found.paths.clear()
    (folder / "b.jpg").unlink()
    found.until(lambda paths: str(folder / "b.jpg") in paths)


def test_a_file_that_grows_comes_when_it_has_stopped(watched: tuple[Path, PreprocessingChanges]) -> None:
    folder, found = watched
    sizes = []
    with (folder / "slow.jpg").open("wb") as file:
        for _ in range(8):
            file.write(b"x" * 1000)
            file.flush()
            threading.Event().wait(0.25)
            sizes.append(str(folder / "slow.jpg") in found.paths)
    found.until(lambda paths: str(folder / "slow.jpg") in paths)
    assert not any(sizes)


def test_what_a_walk_would_pass_does_not_arrive(tmp_path: Path) -> None:
    for name in ("a.jpg", ".b.jpg", "c.txt", "x/d.jpg", ".y/e.jpg", "old/f.jpg", "x/deep/g.jpg", "x/h.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True, parents=True)
        (tmp_path / name).write_bytes(b"x")
    (tmp_path / "sorted").mkdir()
    (tmp_path / "sorted" / "a.jpg").write_bytes(b"x")
    finder = Finder(recursive=True, exclude=("old", "*.png"), depth=2, skip=frozenset([str(tmp_path / "sorted")]))
    walked = {photo.path for photo in finder.named([str(tmp_path)])}
    arrived = {
        photo.path
        for path in tmp_path.rglob("*")
        if path.is_file()
        for photo in finder.arrived(str(path), str(tmp_path))
    }
    assert arrived == walked == {str(tmp_path / "a.jpg"), str(tmp_path / "x" / "d.jpg")}
    assert {photo.path for photo in finder.arrived(str(tmp_path / "x"), str(tmp_path))} == {str(tmp_path / "x/d.jpg")}
    assert not list(finder.arrived(str(tmp_path / "gone.jpg"), str(tmp_path)))


def test_all_that_arrives_before_it_watches_is_labelled(
    convnext: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Photos, shards and changes that come after the first round has walked the folder."""
    pytest.importorskip("pyarrow")
    folder, target = tmp_path / "photos", tmp_path / "photos" / "labels.parquet"
    folder.mkdir()
    photos = {f"{number}.jpg": encoded(picture(50, 50, seed=number), "JPEG") for number in range(3)}
    (folder / "same.jpg").write_bytes(photos["0.jpg"])
    (folder / "changed.jpg").write_bytes(b"not yet a photo")
    (folder / "same.tar").write_bytes(tar_of({"old.jpg": photos["0.jpg"]}))
    (folder / "longer.tar").write_bytes(tar_of({"first.jpg": photos["0.jpg"]}))
    (folder / "notes.txt").write_text("no photo")
    batches = []

    def arrivals(folders: list[str], stop: threading.Event) -> Iterator[list[str]]:
        assert [row["path"].rpartition("/")[2] for row in rows(target)] == [
            "changed.jpg",
            "first.jpg",
            "same.jpg",
            "old.jpg",
        ]
        (folder / "new.jpg").write_bytes(photos["1.jpg"])
        (folder / "changed.jpg").write_bytes(photos["1.jpg"])
        (folder / "new.tar").write_bytes(tar_of(photos))
        (folder / "new.parquet").write_bytes(parquet_of(photos))
        (folder / "longer.tar").write_bytes(tar_of({"first.jpg": photos["0.jpg"], "second.jpg": photos["1.jpg"]}))
        yield []
        batches.append(len(rows(target)))
        yield []  # nothing has arrived since
        raise KeyboardInterrupt

    monkeypatch.setattr(session, "changes", arrivals)
    done = convnext("label", folder, "-o", target, "-m", write_model(tmp_path / "small.safetensors"), "--watch")
    assert done.status == 0, done.err
    labelled = {row["path"].removeprefix(f"{folder}/"): row["status"] for row in rows(target)}
    inside = [f"new.tar/{name}" for name in photos] + [f"new.parquet/{row}/{row}.jpg" for row in range(3)]
    names = ["same.jpg", "changed.jpg", "new.jpg", "same.tar/old.jpg", "longer.tar/first.jpg", "longer.tar/second.jpg"]
    assert labelled == dict.fromkeys([*names, *inside], "ok")
    assert batches == [len(labelled)]
    assert done.err.count("processed") == 2, done.err  # the first round, and that of the arrivals


def test_the_command_follows_a_folder_and_stops_cleanly(tmp_path: Path, home: Path) -> None:
    folder, target = tmp_path / "photos", tmp_path / "labels.jsonl"
    folder.mkdir()
    (folder / "a.jpg").write_bytes(encoded(picture(50, 50, seed=1), "JPEG"))
    model = write_model(tmp_path / "small.safetensors")
    process = subprocess.Popen(
        [sys.executable, "-m", "convnext_cli", "label", folder, "-o", target, "-m", model, "--watch"],
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONUNBUFFERED": "1"},
    )
    assert process.stderr

    def until(said: str) -> None:
        assert process.stderr
        for line in process.stderr:
            if said in line:
                return
        raise AssertionError(f"it ended without saying {said!r}")

    killer = threading.Timer(2 * LIMIT, process.kill)
    killer.start()
    until("watching")
    # the watcher begins a moment later: what comes until then is not missed
    (folder / "b.jpg").write_bytes(encoded(picture(60, 50, seed=2), "JPEG"))
    until("1 photo processed")
    process.send_signal(signal.SIGINT)
    _, rest = process.communicate(timeout=LIMIT)
    killer.cancel()
    assert process.returncode == 0
    assert "Traceback" not in rest
    names = [Path(json.loads(line)["path"]).name for line in target.read_text().splitlines()]
    assert names == ["a.jpg", "b.jpg"]
