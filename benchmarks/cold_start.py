"""Cold start: how long a person waits for the first answer, against what nobody can avoid.

Two ratios, each from interleaved runs (A B A B …) in one go:
``convnext --help`` against ``python -c "import click"`` (aim: at most 2), and ``convnext classify`` of one photo by
the bundled model against ``python -c "import torch"`` (aim: at most 1.3).

    python benchmarks/cold_start.py [--runs 15]
"""

from __future__ import annotations

import argparse
import os
import platform
import statistics
import subprocess
import sys
import time
from datetime import date
from importlib.metadata import version
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
CONVNEXT = str(Path(sys.executable).with_name("convnext"))
PAIRS = [
    ("convnext --help", [CONVNEXT, "--help"], 'python -c "import click"', [sys.executable, "-c", "import click"], 2.0),
    (
        "convnext classify samples/cat.jpg",
        [CONVNEXT, "classify", str(ROOT / "samples" / "cat.jpg")],
        'python -c "import torch"',
        [sys.executable, "-c", "import torch"],
        1.3,
    ),
]


# As installed packages run: with their byte code kept.
ENVIRONMENT = {key: value for key, value in os.environ.items() if key != "PYTHONDONTWRITEBYTECODE"}


def seconds(command: list[str]) -> float:
    start = time.perf_counter()
    subprocess.run(command, check=True, env=ENVIRONMENT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    return time.perf_counter() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=int, default=15)
    runs = parser.parse_args().runs
    print(f"{date.today()}  {platform.platform()}  {os.cpu_count()} cores  Python {platform.python_version()}")
    print(", ".join(f"{name} {version(name)}" for name in ("torch", "click", "rich", "pillow", "safetensors")))
    print(f"median of {runs} interleaved runs after two of warm-up; in brackets the quickest\n")
    print("| command | seconds | against | seconds | ratio | aim |")
    print("| --- | --- | --- | --- | --- | --- |")
    for name, command, other_name, other, aim in PAIRS:
        for _ in range(2):
            seconds(command), seconds(other)
        ours, theirs = [], []
        for _ in range(runs):
            ours.append(seconds(command))
            theirs.append(seconds(other))
        a, b = statistics.median(ours), statistics.median(theirs)
        print(
            f"| `{name}` | {a:.3f} ({min(ours):.3f}) | `{other_name}` | {b:.3f} ({min(theirs):.3f}) "
            f"| {a / b:.2f} | ≤ {aim} |"
        )


if __name__ == "__main__":
    main()
