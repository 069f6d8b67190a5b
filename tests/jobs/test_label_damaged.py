"""A job's file that a disk or another program has changed: it is recognised, and never makes wrong rows."""

from __future__ import annotations

import os
import random
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest

from convnext_cli.base.errors import ConvNextError, ModelError
from convnext_cli.base.files import replacing
from convnext_cli.jobs import output
from convnext_cli.jobs.output_pair import Pair
from convnext_cli.jobs.store import Found, Store
from convnext_cli.photos.find import Photo
from convnext_cli.predict.rows import Prediction, Row
from tests.helpers.command import Run
from tests.helpers.paths import SAMPLES

ROWS = 1200  # more than are read at once


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """A job as a run leaves it."""
    path = tmp_path_factory.mktemp("sound") / "labels.job"
    store = Store(path)
    settings = store.settings("model", "sha", {})
    for number in range(ROWS):
        file = f"/photos/{number:05}.jpg"
        guesses = tuple(Prediction(rank, rank, None, f"label {rank}", 0.5 / rank) for rank in (1, 2, 3))
        store.put(Found(Photo(file), 1, 1), Row(file, "ok", 8, 8, guesses, "model", "sha"), settings)
    store.note(format="csv", k=3)
    store.close()
    return path.read_bytes()


def paths_in(target: Path) -> list[str]:
    return [line.split(",")[0] for line in target.read_text().splitlines()[1:]]


def expect_damage_or_all(tmp_path: Path, data: bytes) -> str:
    """Write the output from a job of these bytes: it has all rows, or the job is recognised as damaged."""
    target, job = tmp_path / "labels.csv", tmp_path / "labels.csv.job"
    for path in tmp_path.iterdir():
        path.unlink()
    job.write_bytes(data)
    try:
        store = Store(job)
        try:
            output.write(store, target, "csv")
            store.statuses(), store.failures(), store.labels(), list(store.walk.todo())
        finally:
            store.close()
    except ModelError as error:
        assert "damaged" in error.message
        assert "--overwrite" in (error.hint or "")
        assert not target.exists()
        return "damaged"
    except ConvNextError as error:  # the mark in its first bytes is gone
        assert "job of convnext" in error.message or "release" in error.message
        return "foreign"
    found = paths_in(target)
    assert len(found) == len(set(found)) == ROWS
    return "all"


def test_a_job_that_is_cut_or_random_is_damaged(tmp_path: Path, sound: bytes) -> None:
    generator = random.Random(1)
    for length in (1, 50, 99, 4096, 4097, len(sound) // 2, len(sound) - 5000):
        assert expect_damage_or_all(tmp_path, sound[:length]) == "damaged", length
    assert expect_damage_or_all(tmp_path, generator.randbytes(20_000)) == "damaged"
    assert expect_damage_or_all(tmp_path, sound[:100] + generator.randbytes(20_000)) == "damaged"


def test_a_job_with_changed_bytes_gives_all_rows_or_none(tmp_path: Path, sound: bytes) -> None:
    generator, seen = random.Random(2), set()
    for _ in range(60):
        data = bytearray(sound)
        for _ in range(generator.choice((1, 8, 200))):
            data[generator.randrange(len(data))] = generator.randrange(256)
        seen.add(expect_damage_or_all(tmp_path, bytes(data)))
    assert "damaged" in seen


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE photos SET key = x'00' WHERE id = 600",  # an index that says otherwise would never end
        "UPDATE photos SET key = 'text' WHERE id = 600",
        "UPDATE photos SET status = 'odd' WHERE id = 600",
        "UPDATE photos SET settings = 77 WHERE id = 600",
        "UPDATE photos SET width = 'wide' WHERE id = 600",
        "UPDATE photos SET path = x'ff00' WHERE id = 600",
        "UPDATE photos SET error_kind = 'corrupt', error_message = x'ff' WHERE id = 600",
        "DELETE FROM predictions WHERE photo = 600",
        "UPDATE predictions SET score = 'high' WHERE photo = 600",
        "UPDATE predictions SET score = 9e999 WHERE photo = 600",
        "UPDATE predictions SET label = x'ff' WHERE photo = 600",
        'UPDATE predictions SET "index" = -1 WHERE photo = 600',
        "UPDATE predictions SET label = CAST(x'ff41' AS TEXT) WHERE photo = 600",
        "UPDATE settings SET model = x'00'",
        "DROP TABLE predictions",
        "DROP TABLE job",
        "UPDATE job SET value = '{' WHERE name = 'k'",
        "UPDATE job SET value = CAST(x'ff' AS TEXT) WHERE name = 'k'",
    ],
)
def test_values_that_no_run_writes_are_damage(tmp_path: Path, sound: bytes, statement: str) -> None:
    job = tmp_path / "labels.csv.job"
    job.write_bytes(sound)
    with closing(sqlite3.connect(job)) as db, db:
        db.execute("PRAGMA foreign_keys = OFF")
        db.execute(statement)
    data = job.read_bytes()
    (tmp_path / "labels.csv").touch()
    result = expect_damage_or_all(tmp_path, data)
    if "x'00' WHERE" in statement:  # only its index would be wrong; this one was changed with it
        assert result in ("all", "damaged")
    else:
        assert result == "damaged"


