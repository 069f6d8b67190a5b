"""``train --freeze`` against ``label``: what computing the features of each photo and of its mirror image costs.

Ratios from one interleaved run (A B A B …), each over twice the time of ``convnext label`` of the same train photos
with the bundled model, from the start of its process to its end:

- the feature stage: decoding the train photos, and computing the features of each and of its mirror image (aim: at
  most 1.3)
- the whole command without the solver, and the solver alone

    python benchmarks/freeze.py DATA [--runs 3] [--photos 0]

DATA: a folder of train, val and test with class folders in them. Stages are told apart by when their lines are
written to standard error.
"""

from __future__ import annotations

import argparse
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from datetime import date
from importlib.metadata import version
from itertools import pairwise
from pathlib import Path

from convnext_cli.base import machine
from convnext_cli.base.threads import usable_threads

CONVNEXT = str(Path(sys.executable).with_name("convnext"))
AIM = 1.3
# What a line begins with, and the stage that it opens.
STAGES = (
    ("reading train", "features"),
    ("reading val", "rest"),
    ("computing the features of train", "features"),
    ("computing the features of val", "rest"),
    ("note: fitting the classifier", "solver"),
    ("reading test at", "rest"),
    ("computing the answers", "rest"),
)


def lines(command: list[str]) -> Iterator[tuple[float, str]]:
    """What a command writes to standard error, each line with the seconds since its start; at last its end, as ""."""
    begun = time.perf_counter()
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        for line in process.stderr:
            yield time.perf_counter() - begun, line
    if process.returncode:
        raise SystemExit(f"{' '.join(command)}: status {process.returncode}")
    yield time.perf_counter() - begun, ""


def label(train: Path, folder: Path) -> float:
    """Seconds of labelling all train photos."""
    *_, (seconds, _) = lines([CONVNEXT, "label", str(train), "-o", str(folder / "labels.csv"), "--overwrite"])
    return seconds


def freeze(data: Path, folder: Path) -> dict[str, float]:
    """Seconds of each stage."""
    marks = [(0.0, "rest")]
    for seconds, line in lines([CONVNEXT, "train", str(data), "-o", str(folder / "run"), "--freeze", "--overwrite"]):
        stage = next((stage for start, stage in STAGES if line.startswith(start)), marks[-1][1])
        marks.append((seconds, stage))
    stages = {"features": 0.0, "rest": 0.0, "solver": 0.0}
    for (begin, stage), (end, _) in pairwise(marks):
        stages[stage] += end - begin
    return stages


def part_of(data: Path, photos: int, folder: Path) -> Path:
    """The same data with about so many train photos, as links, evenly over the classes."""
    classes = [path for path in sorted((data / "train").iterdir()) if path.is_dir()]
    for kind in classes:
        (folder / "train" / kind.name).mkdir(parents=True)
        for photo in sorted(kind.iterdir())[: max(1, photos // len(classes))]:
            os.link(photo.resolve(), folder / "train" / kind.name / photo.name)
    for split in ("val", "test"):
        (folder / split).symlink_to((data / split).resolve())
    return folder


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--photos", type=int, default=0, help="train photos, about; 0 is all")
    given = parser.parse_args()
    load = os.getloadavg()[0]
    names = ("features", "command without the solver", "solver")
    ratios: dict[str, list[float]] = {name: [] for name in names}
    with tempfile.TemporaryDirectory(dir=given.data.resolve().parent) as scratch:
        folder = Path(scratch)
        data = part_of(given.data, given.photos, folder / "part") if given.photos else given.data
        label(data / "train", folder)  # prepares the model, and brings the photos into the file cache
        for run in range(given.runs):
            one = label(data / "train", folder)
            stages = freeze(data, folder)
            for name, seconds in zip(
                names, (stages["features"], stages["features"] + stages["rest"], stages["solver"]), strict=True
            ):
                ratios[name].append(seconds / (2 * one))
            shown = ", ".join(f"{name} {seconds:.1f} s" for name, seconds in stages.items())
            print(f"run {run + 1}: label {one:.1f} s; {shown}", file=sys.stderr)
    print("| | over two passes of label (median; least to most) | aim |\n| --- | --- | --- |")
    for name, found in ratios.items():
        aim = f"{AIM}" if name == "features" else ""
        print(f"| {name} | {statistics.median(found):.2f}; {min(found):.2f} to {max(found):.2f} | {aim} |")
    versions = ", ".join(f"{library} {version(library)}" for library in ("torch", "openvino"))
    print(
        f"\n{machine.processor()}, {usable_threads()} threads, load {load:.1f} at the start, "
        f"Python {platform.python_version()}, {versions}, {date.today()}"
    )


if __name__ == "__main__":
    main()
