"""Photos that end the process: all others are labelled, they get a row that says so, and no run is the last one."""

from __future__ import annotations

import io
import json
import os
import signal
import subprocess
import sys
import tarfile
import time
import zipfile
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from convnext_cli.jobs import in_flight
from convnext_cli.jobs.in_flight import InFlight
from convnext_cli.jobs.photo_state import state_of
from convnext_cli.jobs.store import Store
from convnext_cli.jobs.suspects import Suspects
from convnext_cli.photos.photo import Photo
from convnext_cli.predict.open import open_predictor
from convnext_cli.predict.options import PredictorOptions
from convnext_cli.predict.preprocess import Preprocessor, Ready
from tests.helpers.command import Run
from tests.helpers.deadly_photos import command, environment, poisoned
from tests.helpers.photos import encoded, picture
from tests.helpers.tiers import slow_except
from tests.helpers.weights import write_model

PHOTO = encoded(picture(60, 50), "JPEG")
RUNS = 30  # more than any of these jobs needs


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return write_model(tmp_path / "small.safetensors")


def fill(folder: Path, count: int, poison: dict[int, str]) -> Path:
    """Photos by number, some of which do something else than being decoded."""
    folder.mkdir()
    for number in range(count):
        data = encoded(picture(60, 50, seed=number % 7), "JPEG")
        (folder / f"{number:03}.jpg").write_bytes(poisoned(data, poison[number]) if number in poison else data)
    return folder


class Job:
    """``convnext label`` in processes of their own, given again until it is done."""

    def __init__(self, tmp_path: Path, model: Path, home: Path) -> None:
        self.target = tmp_path / "labels.jsonl"
        self.environment = environment(tmp_path / "hook") | {"CONVNEXT_HOME": str(home)}
        self.always = ["-m", model, "-o", self.target, "-t", 2, "-b", 4]

    def start(self, *arguments: object) -> subprocess.Popen[str]:
        return subprocess.Popen(
            command("label", *arguments, *self.always),
            stderr=subprocess.PIPE,
            text=True,
            env=self.environment,
            start_new_session=True,
        )

    def run(self, *arguments: object) -> tuple[int, str]:
        process = self.start(*arguments)
        _, err = process.communicate()
        return process.returncode, err

    def until_done(self, *arguments: object) -> list[tuple[int, str]]:
        """How each run ended, and what it said."""
        runs = []
        while not runs or runs[-1][0] not in (0, 1):
            assert len(runs) < RUNS, runs[-1]
            runs.append(self.run(*arguments))
        return runs

    def kinds(self) -> dict[str, str | None]:
        """Why each photo failed, by its name; None for those that did not."""
        found = [json.loads(line) for line in self.target.read_text().splitlines()]
        assert len({row["path"] for row in found}) == len(found)
        return {Path(row["path"]).name: row["error"] and row["error"]["kind"] for row in found}

    def messages(self) -> dict[str, str]:
        found = [json.loads(line) for line in self.target.read_text().splitlines()]
        return {Path(row["path"]).name: row["error"]["message"] for row in found if row["error"]}


@pytest.fixture
def job(tmp_path: Path, model: Path, home: Path) -> Job:
    return Job(tmp_path, model, home)


def expected(count: int, poison: dict[int, str]) -> dict[str, str | None]:
    kinds: dict[str | None, str | None] = {None: None, "loop": "timeout", "stuck": "timeout"}
    return {f"{n:03}.jpg": kinds.get(poison.get(n), "crashed") for n in range(count)}


def test_every_photo_has_its_row_though_some_end_the_process(job: Job, tmp_path: Path) -> None:
    poison = {3: "segfault", 4: "abort", 9: "memory", 12: "loop"}
    folder = fill(tmp_path / "photos", 16, poison)
    runs = job.until_done(folder, "--timeout", 1)
    assert job.kinds() == expected(16, poison)
    said = job.messages()
    assert "SIGSEGV" in said["003.jpg"]
    assert "SIGABRT" in said["004.jpg"]
    assert "SIGKILL" in said["009.jpg"] and "memory" in said["009.jpg"]
    assert "003.jpg" in runs[1][1]  # named by the run after
    assert not list(tmp_path.glob(".*"))  # nothing is left of it
    before = job.target.read_bytes()
    assert job.run(folder, "--timeout", 1)[0] == 1
    assert job.target.read_bytes() == before


