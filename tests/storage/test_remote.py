"""Photos behind URLs that need no server: memory, archives, files; shards; and what is made of secrets and errors."""

from __future__ import annotations

import io
import json
import os
import threading
import zipfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from importlib.util import find_spec
from pathlib import Path

import pytest

from convnext_cli.base.errors import NetworkError, PhotoError, UsageError
from convnext_cli.jobs.photo_state import file_of, key_of
from convnext_cli.photos.decode import read_file
from convnext_cli.photos.find import Finder
from convnext_cli.photos.photo import Photo
from convnext_cli.storage import addresses, failures, filesystems, listing, reading
from convnext_cli.storage.retry import patience
from tests.helpers.command import Run
from tests.helpers.containers import parquet_of, tar_of
from tests.helpers.paths import SAMPLES
from tests.helpers.photos import encoded, picture
from tests.helpers.rows import failures_of, rows_of
from tests.helpers.weights import write_model

fsspec = pytest.importorskip("fsspec")
PHOTOS = {f"{name}.jpg": encoded(picture(60, 50, seed=seed), "JPEG") for seed, name in enumerate("abcd")}


@pytest.fixture
def model(tmp_path: Path) -> str:
    return str(write_model(tmp_path / "small.safetensors"))


# Engines and sizes of batches differ in the last digits.
ONE = ("-e", "torch", "-b", "1", "-f", "jsonl")


@pytest.fixture
def memory() -> Iterator[object]:
    """An empty store in memory."""
    fs = fsspec.filesystem("memory")
    fs.store.clear()
    fs.pseudo_dirs[:] = [""]
    yield fs
    fs.store.clear()
    fs.pseudo_dirs[:] = [""]


def paths(photos: object) -> list[str]:
    return [photo.path for photo in photos]


# listing


def fill(fs: object) -> None:
    for name in ("t/b/2.jpg", "t/b/1.jpg", "t/a.PNG", "t/b/notes.txt", "t/.hidden/x.jpg", "t/b/photo", "t/b/text"):
        fs.pipe(f"/{name}", PHOTOS["a.jpg"] if not name.endswith("text") else b"text")


def test_a_folder_behind_a_url_is_walked_as_one_here(memory: object) -> None:
    fill(memory)
    finder = Finder(recursive=True)
    root = "memory://t"
    assert paths(finder.named([root])) == [f"{root}/{n}" for n in ("a.PNG", "b/1.jpg", "b/2.jpg", "b/photo")]
    assert finder.passed_over == {".txt": 1, "hidden": 1, "no suffix": 1}


@pytest.mark.parametrize(
    ("options", "found"),
    [
        ({"depth": 1}, ["a.PNG"]),
        ({"hidden": True}, [".hidden/x.jpg", "a.PNG", "b/1.jpg", "b/2.jpg", "b/photo"]),
        ({"include": ("*.jpg",)}, ["b/1.jpg", "b/2.jpg"]),
        ({"include": ("b/*",), "exclude": ("2*",)}, ["b/1.jpg", "b/photo"]),
        ({"exclude": ("b",)}, ["a.PNG"]),
        ({"exclude": ("/b/1.jpg", "photo")}, ["a.PNG", "b/2.jpg"]),
    ],
)
def test_a_walk_takes_what_is_wanted(memory: object, options: dict, found: list[str]) -> None:
    fill(memory)
    walked = Finder(recursive=True, **options).named(["memory://t"])
    assert paths(walked) == [f"memory://t/{name}" for name in found]


def test_globs(memory: object) -> None:
    fill(memory)
    assert paths(Finder().named(["memory://t/b/*.jpg"])) == ["memory://t/b/1.jpg", "memory://t/b/2.jpg"]
    assert len(paths(Finder().named(["memory://t/**/*.jpg"]))) == 2
    assert paths(Finder().named(["memory://t/**/[!1].jpg"])) == ["memory://t/b/2.jpg"]
    assert paths(Finder().named(["memory://t/.h*/*.jpg"])) == ["memory://t/.hidden/x.jpg"]
    with pytest.raises(UsageError, match="no file matches"):
        Finder().named(["memory://t/*.webp"])


def test_a_name_that_looks_like_a_glob_is_a_name(memory: object) -> None:
    memory.pipe("/t/[red].jpg", b"x")
    assert paths(Finder().named(["memory://t/[red].jpg"])) == ["memory://t/[red].jpg"]


def test_what_is_not_there_is_an_error_alone_and_a_row_beside_others(memory: object) -> None:
    fill(memory)
    with pytest.raises(UsageError, match="does not exist"):
        Finder().named(["memory://t/gone.jpg"])
    with pytest.raises(UsageError, match="none of the 2"):
        Finder().named(["memory://t/gone.jpg", "memory://u/gone.jpg"])
    found = list(Finder().named(["memory://t/gone.jpg", "memory://t/a.PNG", "memory://t/b"]))
    assert [photo.problem and photo.problem.kind for photo in found[:2]] == ["missing", None]
    assert all(photo.path.startswith("memory://t/b/") for photo in found[2:])


