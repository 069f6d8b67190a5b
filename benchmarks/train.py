"""Training steps a second beside timm's: the same network, batch and settings, in turn within one process.

    python -m benchmarks.train [--model convnext_atto] [--patch 4] [--sizes 224] [--dtypes auto] [--batch 32]
                               [--rounds 8] [--steps 4] [--defaults]

The table of the bundled default, about four minutes on two cores:

    python -m benchmarks.train --model convnext_femto --patch 2 --sizes 32,48,64 --dtypes float32,bfloat16 --batch 128
                               --rounds 8 --steps 1

timm's training script is in no package; its step is put together here from timm's own parts, in the order of the
script: forward under autocast, SoftTargetCrossEntropy, backward, clipping, optimiser, ModelEmaV3. "same settings" gives
timm AdamW, channels_last, the same precision, drop path, EMA and clipping; "timm's defaults" (--defaults) are what the
script does when nothing is said: SGD with momentum, float32, plain layout, no EMA, no clipping. Ours is ``Trainer``'s
step, with the photos as bytes that it normalises; timm's photos are normalised already. "torch's depthwise gradient" is
the same step without training/depthwise.py. The first round is thrown away. A ratio is one of times of the same round.
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
from unittest.mock import patch

import timm
import torch
from timm.loss import LabelSmoothingCrossEntropy, SoftTargetCrossEntropy
from timm.optim import create_optimizer_v2
from timm.utils import ModelEmaV3, dispatch_clip_grad

from convnext_cli.base.machine import processor
from convnext_cli.base.threads import usable_threads
from convnext_cli.training import loop
from convnext_cli.training.distributed import join
from convnext_cli.training.initial_network import scratch
from convnext_cli.training.listener import SILENT
from convnext_cli.training.loop import DTYPES, Photos, Trainer
from convnext_cli.training.photo_cache import InMemory
from convnext_cli.training.precision import fastest
from convnext_cli.training.run_folder import RunFolder
from convnext_cli.training.settings import SCRATCH, TrainingSettings

CLASSES, DROP_PATH = 1000, 0.1


def settings_of(options: argparse.Namespace, size: int) -> TrainingSettings:
    patch_size = {} if options.patch is None else {"patch_size": options.patch}
    return TrainingSettings(
        start=SCRATCH,
        arch=options.model,
        size=size,
        epochs=1,
        batch_size=options.batch,
        augment="none",
        drop_path=DROP_PATH,
        compile=options.compile,
        **patch_size,
    )


def ours(options: argparse.Namespace, size: int, dtype: str, *, own_gradient: bool = True) -> Callable[[], None]:
    settings = settings_of(options, size)
    processes = join(options.device)
    pixels = InMemory(2**40)
    for _ in range(options.batch):
        pixels.add(torch.randint(0, 256, (size, size, 3), dtype=torch.uint8).numpy(), options.batch)
    labels = torch.randint(0, CLASSES, (options.batch,))
    replace = loop.replace_depthwise if own_gradient else lambda network: None
    with patch.object(loop, "replace_depthwise", replace):
        trainer = Trainer(
            settings,
            scratch(settings, CLASSES),
            Photos(pixels, labels, pixels, labels),
            processes,
            RunFolder(Path(tempfile.gettempdir())),
            SILENT,
            dtype=dtype,
            workers=0,
            write=lambda _: None,
        )
    photos = torch.stack([pixels[number] for number in range(options.batch)]).to(processes.device)
    numbers = torch.arange(options.batch)

    def step() -> None:
        float(trainer._step(photos, numbers))
        trainer.state.step += 1

    return step


def timms(options: argparse.Namespace, size: int, dtype: str, *, defaults: bool) -> Callable[[], None]:
    layout = torch.contiguous_format if defaults else torch.channels_last
    patch_size = {} if options.patch is None else {"patch_size": options.patch}
    rate = 0.0 if defaults else DROP_PATH
    network = timm.create_model(options.model, num_classes=CLASSES, drop_path_rate=rate, **patch_size)
    if options.patch == 2:  # with this stem timm halves the photo once more before the first stage
        network.stages[0].downsample = torch.nn.Identity()
    count = sum(parameter.numel() for parameter in network.parameters())
    expected = scratch(settings_of(options, size), CLASSES).network.config.num_parameters
    if count != expected:
        raise SystemExit(f"timm's {options.model} has {count:,} parameters, and ours has {expected:,}")
    network = network.to(options.device).to(memory_format=layout).train()
    if defaults:
        optimiser = create_optimizer_v2(network, opt="sgd", lr=0.05, weight_decay=2e-5, momentum=0.9)
        average, error = None, LabelSmoothingCrossEntropy(0.1)
    else:
        optimiser = create_optimizer_v2(network, opt="adamw", lr=1e-3, weight_decay=0.05)
        average, error = ModelEmaV3(network, decay=0.999), SoftTargetCrossEntropy()
    forward = torch.compile(network) if options.compile and not defaults else network
    x = torch.randn(options.batch, 3, size, size, device=options.device).to(memory_format=layout)
    rows = torch.randint(0, CLASSES, (options.batch,), device=options.device)
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


def rates_of(steps: dict[str, Callable[[], None]], options: argparse.Namespace) -> dict[str, list[float]]:
    """Photos a second of each round by name; they take turns."""
    rates: dict[str, list[float]] = {name: [] for name in steps}
    for round_ in range(options.rounds + 1):
        for name, step in steps.items():
            begun = time.perf_counter()
            for _ in range(options.steps):
                step()
            if round_:
                rates[name].append(options.steps * options.batch / (time.perf_counter() - begun))
    return rates


def cells_of(rates: dict[str, list[float]]) -> list[str]:
    """Photos a second of ours, then of the others and how many times as fast ours is."""
    own, *others = rates.values()
    cells = [f"{statistics.median(own):.1f}"]
    for rate in others:
        ratios = [a / b for a, b in zip(own, rate, strict=True)]
        ratio = f"**{statistics.median(ratios):.2f}** ({min(ratios):.2f} to {max(ratios):.2f})"
        cells.append(f"{statistics.median(rate):.1f}; {ratio}")
    return cells


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="convnext_atto")
    parser.add_argument("--patch", type=int)
    parser.add_argument("--sizes", default="224", help="pixels, with commas")
    parser.add_argument("--dtypes", default="auto", help=f"auto, {', '.join(DTYPES)}, with commas")
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--rounds", type=int, default=8)
    parser.add_argument("--steps", type=int, default=4)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--compile", action="store_true")
    parser.add_argument("--defaults", action="store_true", help="timm's defaults too")
    options = parser.parse_args()
    torch.set_num_threads(usable_threads())
    started, header = time.perf_counter(), True
    for size in map(int, options.sizes.split(",")):
        for dtype in options.dtypes.split(","):
            if dtype == "auto":
                settings = settings_of(options, size)
                dtype = fastest(scratch(settings, CLASSES).network, settings, join(options.device))
            steps = {"convnext": ours(options, size, dtype)}
            if options.device == "cpu":
                steps["torch's depthwise gradient"] = ours(options, size, dtype, own_gradient=False)
            steps["timm, same settings"] = timms(options, size, dtype, defaults=False)
            if options.defaults:
                steps["timm's defaults"] = timms(options, size, dtype, defaults=True)
            if header:
                print("photos a second, median; in bold, how many times as fast convnext is (least to most)\n")
                print(f"| step | {' | '.join(steps)} |")
                print(f"| --- |{' --- |' * len(steps)}", flush=True)
                header = False
            print(f"| {size} pixels, {dtype} | {' | '.join(cells_of(rates_of(steps, options)))} |", flush=True)
    network = options.model + (f" with patch {options.patch}" if options.patch else "")
    versions = ", ".join(f"{library} {version(library)}" for library in ("torch", "timm"))
    print(
        f"\n{network}, batches of {options.batch}{', compiled' * options.compile}, {options.rounds} rounds of "
        f"{options.steps} steps, {time.perf_counter() - started:.0f} s\n{processor()}, {usable_threads()} threads, "
        f"Python {platform.python_version()}, {versions}, {date.today()}"
    )


if __name__ == "__main__":
    main()
