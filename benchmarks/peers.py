"""Ours against other libraries on the same random weights, in one run: the tables of docs/performance.md.

    python -m benchmarks.peers [--models convnext_tiny,convnext_base,convnext_atto] [--seconds 4] [--json FILE]

Every setting has a process of its own; the processes take turns, in the opposite order each time. ``convnext`` is what
``--engine auto`` takes after ``convnext prepare``; below it are our engines by name. timm, torchvision and transformers
run as their documentation says, eager; "timm+compile" is compiled by torch and frozen; onnxruntime and benchmark_app,
which takes turns with ours as a command of its own, run what torch exports. The ceiling is the best of torch's and
OpenVINO's large matrix products in that precision, and takes turns with ours too.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import re
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from datetime import date
from importlib.metadata import version
from pathlib import Path
from typing import Any

from convnext_cli.base import machine
from convnext_cli.base.threads import usable_threads
from convnext_cli.benchmarking.runs import Bench
from convnext_cli.benchmarking.setting import Setting
from convnext_cli.benchmarking.statistics import paired_ratio

PEERS = ("timm", "torchvision", "transformers", "timm+compile", "onnxruntime")
EAGER = ("timm", "torchvision", "transformers")
APP = "benchmark_app"
OTHERS = ("timm+compile", "onnxruntime", APP)
COMPILED = "torch --compile"  # ours, which auto takes where ``prepare --compile`` found it clearly faster
LIBRARIES = ("torch", "torchvision", "timm", "transformers", "onnxruntime", "openvino")
PRECISIONS = {"float32": "f32", "bfloat16": "bf16"}
TURNS = 3  # of benchmark_app and of the ceiling, each beside ours


def settings(plain: Setting, dtype: str, batch: int) -> Iterator[tuple[str, Setting]]:
    """What takes turns, by the name in the table; ours first."""
    base = plain.replace(dtype=dtype, batch_size=batch, threads=usable_threads())
    yield "convnext", base
    yield "torch, eager", base.replace(engine="torch")
    yield COMPILED, base.replace(engine="torch", compiled=True)
    for name in PEERS:
        if dtype == "float32" or name != "onnxruntime":
            yield name, base.replace(peer=name)


EXPORT = """
import sys, torch
from pathlib import Path
from convnext_cli import checkpoints
class Logits(torch.nn.Module):
    def __init__(self, network):
        super().__init__()
        self.network = network
    def forward(self, x):
        return self.network(x).logits
network = Logits(checkpoints.build(checkpoints.load(Path(sys.argv[1])))).eval()
torch.onnx.export(network, (torch.zeros(1, 3, 224, 224),), sys.argv[2], input_names=["pixel_values"],
                  dynamic_axes={"pixel_values": {0: "n"}}, opset_version=20, dynamo=False)
"""


def app(exported: Path, dtype: str, batch: int, seconds: float) -> float:
    """benchmark_app's own median, in seconds a batch."""
    command = [str(Path(sys.executable).with_name(APP)), "-m", str(exported), "-d", "CPU", "-api", "sync"]
    command += ["-hint", "none", "-nstreams", "1", "-nthreads", str(usable_threads()), "-t", str(max(1, int(seconds)))]
    command += ["-infer_precision", PRECISIONS[dtype], "-data_shape", f"pixel_values[{batch},3,224,224]"]
    told = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    found = re.search(r"Median:\s+([\d.]+) ms", told)
    assert found, told
    return float(found[1]) / 1000


def group(bench: Bench, plain: Setting, exported: Path, dtype: str, batch: int) -> dict[str, Any]:
    """One table's worth: rows by name, and benchmark_app's seconds a batch and the ceiling's FLOP/s beside ours."""
    named = dict(settings(plain, dtype, batch))
    rows = dict(zip(named, bench.interleaved(list(named.values())), strict=True))
    turns = []
    for _ in range(TURNS):
        (row,) = bench.measure([named["convnext"]])
        ceiling = bench.measure_ceiling("cpu", dtype, row["threads"])
        theirs = app(exported, dtype, batch, bench.seconds)
        turns.append({"ours": row["latency_p50_ms"] / 1000, APP: theirs, "ceiling": ceiling})
    return {"dtype": dtype, "batch": batch, "rows": rows, "turns": turns}


