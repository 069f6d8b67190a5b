"""Cold start: how long a person waits for the first answer, against what nobody can avoid.

Ratios, each from interleaved runs (A B A B …) in one go, by the wall clock from the start of a process to its end:

- ``convnext --help`` against ``python -c "import click"`` (aim: at most 2)
- ``convnext classify`` of one photo by the bundled model on a machine where nothing is prepared, against
  ``python -c "import torch"`` (aim: at most 1.3)
- one photo by convnext_tiny with random weights, prepared, against a bare script that loads the same prepared file with
  the same runtime (aim: at most 1.3), and against the shortest script that does it with timm (aim: at most 0.13)

    python benchmarks/cold_start.py [--runs 15]
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
from dataclasses import dataclass
from datetime import date
from importlib.metadata import version
from pathlib import Path

from convnext_cli.base import machine

ROOT = Path(__file__).resolve().parent.parent
CONVNEXT = str(Path(sys.executable).with_name("convnext"))
PHOTO = str(ROOT / "samples" / "cat.jpg")

TIMM = """
import sys, timm, torch
from PIL import Image
model = timm.create_model("convnext_tiny", checkpoint_path=sys.argv[1]).eval()
config = timm.data.resolve_model_data_config(model)
photo = timm.data.create_transform(**config)(Image.open(sys.argv[2]).convert("RGB"))
with torch.inference_mode():
    print(model(photo[None]).softmax(-1).topk(5))
"""
BARE = """
import sys, numpy as np, openvino as ov
from PIL import Image
network = ov.Core().compile_model(sys.argv[1], "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
photo = Image.open(sys.argv[2]).convert("RGB").resize((224, 224), Image.Resampling.BICUBIC)
mean, std = np.float32([0.485, 0.456, 0.406]), np.float32([0.229, 0.224, 0.225])
x = ((np.asarray(photo, np.float32) / 255 - mean) / std).transpose(2, 0, 1)[None]
logits = network([x])[0][0]
print(logits.argsort()[-5:])
"""


@dataclass(frozen=True)
class Pair:
    """Two commands, and the most that the first may take of the second's time."""

    name: str
    command: list[str]
    other_name: str
    other: list[str]
    aim: float


def pairs(folder: Path) -> list[Pair]:
    """All pairs; what they need is made in the folder."""
    python = [sys.executable, "-c"]
    weights = folder / "convnext_tiny.safetensors"
    subprocess.run([*python, MAKE, str(weights)], check=True)
    tiny = [CONVNEXT, "classify", "-m", str(weights), PHOTO]
    subprocess.run([CONVNEXT, "prepare", "-q", "-m", str(weights)], check=True, stdout=subprocess.DEVNULL)
    (graph,) = (folder / "home").rglob("model.xml")
    return [
        Pair("convnext --help", [CONVNEXT, "--help"], 'python -c "import click"', [*python, "import click"], 2.0),
        Pair(
            "convnext classify cat.jpg (bundled model)",
            [CONVNEXT, "classify", PHOTO],
            'python -c "import torch"',
            [*python, "import torch"],
            1.3,
        ),
        Pair("convnext classify -m convnext_tiny", tiny, "a bare script", [*python, BARE, str(graph), PHOTO], 1.3),
        Pair("convnext classify -m convnext_tiny", tiny, "a timm script", [*python, TIMM, str(weights), PHOTO], 0.13),
    ]


# timm's own names, so that both read the same file
MAKE = """
import sys, timm, torch
from safetensors.torch import save_file
torch.manual_seed(0)
model = timm.create_model("convnext_tiny")
save_file({name: tensor.contiguous() for name, tensor in model.state_dict().items()}, sys.argv[1])
"""


def seconds(command: list[str]) -> float:
    start = time.perf_counter()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    return time.perf_counter() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=int, default=15)
    runs = parser.parse_args().runs
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)  # as installed packages run: with their byte code kept
    print(f"{date.today()}  {platform.platform()}  {machine.processor()}, {os.cpu_count()} threads")
    names = ("torch", "openvino", "timm", "click", "rich", "pillow", "safetensors")
    print(f"Python {platform.python_version()}, " + ", ".join(f"{name} {version(name)}" for name in names))
    print(f"median of {runs} interleaved runs after two of warm-up; in brackets the quickest\n")
    print("| command | seconds | against | seconds | ratio | aim |")
    print("| --- | --- | --- | --- | --- | --- |")
    with tempfile.TemporaryDirectory() as folder:
        os.environ["CONVNEXT_HOME"] = str(Path(folder) / "home")
        for pair in pairs(Path(folder)):
            for _ in range(2):
                seconds(pair.command), seconds(pair.other)
            ours, theirs = [], []
            for _ in range(runs):
                ours.append(seconds(pair.command))
                theirs.append(seconds(pair.other))
            a, b = statistics.median(ours), statistics.median(theirs)
            print(
                f"| `{pair.name}` | {a:.3f} ({min(ours):.3f}) | `{pair.other_name}` | {b:.3f} ({min(theirs):.3f}) "
                f"| {a / b:.2f} | ≤ {pair.aim} |",
                flush=True,
            )


if __name__ == "__main__":
    main()