def test_an_index_that_leads_back_does_not_make_an_endless_output(tmp_path: Path, sound: bytes) -> None:
    """The key in the table is not the one in the index: a walk by keys would come by it again and again."""
    data = bytearray(sound)
    key = b"\0photos\000" + b"00900.jpg"
    places = [place for place in range(len(data)) if data.startswith(key, place)]
    assert len(places) >= 2  # in the table, and in its index
    results = []
    for place in places:
        changed = bytearray(data)
        changed[place + 8 : place + 13] = b"00100"
        results.append(expect_damage_or_all(tmp_path, bytes(changed)))
    assert "damaged" in results


def test_the_command_says_so_and_overwrite_makes_it_good(convnext: Run, tmp_path: Path) -> None:
    target, job = tmp_path / "labels.csv", tmp_path / "labels.csv.job"
    command = ["label", SAMPLES[0], "-o", target]
    assert convnext(*command).status == 0
    before = target.read_bytes()
    for data in (b"", b"random bytes" * 1000, job.read_bytes()[:5000]):
        job.write_bytes(data)
        done = convnext(*command)
        assert done.status == 3
        assert f"{job} is damaged" in done.err
        assert "--overwrite" in done.err
        assert target.read_bytes() == before
    assert convnext(*command, "--overwrite").status == 0
    assert target.read_bytes() == before
    assert convnext(*command).status == 0


def test_what_dead_processes_left_goes_with_the_next_run(convnext: Run, tmp_path: Path) -> None:
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    target = tmp_path / "labels.csv"
    with replacing(target) as stream:
        mine = Path(stream.name).name
    target.unlink()
    stale = tmp_path / mine.replace(str(os.getpid()), str(gone.pid))
    living = mine.replace(str(os.getpid()), str(os.getppid()))
    kept = [
        tmp_path / living,
        tmp_path / f".convnext-{gone.pid}-00000000.part",
        tmp_path / f"other.csv.{gone.pid}.part",
    ]
    rows = tmp_path / f"labels.csv.{gone.pid}.part"
    for path in (stale, rows, *kept):
        path.touch()
    assert convnext("label", SAMPLES[0], "-o", target).status == 0
    assert not stale.exists()
    assert all(path.exists() for path in kept)
    (tmp_path / f"rows.csv.{gone.pid}.part").touch()
    (tmp_path / f"rows.csv.{os.getpid()}0.part.mine").touch()
    assert convnext("classify", SAMPLES[0], "-o", tmp_path / "rows.csv").status == 0
    assert not (tmp_path / f"rows.csv.{gone.pid}.part").exists()
    assert (tmp_path / f"rows.csv.{os.getpid()}0.part.mine").exists()


def test_a_pair_that_was_never_written_is_tidy(tmp_path: Path) -> None:
    Pair(tmp_path / "labels.csv", "csv").tidy()
    assert list(tmp_path.iterdir()) == []
