"""``label --overwrite`` and ``--rewrite``: an old result stays until the new one is complete."""

from __future__ import annotations

import os
import shutil
import signal
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from convnext_cli.jobs import job
from convnext_cli.jobs.output_pair import Pair
from convnext_cli.predict import preprocess
from tests.helpers.command import Run
from tests.helpers.photos import encoded, picture
from tests.helpers.tiers import slow_except
from tests.helpers.weights import write_model


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four photos, and two models."""
    made = tmp_path_factory.mktemp("place")
    (made / "photos").mkdir()
    for seed in range(4):
        (made / "photos" / f"{seed}.jpg").write_bytes(encoded(picture(70, 80, seed=seed), "JPEG"))
    write_model(made / "old.safetensors")
    write_model(made / "new.safetensors", seed=4)
    return made


def command(place: Path, target: Path, model: str, *options: object) -> list[object]:
    return ["label", place / "photos", "-o", target, "-m", place / f"{model}.safetensors", *options]


def content(target: Path) -> Any:
    if target.suffix != ".sqlite":
        return target.read_bytes()
    with closing(sqlite3.connect(target)) as db:
        return db.execute("SELECT * FROM results").fetchall()


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of photos that were read; at one that is listed in ``reads.stop`` comes Ctrl-C."""
    seen: list[str] = []
    real = preprocess.read_file

    def spy(path: str) -> bytes:
        seen.append(Path(path).name)
        return real(path)

    monkeypatch.setattr(preprocess, "read_file", spy)
    return seen


def stop_after(monkeypatch: pytest.MonkeyPatch, rows: int) -> None:
    """Ctrl-C after so many rows."""
    from convnext_cli.jobs.store import Store

    real, left = Store.put, [rows]

    def put(*arguments: Any) -> None:
        if not left[0]:
            left[0] = -1
            raise KeyboardInterrupt
        left[0] -= 1
        real(*arguments)

    monkeypatch.setattr(Store, "put", put)


REFUSED = [
    (("-m", "no_such_model"), 3),
    (("--labels", "no_such_labels.txt"), 3),
    (("--classes", "no_such_class"), 3),
    (("--size", "1"), 2),
    (("--floors", "no_such_floors"), 3),
    (("--softmax", "--logits"), 2),
    (("--mix",), 2),
]


@pytest.mark.parametrize("form", ["csv", "sqlite"])
def test_what_is_refused_is_refused_before_anything_is_touched(
    convnext: Run, place: Path, tmp_path: Path, form: str
) -> None:
    target = tmp_path / f"labels.{form}"
    convnext(*command(place, target, "old"))
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    for options, status in REFUSED:
        assert convnext(*command(place, target, "old", "--overwrite", *options)).status == status, options
        assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before, options
    assert convnext("label", tmp_path / "nowhere", "-o", target, "--overwrite").status == 2
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_a_first_run_that_is_refused_leaves_no_job(convnext: Run, place: Path, tmp_path: Path) -> None:
    assert convnext(*command(place, tmp_path / "labels.csv", "nowhere")).status == 3
    assert list(tmp_path.iterdir()) == []


def test_a_folder_without_photos_replaces_nothing(convnext: Run, place: Path, tmp_path: Path) -> None:
    """As a disk that is not mounted is."""
    target, model = tmp_path / "labels.csv", place / "old.safetensors"
    convnext(*command(place, target, "old"))
    before = target.read_bytes()
    (tmp_path / "empty").mkdir()
    done = convnext("label", tmp_path / "empty", "-o", target, "-m", model, "--overwrite")
    assert (done.status, target.read_bytes()) == (2, before)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["empty", "labels.csv", "labels.csv.job"]


