"""Short trainings that differ in one setting each: the same photos, the same seeds, one row of a table a run.

    python -m benchmarks.short_runs DATA TEACHER.npy OUT [--photos 30000] [--epochs 2] [--seeds 1] [--dtype bfloat16]

DATA is a folder of Tiny ImageNet's parquet files (train-*.parquet and validation-*.parquet), TEACHER.npy the logits of
its training photos (tools/make_teacher.py). Each run learns from the first photos of train, and is judged by all of
val. The runs are below OUT. The same command goes on where it was cut; OUT/table.md has the rows that are done.
"""

from __future__ import annotations

import argparse
import json
import math
import platform
import signal
import statistics
import subprocess
import sys
from collections.abc import Iterator
from datetime import date
from fnmatch import fnmatch
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import tomli_w

from convnext_cli.base.errors import ConvNextError
from convnext_cli.base.files import replacing
from convnext_cli.base.machine import processor
from convnext_cli.base.threads import usable_threads
from convnext_cli.datasets import open_data
from convnext_cli.training.data import TrainingData, arrange

# As weights/recipe.toml has them, but the network and the size, and an average that fits so few steps
BASE: dict[str, Any] = {
    "start": "scratch",
    "arch": "convnext_atto",
    "patch_size": 2,
    "layer_scale": 0.5,
    "size": 32,
    "crop_pct": 1.0,
    "warmup": 0.05,
    "batch_size": 128,
    "optimiser": "muon",
    "lr": 0.002,
    "weight_decay": 0.05,
    "beta2": 0.98,
    "ema": 0.99,
    "smoothing": 0.1,
    "augment": "affine",
    "magnitude": 2,
    "scale": 0.5,
}
TAUGHT = {"distil": 0.8, "distil_temperature": 2.0}
ADAMW = TAUGHT | {"optimiser": "adamw"}
# Names of rows, and what they change; those without "distil" have no teacher
ROWS: dict[str, dict[str, Any]] = {
    "no teacher": {},
    **{
        f"teacher: share {share:g}, temperature {temperature:g}": {"distil": share, "distil_temperature": temperature}
        for share in (0.5, 0.8, 1.0)
        for temperature in (1.0, 2.0)
    },
    "AdamW, learning rate 0.002": ADAMW,
    "AdamW, learning rate 0.004": ADAMW | {"lr": 0.004},
    "64 pixels, patch 2": TAUGHT | {"size": 64},
    "96 pixels, patch 4, femto": TAUGHT | {"size": 96, "patch_size": 4, "arch": "convnext_femto"},
    "96 pixels, patch 4, pico": TAUGHT | {"size": 96, "patch_size": 4, "arch": "convnext_pico"},
}


