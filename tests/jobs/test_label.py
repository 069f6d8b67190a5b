"""``convnext label`` as its user sees it: nothing is lost, nothing twice, nothing under another photo's name."""

from __future__ import annotations

import csv
import json
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Callable
from contextlib import closing
from itertools import pairwise
from pathlib import Path

import pytest
from filelock import FileLock

from convnext_cli.predict import preprocess
from convnext_cli.predict.classify import classify
from tests.helpers.command import Run
from tests.helpers.paths import SAMPLES
from tests.helpers.photos import encoded, picture
from tests.helpers.tiers import slow_except
from tests.helpers.weights import write_model

FORMATS = ["jsonl", "json", "csv", "tsv", "parquet", "sqlite"]


@pytest.fixture
def model(tmp_path: Path) -> str:
    return str(write_model(tmp_path / "small.safetensors"))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Good photos, one of them in a folder below, and bad ones."""
    made = tmp_path / "photos"
    (made / "b").mkdir(parents=True)
    for name, seed in (("a.jpg", 1), ("b/c.png", 2), ("d.jpg", 3)):
        (made / name).write_bytes(encoded(picture(80, 70, seed=seed), "PNG" if name.endswith("png") else "JPEG"))
    (made / "empty.jpg").touch()
    (made / "text.txt").write_text("no photo")
    (made / ".hidden.jpg").write_bytes((made / "a.jpg").read_bytes())
    return made


def rows(target: Path) -> list[dict]:
    """What an output holds, whatever its format: path, status, label, error kind."""
    form = target.suffix[1:]
    if form in ("csv", "tsv"):
        with target.open(newline="") as file:
            found = list(csv.DictReader(file, delimiter="," if form == "csv" else "\t"))
        return [{k: row[k] or None for k in ("path", "status", "label", "score", "error_kind")} for row in found]
    if form == "sqlite":
        with sqlite3.connect(target) as db:
            found = db.execute("SELECT path, status, label, score, error_kind FROM results").fetchall()
        return [dict(zip(("path", "status", "label", "score", "error_kind"), row, strict=True)) for row in found]
    if form == "parquet":
        from pyarrow import parquet

        found = parquet.read_table(target).to_pylist()
    elif form == "json":
        found = json.loads(target.read_text())
    else:
        found = [json.loads(line) for line in target.read_text().splitlines()]
    return [
        {
            "path": row["path"],
            "status": row["status"],
            "label": row["predictions"][0]["label"] if row["predictions"] else None,
            "score": row["predictions"][0]["score"] if row["predictions"] else None,
            "error_kind": row["error"] and row["error"]["kind"],
        }
        for row in found
    ]


@pytest.fixture
def read(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The photos that were read, as they are."""
    seen: list[str] = []
    real = preprocess.read_file

    def spy(path: str) -> bytes:
        seen.append(path)
        return real(path)

    monkeypatch.setattr(preprocess, "read_file", spy)
    return seen


@pytest.mark.parametrize("form", FORMATS)
def test_every_photo_has_one_row_in_every_format(
    convnext: Run, folder: Path, model: str, tmp_path: Path, form: str
) -> None:
    target = tmp_path / f"labels.{form}"
    done = convnext("label", folder, "-o", target, "-m", model)
    assert done.status == 1  # one photo is empty
    assert done.out == ""
    found = rows(target)
    assert [(Path(row["path"]).name, row["status"]) for row in found] == [
        *(("a.jpg", "ok"), ("c.png", "ok"), ("d.jpg", "ok"), ("empty.jpg", "failed"))
    ]
    plain = convnext("classify", "-r", folder, "-m", model, "-f", "jsonl", "-k", 1)
    wanted = [json.loads(line) for line in plain.out.splitlines()]
    for row, other in zip(found, wanted, strict=True):
        assert row["path"] == other["path"]
        assert row["label"] == (other["predictions"][0]["label"] if other["predictions"] else None)
    assert "failed: 1 empty" in done.err
    assert "skipped 2 files (1 .txt, 1 hidden)" in done.err or "1 hidden, 1 .txt" in done.err
    assert str(target) in done.err