@pytest.mark.parametrize("form", ["csv", "sqlite"])
def test_an_interrupted_overwrite_goes_on_and_keeps_the_old_pair(
    convnext: Run, place: Path, tmp_path: Path, form: str, reads: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    target, fresh = tmp_path / f"labels.{form}", tmp_path / f"fresh.{form}"
    convnext(*command(place, target, "old"))
    convnext(*command(place, fresh, "new"))
    before, wanted = content(target), content(fresh)
    with monkeypatch.context() as patched:
        stop_after(patched, 2)
        done = convnext(*command(place, target, "new", "--overwrite", "-b", 1, "-t", 1))
    assert done.status == 130
    assert "was not changed" in done.err
    assert content(target) == before
    # the old pair is usable meanwhile
    reads.clear()
    assert convnext(*command(place, target, "old")).status == 0
    assert (content(target), reads) == (before, [])
    assert convnext(*command(place, target, "new", "--overwrite")).status == 0
    assert (content(target), sorted(reads)) == (wanted, ["2.jpg", "3.jpg"])
    reads.clear()
    assert convnext(*command(place, target, "new")).status == 0
    assert (content(target), reads) == (wanted, [])
    assert not list(tmp_path.glob("*.new*"))


def test_an_interrupted_overwrite_of_nothing_goes_on(
    convnext: Run, place: Path, tmp_path: Path, reads: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    target = tmp_path / "labels.csv"
    with monkeypatch.context() as patched:
        stop_after(patched, 2)
        assert convnext(*command(place, target, "new", "--overwrite", "-b", 1, "-t", 1)).status == 130
    reads.clear()
    assert convnext(*command(place, target, "new", "--overwrite")).status == 0
    assert sorted(reads) == ["2.jpg", "3.jpg"]
    reads.clear()
    assert convnext(*command(place, target, "new", "--overwrite")).status == 0
    assert len(reads) == 4  # it was complete, so this is another


def test_what_the_new_job_did_not_see_is_not_in_its_output(
    convnext: Run, place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    photos, target = tmp_path / "photos", tmp_path / "labels.csv"
    shutil.copytree(place / "photos", photos)
    here = ["label", photos, "-o", target, "-m", place / "old.safetensors"]
    convnext(*here)
    with monkeypatch.context() as patched:
        stop_after(patched, 2)
        convnext(*here, "--overwrite", "-b", 1, "-t", 1)
    (photos / "0.jpg").unlink()
    assert convnext(*here, "--overwrite").status == 0
    assert target.read_text().count(".jpg") == 3
    assert "vanished" not in target.read_text()


CALLS = ("replace", "unlink", "rename")


@pytest.mark.parametrize("form", slow_except(["csv", "sqlite"], "csv"))
def test_a_kill_at_any_step_leaves_one_pair_or_the_other(
    convnext: Run, place: Path, tmp_path: Path, form: str, reads: list[str]
) -> None:
    target, fresh = tmp_path / f"labels.{form}", tmp_path / f"fresh.{form}"
    convnext(*command(place, target, "old"))
    convnext(*command(place, fresh, "new"))
    old, new = content(target), content(fresh)
    kept = tmp_path / "kept"
    kept.mkdir()
    for path in tmp_path.glob("labels.*"):
        shutil.copy2(path, kept)
    seen, step = [], 0
    while not seen or seen[-1] != "done":
        for path in [*tmp_path.glob("labels.*"), *tmp_path.glob(".convnext-*")]:
            path.unlink()
        for path in kept.iterdir():
            shutil.copy2(path, tmp_path)
        child = os.fork()
        if not child:
            kill_at(step)
            os._exit(convnext(*command(place, target, "new", "--overwrite", "-q")).status)
        _, code = os.waitpid(child, 0)
        seen.append("killed" if os.WIFSIGNALED(code) else "done")
        now = content(target)
        assert now in (old, new), step
        # whichever it is, its own command finds it complete
        model = "old" if now == old else "new"
        reads.clear()
        done = convnext(*command(place, target, model))
        if done.status == 2:  # it was complete, and the next run gave it its place
            model, done = "new", convnext(*command(place, target, "new"))
        assert (done.status, reads) == (0, []), (step, done.err)
        assert content(target) == (new if model == "new" else old), step
        assert convnext(*command(place, target, "new", "--overwrite")).status == 0
        assert content(target) == new
        left = sorted(path.name for path in tmp_path.iterdir())
        assert left == sorted({"fresh." + form, "kept", target.name, Pair(target, form).job.name, *fresh_job(form)})
        step += 1
    assert step > 3


def fresh_job(form: str) -> list[str]:
    return [] if form == "sqlite" else [f"fresh.{form}.job"]


def kill_at(step: int) -> None:
    """End this process without notice at its so manieth change of a name."""
    left = [step]

    def killing(real: Any) -> Any:
        def call(*arguments: Any, **options: Any) -> Any:
            if not left[0]:
                os.kill(os.getpid(), signal.SIGKILL)
            left[0] -= 1
            return real(*arguments, **options)

        return call

    for name in CALLS:
        setattr(Path, name, killing(getattr(Path, name)))
    job.COMMIT_SECONDS = 0.0


def test_an_edited_output_is_written_again_from_its_job(
    convnext: Run, place: Path, tmp_path: Path, reads: list[str]
) -> None:
    target = tmp_path / "my labels.csv"
    convnext(*command(place, target, "old"))
    before = target.read_bytes()
    target.write_text("edited")
    reads.clear()
    done = convnext(*command(place, target, "old"))
    assert (done.status, target.read_text()) == (2, "edited")
    assert f"convnext label -o '{target}' --rewrite" in done.err
    assert "--overwrite" not in done.err
    assert convnext("label", "-o", target, "--rewrite").status == 0
    assert (target.read_bytes(), reads) == (before, [])
    target.write_text("edited")
    assert convnext(*command(place, target, "old", "--rewrite")).status == 0
    assert (target.read_bytes(), reads) == (before, [])
    target.unlink()
    assert convnext("label", "-o", target, "--rewrite").status == 0
    assert (target.read_bytes(), reads) == (before, [])
    assert convnext(*command(place, target, "old")).status == 0
    assert reads == []


def test_rewrite_needs_a_job_and_takes_no_option_without_effect(convnext: Run, place: Path, tmp_path: Path) -> None:
    target = tmp_path / "labels.csv"
    assert convnext("label", "-o", target, "--rewrite").status == 2
    assert list(tmp_path.iterdir()) == []
    convnext(*command(place, target, "old"))
    for options in (["--min-score", "0.3"], ["-m", "default"], ["--watch"], ["--report", "x.html"], ["--overwrite"]):
        done = convnext("label", "-o", target, "--rewrite", *options)
        assert done.status == 2, options
