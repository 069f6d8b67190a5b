"""Memory of a long job, and the time of a second run over what is done: the table in docs/performance.md.

    python -m benchmarks.label_memory [--photos 100000]

Links to the sample photos, labelled at 32 pixels by the bundled model in a process of its own, whose resident memory is
read twice a second, beside the rows that are committed.
"""

from __future__ import annotations

import argparse
import os
import platform
import sqlite3
import subprocess
import sys
import time
from contextlib import closing
from datetime import date
from importlib.metadata import version
from pathlib import Path
from tempfile import TemporaryDirectory

from benchmarks.photos import SAMPLES
from convnext_cli.base import machine
from convnext_cli.base.threads import usable_threads

CONVNEXT = str(Path(sys.executable).with_name("convnext"))
EVERY = 0.5  # seconds
FIRST = 1000  # rows after which memory may not grow


def links(folder: Path, count: int) -> None:
    """Links to the samples in folders of a thousand."""
    for i in range(count):
        part = folder / f"{i // 1000:04}"
        if i % 1000 == 0:
            part.mkdir(parents=True)
        os.symlink(SAMPLES[i % len(SAMPLES)], part / f"{i:06}.jpg")  # noqa: PTH211


def resident(process: int) -> int:
    """MB of a process; 0 when it has ended."""
    try:
        lines = Path(f"/proc/{process}/status").read_text().splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) // 1024 for line in lines if line.startswith("VmRSS")), 0)


def rows(store: Path) -> int:
    """Rows that are committed."""
    try:
        with closing(sqlite3.connect(f"file:{store}?mode=ro", uri=True, timeout=0.1)) as db:
            return int(db.execute("SELECT count(*) FROM photos").fetchone()[0])
    except sqlite3.Error:
        return 0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--photos", type=int, default=100_000)
    given = parser.parse_args()
    print(f"{date.today()}  {platform.platform()}  {machine.processor()}, {usable_threads()} threads")
    print(f"Python {platform.python_version()}, openvino {version('openvino')}, pillow {version('pillow')}\n")
    print("| run | rows | seconds | MB after the first 1,000 | most MB later | MB at the end |")
    print("| --- | --- | --- | --- | --- | --- |")
    with TemporaryDirectory() as place:
        folder, target = Path(place) / "photos", Path(place) / "labels.jsonl"
        links(folder, given.photos)
        command = [CONVNEXT, "label", str(folder), "-o", str(target), "--size", "32", "-q"]
        for name in ("first", "second"):
            start = time.perf_counter()
            process = subprocess.Popen(command)
            seen: list[tuple[int, int]] = []
            while process.poll() is None:
                time.sleep(EVERY)
                if memory := resident(process.pid):
                    seen.append((rows(target.with_name(f"{target.name}.job")), memory))
            assert process.returncode == 0
            seconds = time.perf_counter() - start
            first = next((memory for count, memory in seen if count >= FIRST), 0) if name == "first" else seen[0][1]
            later = [memory for count, memory in seen if count >= FIRST] or [0]
            written = sum(1 for _ in target.open("rb"))
            print(f"| {name} | {written:,} | {seconds:.0f} | {first} | {max(later)} | {later[-1]} |", flush=True)


if __name__ == "__main__":
    main()