def test_what_is_tried_again_ends_no_run_any_more(job: Job, tmp_path: Path) -> None:
    folder = fill(tmp_path / "photos", 4, {1: "segfault"})
    job.until_done(folder)
    status, err = job.run(folder, "--retry-failed")
    assert (status, job.kinds()["001.jpg"]) == (1, "crashed"), err
    (folder / "001.jpg").write_bytes(PHOTO)
    assert job.run(folder)[0] == 0
    assert job.kinds() == expected(4, {})


@pytest.mark.slow
def test_strict_stops_at_one_that_ends_its_process(job: Job, tmp_path: Path) -> None:
    folder = fill(tmp_path / "photos", 4, {1: "exit"})
    assert job.run(folder, "--strict")[0] == 7
    status, err = job.run(folder, "--strict")
    assert status == 1
    assert "stopped at" in err and "crashed" in err and "status 7" in err
    assert len(job.kinds()) == 4  # it comes last


@pytest.mark.parametrize("form", slow_except(["tar", "parquet", "zip"], "tar"))
def test_members_of_shards_end_no_job(job: Job, tmp_path: Path, form: str) -> None:
    folder = tmp_path / "photos"
    folder.mkdir()
    photos = [PHOTO, PHOTO, poisoned(PHOTO, "segfault"), PHOTO, poisoned(PHOTO, "abort"), PHOTO]
    if form == "tar":
        with tarfile.open(folder / "a.tar", "w") as tar:
            for number, data in enumerate(photos):
                info = tarfile.TarInfo(f"{number}.jpg")
                info.size = len(data)
                tar.addfile(info, io.BytesIO(data))
    elif form == "zip":
        with zipfile.ZipFile(folder / "a.zip", "w") as archive:
            for number, data in enumerate(photos):
                archive.writestr(f"{number}.jpg", data)
    else:
        import pyarrow as pa
        from pyarrow import parquet

        table = pa.table({"image": [{"bytes": data, "path": f"{n}.jpg"} for n, data in enumerate(photos)]})
        parquet.write_table(table, folder / "a.parquet")
    source = folder / "a.zip" if form == "zip" else folder  # zips are labelled by name alone
    job.until_done(source)
    assert job.kinds() == {f"{n}.jpg": "crashed" if n in (2, 4) else None for n in range(6)}
    before = job.target.read_bytes()
    assert job.run(source)[0] == 1
    assert job.target.read_bytes() == before


def test_a_shard_and_photos_in_it_are_tried_at_once(convnext: Run, model: Path, tmp_path: Path) -> None:
    """The shard goes on from where it was when a photo in it has its row."""
    shard, target = tmp_path / "a.tar", tmp_path / "labels.jsonl"
    with tarfile.open(shard, "w") as tar:
        for number in range(6):
            info = tarfile.TarInfo(f"{number}.jpg")
            info.size = len(PHOTO)
            tar.addfile(info, io.BytesIO(PHOTO))
    store = Store(tmp_path / "labels.jsonl.job")
    store.note(suspects={str(path): [0, 0, 0] for path in (shard, shard / "1.jpg", shard / "3.jpg")})
    store.close()
    done = convnext("label", shard, "-o", target, "-m", model, "-t", "1")
    assert done.status == 0, done.err
    rows = [json.loads(line) for line in target.read_text().splitlines()]
    assert [(Path(row["path"]).name, row["status"]) for row in rows] == [(f"{n}.jpg", "ok") for n in range(6)]


def test_a_photo_that_hung_when_its_job_was_killed_is_tried_with_a_limit(job: Job, tmp_path: Path) -> None:
    folder = fill(tmp_path / "photos", 5, {0: "stuck"})
    process = job.start(folder, "--timeout", 1)
    notes = tmp_path / ".labels.jsonl.job.at"
    while not any(path.endswith("000.jpg") for path in in_flight.read(notes).paths):
        assert process.poll() is None
        time.sleep(0.05)
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    assert job.run(folder, "--timeout", 1)[0] == 1
    assert job.kinds() == expected(5, {0: "stuck"})