def test_a_second_run_reads_nothing_and_changes_nothing(
    convnext: Run, folder: Path, model: str, tmp_path: Path, read: list[str]
) -> None:
    target = tmp_path / "labels.jsonl"
    convnext("label", folder, "-o", target, "-m", model)
    assert len(read) == 4
    before, time = target.read_bytes(), target.stat().st_mtime_ns
    done = convnext("label", folder, "-o", target, "-m", model)
    assert len(read) == 4
    assert (target.read_bytes(), target.stat().st_mtime_ns) == (before, time)
    assert done.status == 1
    assert "nothing new among 4 photos" in done.err


def test_what_changed_is_labelled_again_and_what_is_gone_is_marked(
    convnext: Run, folder: Path, model: str, tmp_path: Path, read: list[str]
) -> None:
    target = tmp_path / "labels.jsonl"
    convnext("label", folder, "-o", target, "-m", model)
    before = rows(target)
    read.clear()
    (folder / "a.jpg").write_bytes(encoded(picture(90, 90, seed=9), "JPEG"))
    shutil.move(folder / "d.jpg", tmp_path / "d.jpg")
    (folder / "new.jpg").write_bytes(encoded(picture(50, 50, seed=8), "JPEG"))
    convnext("label", folder, "-o", target, "-m", model)
    assert sorted(Path(path).name for path in read) == ["a.jpg", "new.jpg"]
    after = {Path(row["path"]).name: row for row in rows(target)}
    assert after["d.jpg"] == before[2] | {"status": "vanished"}
    assert after["a.jpg"]["score"] != before[0]["score"]
    assert len(after) == 5
    shutil.move(tmp_path / "d.jpg", folder / "d.jpg")
    read.clear()
    convnext("label", folder, "-o", target, "-m", model)
    assert not read
    assert [row["status"] for row in rows(target)] == ["ok", "ok", "ok", "failed", "ok"]


def test_what_is_outside_of_a_later_run_does_not_vanish(
    convnext: Run, folder: Path, model: str, tmp_path: Path
) -> None:
    target = tmp_path / "labels.csv"
    convnext("label", folder, "-o", target, "-m", model)
    before = target.read_bytes()
    convnext("label", folder / "b", "-o", target, "-m", model)
    convnext("label", folder, "-o", target, "-m", model, "--exclude", "*.jpg")
    assert target.read_bytes() == before


def test_another_model_or_recipe_asks_before_it_mixes(
    convnext: Run, folder: Path, model: str, tmp_path: Path, read: list[str]
) -> None:
    target, other = tmp_path / "labels.jsonl", write_model(tmp_path / "other.safetensors", seed=4)
    convnext("label", folder, "-o", target, "-m", model)
    before = target.read_bytes()
    for more, said in ((["-m", other], "weights"), (["-m", model, "--crop-pct", "0.5"], "recipe")):
        done = convnext("label", folder, "-o", target, *more)
        assert done.status == 2
        assert said in done.err
        assert "--relabel" in done.err
        assert target.read_bytes() == before
    read.clear()
    assert convnext("label", folder, "-o", target, "-m", other, "--mix").status == 1
    assert not read
    assert target.read_bytes() == before
    (folder / "new.jpg").write_bytes(encoded(picture(50, 50, seed=8), "JPEG"))
    convnext("label", folder, "-o", target, "-m", other)  # was said before
    assert [Path(path).name for path in read] == ["new.jpg"]
    models = [json.loads(line)["model"] for line in target.read_text().splitlines()]
    assert models == ["small"] * 4 + ["other"]
    convnext("label", folder, "-o", target, "-m", other, "--relabel")
    assert {json.loads(line)["model"] for line in target.read_text().splitlines()} == {"other"}
    assert len(rows(target)) == 5


def test_an_output_that_was_lost_is_written_again(convnext: Run, folder: Path, model: str, tmp_path: Path) -> None:
    target = tmp_path / "labels.csv"
    convnext("label", folder, "-o", target, "-m", model)
    before = target.read_bytes()
    target.unlink()
    convnext("label", folder, "-o", target, "-m", model)
    assert target.read_bytes() == before


def test_a_link_that_leads_nowhere_is_a_row_and_tried_once(
    convnext: Run, folder: Path, model: str, tmp_path: Path, read: list[str]
) -> None:
    (folder / "lost.jpg").symlink_to(tmp_path / "nowhere")
    target = tmp_path / "labels.csv"
    convnext("label", folder, "-o", target, "-m", model)
    assert ("lost.jpg", "missing") in [(Path(row["path"]).name, row["error_kind"]) for row in rows(target)]
    read.clear()
    convnext("label", folder, "-o", target, "-m", model)
    assert not read