def show(model: str, found: dict[str, Any]) -> None:
    """Print a table; ratios are how many times as fast ours is, of turns side by side."""
    rows, batch, turns = found["rows"], found["batch"], found["turns"]
    ours = rows["convnext"]
    print(f"\n### {model}, {found['dtype']}, batch {batch}\n")
    print("| | ms a photo | ours is … times as fast | |\n| --- | --- | --- | --- |")
    ratios: dict[str, float] = {}
    for name, row in rows.items():
        if row["error"]:
            print(f"| {name} | {row['error']['message']} | | |")
            continue
        title = f"**convnext** ({row['engine']})" if name == "convnext" else name
        ratio = ""
        if name != "convnext":
            ratios[name], (low, high) = paired_ratio(_rounds(ours), _rounds(row))
            ratio = f"{ratios[name]:.2f} ({low:.2f}–{high:.2f})"
        stable = "" if row["stable"] and not row["disturbed"] else "; ".join(row["warnings"])
        print(f"| {title} | {row['latency_p50_ms'] / batch:.1f} | {ratio} | {stable} |")
    ratios[APP] = statistics.median(turn[APP] / turn["ours"] for turn in turns)
    theirs = statistics.median(turn[APP] for turn in turns)
    print(f"| {APP} | {1000 * theirs / batch:.1f} | {ratios[APP]:.2f} | |")
    flops = 2 * ours["macs"] * batch
    shares = [flops / turn["ours"] / turn["ceiling"]["flops"] for turn in turns]
    highest = max((turn["ceiling"] for turn in turns), key=lambda ceiling: float(ceiling["flops"]))
    eager, other = (min(ratios[name] for name in names if name in ratios) for names in (EAGER, OTHERS))
    print(f"\nTimes as fast as the best of {', '.join(EAGER)}: {eager:.2f}")
    print(f"Times as fast as the best of {', '.join(OTHERS)}: {other:.2f}", end="")
    print(f"; with --compile {other / ratios[COMPILED]:.2f}" if COMPILED in ratios else "")
    print(f"Share of the ceiling: {statistics.median(shares):.2f} ({min(shares):.2f}–{max(shares):.2f})", end="")
    print(f", which was {highest['flops'] / 1e9:.0f} GFLOP/s at most ({highest['by']})", flush=True)


def _rounds(row: dict[str, Any]) -> list[list[float]]:
    samples = iter(row["samples_ms"])
    return [[next(samples) for _ in range(count)] for count in row["rounds"]]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--models", default="convnext_tiny,convnext_base,convnext_atto")
    parser.add_argument("--dtypes", default="float32,bfloat16")
    parser.add_argument("--batches", default="1,8")
    parser.add_argument("--seconds", type=float, default=4.0, help="of samples for each setting")
    parser.add_argument("--json", type=Path, help="raw samples")
    given = parser.parse_args()
    print(f"{date.today()}  {platform.platform()}  {machine.processor()}, {os.cpu_count()} threads")
    print(f"Python {platform.python_version()}, " + ", ".join(f"{name} {version(name)}" for name in LIBRARIES))
    kept = []
    with tempfile.TemporaryDirectory() as folder, Bench(seconds=given.seconds, checks=False) as bench:
        for model in given.models.split(","):
            plain = bench.random_weights(model)
            exported = Path(folder) / f"{model}.onnx"
            subprocess.run([sys.executable, "-c", EXPORT, plain.path, str(exported)], check=True, capture_output=True)
            for dtype in given.dtypes.split(","):
                for batch in map(int, given.batches.split(",")):
                    found = group(bench, plain, exported, dtype, batch)
                    show(model, found)
                    kept.append({"model": model, **found})
    if given.json:
        given.json.write_text(json.dumps(kept))


if __name__ == "__main__":
    main()