@pytest.mark.slow
def test_an_end_that_takes_both_processes_along_again_and_again_is_a_crash(job: Job, tmp_path: Path) -> None:
    folder = fill(tmp_path / "photos", 6, {1: "together"})
    runs = job.until_done(folder)
    assert [status for status, _ in runs] == [-signal.SIGKILL] * 4 + [1]
    assert job.kinds() == expected(6, {1: "together"})
    assert "alone" in job.messages()["001.jpg"]


@pytest.mark.slow
def test_a_photo_that_takes_all_memory_is_given_little_when_it_took_both_processes_along(
    job: Job, tmp_path: Path
) -> None:
    if not sys.platform.startswith("linux"):
        pytest.skip("only Linux limits the memory of a process in this way")
    folder = fill(tmp_path / "photos", 4, {1: "hoard", 2: "loop"})
    for name in ("001.jpg", "002.jpg"):  # as a run leaves it that was killed with the process it had started
        notes = InFlight(tmp_path / ".labels.jsonl.job.at")
        notes.alone(str(folder / name)).__enter__()
        time.sleep(1.1)
        notes.still_alone()
        job.run(folder, "--timeout", 1)
    assert job.kinds() == {"000.jpg": None, "001.jpg": "out_of_memory", "002.jpg": "timeout", "003.jpg": None}


def test_a_photo_that_ends_the_process_in_the_network(job: Job, tmp_path: Path) -> None:
    folder = fill(tmp_path / "photos", 8, {})
    (folder / "002.jpg").write_bytes(encoded(Image.new("RGB", (60, 50)), "PNG"))
    job.until_done(folder)
    assert job.kinds() == {f"{n:03}.jpg": "crashed" if n == 2 else None for n in range(8)}


class Killed(BaseException):
    """Stands for SIGKILL: nothing of the program runs after it."""


class KilledAtStart:
    """An engine whose process is killed in its first call, which compiles the network."""

    def __init__(self, engine: Any) -> None:
        self._engine = engine
        self.is_killed = True

    def __getattr__(self, name: str) -> Any:
        return getattr(self._engine, name)

    def __call__(self, batch: np.ndarray) -> np.ndarray:
        if self.is_killed:
            raise Killed
        return self._engine(batch)  # type: ignore[no-any-return]


@dataclass(frozen=True, kw_only=True)
class Recording(Preprocessor):
    """Records in a file, for each photo that is prepared, which photo the notes of the job name as tried alone."""

    notes: Path
    record: Path

    def prepare(self, *arguments: Any) -> Ready:
        with self.record.open("a") as file:
            file.write(f"{in_flight.read(self.notes).alone}\n")
        return super().prepare(*arguments)


def test_kills_while_the_program_starts_are_not_the_fault_of_a_photo(tmp_path: Path, model: Path, home: Path) -> None:
    """Loading the decoder and compiling the network take longest, so most kills from outside come then."""
    (tmp_path / "a.jpg").write_bytes(PHOTO)
    photo, notes, record = Photo(str(tmp_path / "a.jpg")), tmp_path / "notes", tmp_path / "record"
    predictor = open_predictor(PredictorOptions.of(model=model, threads=1))
    engine = KilledAtStart(predictor.engine)
    fields = {name: getattr(predictor.preprocessor, name) for name in Preprocessor.__dataclass_fields__}
    predictor = replace(predictor, engine=engine, preprocessor=Recording(**fields, notes=notes, record=record))
    InFlight(notes).begin(photo.path)  # a run that was killed while it worked on the photo
    store = Store(tmp_path / "labels.job")
    for _ in range(2):  # of which the next run would conclude that the photo ends it
        suspects = Suspects(store, predictor, notes)
        with pytest.raises(Killed):
            suspects.row(photo, state_of(photo))
        suspects._photo_process.close()  # the system does this; the notes stay as they are
    engine.is_killed = False
    row = Suspects(store, predictor, notes).row(photo, state_of(photo))
    assert (row.status, row.error) == ("ok", None)
    assert record.read_text().split() == ["None", photo.path] * 3  # the decoder is loaded before the photo is noted
    store.close()