def test_lists_may_hold_urls(memory: object) -> None:
    fill(memory)
    listed = io.BytesIO(b"memory://t/a.PNG\nmemory://t/gone.jpg\nmemory://t/b/*.jpg\nhttps://x/y.jpg?sig=abc\n")
    found = list(Finder().listed(listed))
    assert [photo.problem and photo.problem.kind for photo in found] == [None, None, None, None, "missing"]
    assert found[-1].path == "https://x/y.jpg?sig=…"


def test_a_range_in_braces_stands_for_many_names(memory: object, tmp_path: Path) -> None:
    for number in range(8, 12):
        memory.pipe(f"/t/{number:03d}.jpg", b"x")
    assert paths(Finder().named(["memory://t/{008..011}.jpg"])) == [f"memory://t/{n:03d}.jpg" for n in range(8, 12)]
    assert addresses.expanded("a{1..2}b{3..4}") == ["a1b3", "a1b4", "a2b3", "a2b4"]
    assert addresses.expanded("a{2..1}") == ["a2", "a1"]
    with pytest.raises(UsageError, match="more than"):
        addresses.expanded("{0..999}{0..999}")
    name = tmp_path / "{1..2}.jpg"
    name.write_bytes(b"x")
    assert paths(Finder().named([str(name)])) == [str(name)]


def test_listings_are_read_as_they_are_used(memory: object, monkeypatch: pytest.MonkeyPatch) -> None:
    for folder in "abc":
        memory.pipe(f"/t/{folder}/1.jpg", b"x")
    asked, real = [], memory.ls
    monkeypatch.setattr(type(memory), "ls", lambda self, path, **more: asked.append(path) or real(path, **more))
    photos = Finder(recursive=True).named(["memory://t"])
    assert next(photos).path == "memory://t/a/1.jpg"
    assert "/t/c" not in asked
    assert len(paths(photos)) == 2


# the same answers


@pytest.fixture
def folder(tmp_path: Path, memory: object) -> Path:
    """Photos here, and the same in memory."""
    made = tmp_path / "photos"
    (made / "b").mkdir(parents=True)
    files = {"a.jpg": PHOTOS["a.jpg"], "b/c.png": encoded(picture(50, 60, seed=5)), "cut.jpg": PHOTOS["b.jpg"][:300]}
    files |= {"empty.jpg": b"", "no.jpg": b"<html>"}
    for name, data in files.items():
        (made / name).write_bytes(data)
        memory.pipe(f"/photos/{name}", data)
    return made


def test_rows_are_those_of_the_same_photos_here(convnext: Run, folder: Path, model: str, tmp_path: Path) -> None:
    here = convnext("classify", "-r", folder, "-m", model, "-f", "jsonl")
    there = convnext("classify", "-r", "memory://photos", "-m", model, "-f", "jsonl")
    assert (here.status, there.status) == (1, 1)
    assert there.out == here.out.replace(str(folder), "memory://photos")
    assert len(rows_of(here.out)) == 5
    with zipfile.ZipFile(tmp_path / "p.zip", "w") as file:
        for path in sorted(folder.rglob("*.*")):
            file.write(path, f"in/{path.relative_to(folder)}")
    for outer in (str(tmp_path / "p.zip"), f"file://{tmp_path}/p.zip"):
        zipped = convnext("classify", "-r", f"zip://in::{outer}", "-m", model, "-f", "jsonl")
        names = [row["path"] for row in rows_of(zipped.out)]
        assert names[0] == f"zip://in/a.jpg::{outer}"
        assert zipped.out.replace(f"::{outer}", "").replace("zip://in", str(folder)) == here.out


def test_a_file_url_is_another_spelling_of_a_path(convnext: Run, folder: Path, model: str) -> None:
    here = convnext("classify", folder / "a.jpg", "-m", model, *ONE)
    assert convnext("classify", f"file://{folder}/a.jpg", "-m", model, *ONE).out == here.out
    assert convnext(f"file://{folder}/a.jpg", "-m", model, *ONE).out == here.out
    (folder / "with space.jpg").write_bytes(PHOTOS["a.jpg"])
    assert convnext("classify", f"file://{folder}/with%20space.jpg", "-m", model, *ONE).status == 0
    assert convnext("classify", f"file://localhost{folder}/a.jpg", "-m", model, *ONE).out == here.out


