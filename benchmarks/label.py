"""How fast folders are labelled: the durable job against its own parts, and against other libraries' folder scripts.

    python -m benchmarks.label [--models convnext_tiny,convnext_atto] [--turns 3] [--photos "0.5 MP:2000,12 MP:300"]
    python -m benchmarks.label --photos "12 MP:96,12 MP phone:96,12 MP HEIC:24,48 MP:24" --no-transformers

Random weights, 224 pixels, all threads. Each figure is of a process of its own; processes take turns. "parts" is
1 / (t_decode + t_engine), each measured alone on all threads: what a processor that does both can reach. timm runs its
folder script's way (its loader over a folder, batches, workers), transformers its image-classification pipeline; both
with the best of several batch sizes and workers, found beforehand on a twentieth of the photos. Both turn photos
upright, in one line for timm, and ignore profiles. "decoder" is the time of pillow-heif alone, a photo at a time on all
threads.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
from datetime import date
from importlib.metadata import version
from pathlib import Path
from typing import Any

from benchmarks import photos
from convnext_cli.base import machine
from convnext_cli.base.threads import usable_threads
from convnext_cli.benchmarking.runs import Bench

LIBRARIES = ("torch", "timm", "transformers", "openvino", "pillow", "pillow-heif")
LEVELS = ("exact", "close", "fast")
TRIES = [(batch, workers) for batch in (8, 32) for workers in (0, 1, 2)]

# Each prints one line of JSON: seconds for all photos, and what else is of interest. The model is loaded, and a first
# batch is through, before the clock starts: what is compared is the rate.
OURS = """
import json, sys, tempfile, time
from pathlib import Path
import numpy as np
folder, model, level, part = sys.argv[1:5]
from convnext_cli.predict.options import PredictorOptions
from convnext_cli.predict.open import open_predictor
from convnext_cli.photos.find import Finder
from dataclasses import replace
from convnext_cli.jobs import job
from convnext_cli.jobs.store import Store
from convnext_cli.predict.stage_times import Times
predictor = open_predictor(PredictorOptions.of(model=model, pixels=level), job="throughput")
x = np.random.default_rng(0).standard_normal((predictor.batch_size, 3, 224, 224)).astype(np.float32)
real = predictor.engine
real(x)
found = list(Finder(recursive=True).named([folder]))
if part == "engine":
    start = time.perf_counter()
    for _ in range(max(4, 160 // predictor.batch_size)):
        real(x)
    seconds = (time.perf_counter() - start) / max(4, 160 // predictor.batch_size) / len(x)
    print(json.dumps({"seconds": seconds * len(found), "photos": len(found)}))
    raise SystemExit
if part == "decode":
    class Nothing:
        name, device, dtype, notes, card = real.name, real.device, real.dtype, [], real.card
        photos, fixed = real.photos, real.fixed
        def __call__(self, batch):
            return np.zeros((len(batch), real.card.config.num_labels), np.float32)
    predictor = replace(predictor, engine=Nothing())
predictor = replace(predictor, preprocessor=replace(predictor.preprocessor, kernel_from=0))
list(predictor.rows(found[:16]))
predictor = replace(predictor, preprocessor=replace(predictor.preprocessor, times=Times()))
with tempfile.TemporaryDirectory() as place:
    store = Store(Path(place) / "job")
    settings = store.settings("m", "s", {})
    start = time.perf_counter()
    tally = job.look(store, iter(found), [folder], settings)
    job.run(store, predictor, settings, tally)
    seconds = time.perf_counter() - start
    top = {e.row.path: e.row.predictions[0].index for e in store.entries() if e.row.predictions}
    store.close()
assert tally.done == len(found) and not tally.failed
print(json.dumps({"seconds": seconds, "photos": len(found), "top": top, "shares": predictor.times.shares()}))
"""
TIMM = """
import json, sys, time, timm, torch
from PIL import ImageOps
from pillow_heif import register_heif_opener
register_heif_opener()
timm.data.add_img_extensions(".heic")
folder, weights, batch, workers, most = sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4]), int(sys.argv[5])
from timm.data import ImageDataset, create_loader, resolve_data_config
name = sys.argv[6]
model = timm.create_model(name, pretrained=False, num_classes=1000).eval()
torch.set_num_threads(int(sys.argv[7]))
config = resolve_data_config({}, model=model)
dataset = ImageDataset(folder, class_map="")
if most and most < len(dataset):
    dataset.reader.samples = dataset.reader.samples[:most]
kept = {k: config[k] for k in ("input_size", "interpolation", "mean", "std", "crop_pct", "crop_mode")}
loader = create_loader(dataset, batch_size=batch, use_prefetcher=False, num_workers=workers, device=torch.device("cpu"),
                       **kept)
dataset.transform.transforms.insert(0, ImageOps.exif_transpose)
model(torch.zeros(batch, 3, 224, 224))
rows = []
start = time.perf_counter()
with torch.inference_mode():
    for images, _ in loader:
        scores = model(images).softmax(-1)
        values, indices = scores.topk(5)
        rows += zip(values.tolist(), indices.tolist())
seconds = time.perf_counter() - start
print(json.dumps({"seconds": seconds, "photos": len(rows)}))
"""
TRANSFORMERS = """
import json, os, sys, time, torch, transformers
from pillow_heif import register_heif_opener
register_heif_opener()
folder, batch, workers, most = sys.argv[1], int(sys.argv[3]), int(sys.argv[4]), int(sys.argv[5])
from transformers import ConvNextConfig, ConvNextForImageClassification, ConvNextImageProcessor, pipeline
torch.set_num_threads(int(sys.argv[7]))
shape = {"convnext_tiny": ([96, 192, 384, 768], [3, 3, 9, 3]), "convnext_atto": ([40, 80, 160, 320], [2, 2, 6, 2])}
sizes, depths = shape[sys.argv[6]]
model = ConvNextForImageClassification(ConvNextConfig(hidden_sizes=sizes, depths=depths, num_labels=1000)).eval()
processor = ConvNextImageProcessor(size={"shortest_edge": 224}, crop_pct=0.875)
run = pipeline("image-classification", model=model, image_processor=processor, device="cpu")
paths = sorted(entry.path for entry in os.scandir(folder))[: most or None]
class Paths(torch.utils.data.Dataset):
    def __len__(self): return len(paths)
    def __getitem__(self, i): return paths[i]
run(paths[0])
start = time.perf_counter()
rows = [row for row in run(Paths(), batch_size=batch, num_workers=workers, top_k=5)]
seconds = time.perf_counter() - start
print(json.dumps({"seconds": seconds, "photos": len(rows)}))
"""


HEIF = """
import json, os, sys, time, pillow_heif
pillow_heif.options.DECODE_THREADS = int(sys.argv[2])
paths = sorted(entry.path for entry in os.scandir(sys.argv[1]))
start = time.perf_counter()
for path in paths:
    pillow_heif.open_heif(path).load()
print(json.dumps({"seconds": time.perf_counter() - start, "photos": len(paths)}))
"""


def call(code: str, *arguments: object) -> dict[str, Any]:
    """The answer of a script in a process of its own."""
    environment = os.environ | {"HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code, *map(str, arguments)],
        capture_output=True,
        text=True,
        env=environment,
    )
    if done.returncode:
        raise RuntimeError(done.stderr[-2000:])
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def best(code: str, folder: Path, model: str, weights: str, sample: int, threads: int) -> tuple[int, int]:
    """The batch size and workers with the highest rate on some of the photos."""
    rates: dict[tuple[int, int], float] = {}
    for batch, workers in TRIES:
        found = call(code, folder, weights, batch, workers, sample, model, threads)
        rates[batch, workers] = found["photos"] / found["seconds"]
    return max(rates, key=lambda setting: rates[setting])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--models", default="convnext_tiny,convnext_atto")
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--photos", default="0.5 MP:2000,12 MP:300")
    parser.add_argument("--no-peers", action="store_true")
    parser.add_argument("--no-transformers", action="store_true")
    given = parser.parse_args()
    threads = usable_threads()
    print(f"{date.today()}  {platform.platform()}  {machine.processor()}, {threads} threads")
    print(f"Python {platform.python_version()}, " + ", ".join(f"{name} {version(name)}" for name in LIBRARIES))
    print(
        "\n| photos | model | | photos/s | times parts | times timm | times transformers | same top-1 % | limited by |"
    )
    print("| --- | --- | --- | --- | --- | --- | --- | --- | --- |", flush=True)
    with tempfile.TemporaryDirectory() as place, Bench(seconds=1, checks=False) as bench:
        for kind, _, count in (part.partition(":") for part in given.photos.split(",")):
            folder = Path(place) / kind.replace(" ", "")
            photos.make(folder, photos.KINDS[kind], int(count), min(int(count), 24))
            for model in given.models.split(","):
                measure(kind, folder, model, bench.random_weights(model).path, int(count), given, threads)


def measure(kind: str, folder: Path, model: str, weights: str, count: int, given: Any, threads: int) -> None:
    """One kind of photos through one network: two lines of the table."""
    subprocess.run([Path(sys.executable).with_name("convnext"), "prepare", "-q", "-m", weights], check=True,
                   stdout=subprocess.DEVNULL)  # fmt: skip
    peers = {"timm": TIMM, "transformers": TRANSFORMERS}
    peers = {
        name: code
        for name, code in peers.items()
        if not (given.no_peers or (name == "transformers" and given.no_transformers))
    }
    is_heic = photos.KINDS[kind].form == "heic"
    settings = {name: best(code, folder, model, weights, max(32, count // 20), threads) for name, code in peers.items()}
    seconds: dict[str, list[float]] = {}
    last: dict[str, dict[str, Any]] = {}
    for _ in range(given.turns):
        for name, level, part in (
            ("engine", "exact", "engine"),
            *((f"decode {level}", level, "decode") for level in LEVELS),
            *((level, level, "all") for level in LEVELS),
        ):
            last[name] = call(OURS, folder, weights, level, part)
            seconds.setdefault(name, []).append(last[name]["seconds"])
        if is_heic:
            seconds.setdefault("decoder", []).append(call(HEIF, folder, threads)["seconds"])
        for name, code in peers.items():
            batch, workers = settings[name]
            found = call(code, folder, weights, batch, workers, 0, model, threads)
            assert found["photos"] == count
            seconds.setdefault(name, []).append(found["seconds"])
    for name in LEVELS:
        parts = statistics.median(
            (a + b) / c for a, b, c in zip(seconds[f"decode {name}"], seconds["engine"], seconds[name], strict=True)
        )
        ratios = [
            f"{statistics.median(a / b for a, b in zip(seconds[peer], seconds[name], strict=True)):.2f}"
            if peer in peers
            else ""
            for peer in ("timm", "transformers")
        ]
        a, b = last["exact"]["top"], last[name]["top"]
        same = 100 * sum(a[path] == b[path] for path in a) / len(a)
        title = "**convnext label**" if name == "exact" else f"`--pixels {name}`"
        rate = count / statistics.median(seconds[name])
        print(f"| {count} of {kind} | {model} | {title} | {rate:.1f} | {parts:.2f} | {' | '.join(ratios)} | {same:.1f} "
              f"| {last[name]['shares']} |", flush=True)  # fmt: skip
    if is_heic:
        ratio = statistics.median(a / b for a, b in zip(seconds["exact"], seconds["decoder"], strict=True))
        print(
            f"| | | decoder | {count / statistics.median(seconds['decoder']):.1f} | | | | | label takes {ratio:.2f} |"
        )
    for name in peers:
        rate = count / statistics.median(seconds[name])
        print(f"| | | {name}, batches of {settings[name][0]}, {settings[name][1]} workers | {rate:.1f} | | | | | |")


if __name__ == "__main__":
    main()