def test_notes_tell_what_was_worked_on_when_the_process_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file, odd = tmp_path / "notes", "f\udcfc\n,\ud800.jpg"
    monkeypatch.chdir(tmp_path)
    notes = InFlight(file)
    slots = [notes.begin(path) for path in ("a.jpg", odd, "s3://bucket/c.jpg", "x" * 10_000)]
    notes.end(slots[0])
    with notes.batch(["done.jpg"]):
        pass
    notes.batch(["d.jpg", "e.jpg"]).__enter__()
    notes.alone("f.jpg").__enter__()
    found = in_flight.read(file)
    assert found.in_network
    assert 0 <= found.seconds < 100
    whole = [str(tmp_path / name) for name in ("f.jpg", "d.jpg", "e.jpg", odd)]
    assert {*whole, "s3://bucket/c.jpg"} < set(found.paths)
    assert len(found.paths) == 6
    assert found.alone == whole[0]
    notes.close()  # an orderly end soon after: nothing was hanging
    assert not file.exists()
    assert in_flight.read(file).paths == ()
    notes.end(slots[1])  # by a thread that was left to itself


def test_an_orderly_end_leaves_what_was_worked_on_for_long(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "notes"
    notes = InFlight(file)
    notes.begin("/hangs.jpg")
    monkeypatch.setattr(in_flight, "LONG", -1.0)
    notes.close()
    assert in_flight.read(file).paths == ("/hangs.jpg",)


def test_notes_without_a_place_for_them_stop_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    notes = InFlight(tmp_path / "no such folder" / "notes")
    notes.end(notes.begin("a.jpg"))
    notes.close()
    many = InFlight(tmp_path / "notes")
    slots = [many.begin(f"{number}.jpg") for number in range(300)]
    assert len(in_flight.read(tmp_path / "notes").paths) == 256
    for slot in slots:
        many.end(slot)
    assert in_flight.read(tmp_path / "notes").paths == ()
    many.close()


@pytest.mark.parametrize("damage", [b"", b"nonsense", b"{}\n", b"[]\n" + bytes(1 << 21), os.urandom(1 << 12)])
def test_damaged_notes_are_none(tmp_path: Path, damage: bytes) -> None:
    (tmp_path / "notes").write_bytes(damage)
    assert in_flight.read(tmp_path / "notes").paths == ()


def kill_at_random(job: Job, folder: Path, moment: Callable[[float], float], times: int, *arguments: object) -> None:
    for _ in range(times):
        process = job.start(folder, *arguments)
        try:
            process.wait(moment(4.0))
        except subprocess.TimeoutExpired:
            os.kill(process.pid, signal.SIGKILL)
        process.communicate()


@pytest.mark.slow
def test_a_photo_that_keeps_all_of_python_from_running(job: Job, tmp_path: Path) -> None:
    folder = fill(tmp_path / "photos", 4, {1: "asleep", 2: "leave"})
    runs = job.until_done(folder, "--timeout", 1)
    assert job.kinds() == {"000.jpg": None, "001.jpg": "timeout", "002.jpg": "crashed", "003.jpg": None}
    assert all(status in (-signal.SIGKILL, 70, 1) for status, _ in runs)


@pytest.mark.slow
def test_three_hundred_photos_with_ten_that_end_the_process(
    job: Job, tmp_path: Path, random_moment: Callable[[float], float]
) -> None:
    poison = {7: "segfault", 8: "abort", 31: "memory", 77: "loop", 120: "segfault", 150: "abort", 151: "memory"}
    poison |= {200: "loop", 201: "segfault", 299: "memory"}
    folder = fill(tmp_path / "photos", 300, poison)
    kill_at_random(job, folder, random_moment, 10, "--timeout", 2)
    job.until_done(folder, "--timeout", 2)
    assert job.kinds() == expected(300, poison)
    before = job.target.read_bytes()
    kill_at_random(job, folder, random_moment, 10, "--timeout", 2)
    assert job.run(folder, "--timeout", 2)[0] == 1
    assert job.target.read_bytes() == before