def test_an_output_keeps_its_format_and_is_never_a_photo(
    convnext: Run, folder: Path, model: str, tmp_path: Path
) -> None:
    target = tmp_path / "labels.jsonl"
    convnext("label", folder, "-o", target, "-m", model)
    before = target.read_bytes()
    done = convnext("label", folder, "-o", target, "-m", model, "-f", "csv")
    assert (done.status, target.read_bytes()) == (2, before)
    photo = (folder / "a.jpg").read_bytes()
    done = convnext("label", folder, "-o", folder / "a.jpg", "-f", "csv", "--overwrite", "-m", model)
    assert (done.status, (folder / "a.jpg").read_bytes()) == (2, photo)


def test_one_run_at_a_time(convnext: Run, folder: Path, model: str, tmp_path: Path) -> None:
    with FileLock(tmp_path / ".labels.csv.job.lock"):
        done = convnext("label", folder, "-o", tmp_path / "labels.csv", "-m", model)
    assert done.status == 2
    assert "another run is writing" in done.err
    assert not (tmp_path / "labels.csv").exists()


def test_a_file_that_the_job_did_not_write_stays(convnext: Run, folder: Path, model: str, tmp_path: Path) -> None:
    target = tmp_path / "labels.csv"
    target.write_text("mine")
    assert convnext("label", folder, "-o", target, "-m", model).status == 2
    assert target.read_text() == "mine"
    assert convnext("label", folder, "-o", target, "-m", model, "--overwrite").status == 1
    target.write_text(target.read_text() + "a remark")
    done = convnext("label", folder, "-o", target, "-m", model)
    assert done.status == 2
    assert "has changed" in done.err
    assert target.read_text().endswith("a remark")
    foreign = tmp_path / "other.sqlite"
    with sqlite3.connect(foreign) as db:
        db.execute("CREATE TABLE mine (x)")
    assert convnext("label", folder, "-o", foreign, "-m", model).status == 2


def test_failures_are_taken_up_again_when_asked(
    convnext: Run, folder: Path, model: str, tmp_path: Path, read: list[str]
) -> None:
    target = tmp_path / "labels.jsonl"
    convnext("label", folder, "-o", target, "-m", model)
    read.clear()
    convnext("label", folder, "-o", target, "-m", model, "--retry-failed")
    assert [Path(path).name for path in read] == ["empty.jpg"]
    (folder / "empty.jpg").write_bytes((folder / "a.jpg").read_bytes())
    assert convnext("label", folder, "-o", target, "-m", model).status == 0


def test_strict_stops_at_the_first_failure_and_keeps_what_was_done(
    convnext: Run, folder: Path, model: str, tmp_path: Path
) -> None:
    target = tmp_path / "labels.jsonl"
    done = convnext("label", folder, "-o", target, "-m", model, "--strict", "-b", 1)
    assert done.status == 1
    assert "stopped at" in done.err
    assert [row["status"] for row in rows(target)] == ["ok", "ok", "ok", "failed"]


