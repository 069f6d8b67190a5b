"""Training steps a second beside timm's: the same network, batch and settings, in turn within one process.

    python -m benchmarks.train [--model convnext_atto] [--size 224] [--batch 32] [--rounds 8] [--steps 4]

timm's training script is in no package; its step is put together here from timm's own parts, in the order of the
script: forward under autocast, SoftTargetCrossEntropy, backward, clipping, optimiser, ModelEmaV3. "same settings" gives
timm AdamW, channels_last, the same precision, drop path, EMA and clipping; "timm's defaults" are what the script does
when nothing is said: SGD with momentum, float32, plain layout, no EMA, no clipping. Ours is ``Trainer``'s step, with
the photos as bytes that it normalises; timm's photos are normalised already. The first round is thrown away.
"""

from __future__ import annotations

import argparse
import platform
import statistics
import tempfile
import time
from collections.abc import Callable
from datetime import date
from importlib.metadata import version
from pathlib import Path
from typing import Any

import timm
import torch
from timm.loss import LabelSmoothingCrossEntropy, SoftTargetCrossEntropy
from timm.optim import create_optimizer_v2
from timm.utils import ModelEmaV3, dispatch_clip_grad

from convnext_cli.base.machine import processor
from convnext_cli.base.threads import usable_threads
from convnext_cli.training.distributed import join
from convnext_cli.training.initial_network import scratch
from convnext_cli.training.loop import DTYPES, Photos, Trainer
from convnext_cli.training.photo_cache import InMemory
from convnext_cli.training.precision import fastest
from convnext_cli.training.run_folder import RunFolder
from convnext_cli.training.settings import SCRATCH, TrainingSettings

CLASSES, DROP_PATH = 1000, 0.1


class Silent:
    def step(self, done: float, values: dict[str, Any]) -> None: ...
    def judged(self, done: float, values: dict[str, Any]) -> None: ...


def ours(given: argparse.Namespace, dtype: str, device: str) -> Callable[[], None]:
    recipe = TrainingSettings(
        start=SCRATCH,
        arch=given.model,
        size=given.size,
        epochs=1,
        batch_size=given.batch,
        augment="none",
        drop_path=DROP_PATH,
        compile=given.compile,
    )
    processes = join(device)
    pixels = InMemory(2**40)
    for _ in range(given.batch):
        pixels.add(torch.randint(0, 256, (given.size, given.size, 3), dtype=torch.uint8).numpy(), given.batch)
    labels = torch.randint(0, CLASSES, (given.batch,))
    trainer = Trainer(
        recipe,
        scratch(recipe, CLASSES),
        Photos(pixels, labels, pixels, labels),
        processes,
        RunFolder(Path(tempfile.gettempdir())),
        Silent(),
        dtype=dtype,
        workers=0,
        write=lambda _: None,
    )
    photos = torch.stack([pixels[number] for number in range(given.batch)]).to(processes.device)
    numbers = torch.arange(given.batch)

    def step() -> None:
        float(trainer._step(photos, numbers))
        trainer.state.step += 1

    return step


def timms(given: argparse.Namespace, dtype: str, device: str, *, defaults: bool) -> Callable[[], None]:
    layout = torch.contiguous_format if defaults else torch.channels_last
    network = timm.create_model(given.model, num_classes=CLASSES, drop_path_rate=0.0 if defaults else DROP_PATH)
    network = network.to(device).to(memory_format=layout).train()
    if defaults:
        optimiser = create_optimizer_v2(network, opt="sgd", lr=0.05, weight_decay=2e-5, momentum=0.9)
        average, error = None, LabelSmoothingCrossEntropy(0.1)
    else:
        optimiser = create_optimizer_v2(network, opt="adamw", lr=1e-3, weight_decay=0.05)
        average, error = ModelEmaV3(network, decay=0.999), SoftTargetCrossEntropy()
    forward = torch.compile(network) if given.compile and not defaults else network
    x = torch.randn(given.batch, 3, given.size, given.size, device=device).to(memory_format=layout)
    rows = torch.randint(0, CLASSES, (given.batch,), device=device)
    target = rows if defaults else torch.nn.functional.one_hot(rows, CLASSES).float() * 0.9 + 0.1 / CLASSES
    used = torch.float32 if defaults else DTYPES[dtype]

    def step() -> None:
        with torch.autocast(x.device.type, used, enabled=used != torch.float32):
            loss = error(forward(x), target)
        loss.backward()
        if not defaults:
            dispatch_clip_grad(network.parameters(), 5.0, mode="norm")
        optimiser.step()
        optimiser.zero_grad()
        if average is not None:
            average.update(network)
        float(loss.detach())

    return step


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="convnext_atto")
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--rounds", type=int, default=8)
    parser.add_argument("--steps", type=int, default=4)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--compile", action="store_true")
    parser.add_argument("--dtype", choices=["auto", *DTYPES], default="auto")
    given = parser.parse_args()
    torch.set_num_threads(usable_threads())
    dtype = given.dtype
    if dtype == "auto":
        recipe = TrainingSettings(start=SCRATCH, arch=given.model, size=given.size, batch_size=given.batch)
        dtype = fastest(scratch(recipe, CLASSES).network, recipe, join(given.device))
    steps = {
        "convnext": ours(given, dtype, given.device),
        "timm, same settings": timms(given, dtype, given.device, defaults=False),
        "timm's defaults": timms(given, dtype, given.device, defaults=True),
    }
    rates: dict[str, list[float]] = {name: [] for name in steps}
    for round_ in range(given.rounds + 1):
        for name, step in steps.items():
            begun = time.perf_counter()
            for _ in range(given.steps):
                step()
            if round_:
                rates[name].append(given.steps * given.batch / (time.perf_counter() - begun))
    print(f"{given.model}, {given.size} pixels, batches of {given.batch}, {dtype}{', compiled' * given.compile}\n")
    print("| | photos a second (median; fastest) | speed-up of convnext |\n| --- | --- | --- |")
    for name, found in rates.items():
        ratios = [a / b for a, b in zip(rates["convnext"], found, strict=True)]
        print(f"| {name} | {statistics.median(found):.1f}; {max(found):.1f} | {statistics.median(ratios):.2f} |")
    versions = ", ".join(f"{library} {version(library)}" for library in ("torch", "timm"))
    print(
        f"\n{processor()}, {usable_threads()} threads, Python {platform.python_version()}, {versions}, {date.today()}"
    )


if __name__ == "__main__":
    main()
