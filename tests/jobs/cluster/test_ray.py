"""The job on a real cluster: three nodes of Ray on the loopback, and a bucket."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.helpers.command import Run
from tests.helpers.containers import tar_of
from tests.helpers.paths import ROOT
from tests.helpers.photos import encoded, picture
from tests.helpers.weights import write_model

pytest.importorskip("ray")
pytest.importorskip("pyarrow")
pytest.importorskip("s3fs")
pytest.importorskip("moto")
pytest.importorskip("flask_cors")

import pyarrow.parquet as pq

from tests.helpers.fake_s3 import BUCKET, KEY, SECRET, Fault, Store

PHOTO = [encoded(picture(60, 50, seed=seed), "JPEG") for seed in range(4)]
SOURCE, TARGET = f"s3://{BUCKET}/photos", f"s3://{BUCKET}/labels"
COUNT = 600


@pytest.fixture(scope="module")
def bucket(s3_server: str) -> Iterator[Store]:
    with Store(s3_server) as made:
        for number in range(COUNT):
            data = PHOTO[number % 4] if number % 100 else b"no photo"
            made.put(f"photos/{number % 3}/{number:04d}.jpg", data)
        made.put("photos/s.tar", tar_of({f"{n}.jpg": PHOTO[n % 4] for n in range(50)}))
        yield made


@pytest.fixture(scope="module")
def environment(bucket: Store, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """What nodes and commands have in common."""
    folder = tmp_path_factory.mktemp("nodes")
    return {
        "CONVNEXT_HOME": str(folder / "home"),
        "AWS_ACCESS_KEY_ID": KEY,
        "AWS_SECRET_ACCESS_KEY": SECRET,
        "AWS_ENDPOINT_URL": bucket.url,
        "AWS_REGION": "us-east-1",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_EC2_METADATA_DISABLED": "true",
        "RAY_worker_niceness": "0",
        "COLUMNS": "200",
    }


@pytest.fixture(scope="module")
def nodes(environment: dict[str, str]) -> Iterator[list[Any]]:
    """Three nodes; the first one is the head, where commands connect."""
    from ray.cluster_utils import Cluster

    on_sigterm = signal.getsignal(signal.SIGTERM)  # a node ends this process on a SIGTERM, also when it has gone
    before = {name: os.environ.get(name) for name in environment}
    os.environ.update(environment)
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    head = {"num_cpus": 1, "object_store_memory": 200 << 20, "ray_client_server_port": port}
    cluster = Cluster(initialize_head=True, head_node_args=head)
    workers = [cluster.add_node(num_cpus=1, object_store_memory=200 << 20) for _ in range(2)]
    environment |= {"RAY_ADDRESS": cluster.address, "FROM_OUTSIDE": f"ray://127.0.0.1:{port}"}
    yield [cluster, *workers]
    cluster.shutdown()
    signal.signal(signal.SIGTERM, on_sigterm)
    for name, value in before.items():
        if value is None:
            os.environ.pop(name, None)
        else:
            os.environ[name] = value


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(write_model(tmp_path_factory.mktemp("model") / "small.safetensors"))


def command(*arguments: str, before: str = "") -> list[str]:
    """before: what the driver, and it alone, does first."""
    # blocks of some twenty photos, so that there are many of them
    code = (
        "import convnext_cli.jobs.cluster.run as run; cut = run.cut; run.cut = lambda found, _: cut(found, 20)\n"
        f"{before}\n"
        "from convnext_cli.cli import main; main()"
    )
    return [sys.executable, "-c", code, "label", *arguments]


def run(environment: dict[str, str], *arguments: str, before: str = "") -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command(*arguments, before=before),
        env=os.environ | environment,
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=300,
    )


def keys(bucket: Store, folder: str = "labels") -> list[str]:
    found = bucket.client.list_objects_v2(Bucket=BUCKET, Prefix=f"{folder}/").get("Contents", [])
    return sorted(entry["Key"].removeprefix(f"{folder}/") for entry in found)


def wait_until(what: Callable[[], bool], running: subprocess.Popen[str]) -> None:
    until = time.monotonic() + 240
    while not what():
        assert running.poll() is None, running.stderr and running.stderr.read()
        assert time.monotonic() < until
        time.sleep(0.1)


def rows(bucket: Store, tmp_path: Path, folder: str = "labels") -> list[dict[str, Any]]:
    got = tmp_path / "got"
    got.mkdir()
    for key in keys(bucket, folder):
        bucket.client.download_file(BUCKET, f"{folder}/{key}", str(got / key))
    return sorted(rounded(pq.read_table(got).to_pylist()), key=lambda row: row["path"])


def rounded(found: list[dict[str, Any]]) -> list[dict[str, Any]]:
    for guess in (guess for row in found for guess in row["predictions"]):
        guess["score"] = round(guess["score"], 5)
    return found


@pytest.mark.slow
def test_a_node_and_the_driver_are_killed_and_nothing_is_lost(
    nodes: list[Any], bucket: Store, environment: dict[str, str], model: str, tmp_path: Path
) -> None:
    cluster, first, _ = nodes
    arguments = (SOURCE, "-o", TARGET, "-m", model, "--cluster", "auto")
    with subprocess.Popen(
        command(*arguments), env=os.environ | environment, cwd=ROOT, stderr=subprocess.PIPE, text=True
    ) as running:
        wait_until(lambda: len(keys(bucket)) >= 2, running)
        cluster.remove_node(first, allow_graceful=False)
        at = len(keys(bucket))
        wait_until(lambda: len(keys(bucket)) >= at + 3, running)
        running.send_signal(signal.SIGKILL)
    done = set(keys(bucket))
    assert "_manifest.json" not in done
    again = run(environment, *arguments)
    assert again.returncode == 1, again.stderr  # six photos are none
    assert "dashboard: http://" in again.stderr or "650 rows" in again.stderr
    assert done < set(keys(bucket))
    manifest = json.loads(bucket.client.get_object(Bucket=BUCKET, Key="labels/_manifest.json")["Body"].read())
    assert {part["name"] for part in manifest["parts"]} | {"_manifest.json"} == set(keys(bucket))
    assert manifest["statuses"] == {"failed": 6, "ok": 644}
    found = rows(bucket, tmp_path)
    assert len(found) == len({row["path"] for row in found}) == 650

    one = subprocess.run(
        [sys.executable, "-m", "convnext_cli", "label", SOURCE, "-o", str(tmp_path / "one.parquet"), "-m", model, "-q"],
        env=os.environ | environment,
        cwd=ROOT,
        timeout=300,
    )
    assert one.returncode == 1
    assert found == sorted(rounded(pq.read_table(tmp_path / "one.parquet").to_pylist()), key=lambda row: row["path"])

    nothing = run(environment, *arguments)
    assert nothing.returncode == 1 and "nothing new" in nothing.stderr, nothing.stderr


@pytest.mark.slow
def test_asked_to_stop_it_says_how_to_go_on(
    nodes: list[Any], bucket: Store, environment: dict[str, str], model: str
) -> None:
    arguments = (SOURCE, "-o", f"s3://{BUCKET}/stopped", "-m", model, "--cluster", "auto")
    with subprocess.Popen(
        command(*arguments), env=os.environ | environment, cwd=ROOT, stderr=subprocess.PIPE, text=True
    ) as running:
        wait_until(lambda: any(key.startswith("part-") for key in keys(bucket, "stopped")), running)
        running.send_signal(signal.SIGTERM)
        told = running.communicate(timeout=120)[1]
    assert running.returncode == 130, told
    assert "run the same command again to resume" in told and told.endswith("interrupted\n")


@pytest.mark.slow
def test_what_is_wrong_is_said_before_anything_is_done(
    nodes: list[Any], bucket: Store, environment: dict[str, str], model: str, tmp_path: Path
) -> None:
    absent = run(environment, SOURCE, "-o", "s3://no-such-bucket/labels", "-m", model, "--cluster", "auto")
    assert absent.returncode == 74 and "there is no bucket no-such-bucket" in absent.stderr, absent.stderr
    assert KEY not in absent.stderr and SECRET not in absent.stderr
    bucket.faults = [Fault(f"PUT /{BUCKET}/of-others", status=403, code="AccessDenied")]
    denied = run(environment, SOURCE, "-o", f"s3://{BUCKET}/of-others", "-m", model, "--cluster", "auto")
    bucket.faults = []
    assert denied.returncode == 74 and "no permission to write" in denied.stderr, denied.stderr
    assert "dashboard" not in denied.stderr
    (tmp_path / "labels.txt").write_text("one\ntwo\n")
    wrong = run(
        environment, SOURCE, "-o", TARGET, "-m", model, "--labels", str(tmp_path / "labels.txt"), "--cluster", "auto"
    )
    assert wrong.returncode == 3 and "labels" in wrong.stderr and "Traceback" not in wrong.stderr, wrong.stderr
    away = environment | {"AWS_ENDPOINT_URL": "http://127.0.0.1:9", "AWS_ENDPOINT_URL_S3": "http://127.0.0.1:9"}
    unreached = run(away, SOURCE, "-o", TARGET, "-m", model, "--cluster", "auto")
    assert unreached.returncode == 5 and "store cannot be reached" in unreached.stderr, unreached.stderr
    far = run(environment, SOURCE, "-o", TARGET, "-m", model, "--cluster", "ray://me:hunter22@127.0.0.1:9")
    assert far.returncode == 5 and "no cluster answers at ray://…@127.0.0.1:9" in far.stderr, far.stderr
    assert "hunter22" not in far.stderr


@pytest.mark.slow
def test_what_a_store_does_wrong_is_a_row_or_waited_for(
    nodes: list[Any], bucket: Store, environment: dict[str, str], model: str, tmp_path: Path
) -> None:
    for number in range(12):
        bucket.put(f"bad/{number:02d}.jpg", PHOTO[0])
    shard = tar_of({f"{n}.jpg": PHOTO[n % 4] for n in range(9)})
    bucket.put("bad/half.tar", shard[: len(shard) // 2])
    bucket.faults = [
        Fault("GET /photos/bad/01.jpg", status=403, code="AccessDenied"),
        Fault("GET /photos/bad/02.jpg", 2, 503, "SlowDown"),
        Fault("GET /photos/bad/03.jpg", 2, 429, "TooManyRequests"),
        Fault("GET /photos/bad/04.jpg", 2, cut=20),
        Fault("list-type=2", 2, 503, "SlowDown"),
    ]
    bucket.before = lambda line: bucket.delete("bad/05.jpg") if "GET /photos/bad/05.jpg" in line else None
    try:
        done = run(environment, f"s3://{BUCKET}/bad", "-o", f"s3://{BUCKET}/of-bad", "-m", model, "--cluster", "auto")
    finally:
        left, bucket.faults, bucket.before = bucket.faults, [], lambda _: None
    assert done.returncode == 1 and "Traceback" not in done.stderr, done.stderr
    assert [fault.times for fault in left[1:]] == [0, 0, 0, 0]  # each was met
    found = {row["path"].removeprefix(f"s3://{BUCKET}/bad/"): row for row in rows(bucket, tmp_path, "of-bad")}
    failed = {name: row["error"]["kind"] for name, row in found.items() if row["status"] == "failed"}
    assert failed == {"01.jpg": "permission", "05.jpg": "missing", "half.tar": "corrupt"}
    assert {f"{number:02d}.jpg" for number in range(12)} <= found.keys()
    assert found["half.tar/0.jpg"]["status"] == "ok"  # what came before the cut


@pytest.mark.slow
def test_a_driver_outside_the_cluster(
    nodes: list[Any], bucket: Store, environment: dict[str, str], model: str, tmp_path: Path
) -> None:
    for number in range(60):
        bucket.put(f"few/{number:02d}.jpg", PHOTO[number % 4])
    outside = (f"s3://{BUCKET}/few", "-o", f"s3://{BUCKET}/of-few", "-m", model)
    outside += ("--cluster", environment["FROM_OUTSIDE"])
    # as Ray's head says when its fork hung, which happens now and then
    before = """