def test_a_photo_that_hangs_stops_nobody(
    convnext: Run, folder: Path, model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    never, real = threading.Event(), preprocess.read_file
    monkeypatch.setattr(preprocess, "read_file", lambda path: never.wait() if path.endswith("a.jpg") else real(path))
    target = tmp_path / "labels.jsonl"
    done = convnext("label", folder, "-o", target, "-m", model, "--timeout", 0.3)
    never.set()
    assert done.status == 1
    assert [(row["status"], row["error_kind"]) for row in rows(target)] == [
        *(("failed", "timeout"), ("ok", None), ("ok", None), ("failed", "empty"))
    ]


def test_a_decoder_that_hangs_holds_no_thread(
    convnext: Run, folder: Path, model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    never, real = threading.Event(), preprocess.decode
    hanging = (folder / "d.jpg").read_bytes()

    def decode(data: bytes, **options: object) -> object:
        return never.wait() if data == hanging else real(data, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(preprocess, "decode", decode)
    target = tmp_path / "labels.jsonl"
    convnext("label", folder, "-o", target, "-m", model, "--timeout", 0.3, "-t", 1, "-b", 2)
    never.set()
    assert [row["error_kind"] for row in rows(target)] == [None, None, "timeout", "empty"]


def test_originals_are_as_they_were_and_need_not_be_writable(
    convnext: Run, folder: Path, model: str, tmp_path: Path
) -> None:
    def state() -> dict[str, tuple[bytes, int]]:
        return {str(p): (p.read_bytes(), p.stat().st_mtime_ns) for p in folder.rglob("*") if p.is_file()}

    before = state()
    folder.chmod(0o555)
    try:
        convnext("label", folder, "-o", tmp_path / "labels.csv", "-m", model)
    finally:
        folder.chmod(0o755)
    assert state() == before
    assert sorted(p.name for p in folder.iterdir()) == [".hidden.jpg", "a.jpg", "b", "d.jpg", "empty.jpg", "text.txt"]
    assert not list(tmp_path.glob(".*"))  # no lock, no half file


def test_names_that_are_not_utf8_survive(convnext: Run, folder: Path, model: str, tmp_path: Path) -> None:
    name = os.fsencode(folder) + b"/f\xfcr\n,\"'.jpg"
    with open(name, "wb") as file:  # noqa: PTH123 - bytes
        file.write((folder / "a.jpg").read_bytes())
    for form in FORMATS:
        target = tmp_path / f"labels.{form}"
        convnext("label", folder, "-o", target, "-m", model)
        assert convnext("label", folder, "-o", target, "-m", model).status == 1
        assert (
            sum("\\udcfc" in row["path"] or "\udcfc" in row["path"] or "\\xfc" in row["path"] for row in rows(target))
            == 1
        )
    (row,) = (r for r in map(json.loads, (tmp_path / "labels.jsonl").read_text().splitlines()) if "path_bytes" in r)
    assert os.fsencode(row["path"]) == name


def test_folders_that_cannot_be_listed_are_rows_until_they_can(
    convnext: Run, folder: Path, model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, closed = os.scandir, [True]

    def scandir(path: str) -> object:
        if closed[0] and str(path).endswith("b"):
            raise PermissionError(13, "Permission denied")
        return real(path)

    monkeypatch.setattr(os, "scandir", scandir)
    target = tmp_path / "labels.jsonl"
    convnext("label", folder, "-o", target, "-m", model)
    assert [(Path(row["path"]).name, row["error_kind"]) for row in rows(target)][1] == ("b", "permission")
    closed[0] = False
    convnext("label", folder, "-o", target, "-m", model)
    assert [Path(row["path"]).name for row in rows(target)] == ["a.jpg", "c.png", "d.jpg", "empty.jpg"]


def test_lists_of_paths_and_a_photo_named_twice(convnext: Run, folder: Path, model: str, tmp_path: Path) -> None:
    listing = tmp_path / "list.txt"
    listing.write_text(f"{folder}/a.jpg\n{folder}/gone.jpg\n{folder}/./a.jpg\n")
    target = tmp_path / "labels.jsonl"
    assert convnext("label", folder / "a.jpg", "--files-from", listing, "-o", target, "-m", model).status == 1
    assert [(Path(r["path"]).name, r["error_kind"]) for r in rows(target)] == [("a.jpg", None), ("gone.jpg", "missing")]


@pytest.mark.parametrize(
    ("arguments", "status", "said"),
    [
        (["."], 2, "-o"),
        (["photos", "-o", "labels.what"], 2, "format"),
        (["gone", "-o", "labels.csv"], 2, "does not exist"),
        (["photos", "-o", "no/labels.csv"], 74, "mkdir"),
        (["photos", "-o", "-"], 2, "file"),
        (["-o", "labels.csv"], 2, "folder"),
        (["photos", "-o", "photos"], 2, "not a file"),
        (["photos", "-o", "labels.csv", "--mix", "--relabel"], 2, "exclude"),
        (["photos", "-o", "labels.csv", "-m", "no_such_model"], 3, "no_such_model"),
        (["photos", "-o", "labels.csv", "--classes", "no such thing"], 3, "no such thing"),
    ],
)
def test_mistakes_are_told(
    convnext: Run,
    folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    arguments: list,
    status: int,
    said: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    before = sorted(tmp_path.rglob("*"))
    done = convnext("label", *arguments)
    assert done.status == status
    assert said in done.err
    assert "Traceback" not in done.err
    left = set(tmp_path.rglob("*")) - set(before)
    assert {path.name for path in left} <= {"labels.csv.job"}


def test_classes_and_floors(convnext: Run, tmp_path: Path) -> None:
    floors = tmp_path / "floors.csv"
    floors.write_text("label,score\nn00021265,1\n")
    target = tmp_path / "labels.jsonl"
    convnext("label", *SAMPLES, "-o", target, "--classes", "cat,n00021265", "--floors", floors, "--min-score", 0)
    found = [json.loads(line) for line in target.read_text().splitlines()]
    assert {p["label"] for row in found for p in row["predictions"]} == {"cat", "food"}
    for row in found:
        best = row["predictions"][0]
        assert row["status"] == ("unknown" if best["id"] == "n00021265" else "ok")
    assert "unknown" in {row["status"] for row in found}


# what a kill, a full disk, an interruption leave


ZYGOTE = """
import os, resource, sys
import numpy, PIL.Image
import convnext_cli.cli.label, convnext_cli.predict.predictor, convnext_cli.jobs.output, pyarrow.parquet
from convnext_cli.cli import run
from convnext_cli.runtimes.openvino import engine
from convnext_cli.jobs import job
job.COMMIT_SECONDS = 0.01
for line in sys.stdin:
    limit, *arguments = line.rstrip("\\n").split("\\t")
    pid = os.fork()
    if not pid:
        if limit != "-":
            resource.setrlimit(resource.RLIMIT_FSIZE, (int(limit), int(limit)))
        status = run(arguments)
        os._exit(status)
    print(pid, flush=True)
    _, code = os.waitpid(pid, 0)
    print(os.waitstatus_to_exitcode(code), flush=True)
"""


class Runs:
    """Runs of the command in processes of their own, which begin at once: all is imported already."""

    def __init__(self, home: Path) -> None:
        environment = os.environ | {"CONVNEXT_HOME": str(home), "OPENBLAS_NUM_THREADS": "1"}
        self._zygote = subprocess.Popen(
            [sys.executable, "-c", ZYGOTE],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=environment,
        )

    def start(self, *arguments: object, limit: object = "-") -> int:
        """The process of a new run."""
        assert self._zygote.stdin
        assert self._zygote.stdout
        self._zygote.stdin.write("\t".join(map(str, (limit, *arguments))) + "\n")
        self._zygote.stdin.flush()
        return int(self._zygote.stdout.readline())

    def end(self) -> int:
        """Wait for it: its exit status, or the signal, negative."""
        assert self._zygote.stdout
        return int(self._zygote.stdout.readline())

    def close(self) -> None:
        self._zygote.kill()
        self._zygote.wait()


@pytest.fixture
def runs(home: Path):  # type: ignore[no-untyped-def]
    made = Runs(home)
    yield made
    made.close()


PHOTOS = 500
BAD = range(7, PHOTOS, 50)


@pytest.fixture(scope="module")
def many(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str, dict[str, tuple[str, float] | None]]:
    """500 photos, ten of them broken, a model, and the answer of each photo by itself."""
    place = tmp_path_factory.mktemp("many")
    model = str(write_model(place / "small.safetensors"))
    (place / "photos").mkdir()
    for i in range(PHOTOS):
        photo = encoded(picture(48, 40 + i % 7, seed=i), "JPEG")
        path = place / "photos" / f"{i % 10}" / f"{i:03}.jpg"
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(photo[: len(photo) // 2] if i in BAD else photo)
    answers: dict[str, tuple[str, float] | None] = {}
    found = classify(sorted(map(str, (place / "photos").rglob("*.jpg"))), model=model, engine="torch")
    for row in found:
        answers[row.path] = (row.predictions[0].label, row.predictions[0].score) if row.predictions else None
    scores = sorted(answer[1] for answer in answers.values() if answer)
    assert len(scores) == PHOTOS - len(BAD)
    assert sum(b - a > 2e-6 for a, b in pairwise(scores)) > 400  # an answer tells its photo
    return place / "photos", model, answers


def assert_each_has_its_own(target: Path, answers: dict[str, tuple[str, float] | None]) -> None:
    found = rows(target)
    assert [row["path"] for row in found] == sorted(answers, key=lambda path: path.split("/"))
    for row in found:
        answer = answers[row["path"]]
        if answer is None:
            assert (row["status"], row["error_kind"]) == ("failed", "truncated")
        else:
            assert (row["status"], row["label"]) == ("ok", answer[0])
            assert float(row["score"]) == pytest.approx(answer[1], abs=2e-6)


def done_photos(store: Path) -> int:
    with closing(sqlite3.connect(store)) as db:
        if not db.execute("SELECT count(*) FROM sqlite_master WHERE name = 'photos'").fetchone()[0]:
            return 0
        return int(db.execute("SELECT count(*) FROM photos").fetchone()[0])


@pytest.mark.parametrize(
    ("form", "kills"),
    slow_except([("jsonl", 8), *((form, 30) for form in ("jsonl", "csv", "parquet", "sqlite"))], ("jsonl", 8)),
)
def test_kills_lose_nothing(
    runs: Runs,
    many: tuple[Path, str, dict],
    tmp_path: Path,
    form: str,
    kills: int,
    random_moment: Callable[[float], float],
) -> None:
    photos, model, answers = many
    target = tmp_path / f"labels.{form}"
    command = ("label", photos, "-o", target, "-m", model, "-q", "-t", 1)
    store = target if form == "sqlite" else tmp_path / f"labels.{form}.job"
    killed, progress = 0, []
    for _ in range(kills):
        process = runs.start(*command)
        timer = threading.Timer(random_moment(0.6), os.kill, (process, signal.SIGKILL))
        timer.start()
        killed += runs.end() == -signal.SIGKILL
        timer.cancel()
        if store.exists():
            progress.append(done_photos(store))
    assert killed >= kills // 2  # the others had ended before
    assert progress == sorted(progress)  # nothing is ever lost again
    runs.start(*command)
    assert runs.end() == 1
    assert_each_has_its_own(target, answers)


@pytest.mark.parametrize("form", slow_except(["jsonl", "csv", "parquet", "sqlite"], "jsonl"))
def test_a_full_disk_loses_nothing(runs: Runs, many: tuple[Path, str, dict], tmp_path: Path, form: str) -> None:
    photos, model, answers = many
    target = tmp_path / f"labels.{form}"
    command = ("label", photos, "-o", target, "-m", model, "-q", "-t", 1)
    statuses = []
    for kilobytes in (8, 40, 90, 150):
        runs.start(*command, limit=kilobytes * 1024)
        statuses.append(runs.end())
    assert 74 in statuses
    assert set(statuses) <= {74, 1}
    runs.start(*command)
    assert runs.end() == 1
    assert_each_has_its_own(target, answers)


def test_a_disk_that_is_full_for_real(convnext: Run, many: tuple[Path, str, dict], tmp_path: Path) -> None:
    photos, model, answers = many
    small = tmp_path / "small"
    small.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=120k", "none", small], capture_output=True)
    if mounted.returncode:
        pytest.skip("only root can make a small disk")
    try:
        target = small / "labels.jsonl"
        done = convnext("label", photos, "-o", target, "-m", model)
        assert done.status == 74
        assert "full" in done.err or "space" in done.err
        assert "Traceback" not in done.err
        subprocess.run(["mount", "-o", "remount,size=8m", small], check=True)
        assert convnext("label", photos, "-o", target, "-m", model).status == 1
        assert_each_has_its_own(target, answers)
    finally:
        subprocess.run(["umount", small], check=True)


def test_an_interruption_keeps_what_is_done_and_says_how_to_go_on(
    runs: Runs, many: tuple[Path, str, dict], tmp_path: Path
) -> None:
    photos, model, answers = many
    target = tmp_path / "labels.jsonl"
    command = ("label", photos, "-o", target, "-m", model, "-q", "-t", 1, "-b", 1)
    store = tmp_path / "labels.jsonl.job"
    process = runs.start(*command)
    for _ in range(3000):  # until some photos are done
        if store.exists() and done_photos(store):
            break
        threading.Event().wait(0.02)
    os.kill(process, signal.SIGINT)
    assert runs.end() == 130
    assert 0 < len(rows(target)) < PHOTOS
    runs.start(*command)
    assert runs.end() == 1
    assert_each_has_its_own(target, answers)
