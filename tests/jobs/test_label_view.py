"""A job shows its rows as the options of a run have it, without the network: the same bytes as a new job's."""

from __future__ import annotations

import hashlib
import json
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from convnext_cli.predict import preprocess
from convnext_cli.predict.classify import classify
from tests.helpers.command import Run
from tests.helpers.photos import encoded, picture
from tests.helpers.weights import SMALL, write_model

FILES = ("names.txt", "merged.csv", "floors.csv")
NAMED = ("--labels", "names.txt", "--classes")
FORMATS = ["csv", "jsonl", "parquet", "sqlite"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Photos and a broken one, and beside them what options name."""
    place = tmp_path_factory.mktemp("photos")
    (place / "photos").mkdir()
    for seed in range(6):
        (place / "photos" / f"{seed}.jpg").write_bytes(encoded(picture(70, 80, seed=seed), "JPEG"))
    (place / "photos" / "empty.jpg").touch()
    (place / "names.txt").write_text("".join(f"name {row}\n" for row in range(SMALL.num_labels)))
    (place / "merged.csv").write_text("0,low\n1,low\n2,low\n")
    (place / "floors.csv").write_text("".join(f"class_{row},{0.1 * row}\n" for row in range(SMALL.num_labels)))
    write_model(place / "small.safetensors")
    return place


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


def content(target: Path) -> Any:
    """The bytes of an output; what readers of a database see of it."""
    if target.suffix != ".sqlite":
        return target.read_bytes()
    with closing(sqlite3.connect(target)) as db:
        guesses = "SELECT p.path, g.* FROM predictions g JOIN photos p ON p.id = g.photo ORDER BY p.key, rank"
        return [
            db.execute("SELECT * FROM results").fetchall(),
            [(path, *rest) for path, _, *rest in db.execute(guesses)],
        ]


@pytest.fixture(scope="module")
def score(folder: Path) -> float:
    """One that about half of the photos have."""
    photos = sorted((folder / "photos").glob("?.jpg"))
    answers = classify(photos, model=folder / "small.safetensors", engine="torch")
    scores = sorted(row.predictions[0].score for row in answers)
    return scores[len(scores) // 2] - 1e-4


def command(folder: Path, target: Path, *options: object) -> list[object]:
    """The words of a command; options name files of the folder."""
    words = [folder / word if str(word) in FILES else word for word in options]
    return ["label", folder / "photos", "-o", target, "-m", folder / "small.safetensors", *words]


# the options of a first run, and those of a later one that need no network
DERIVED = [
    ((), ("--min-score", "MEDIAN")),
    (("--min-score", "0.99"), ()),
    ((), ("--floors", "floors.csv")),
    (("--floors", "floors.csv", "--min-score", "0.9"), ("--min-score", "MEDIAN")),
    ((), ("-k", "2")),
    ((), ("--labels", "names.txt")),
    (("--labels", "names.txt"), ()),
    (("-k", "0"), (*NAMED, "name 1,name 4")),
    (("-k", "7"), ("--labels", "merged.csv", "-k", "3", "--min-score", "MEDIAN")),
    (("-k", "0", "--logits"), ("--logits", *NAMED, "name 5,name 2,name 0", "-k", "2")),
    (
        (*NAMED, "name 1,name 4,name 6"),
        (*NAMED, "name 6,name 1", "--min-score", "0.2"),
    ),
]


@pytest.mark.parametrize(
    ("form", "first", "later"),
    [
        *(("csv", *options) for options in DERIVED),
        *((form, *options) for form in FORMATS[1:] for options in (DERIVED[0], DERIVED[7])),
    ],
    ids=lambda value: value if isinstance(value, str) else " ".join(value) or "-",
)
def test_what_needs_no_network_is_derived(
    convnext: Run,
    folder: Path,
    tmp_path: Path,
    read: list[str],
    score: float,
    form: str,
    first: tuple[str],
    later: tuple[str],
) -> None:

    def options(words: tuple[str]) -> list[str]:
        return [str(score) if word == "MEDIAN" else word for word in words]

    target, fresh = tmp_path / f"labels.{form}", tmp_path / f"fresh.{form}"
    assert convnext(*command(folder, target, *options(first))).status == 1  # one photo is empty
    before = content(target)
    read.clear()
    done = convnext(*command(folder, target, *options(later)))
    assert (done.status, read) == (1, [])
    assert "nothing new among 7 photos" in done.err
    assert convnext(*command(folder, fresh, *options(later))).status == 1
    assert content(target) == content(fresh)
    assert content(target) != before
    # and back: nothing of what was kept is lost
    read.clear()
    assert convnext(*command(folder, target, *options(first))).status == 1
    assert (content(target), read) == (before, [])


@pytest.mark.parametrize(
    ("first", "later", "reason"),
    [
        ((), ("-k", "6"), "guesses (-k) 5 → 6"),
        ((), (*NAMED, "name 1,name 2"), "--classes needs the scores of all 7 classes"),
        ((*NAMED, "name 1,name 2"), (), "scores of other classes"),
        (
            (*NAMED, "name 1,name 2"),
            (*NAMED, "name 1,name 3"),
            "scores of other classes",
        ),
        (("-k", "0"), ("-k", "0", "--logits"), "scores softmax → logits"),
        ((), ("--min-score", "0.3", "--crop-pct", "0.5"), "recipe"),
    ],
)
def test_what_needs_the_network_asks_for_it(
    convnext: Run, folder: Path, tmp_path: Path, first: tuple[str], later: tuple[str], reason: str
) -> None:
    target, fresh = tmp_path / "labels.csv", tmp_path / "fresh.csv"
    convnext(*command(folder, target, *first))
    before = target.read_bytes()
    done = convnext(*command(folder, target, *later))
    assert done.status == 2
    assert reason in done.err
    assert "--relabel" in done.err
    assert target.read_bytes() == before
    assert convnext(*command(folder, target, *later, "--relabel")).status == 1
    convnext(*command(folder, fresh, *later))
    assert target.read_bytes() == fresh.read_bytes()


def test_new_photos_have_all_that_is_kept(convnext: Run, folder: Path, tmp_path: Path, read: list[str]) -> None:
    """Labelled under another view, they go back with the others."""
    target, fresh = tmp_path / "labels.csv", tmp_path / "fresh.csv"
    names = ["--labels", folder / "names.txt", "-k", 1]
    convnext(*command(folder, target, "-k", 0))
    convnext(*command(folder, target, "-k", 2, *NAMED, "name 1,name 2"))
    extra = folder / "photos" / "new.jpg"
    extra.write_bytes(encoded(picture(70, 80, seed=77), "JPEG"))
    try:
        read.clear()
        convnext(*command(folder, target, *names))
        assert [Path(path).name for path in read] == ["new.jpg"]
        for view in (names, ["-k", 0], [*NAMED, "name 4,name 2"]):
            read.clear()
            assert convnext(*command(folder, target, *view)).status == 1
            assert not read
            convnext(*command(folder, fresh, *view, "--overwrite"))
            assert target.read_bytes() == fresh.read_bytes()
    finally:
        extra.unlink()


def test_rows_that_are_kept_beside_others_stay(convnext: Run, folder: Path, tmp_path: Path) -> None:
    """--mix: a threshold is for rows of the present settings."""
    target = tmp_path / "labels.jsonl"
    convnext(*command(folder, target, "--crop-pct", 0.5))
    convnext(*command(folder, target, "--min-score", 0.999, "--mix"))
    assert {json.loads(line)["status"] for line in target.read_text().splitlines()} == {"ok", "failed"}
    convnext(*command(folder, target, "--min-score", 0.999, "--relabel"))
    assert {json.loads(line)["status"] for line in target.read_text().splitlines()} == {"unknown", "failed"}


ANSWERS = ("answer", "answer_id", "answer_score", "answer_level", "answer_why", "answer_above", "set", "coverage")


def as_version_3(job: Path) -> None:
    """A job as a release without answers wrote it."""
    with closing(sqlite3.connect(job)) as db, db:
        number, text = db.execute("SELECT id, made_with FROM settings").fetchone()
        values = json.loads(text)
        for name in ("sure", "sets", "calibration", "answer_labels"):
            assert values.pop(name) is None
        db.execute("UPDATE settings SET made_with = ? WHERE id = ?", (json.dumps(values, sort_keys=True), number))
        db.execute("DROP VIEW results")
        for name in ANSWERS:
            db.execute(f'ALTER TABLE photos DROP COLUMN "{name}"')
        db.execute(
            """
            CREATE VIEW results AS
                SELECT p.path, iif(p.vanished, 'vanished', p.status) AS status, b.label, b.score, b.id, b."index",
                       p.width, p.height, p.error_kind, p.error_message, s.model, s.model_sha256
                FROM photos p JOIN settings s ON s.id = p.settings
                LEFT JOIN predictions b ON b.photo = p.id AND b.rank = 1 ORDER BY p.key
            """
        )
        db.execute("PRAGMA user_version = 3")


def as_version_2(job: Path, k: int, labels: str, min_score: float | None) -> None:
    """A job as an earlier release wrote it: no kept guesses, and the threshold among the settings."""
    as_version_3(job)
    with closing(sqlite3.connect(job)) as db, db:
        number, text = db.execute("SELECT id, made_with FROM settings").fetchone()
        values = json.loads(text)
        for name in ("classes", "groups"):
            values.pop(name)
        values |= {"top": k, "labels": labels, "min_score": min_score, "floors": {}}
        made_with = json.dumps(values, sort_keys=True)
        db.execute("UPDATE settings SET made_with = ? WHERE id = ?", (made_with, number))
        db.execute("DROP TABLE guesses")
        db.execute("DELETE FROM job WHERE name IN ('shown', 'floors', 'k', 'begun')")
        db.execute("PRAGMA user_version = 2")


@pytest.mark.parametrize(("form", "version"), [("csv", 1), ("csv", 2), ("sqlite", 2), ("csv", 3), ("sqlite", 3)])
def test_jobs_of_earlier_releases_are_gone_on_with(
    convnext: Run, folder: Path, tmp_path: Path, read: list[str], score: float, form: str, version: int
) -> None:
    from convnext_cli.labels import LabelSet, json_form

    target, fresh = tmp_path / f"labels.{form}", tmp_path / f"fresh.{form}"
    job = target if form == "sqlite" else tmp_path / f"labels.{form}.job"
    convnext(*command(folder, target, "--min-score", 0.9))
    before = content(target)
    values = json_form.to_dict(LabelSet.numbered(7))
    labels = f"numbered ({hashlib.sha256(json.dumps(values).encode()).hexdigest()[:12]})"
    if version == 3:
        as_version_3(job)
    else:
        as_version_2(job, 5, labels, 0.9)
    if version == 1:
        with closing(sqlite3.connect(job)) as db, db:
            db.execute("ALTER TABLE photos DROP COLUMN tag")
            db.execute("DROP TABLE shards")
            db.execute("PRAGMA user_version = 1")
    read.clear()
    assert convnext(*command(folder, target, "--min-score", 0.9)).status == 1
    assert (content(target), read) == (before, [])
    assert convnext(*command(folder, target, "-k", 3, "--min-score", score)).status == 1
    convnext(*command(folder, fresh, "-k", 3, "--min-score", score))
    assert content(target) == content(fresh)
    assert convnext(*command(folder, target, "-k", 6)).status == 2


def test_a_view_that_is_broken_off_is_not_half_there(
    convnext: Run, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from convnext_cli.jobs.view import View

    target, fresh = tmp_path / "labels.csv", tmp_path / "fresh.csv"
    convnext(*command(folder, target))
    before, real, calls = target.read_bytes(), View.shown, []

    def shown(*arguments: Any) -> Any:
        calls.append(arguments)
        if len(calls) == 4:
            raise KeyboardInterrupt
        return real(*arguments)

    monkeypatch.setattr(View, "shown", shown)
    assert convnext(*command(folder, target, "-k", 2)).status == 130
    monkeypatch.setattr(View, "shown", real)
    assert convnext("label", "-o", target, "--rewrite").status == 0
    assert target.read_bytes() == before
    convnext(*command(folder, target, "-k", 2))
    convnext(*command(folder, fresh, "-k", 2))
    assert target.read_bytes() == fresh.read_bytes()
