"""A cluster that loses a node and its driver: what comes out, row by row, beside one machine.

    python -m benchmarks.lost_nodes FOLDER [--photos 20000]

Three nodes of Ray on the loopback read copies of FOLDER's photos from an S3 server, moto's. A node is killed when a
third of the parts is there, the driver at two thirds, and the command given again. Then the rows are compared with
those of ``convnext label`` for the same photos.
"""

from __future__ import annotations

import argparse
import logging
import os
import platform
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from datetime import date
from importlib.metadata import version
from pathlib import Path
from typing import Any

from convnext_cli.base import machine
from convnext_cli.base.threads import usable_threads
from convnext_cli.jobs.cluster.parts import Parts

BUCKET = "trial"
SOURCE, TARGET = f"s3://{BUCKET}/photos", f"s3://{BUCKET}/labels"
WORDS = {"ACCESS_KEY_ID": "trial", "SECRET_ACCESS_KEY": "trial", "REGION": "us-east-1", "DEFAULT_REGION": "us-east-1"}


def fill(url: str, originals: list[Path], count: int) -> Any:
    """A bucket with so many photos."""
    import boto3
    from botocore.config import Config
    from moto.s3.models import s3_backends

    client = boto3.client("s3", endpoint_url=url, config=Config(s3={"addressing_style": "path"}))
    client.create_bucket(Bucket=BUCKET)
    backend = s3_backends["123456789012"]["aws"]
    contents = [path.read_bytes() for path in originals]
    for number in range(count):
        backend.put_object(BUCKET, f"photos/{number % 100:02d}/{number:06d}.jpg", contents[number % len(contents)])
    return client


def label(*arguments: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "convnext_cli", "label", SOURCE, *arguments]
    return subprocess.Popen(command, stderr=subprocess.PIPE, text=True)


def ended(running: subprocess.Popen[str]) -> str:
    _, said = running.communicate()
    if running.returncode:
        raise SystemExit(said)
    return said.strip()


def wait_until(what: Callable[[], bool], running: subprocess.Popen[str]) -> None:
    while not what():
        if running.poll() is not None:
            raise SystemExit(f"it ended too early, with {running.returncode}: {running.communicate()[1]}")
        time.sleep(0.2)


def rows(table: Any) -> dict[str, Any]:
    found = table.to_pylist()
    by_path = {row["path"]: row for row in found}
    assert len(by_path) == len(found), "a photo has two rows"
    return by_path


def differences(one: dict[str, Any], other: dict[str, Any]) -> tuple[int, float]:
    """Rows that say something else, scores left out; and the largest difference of a score."""
    unlike, most = 0, 0.0
    for path, row in one.items():
        there = other[path]
        guesses = list(zip(row.pop("predictions"), there.pop("predictions"), strict=True))
        most = max([most, *(abs(a.pop("score") - b.pop("score")) for a, b in guesses)])
        unlike += row != there or any(a != b for a, b in guesses)
    return unlike, most


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--photos", type=int, default=20_000)
    options = parser.parse_args()
    from moto.server import ThreadedMotoServer
    from ray.cluster_utils import Cluster

    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    url = "http://{}:{}".format(*server.get_host_and_port())
    os.environ |= {f"AWS_{name}": value for name, value in WORDS.items()} | {"AWS_ENDPOINT_URL": url}
    originals = sorted(options.folder.glob("*.jpg"))
    client = fill(url, originals, options.photos)
    print(f"{machine.processor()}, {usable_threads()} threads, Python {platform.python_version()}, ", end="")
    print(f"ray {version('ray')}, {date.today()}")
    print(f"{options.photos:,} photos, copies of {len(originals)}, from an S3 server on the loopback; three nodes")

    def keys() -> list[str]:
        pages = client.get_paginator("list_objects_v2").paginate(Bucket=BUCKET, Prefix="labels/")
        return [entry["Key"] for page in pages for entry in page.get("Contents", [])]

    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1})
    workers = [cluster.add_node(num_cpus=1) for _ in range(2)]
    os.environ["RAY_ADDRESS"] = cluster.address
    expected = options.photos / 2000
    try:
        start = time.perf_counter()
        running = label("-o", TARGET, "--cluster", "auto")
        wait_until(lambda: len(keys()) >= expected / 3, running)
        print(f"{time.perf_counter() - start:5.0f} s: a node is killed, {len(keys())} parts are there")
        cluster.remove_node(workers[0], allow_graceful=False)
        wait_until(lambda: len(keys()) >= 2 * expected / 3, running)
        before = set(keys())
        print(f"{time.perf_counter() - start:5.0f} s: the driver is killed, {len(before)} parts are there")
        running.send_signal(signal.SIGKILL)
        running.wait()
        again = time.perf_counter()
        print(ended(label("-o", TARGET, "--cluster", "auto")))
        print(
            f"{time.perf_counter() - start:5.0f} s: done; the second command took {time.perf_counter() - again:.0f} s"
        )
    finally:
        cluster.shutdown()
    after = keys()
    names = {f"labels/{name}" for name in Parts(TARGET).names()} | {"labels/_manifest.json"}
    print(f"objects: {len(after)}; that are no part: {sorted(set(after) - names)}; parts kept: {before < set(after)}")
    with tempfile.TemporaryDirectory() as place:
        import pyarrow.parquet as pq

        target = Path(place) / "one.parquet"
        print(ended(label("-o", str(target))))
        folder = Path(place) / "parts"
        folder.mkdir()
        for key in after:
            client.download_file(BUCKET, key, str(folder / Path(key).name))
        ours, one = rows(pq.read_table(folder)), rows(pq.read_table(target))
    unlike, most = differences(one, ours)
    print(f"rows: {len(ours):,}, on one machine {len(one):,}; same photos: {ours.keys() == one.keys()}; ", end="")
    print(f"that say something else: {unlike}; largest difference of a score: {most:.1e}")
    server.stop()


if __name__ == "__main__":
    main()