import ray
real, tries = ray.init, []
def init(**values):
    tries.append(values)
    if len(tries) == 1:
        raise ConnectionAbortedError("Initialization failure from server:\\nStarting Ray client server failed. See")
    return real(**values)
ray.init = init"""
    done = run(environment, *outside, before=before)
    assert done.returncode == 0, done.stderr
    assert len(rows(bucket, tmp_path, "of-few")) == 60
    assert "nothing new" in run(environment, *outside).stderr


@pytest.mark.slow
def test_a_cluster_of_another_release_is_refused(
    nodes: list[Any], bucket: Store, environment: dict[str, str], model: str
) -> None:
    before = "import convnext_cli.jobs.cluster.connect as connect; connect.__version__ = '0.0.1'"
    target = f"s3://{BUCKET}/of-another"
    done = run(environment, SOURCE, "-o", target, "-m", model, "--cluster", "auto", before=before)
    assert done.returncode == 2, done.stderr
    assert "and this is 0.0.1" in done.stderr and "install the same release" in done.stderr
    assert not keys(bucket, "of-another")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--sort-into", "x"], "--sort-into cannot be combined with --cluster"),
        (["-f", "csv"], "a cluster writes parquet"),
        (["--strict"], "--strict cannot be combined with --cluster"),
        (["--dry-run"], "--dry-run is for --sort-into"),
        (["--workers", "2"], "--workers cannot be combined with --cluster"),
    ],
)
def test_what_does_not_go_with_a_cluster(convnext: Run, tmp_path: Path, arguments: list[str], said: str) -> None:
    done = convnext("label", str(tmp_path), "-o", str(tmp_path / "out"), "--cluster", "auto", *arguments)
    assert done.status == 2 and said in done.err


def test_a_file_is_no_target(convnext: Run, tmp_path: Path) -> None:
    (tmp_path / "out.parquet").write_text("")
    done = convnext("label", str(tmp_path), "-o", str(tmp_path / "out.parquet"), "--cluster", "auto")
    assert done.status == 2 and "a cluster writes a folder" in done.err
    done = convnext("label", str(tmp_path), "-o", str(tmp_path / "nowhere" / "out"), "--cluster", "auto")
    assert done.status == 74 and "there is no folder" in done.err
    done = convnext("label", str(tmp_path), "-o", "out", "--cluster", "elsewhere:1")
    assert done.status == 2 and "'elsewhere:1' is not a cluster" in done.err
