"""Photos in a bucket: a real server on the loopback, asked over HTTP, and the faults that buckets have."""

from __future__ import annotations

import dataclasses
import json
import os
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from convnext_cli.photos.find import Finder
from convnext_cli.storage import filesystems, retry
from tests.helpers.command import Run
from tests.helpers.containers import parquet_of, tar_of
from tests.helpers.paths import ROOT
from tests.helpers.photos import encoded, picture
from tests.helpers.rows import failures_of, rows_of
from tests.helpers.tiers import slow_except
from tests.helpers.weights import write_model

pytest.importorskip("s3fs")
pytest.importorskip("moto")
pytest.importorskip("flask_cors")

from tests.helpers.fake_s3 import BUCKET, KEY, SECRET, Fault, Store

PHOTOS = {f"{name}.jpg": encoded(picture(60, 50, seed=seed), "JPEG") for seed, name in enumerate("abcd")}
ALL = f"s3://{BUCKET}"


@pytest.fixture
def pauses(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The pauses that were made between tries, none of which takes time."""
    made: list[float] = []
    for name in ("patience", "first_contact"):
        patience = dataclasses.replace(getattr(retry, name), sleep=made.append, draw=lambda: 1.0)
        monkeypatch.setattr(retry, name, patience)
    return made


@pytest.fixture
def store(s3_server: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, pauses: list[float]) -> Iterator[Store]:
    """A bucket behind a proxy with faults, and the credentials for it where everyone has them."""
    for name in [name for name in os.environ if name.startswith(("AWS_", "FSSPEC_"))]:
        monkeypatch.delenv(name)
    with Store(s3_server) as made:
        values = {"ACCESS_KEY_ID": KEY, "SECRET_ACCESS_KEY": SECRET, "ENDPOINT_URL": made.url, "REGION": "us-east-1"}
        values |= {"EC2_METADATA_DISABLED": "true", "CONFIG_FILE": str(tmp_path / "none")}
        values |= {"SHARED_CREDENTIALS_FILE": str(tmp_path / "none"), "DEFAULT_REGION": "us-east-1"}
        for name, value in values.items():
            monkeypatch.setenv(f"AWS_{name}", value)
        filesystems.forget()
        yield made
        filesystems.forget()


@pytest.fixture
def model(tmp_path: Path) -> str:
    return str(write_model(tmp_path / "small.safetensors"))


@pytest.fixture
def photos(store: Store, tmp_path: Path) -> Path:
    """The same photos in the bucket and in a folder."""
    folder = tmp_path / "photos"
    for name, data in {**PHOTOS, "b/e.png": encoded(picture(40, 40)), "bad.jpg": PHOTOS["a.jpg"][:99]}.items():
        store.put(name, data)
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)
    return folder


def classify(convnext: Run, *arguments: object) -> tuple[int, list[dict], str]:
    done = convnext("classify", *arguments, "-f", "jsonl")
    return done.status, rows_of(done.out), done.err


# listing and reading


def test_a_large_bucket_is_listed_page_by_page(store: Store) -> None:
    from moto.s3.models import s3_backends

    backend = s3_backends["123456789012"]["aws"]
    for number in range(3500):
        backend.put_object(BUCKET, f"holiday/{number:05d}.jpg", b"x")
    found = Finder(recursive=True).named([f"{ALL}/holiday"])
    store.log.clear()
    for _ in range(10):
        next(found)
    assert not store.asked("list-type=2")  # the first page was there, and no other is asked for yet
    names = [photo.path for photo in found]
    assert names == [f"{ALL}/holiday/{number:05d}.jpg" for number in range(10, 3500)]
    assert len(store.asked("list-type=2")) == 3


def test_rows_are_those_of_the_same_photos_here(convnext: Run, photos: Path, model: str, tmp_path: Path) -> None:
    here, there = (convnext("classify", "-r", root, "-m", model, "-f", "csv", "-b", 1) for root in (photos, ALL))
    assert here.status == there.status == 1
    assert sorted(there.out.splitlines()) == sorted(here.out.replace(str(photos), ALL).splitlines())
    for root in (photos, ALL):
        assert convnext("label", root, "-o", tmp_path / f"{len(str(root))}.jsonl", "-m", model).status == 1
    labels = (tmp_path / f"{len(str(photos))}.jsonl").read_text().replace(str(photos), ALL)
    assert (tmp_path / f"{len(ALL)}.jsonl").read_text() == labels


def test_globs_ask_for_no_more_than_they_match(store: Store, photos: Path) -> None:
    names = [photo.path for photo in Finder().named([f"{ALL}/*.jpg"])]
    assert names == [f"{ALL}/{name}" for name in ("a.jpg", "b.jpg", "bad.jpg", "c.jpg", "d.jpg")]
    assert "delimiter=%2F" in store.asked("list-type=2")[-1]
    assert [photo.path for photo in Finder().named([f"{ALL}/b*.jpg"])] == [f"{ALL}/b.jpg", f"{ALL}/bad.jpg"]
    assert "prefix=b&" in store.asked("list-type=2")[-1]
    assert [photo.path for photo in Finder().named([f"{ALL}/**/*.png"])] == [f"{ALL}/b/e.png"]


def test_names_of_objects_may_hold_anything(convnext: Run, store: Store, model: str, tmp_path: Path) -> None:
    names = ["a b.jpg", "a+b%20.jpg", "ü/ä::b.jpg", "q?x#y.jpg", "[1].jpg", "a//b.jpg"]
    for name in names:
        store.put(name, PHOTOS["a.jpg"])
    store.put("folder/", b"")
    target = tmp_path / "labels.jsonl"
    assert convnext("label", ALL, "-o", target, "-m", model).status == 0
    assert sorted(row["path"] for row in rows_of(target.read_text())) == sorted(f"{ALL}/{name}" for name in names)
    assert "nothing new among 6 photos" in convnext("label", ALL, "-o", target, "-m", model).err


def test_reads_overlap_though_one_thread_decodes(convnext: Run, photos: Path, store: Store, model: str) -> None:
    for number in range(12):
        store.put(f"more/{number}.jpg", PHOTOS["a.jpg"])
    together = threading.Barrier(8, timeout=20)

    def wait(line: str) -> None:
        if "/more/" in line and line.startswith("GET") and not together.broken and waits:
            waits.pop()
            together.wait()

    waits = [1] * 8
    store.before = wait
    status, rows, _ = classify(convnext, "-r", f"{ALL}/more", "-m", model, "-t", 1)
    assert (status, len(rows), together.broken, waits) == (0, 12, False, [])


def test_lists_of_urls_are_labelled_and_known_again(
    convnext: Run, store: Store, photos: Path, model: str, tmp_path: Path
) -> None:
    (tmp_path / "list").write_text(f"{ALL}/a.jpg\n{ALL}/gone.jpg\n{photos}/b.jpg\n")
    target = tmp_path / "labels.jsonl"
    command = ("label", "--files-from", tmp_path / "list", "-o", target, "-m", model)
    assert convnext(*command).status == 1
    assert sorted(failures_of(rows_of(target.read_text()))) == [
        ("a.jpg", None),
        ("b.jpg", None),
        ("gone.jpg", "missing"),
    ]
    store.log.clear()
    assert "nothing new" in convnext(*command).err
    assert not store.asked("GET /photos/a.jpg")


# the job


def test_a_job_knows_objects_by_their_tags(
    convnext: Run, store: Store, photos: Path, model: str, tmp_path: Path
) -> None:
    target = tmp_path / "labels.jsonl"
    command = ("label", ALL, "-o", target, "-m", model)
    convnext(*command)
    store.log.clear()
    assert "nothing new among 6 photos" in convnext(*command).err
    assert not [line for line in store.log if ".jpg" in line or ".png" in line]
    store.put("a.jpg", PHOTOS["a.jpg"])  # written again, and the same
    assert "nothing new among 6 photos" in convnext(*command).err
    same_size = bytearray(PHOTOS["b.jpg"])
    same_size[-10] ^= 1
    store.put("b.jpg", bytes(same_size))
    store.delete("c.jpg")
    assert "1 photo processed" in convnext(*command).err
    assert {Path(row["path"]).name: row["status"] for row in rows_of(target.read_text())}["c.jpg"] == "vanished"
    before = target.read_bytes()
    convnext(*command, "--exclude", "*.jpg")
    assert target.read_bytes() == before


def test_a_job_that_is_killed_goes_on(store: Store, photos: Path, model: str, tmp_path: Path, convnext: Run) -> None:
    """Killed while half of the photos are being read."""
    for number in range(40):
        store.put(f"z/{number:02d}.jpg", PHOTOS["a.jpg"])
    killed = threading.Event()
    store.before = lambda line: line.startswith("GET /photos/z/2") and killed.wait(60)
    target = tmp_path / "labels.jsonl"
    # each row is committed as it comes, and what comes before the first that is held is all that there can be
    code = "from convnext_cli.jobs import job; job.COMMIT_SECONDS = 0; from convnext_cli.cli import main; main()"
    command = [sys.executable, "-c", code, "label", ALL, "-o", str(target), "-m", model, "-b", "1"]

    def rows() -> int:
        try:
            with closing(sqlite3.connect(f"file:{target}.job?mode=ro", uri=True)) as db:
                return int(db.execute("SELECT count(*) FROM photos").fetchone()[0])
        except sqlite3.OperationalError:  # not there yet
            return 0

    with subprocess.Popen(command, cwd=ROOT, stderr=subprocess.DEVNULL) as running:
        while not rows() and running.poll() is None:
            time.sleep(0.05)
        running.kill()
    killed.set()
    done = rows()
    assert 0 < done < 46
    again = convnext("label", ALL, "-o", target, "-m", model)
    assert f"{46 - done} photos processed" in again.err
    assert len(rows_of(target.read_text())) == 46


def test_shards_in_a_bucket(convnext: Run, store: Store, model: str, tmp_path: Path) -> None:
    for number in range(3):
        store.put(f"s/{number:03d}.tar", tar_of({"a.jpg": PHOTOS["a.jpg"], "a.cls": b"1", "b.jpg": PHOTOS["b.jpg"]}))
    store.put("s/x.parquet", parquet_of(PHOTOS))
    status, rows, _ = classify(convnext, f"{ALL}/s/{{000..002}}.tar", "-m", model)
    assert status == 0
    assert [row["path"] for row in rows] == [f"{ALL}/s/{n:03d}.tar/{p}.jpg" for n in range(3) for p in "ab"]
    target = tmp_path / "labels.jsonl"
    assert convnext("label", f"{ALL}/s", "-o", target, "-m", model).status == 0
    assert len(rows_of(target.read_text())) == 10
    store.log.clear()
    assert "nothing new among 10 photos" in convnext("label", f"{ALL}/s", "-o", target, "-m", model).err
    assert not [line for line in store.log if ".tar" in line and "prefix" not in line]
    data = tar_of({f"{n}.jpg": PHOTOS["a.jpg"] for n in range(9)})
    store.put("s/000.tar", data[: len(data) // 2])
    assert convnext("label", f"{ALL}/s", "-o", target, "-m", model).status == 1
    failed = [row for row in rows_of(target.read_text()) if row["status"] == "failed"]
    assert [(row["path"], row["error"]["kind"]) for row in failed] == [(f"{ALL}/s/000.tar", "corrupt")]


def test_a_shard_is_read_on_after_a_broken_connection(
    convnext: Run, store: Store, model: str, pauses: list[float]
) -> None:
    store.put("x.tar", tar_of({f"{n}.jpg": PHOTOS["a.jpg"] for n in range(5)}))
    store.faults = [Fault("GET /photos/x.tar", 2, cut=4000)]
    status, rows, _ = classify(convnext, f"{ALL}/x.tar", "-m", model)
    assert (status, len(rows), len(pauses)) == (0, 5, 2)
    store.faults = [Fault("GET /photos/x.tar", status=503, code="SlowDown")]
    status, rows, _ = classify(convnext, f"{ALL}/x.tar", "-m", model)
    assert (status, failures_of(rows)) == (1, [("x.tar", "timeout")])


def test_evaluate_reads_a_bucket(convnext: Run, store: Store) -> None:
    for name in ("tabby", "espresso"):
        store.put(f"set/{name}/1.jpg", PHOTOS["a.jpg"])
    done = convnext("evaluate", f"{ALL}/set", "--json")
    assert json.loads(done.out)["top1"]["photos"] == 2


@pytest.mark.parametrize(
    "how", slow_except(["--freeze", "--epochs 1 -b 4 --memory 0"], "--freeze"), ids=["freeze", "read again"]
)
def test_train_reads_a_bucket(convnext: Run, store: Store, model: str, tmp_path: Path, how: str) -> None:
    folder = tmp_path / "set"
    for number in range(16):
        for name in ("tabby", "espresso"):
            data = encoded(picture(50, 40, seed=2 * number + (name == "tabby")), "JPEG")
            store.put(f"set/{name}/{number:02}.jpg", data)
            (folder / name).mkdir(parents=True, exist_ok=True)
            (folder / name / f"{number:02}.jpg").write_bytes(data)
    results = []
    for data, run in ((f"{ALL}/set", tmp_path / "remote"), (folder, tmp_path / "local")):
        start = ("train", data, "-o", run, "--from", model, "-d", "cpu", "-t", "1", "-j", "0", "--dtype", "float32")
        done = convnext(*start, *how.split(), "--set", "search_size=false")
        assert done.status == 0, done.err
        results.append(json.loads((run / "run.json").read_text())["results"])
    assert results[0] == results[1]


# what goes wrong


@pytest.mark.parametrize("command", [["classify", "-r"], ["label", "-o", "x.jsonl"], ["evaluate"]])
@pytest.mark.parametrize("why", ["missing", "denied", "nobody"])
def test_a_bucket_that_cannot_be_listed_is_an_error_at_once(
    convnext: Run, store: Store, model: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, command: list, why: str
) -> None:
    monkeypatch.chdir(tmp_path)
    bucket = "s3://no-such-bucket" if why == "missing" else ALL
    if why == "denied":
        store.faults = [Fault("list-type=2", status=403, code="AccessDenied")]
    if why == "nobody":
        monkeypatch.delenv("AWS_ACCESS_KEY_ID")
        monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
        filesystems.forget()
    done = convnext(*command, bucket, "-m", model)
    assert (done.status, done.out) == (2, "")
    assert {"missing": "does not exist", "denied": "no permission", "nobody": "no permission"}[why] in done.err
    assert "hint: " in done.err
    assert not (tmp_path / "x.jsonl").exists()


def test_one_that_may_not_be_read_is_a_row(convnext: Run, photos: Path, store: Store, model: str) -> None:
    store.faults = [Fault("GET /photos/b.jpg", status=403, code="AccessDenied")]
    status, rows, _ = classify(convnext, "-r", ALL, "-m", model)
    assert status == 1
    assert dict(failures_of(rows)) == {
        **dict.fromkeys((*PHOTOS, "e.png")),
        "b.jpg": "permission",
        "bad.jpg": "truncated",
    }
    assert len(store.asked("GET /photos/b.jpg")) == 1


def test_one_that_goes_between_listing_and_reading_is_missing(
    convnext: Run, photos: Path, store: Store, model: str, tmp_path: Path
) -> None:
    store.after = lambda line: store.delete("c.jpg") if "list-type=2" in line else None
    status, rows, _ = classify(convnext, "-r", ALL, "-m", model)
    assert status == 1
    assert dict(failures_of(rows))["c.jpg"] == "missing"


@pytest.mark.parametrize(
    "fault",
    [
        Fault("", 3, 503, "SlowDown"),
        Fault("", 3, 429, "TooManyRequests"),
        Fault("", 3, 500, "InternalError"),
        Fault("", 3, cut=20),
    ],
    ids=["503", "429", "500", "cut"],
)
def test_faults_that_pass_are_waited_for(
    convnext: Run, photos: Path, store: Store, model: str, pauses: list[float], fault: Fault
) -> None:
    store.faults = [Fault("GET /photos/a.jpg", fault.times, fault.status, fault.code, fault.cut)]
    _, rows, _ = classify(convnext, "-r", ALL, "-m", model)
    assert dict(failures_of(rows))["a.jpg"] is None
    assert pauses == [0.5, 1.0, 2.0]


def test_a_listing_that_is_throttled_is_waited_for(
    convnext: Run, photos: Path, store: Store, model: str, pauses: list[float]
) -> None:
    store.faults = [Fault("list-type=2", 2, 503, "SlowDown")]
    _, rows, _ = classify(convnext, "-r", ALL, "-m", model)
    assert len(rows) == 6
    assert len(pauses) == 2
    store.faults = [Fault("list-type=2", status=503, code="SlowDown")]
    done = convnext("classify", "-r", ALL, "-m", model)
    assert done.status == 5
    assert "too busy" in done.err


@pytest.mark.parametrize("fault", [Fault("", status=503, code="SlowDown"), Fault("", cut=20)], ids=["503", "cut"])
def test_faults_that_stay_are_a_row_that_says_so(
    convnext: Run, photos: Path, store: Store, model: str, pauses: list[float], fault: Fault
) -> None:
    store.faults = [Fault("GET /photos/a.jpg", fault.times, fault.status, fault.code, fault.cut)]
    status, rows, _ = classify(convnext, "-r", ALL, "-m", model)
    assert status == 1
    (row,) = [row for row in rows if row["path"] == f"{ALL}/a.jpg"]
    assert row["error"]["kind"] == "timeout"
    assert ("too busy" if fault.status else "connection") in row["error"]["message"]
    assert len(store.asked("GET /photos/a.jpg")) == retry.patience.tries
    assert dict(failures_of(rows))["d.jpg"] is None


@pytest.mark.parametrize("address", ["http://127.0.0.1:9", "http://no-such-host.invalid"])
def test_a_store_that_is_not_reached_is_a_matter_of_the_network(
    convnext: Run, store: Store, model: str, monkeypatch: pytest.MonkeyPatch, address: str
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", address)
    filesystems.forget()
    done = convnext("classify", f"{ALL}/a.jpg", "-m", model)
    assert done.status == 5
    assert "AWS_ENDPOINT_URL" in done.err or "endpoint" in done.err


def test_no_output_ever_holds_a_key(
    convnext: Run, photos: Path, store: Store, model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The store's own words hold the key; what is printed and written does not."""
    token = "a-session-token-nobody-may-see"
    monkeypatch.setenv("AWS_SESSION_TOKEN", token)
    filesystems.forget()
    seen = ""
    target = tmp_path / "labels.jsonl"
    for fault in (
        *(Fault("GET /photos/a.jpg", status=status, code="SlowDown") for status in (503, 403, 400)),
        *(Fault("list-type=2", status=status, code="AccessDenied") for status in (503, 403, 400)),
        *(Fault("HEAD", status=status) for status in (403, 400)),
    ):
        store.faults = [fault]
        for command in (
            ["classify", "-r", "-v", ALL, f"{photos}/b.jpg"],
            ["classify", f"{ALL}/a.jpg"],
            ["label", "-v", ALL, "-o", target],
            ["evaluate", "-v", ALL],
        ):
            done = convnext(*command, "-m", model)
            seen += done.out + done.err
    listed = tmp_path / "list"
    listed.write_text(f"s3://{KEY}:{SECRET}@bucket/x.jpg\nhttps://h/x.jpg?X-Amz-Credential={KEY}&X-Amz-Signature=5ec\n")
    done = convnext("label", "--files-from", listed, "-o", tmp_path / "other.csv", "-m", model)
    seen += done.out + done.err
    assert "as you asked" in seen  # the store's words are there
    written = [path for path in tmp_path.rglob("*") if path.is_file() and path not in (listed,)]
    assert {target, tmp_path / "labels.jsonl.job", tmp_path / "other.csv"} <= set(written)
    for secret in (KEY, SECRET, token, "5ec&", "Signature=5ec"):
        assert secret not in seen
        assert not [path for path in written if secret.encode() in path.read_bytes()]