def take_photos(data: Path, teacher: Path, out: Path, photos: int) -> None:
    """Write the first photos of train, all of val, and the teacher's logits of these photos, unless they are there."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    if (out / "teacher.npy").exists():  # the last that is written
        return
    shards = sorted(data.glob("train-*.parquet"))
    validation = sorted(data.glob("validation-*.parquet"))
    if not shards or not validation:
        sys.exit(f"{data} has no train-*.parquet and validation-*.parquet")
    rows, taken = 0, []
    for shard in shards:
        if rows < photos:
            taken.append(pq.read_table(shard).slice(0, photos - rows))
            rows += taken[-1].num_rows
    if rows < photos:
        sys.exit(f"{data} has {rows} photos for train, less than {photos}")
    (out / "data").mkdir(parents=True, exist_ok=True)
    with replacing(out / "data" / "train-00000-of-00001.parquet") as file:
        pq.write_table(pa.concat_tables(taken), file)
    for shard in validation:
        with replacing(out / "data" / shard.name) as file:
            file.write(shard.read_bytes())
    every, some = (arrange(open_data([str(place)])) for place in (data, out / "data"))
    logits = np.load(teacher, mmap_mode="r")
    if len(logits) != len(every.train):
        sys.exit(f"{teacher} has {len(logits)} rows for {len(every.train)} photos")
    if labels_of(some) != labels_of(every)[:photos] or some.classes != every.classes:
        sys.exit(f"the photos of {out / 'data'} are not the first {photos} of {data}")
    with replacing(out / "teacher.npy") as file:
        np.save(file, logits[:photos])


def labels_of(data: TrainingData) -> list[str]:
    return [photo.label for photo in data.train]


def right_of_teacher(out: Path) -> float:
    """The share of the photos that the teacher is right on, in percent: that its rows are theirs."""
    data = arrange(open_data([str(out / "data")]))
    rows = [data.rows[label] for label in labels_of(data)]
    return 100 * float((np.load(out / "teacher.npy").argmax(1) == rows).mean())


def runs(seeds: int, out: Path) -> Iterator[tuple[str, int, Path]]:
    """Rows, seeds and folders; all rows once before any is repeated."""
    for seed in range(seeds):
        for number, name in enumerate(ROWS):
            yield name, seed, out / f"{number:02}-{seed}"


def train(folder: Path, settings: dict[str, Any], out: Path) -> None:
    """Run the command, or go on with it; nothing where it has come to its end. Ends the program where it fails."""
    recipe = folder.with_suffix(".toml")
    with replacing(recipe) as file:
        file.write(tomli_w.dumps(settings).encode())
    command = [sys.executable, "-m", "convnext_cli", "train", str(out / "data"), "-o", str(folder)]
    command += ["--recipe", str(recipe), "-q"]
    if "distil" in settings:
        command += ["--teacher", str(out / "teacher.npy")]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    signal.signal(signal.SIGTERM, lambda *_: process.terminate())
    try:
        status = process.wait()
    except KeyboardInterrupt:  # of a terminal, so the run has it too, and saves what it has
        status = process.wait()
    if status == 130:
        sys.exit("interrupted; the same command goes on")
    if status:
        sys.exit(f"a run ended with status {status}: {' '.join(command)}")


def results_of(folder: Path) -> dict[str, Any] | None:
    """The results of a run; None before it has any."""
    path = folder / "run.json"
    results = json.loads(path.read_text()).get("results") if path.exists() else None
    if results is None:
        return None
    last = json.loads((folder / "log.jsonl").read_text().splitlines()[-1])
    return results["val"] | {"minutes": last["seconds"] / 60}


def table(options: argparse.Namespace, right: float) -> str:
    """The rows that are done, and what they have in common."""
    out = Path(options.out)
    found: dict[str, list[dict[str, Any]]] = {name: [] for name in ROWS}
    for name, _, folder in runs(options.seeds, out):
        if (results := results_of(folder)) is not None:
            found[name].append(results)
    lines = ["| run | top-1 | loss | minutes |", "| --- | --- | --- | --- |"]
    for name, results in found.items():
        if results:
            top1, loss, minutes = ([result[key] for result in results] for key in ("top1", "loss", "minutes"))
            lines.append(f"| {name} | {shares(top1)} | {statistics.mean(loss):.3f} | {statistics.mean(minutes):.1f} |")
    many = len(arrange(open_data([str(out / "data")])).val)
    base = ", ".join(f"{name} {BASE[name]}" for name in ("arch", "patch_size", "size", "optimiser", "lr", "batch_size"))
    return (
        f"python -m benchmarks.short_runs --photos {options.photos} --epochs {options.epochs:g} --seeds "
        f"{options.seeds} --dtype {options.dtype} · {date.today()} · {processor()}, {usable_threads()} threads, Python "
        f"{platform.python_version()} · torch {version('torch')}\n\n"
        f"{options.epochs:g} epochs of {options.photos:,} photos; {base} if not stated otherwise. The teacher is right "
        f"on {right:.1f} % of these photos; it is the default one (share {TAUGHT['distil']:g}, temperature "
        f"{TAUGHT['distil_temperature']:g}) from AdamW down. The standard error of a top-1 accuracy on {many:,} photos "
        f"is at most {100 * math.sqrt(0.25 / many):.1f} points, and {100 * math.sqrt(0.12 * 0.88 / many):.1f} at 12 %."
        f"\n\n" + "\n".join(lines) + "\n"
    )


def shares(values: list[float]) -> str:
    """A mean in percent, and the range of several."""
    text = f"{100 * statistics.mean(values):.2f} %"
    return text if len(values) == 1 else f"{text} ({100 * min(values):.2f} to {100 * max(values):.2f})"


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("teacher", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--photos", type=int, default=30_000)
    parser.add_argument("--epochs", type=float, default=2.0)
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--only", default="*", metavar="GLOB", help="these rows, such as 'teacher*'")
    parser.add_argument("--dtype", choices=["float32", "bfloat16"], default="bfloat16")
    options = parser.parse_args(arguments)
    plan = {"base": BASE, "rows": ROWS, "photos": options.photos, "epochs": options.epochs, "dtype": options.dtype}
    noted = options.out / "plan.json"
    if noted.exists() and json.loads(noted.read_text()) != json.loads(json.dumps(plan)):
        sys.exit(f"{options.out} holds runs with other settings: name another folder")
    take_photos(options.data, options.teacher, options.out, options.photos)
    noted.write_text(json.dumps(plan))
    right = right_of_teacher(options.out)
    for name, seed, folder in runs(options.seeds, options.out):
        if results_of(folder) is None and fnmatch(name, options.only):
            print(f"{name}, seed {seed}", file=sys.stderr, flush=True)
            fixed = {"epochs": options.epochs, "dtype": options.dtype, "seed": seed}
            train(folder, BASE | ROWS[name] | fixed, options.out)
        with replacing(options.out / "table.md") as file:
            file.write(table(options, right).encode())
    print((options.out / "table.md").read_text())


if __name__ == "__main__":
    try:
        main()
    except ConvNextError as error:
        sys.exit(f"error: {error.message}\nhint: {error.hint}")