def test_offline_forbids_what_needs_a_connection(convnext: Run, folder: Path, model: str, tmp_path: Path) -> None:
    for command in (["classify"], ["label", "-o", tmp_path / "x.jsonl"], ["evaluate"]):
        done = convnext(*command, "s3://bucket/x", "-m", model, "--offline")
        assert done.status == 2
        assert "--offline" in done.err
    assert convnext("classify", "memory://photos/a.jpg", "-m", model, "--offline").status == 0
    (tmp_path / "list").write_text("s3://bucket/x.jpg\n")
    done = convnext("classify", "--files-from", tmp_path / "list", "-m", model, "--offline", "-f", "jsonl")
    assert failures_of(rows_of(done.out)) == [("x.jpg", "missing")]


def test_large_objects_are_not_read(memory: object, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("convnext_cli.photos.decode.MAX_FILE_BYTES", 100)
    memory.pipe("/t/a.jpg", PHOTOS["a.jpg"])
    with pytest.raises(PhotoError, match="limit") as raised:
        read_file("memory://t/a.jpg")
    assert raised.value.kind == "too_large"


# the job


def test_a_job_does_nothing_twice_and_finds_what_changed(
    convnext: Run, memory: object, folder: Path, model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from convnext_cli.predict import preprocess

    read, real = [], preprocess.read_file
    monkeypatch.setattr(preprocess, "read_file", lambda path: read.append(path) or real(path))
    target = tmp_path / "labels.jsonl"
    command = ("label", "memory://photos", "-o", target, "-m", model)
    assert convnext(*command).status == 1
    assert len(read) == 5
    first = target.read_bytes()
    here = tmp_path / "here.jsonl"
    convnext("label", folder, "-o", here, "-m", model)
    assert first == here.read_bytes().replace(str(folder).encode(), b"memory://photos")
    read.clear()
    assert "nothing new among 5 photos" in convnext(*command).err
    assert not read
    memory.pipe("/photos/a.jpg", PHOTOS["d.jpg"])
    memory.rm("/photos/b/c.png")
    memory.pipe("/photos/new.jpg", PHOTOS["c.jpg"])
    convnext(*command)
    assert read == ["memory://photos/a.jpg", "memory://photos/new.jpg"]
    assert [(Path(row["path"]).name, row["status"]) for row in rows_of(target.read_text())] == [
        *(("a.jpg", "ok"), ("c.png", "vanished"), ("cut.jpg", "failed")),
        *(("empty.jpg", "failed"), ("new.jpg", "ok"), ("no.jpg", "failed")),
    ]
    before = target.read_bytes()
    convnext(*command, "--exclude", "*.jpg")
    convnext("label", "memory://photos/b", "-o", target, "-m", model)  # gone: an error, and nothing else
    assert target.read_bytes() == before


def test_what_is_for_photos_here_is_refused(convnext: Run, folder: Path, model: str, tmp_path: Path) -> None:
    for more in (["--sort-into", tmp_path / "sorted"], ["--xmp", "sidecar"], ["--watch"]):
        done = convnext("label", "memory://photos", "-o", tmp_path / "labels.csv", "-m", model, *more)
        assert done.status == 2
        assert "on this machine" in done.err
        assert not (tmp_path / "labels.csv.job").exists()


def test_keys_of_urls_and_paths_are_apart_and_lead_back() -> None:
    for path in ("s3://bucket/a/b.jpg", "memory://a.jpg", "zip://a/b.jpg::s3://bucket/x.zip", "/tmp/s3:/b.jpg"):
        assert file_of(key_of(path)) == path
    assert key_of("s3://b/a/") == key_of("s3://b/a")
    assert key_of("s3://b/a") < key_of("s3://b/a/b") < key_of("s3://b/a-b")
    assert key_of("file:///tmp/a.jpg") == key_of("/tmp/a.jpg")


# shards

SHARD = {"1.jpg": PHOTOS["a.jpg"], "1.cls": b"3", "2.jpg": PHOTOS["b.jpg"], "2.json": b"{}", "d/3.png": b"", "r": b"r"}


@pytest.mark.parametrize("where", ["here", "memory"])
def test_a_tar_shard_is_a_folder(convnext: Run, memory: object, model: str, tmp_path: Path, where: str) -> None:
    root = "memory://s" if where == "memory" else str(tmp_path)
    (tmp_path / "x.tar").write_bytes(tar_of(SHARD))
    memory.pipe("/s/x.tar", tar_of(SHARD))
    done = convnext("classify", f"{root}/x.tar", "-m", model, *ONE)
    rows = rows_of(done.out)
    assert [row["path"] for row in rows] == [f"{root}/x.tar/{name}" for name in ("1.jpg", "2.jpg", "d/3.png")]
    assert [kind for _, kind in failures_of(rows)] == [None, None, "empty"]
    (tmp_path / "1.jpg").write_bytes(PHOTOS["a.jpg"])
    alone = rows_of(convnext("classify", tmp_path / "1.jpg", "-m", model, *ONE).out)[0]
    assert rows[0] == alone | {"path": rows[0]["path"]}
    assert "1 .cls" in done.err
    walked = convnext("classify", "-r", root, "-m", model, "-f", "jsonl", "-q")
    assert f"{root}/x.tar/2.jpg" in paths(Photo(row["path"]) for row in rows_of(walked.out))


@pytest.mark.parametrize("where", ["here", "memory"])
def test_an_image_parquet_file_is_a_folder(
    convnext: Run, memory: object, model: str, tmp_path: Path, where: str
) -> None:
    root = "memory://s" if where == "memory" else str(tmp_path)
    data = parquet_of({"x/a.jpg": PHOTOS["a.jpg"], "b.jpg": PHOTOS["b.jpg"], "c.jpg": PHOTOS["c.jpg"][:200]})
    (tmp_path / "t.parquet").write_bytes(data)
    memory.pipe("/s/t.parquet", data)
    rows = rows_of(convnext("classify", f"{root}/t.parquet", "-m", model, "-f", "jsonl").out)
    assert [row["path"] for row in rows] == [f"{root}/t.parquet/{n}" for n in ("0/a.jpg", "1/b.jpg", "2/c.jpg")]
    assert [kind for _, kind in failures_of(rows)] == [None, None, "truncated"]


@pytest.mark.parametrize("cut", [1800, "marker", "header"])
def test_a_shard_that_is_cut_keeps_what_was_before(
    convnext: Run, memory: object, model: str, tmp_path: Path, cut: int | str
) -> None:
    whole = tar_of({"1.jpg": PHOTOS["a.jpg"], "2.jpg": PHOTOS["b.jpg"]})
    second = 512 + (len(PHOTOS["a.jpg"]) + 511) // 512 * 512
    end = {1800: second + 1000, "marker": second, "header": second + 100}[cut]
    memory.pipe("/s/x.tar", whole[:end])
    done = convnext("classify", "memory://s/x.tar", "-m", model, "-f", "jsonl")
    assert done.status == 1
    rows = rows_of(done.out)
    assert failures_of(rows) == [("1.jpg", None), ("x.tar", "corrupt")]
    assert "1.jpg" in rows[1]["error"]["message"]


@pytest.mark.parametrize("what", [b"A", b"\0"])
@pytest.mark.parametrize("length", [512, 700])
def test_a_shard_with_a_damaged_header_keeps_what_was_before(
    convnext: Run, model: str, tmp_path: Path, what: bytes, length: int
) -> None:
    """Where what follows is whole, as after a bad sector."""
    whole = bytearray(tar_of({f"{i}.jpg": PHOTOS["a.jpg"] for i in (1, 2, 3)}))
    second = 512 + (len(PHOTOS["a.jpg"]) + 511) // 512 * 512
    whole[second : second + length] = what * length
    (tmp_path / "x.tar").write_bytes(whole)
    done = convnext("classify", tmp_path / "x.tar", "-m", model, "-f", "jsonl")
    rows = rows_of(done.out)
    assert (done.status, failures_of(rows)) == (1, [("1.jpg", None), ("x.tar", "corrupt")])
    assert "after 1.jpg" in rows[1]["error"]["message"]


def test_many_threads_at_once_in_an_archive(tmp_path: Path) -> None:
    """The first of them has its directory read, and the others must not see half of it."""
    with zipfile.ZipFile(tmp_path / "x.zip", "w") as file:
        for number in range(3000):
            file.writestr(f"in/{number}.jpg", b"x")
    urls = [f"zip://in/{number}.jpg::{tmp_path}/x.zip" for number in range(2936, 3000)]
    for _ in range(3):
        filesystems.forget()
        with ThreadPoolExecutor(32) as pool:
            assert list(pool.map(partial(reading.read, most=10), urls)) == [b"x"] * len(urls)


def test_damaged_shards_are_rows(convnext: Run, memory: object, model: str) -> None:
    memory.pipe("/s/a.tar", b"no tar at all" * 100)
    memory.pipe("/s/b.tar", b"")
    memory.pipe("/s/c.parquet", parquet_of({"a.jpg": PHOTOS["a.jpg"]})[:-50])
    memory.pipe("/s/d.parquet", b"")
    done = convnext("classify", "-r", "memory://s", "-m", model, "-f", "jsonl")
    assert failures_of(rows_of(done.out)) == [
        *(("a.tar", "corrupt"), ("b.tar", "empty"), ("c.parquet", "corrupt"), ("d.parquet", "corrupt")),
    ]


def test_names_in_a_shard_lead_nowhere(convnext: Run, model: str, tmp_path: Path) -> None:
    (tmp_path / "x.tar").write_bytes(tar_of({"../../up.jpg": PHOTOS["a.jpg"], "/abs.jpg": PHOTOS["b.jpg"]}))
    rows = rows_of(convnext("classify", tmp_path / "x.tar", "-m", model, "-f", "jsonl").out)
    assert [row["path"] for row in rows] == [f"{tmp_path}/x.tar/up.jpg", f"{tmp_path}/x.tar/abs.jpg"]


def test_a_table_is_no_shard(convnext: Run, model: str, tmp_path: Path) -> None:
    pa = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    parquet.write_table(pa.table({"path": ["a.jpg"]}), tmp_path / "t.parquet")
    (tmp_path / "a.jpg").write_bytes(PHOTOS["a.jpg"])
    named = rows_of(convnext("classify", tmp_path / "t.parquet", "-m", model, "-f", "jsonl").out)
    assert failures_of(named) == [("t.parquet", "not_an_image")]
    walked = convnext("classify", "-r", tmp_path, "-m", model, "-f", "jsonl")
    assert failures_of(rows_of(walked.out)) == [("a.jpg", None)]
    assert ".parquet" in walked.err
    job = convnext("label", tmp_path, "-o", tmp_path / "labels.parquet", "-m", model)
    assert job.status == 0
    again = convnext("label", tmp_path, "-o", tmp_path / "labels.parquet", "-m", model)
    assert (again.status, "nothing new among 1 photo" in again.err) == (0, True)


def test_shards_of_a_job_are_opened_once(
    convnext: Run, memory: object, model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from convnext_cli.photos.containers import shards

    opened, real = [], shards.members
    monkeypatch.setattr(shards, "members", lambda path: opened.append(path) or real(path))
    memory.pipe("/s/x.tar", tar_of({"1.jpg": PHOTOS["a.jpg"], "2.jpg": PHOTOS["b.jpg"], "n.txt": b"n"}))
    memory.pipe("/s/y.jpg", PHOTOS["c.jpg"])
    target = tmp_path / "labels.jsonl"
    command = ("label", "memory://s", "-o", target, "-m", model)

    def states() -> list[tuple[str, str]]:
        rows = rows_of(target.read_text())
        return [(row["path"].removeprefix("memory://s/"), row["status"]) for row in rows]

    assert convnext(*command).status == 0
    assert states() == [("x.tar/1.jpg", "ok"), ("x.tar/2.jpg", "ok"), ("y.jpg", "ok")]
    assert "nothing new among 3 photos" in convnext(*command).err
    assert opened == ["memory://s/x.tar"]
    memory.pipe("/s/x.tar", tar_of({"1.jpg": PHOTOS["d.jpg"], "3.jpg": PHOTOS["b.jpg"]}))
    done = convnext(*command)
    assert "2 photos processed" in done.err
    assert states() == [("x.tar/1.jpg", "ok"), ("x.tar/2.jpg", "vanished"), ("x.tar/3.jpg", "ok"), ("y.jpg", "ok")]
    whole = tar_of({"1.jpg": PHOTOS["d.jpg"], "3.jpg": PHOTOS["b.jpg"]})
    memory.pipe("/s/x.tar", whole[:-13000])
    assert convnext(*command).status == 1
    assert ("x.tar", "failed") in states()
    memory.pipe("/s/x.tar", whole)
    assert convnext(*command).status == 0
    assert "x.tar" not in dict(states())
    memory.rm("/s/x.tar")
    convnext(*command)
    assert dict(states()) == {f"x.tar/{n}.jpg": "vanished" for n in "123"} | {"y.jpg": "ok"}


def test_photos_in_a_shard_are_not_sorted(convnext: Run, model: str, tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "x.tar").write_bytes(tar_of({"1.jpg": PHOTOS["a.jpg"]}))
    (tmp_path / "photos" / "2.jpg").write_bytes(PHOTOS["b.jpg"])
    more = ("--sort-into", tmp_path / "sorted", "-m", model)
    done = convnext("label", tmp_path / "photos", "-o", tmp_path / "labels.csv", *more)
    assert (done.status, "1 photo (copy); left: 1 in a shard" in done.err) == (0, True)


def test_a_shard_that_a_later_walk_leaves_out_has_not_vanished(convnext: Run, model: str, tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "x.tar").write_bytes(tar_of({"1.jpg": PHOTOS["a.jpg"]}))
    target = tmp_path / "labels.csv"
    convnext("label", tmp_path / "photos", "-o", target, "-m", model)
    before = target.read_bytes()
    convnext("label", tmp_path / "photos", "-o", target, "-m", model, "--exclude", "*.tar")
    assert target.read_bytes() == before
    (tmp_path / "photos" / "x.tar").unlink()
    convnext("label", tmp_path / "photos", "-o", target, "-m", model)
    assert b"vanished" in target.read_bytes()


def test_a_job_that_broke_off_within_a_shard_goes_on_there(
    convnext: Run, memory: object, model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from convnext_cli.photos.containers import shards
    from convnext_cli.photos.containers.member import Member

    memory.pipe("/s/x.tar", tar_of({f"{n}.jpg": PHOTOS[f"{c}.jpg"] for n, c in enumerate("abcd")}))
    target, real = tmp_path / "labels.jsonl", shards.members

    def breaking(path: str) -> Iterator[Member]:
        for number, member in enumerate(real(path)):
            if number == 2:
                raise PhotoError("timeout", "the connection broke")
            yield member

    monkeypatch.setattr(shards, "members", breaking)
    command = ("label", "memory://s", "-o", target, "-m", model)
    assert convnext(*command).status == 1
    assert failures_of(rows_of(target.read_text())) == [("x.tar", "timeout"), ("0.jpg", None), ("1.jpg", None)]
    monkeypatch.setattr(shards, "members", real)
    done = convnext(*command)
    assert "2 photos processed" in done.err
    assert failures_of(rows_of(target.read_text())) == [(f"{n}.jpg", None) for n in range(4)]


def test_a_job_of_the_version_before_goes_on(convnext: Run, folder: Path, model: str, tmp_path: Path) -> None:
    import sqlite3
    from contextlib import closing

    target = tmp_path / "labels.jsonl"
    convnext("label", folder, "-o", target, "-m", model)
    with closing(sqlite3.connect(f"{target}.job")) as db:
        db.execute("DROP TABLE shards")
        db.execute("DROP TABLE guesses")
        db.execute("DROP VIEW results")
        later = [row[1] for row in db.execute("PRAGMA table_info(photos)") if row[1].startswith("answer")]
        for column in (*later, "set", "coverage", "tag"):
            db.execute(f'ALTER TABLE photos DROP COLUMN "{column}"')
        db.execute("PRAGMA user_version = 1")
        db.commit()
    assert "nothing new among 5 photos" in convnext("label", folder, "-o", target, "-m", model).err


# evaluating


@pytest.fixture
def labelled(tmp_path: Path, memory: object) -> Path:
    made = tmp_path / "labelled"
    for sample, name in zip(SAMPLES, ("tabby", "espresso", "obelisk"), strict=True):
        (made / name).mkdir(parents=True)
        (made / name / "1.jpg").write_bytes(Path(sample).read_bytes())
        memory.pipe(f"/labelled/{name}/1.jpg", Path(sample).read_bytes())
    return made


def test_evaluate_reads_urls_and_shards(convnext: Run, memory: object, labelled: Path, tmp_path: Path) -> None:
    def top1(*data: object) -> tuple[object, object]:
        done = convnext("evaluate", *data, "--json")
        assert done.status == 0, done.err
        document = json.loads(done.out)
        return document["top1"]["right"], document["top1"]["photos"]

    wanted = top1(labelled)
    assert wanted[1] == 3
    assert top1("memory://labelled") == wanted
    files = {}
    for path in sorted(labelled.rglob("*.jpg")):
        files |= {f"{path.parent.name}.jpg": path.read_bytes(), f"{path.parent.name}.cls": path.parent.name.encode()}
    memory.pipe("/shards/train-0.tar", tar_of(files))
    assert top1("memory://shards/train-0.tar") == wanted
    (tmp_path / "x.tar").write_bytes(tar_of({k.replace(".cls", ".json"): v for k, v in files.items() if "jpg" in k}))
    with zipfile.ZipFile(tmp_path / "x.zip", "w") as file:
        for path in labelled.rglob("*.jpg"):
            file.write(path, path.relative_to(labelled))
    memory.pipe("/x.zip", (tmp_path / "x.zip").read_bytes())
    assert top1("memory://x.zip") == wanted
    table = "path,label\n" + "".join(f"{p.relative_to(labelled)},{p.parent.name}\n" for p in labelled.rglob("*.jpg"))
    memory.pipe("/labelled/table.csv", table.encode())
    assert top1("memory://labelled/table.csv") == wanted
    assert convnext("evaluate", "memory://gone").status == 2


def test_labels_of_tar_shards(tmp_path: Path) -> None:
    from convnext_cli.datasets import open_data

    files = {
        "a.jpg": b"x",
        "a.cls": b"3\n",
        "b.jpg": b"y",
        "b.json": b'{"label": "dog"}',
        "c.jpg": b"z",
        "c.txt": b"a cat",
    }
    files |= {"d.seg.jpg": b"d", "d.cls": b"9", "e.png": b"e", "e.json": b"[1]", "f/a.jpg": b"f"}
    (tmp_path / "val-0.tar").write_bytes(tar_of(files))
    data = open_data(str(tmp_path / "val-0.tar"))
    assert [(os.path.relpath(p.path, tmp_path), p.label) for p in data.photos] == [
        *(("val-0.tar/a.jpg", "3"), ("val-0.tar/b.jpg", "dog"), ("val-0.tar/c.jpg", "a cat")),
        *(("val-0.tar/d.seg.jpg", "9"), ("val-0.tar/e.png", None), ("val-0.tar/f/a.jpg", None)),
    ]
    assert data.splits() == ("val",)
    assert [data.read(photo) for photo in data.photos] == [b"x", b"y", b"z", b"d", b"e", b"f"]
    data.close()


def test_large_objects_are_read_a_few_at_a_time(
    convnext: Run, memory: object, model: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from convnext_cli.predict import preprocess

    reading, most, lock, real = 0, 0, threading.Lock(), preprocess.read_file
    together = threading.Barrier(2)

    def read(path: str) -> bytes:
        nonlocal reading, most
        with lock:
            reading += 1
            most = max(most, reading)
        together.wait(20)
        with lock:
            reading -= 1
        return real(path)

    monkeypatch.setattr(preprocess, "read_file", read)
    monkeypatch.setattr(preprocess, "LARGE", 100)
    monkeypatch.setattr(preprocess, "_few_large", threading.Semaphore(2))
    for number in range(12):
        memory.pipe(f"/l/{number}.jpg", PHOTOS["a.jpg"])
    assert convnext("classify", "-r", "memory://l", "-m", model, "-f", "jsonl", "--timeout", 30).status == 0
    assert most == 2


# secrets, errors, patience


@pytest.mark.parametrize(
    ("text", "clean"),
    [
        ("ftp://me:secret@host/x", "ftp://…@host/x"),
        ("ftp://me:sec@ret@host/x", "ftp://…@host/x"),
        ("s3://user:a/b@host/x", "s3://…@host/x"),
        ("https://TOKEN@host/x", "https://…@host/x"),
        ("see HTTPS://TOKEN@host/x.", "see HTTPS://…@host/x."),
        ("abfs://container@account.dfs.example/x", "abfs://container@account.dfs.example/x"),
        ("s3://bucket/a@2x.jpg", "s3://bucket/a@2x.jpg"),
        ("s3://arn:aws:s3:eu:1:accesspoint/a/b@2x.jpg", "s3://arn:aws:s3:eu:1:accesspoint/a/b@2x.jpg"),
        ("https://host/x and me@example.org", "https://host/x and me@example.org"),
        (
            "https://b/x?X-Amz-Signature=abc&a=1&X-Amz-Credential=AK",
            "https://b/x?X-Amz-Signature=…&a=1&X-Amz-Credential=…",
        ),
        ("https://b/x?sv=1&sig=abc%3D", "https://b/x?sv=1&sig=…"),
        ("key AKIAABCDEFGHIJKLMNOP is unknown", "key … is unknown"),
        ("with hf_abcdefghijklmnopqrst", "with …"),
        ("from-the-environment!", "…!"),
        ("from-its-options at http://host:9000", "… at http://host:9000"),
        ("s3://bucket/design=1/keyboard=2.jpg", "s3://bucket/design=1/keyboard=2.jpg"),
    ],
)
def test_secrets_are_taken_out(text: str, clean: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "from-the-environment")
    monkeypatch.setenv("FSSPEC_S3", '{"anon": false, "secret": "from-its-options", "endpoint_url": "http://host:9000"}')
    assert addresses.scrub(text) == clean


@pytest.mark.parametrize(
    ("url", "word"),
    [
        ("s3://me:secret@bucket/x.jpg", "password"),
        ("az://box/x.jpg?sv=1&sig=secret", "password"),
        ("foo://x", "not supported"),
        ("https://host/x.jpg?sig=secret", "not fetched"),
        ("zip://a.jpg::https://host/x.zip", "not fetched"),
    ],
)
def test_urls_that_are_not_taken(convnext: Run, model: str, tmp_path: Path, url: str, word: str) -> None:
    for command in (["classify"], ["label", "-o", tmp_path / "x.jsonl"], ["evaluate"]):
        done = convnext(*command, url, "-m", model)
        assert done.status == 2
        assert word in done.err
        assert "secret" not in done.err


def test_results_stay_here(convnext: Run, memory: object, model: str) -> None:
    memory.pipe("/a.jpg", PHOTOS["a.jpg"])
    for command in ("classify", "label"):
        done = convnext(command, "memory://a.jpg", "-o", "s3://bucket/labels.jsonl", "-m", model)
        assert done.status == 2
        assert "this machine" in done.err


def test_a_library_that_is_not_there_is_said_with_its_extra(convnext: Run, model: str) -> None:
    if find_spec("gcsfs") is not None:
        pytest.skip("gcsfs is there")
    done = convnext("classify", "gs://bucket/x.jpg", "-m", model)
    assert done.status == 4
    assert "pip install 'convnext-cli[gs]'" in done.err


class Refused(OSError):
    """What an HTTP library raises. status: of the answer."""

    def __init__(self, status: int) -> None:
        super().__init__(f"answer {status}")
        self.status = status


def test_patience_has_growing_pauses_and_an_end() -> None:
    pauses: list[float] = []
    wait = replace(patience, tries=5, first=1, longest=3, sleep=pauses.append, draw=lambda: 1.0)
    answers = iter([Refused(503), Refused(429), TimeoutError(), ConnectionResetError(), "there"])

    def work() -> object:
        answer = next(answers)
        if isinstance(answer, Exception):
            raise answer
        return answer

    assert wait(work) == "there"
    assert pauses == [1, 2, 3, 3]
    pauses.clear()
    answers = iter([Refused(503)] * 9)
    with pytest.raises(Refused):
        wait(work)
    assert len(pauses) == 4
    halves = replace(patience, first=1, draw=lambda: 0.0)
    assert halves.pause(0) == 0.5


def test_progress_does_not_count_as_a_failure() -> None:
    pauses: list[float] = []
    wait = replace(patience, tries=3, first=1, enough=10, sleep=pauses.append, draw=lambda: 1.0)
    reached = iter([0, 10, 19, 29, 30, 39, 38])

    def work() -> object:
        raise Refused(503)

    with pytest.raises(Refused):
        wait(work, lambda: next(reached))
    assert pauses == [1, 1, 1, 1, 2], "two of six calls brought enough: the first and the third"


@pytest.mark.parametrize("error", [FileNotFoundError(), PermissionError(), Refused(403), Refused(404), ValueError("x")])
def test_what_would_fail_again_is_not_tried_again(error: Exception) -> None:
    tried = []

    def work() -> None:
        tried.append(1)
        raise error

    with pytest.raises(type(error)):
        replace(patience, sleep=lambda _: None)(work)
    assert len(tried) == 1


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (FileNotFoundError(), "missing"),
        (Refused(404), "missing"),
        (PermissionError(), "permission"),
        (Refused(401), "permission"),
        (Refused(503), "timeout"),
        (TimeoutError(), "timeout"),
        (ConnectionResetError(), "timeout"),
        (IsADirectoryError(), "not_a_file"),
        (ValueError("odd"), "corrupt"),
    ],
)
def test_kinds_of_failures(error: Exception, kind: str) -> None:
    assert failures.photo_error(error).kind == kind


def test_a_listing_that_breaks_off_ends_the_command(
    convnext: Run, memory: object, model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Or what was not listed would look as if it had vanished."""
    for folder in "ab":
        memory.pipe(f"/t/{folder}/1.jpg", PHOTOS["a.jpg"])
    target = tmp_path / "labels.jsonl"
    command = ("label", "memory://t", "-o", target, "-m", model)
    convnext(*command)
    before, real = target.read_bytes(), memory.ls

    def ls(self: object, path: str, **more: object) -> object:
        if path == "/t/b":
            raise Refused(503)
        return real(path, **more)

    monkeypatch.setattr(type(memory), "ls", ls)
    monkeypatch.setattr("convnext_cli.storage.retry.patience", replace(patience, sleep=lambda _: None))
    done = convnext(*command)
    assert done.status == NetworkError.exit_status
    assert target.read_bytes() == before


def test_what_tells_that_an_object_changed() -> None:
    from datetime import UTC, datetime

    when = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
    assert listing.seen({"size": 3, "ETag": '"x"', "LastModified": when}) == listing.Seen(3, None, '"x"')
    assert listing.seen({"size": 3, "LastModified": when}).mtime_ns == int(when.timestamp()) * 10**9
    assert listing.seen({"size": 3, "updated": "2026-01-02T03:04:05Z"}).mtime_ns == int(when.timestamp()) * 10**9
    assert listing.seen({"size": 0}) == listing.Seen(0)


def test_a_place_gives_back_the_urls_that_it_was_given() -> None:
    for url, name, back in (
        ("memory://a/b", "/a/b/c.jpg", "memory://a/b/c.jpg"),
        ("memory://", "/c.jpg", "memory://c.jpg"),
        ("memory://a/", "/a/c.jpg", "memory://a/c.jpg"),
    ):
        assert filesystems.locate(url).url_of(name) == back
