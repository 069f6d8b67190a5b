"""Make the bundled default of a finished run, if it is better than the one that is there.

    python tools/make_default.py RUN DATA

Its weights are rounded to float16, and calibrated on val; the accuracy that `convnext evaluate` prints on val goes into
the card, and weights/reference.json is written again. weights/README.md is written by hand: what is printed here goes
there.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import torch
from make_answer import WEIGHTS, answer

from convnext_cli import checkpoints
from convnext_cli.checkpoints import calibration_file, canonical

MOST_BYTES = 20_000_000
LICENSE = "non-commercial research and education (trained on ImageNet photos)"


def measured(model: Path | str, data: str) -> dict[str, object]:
    return json.loads(convnext("evaluate", "-m", str(model), data, "--split", "val", "--json"))  # type: ignore[no-any-return]


def convnext(*arguments: str) -> str:
    """Run the command, and return what it prints."""
    command = [sys.executable, "-m", "convnext_cli", *arguments]
    return subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout


def main() -> None:
    run, data = Path(sys.argv[1]), sys.argv[2]
    found = checkpoints.load(run / "model.safetensors")
    tensors = {name: tensor.to(torch.float16) for name, tensor in found.tensors.items()}
    target, made = WEIGHTS / "default.safetensors", run / "default.safetensors"
    patch = f", patch {found.card.config.patch_size}"
    card = found.card.replace(
        name="default",
        architecture=found.card.architecture.removesuffix(patch) + patch,
        license=LICENSE,
        source="trained by this project on Tiny ImageNet (Stanford CS231n)",
        sha256=canonical.fingerprint(tensors),
        metrics={},
    )
    canonical.write(made, tensors, card)
    new, old = measured(made, data), measured(target, data)
    shares = {name: [round(100 * each[name]["value"], 2) for each in (old, new)] for name in ("top1", "top5")}  # type: ignore[index]
    print(json.dumps({"old, new": shares, "ece": new["calibration"]}, indent=1)[:1500])
    if made.stat().st_size > MOST_BYTES:
        sys.exit(f"{made} has {made.stat().st_size:,} bytes, more than {MOST_BYTES:,}")
    if shares["top1"][1] <= shares["top1"][0]:
        sys.exit("it is not better: what is there stays")
    print(convnext("calibrate", "-m", str(made), data, "--split", "val"))
    metrics = {f"tiny-imagenet-200 top-{k}": shares[f"top{k}"][1] for k in (1, 5)}
    calibration = calibration_file.read_calibration(made)
    assert calibration is not None
    card = card.replace(metrics=metrics, temperature=calibration.temperature)
    canonical.write(target, tensors, card, calibration)
    (WEIGHTS / "reference.json").write_text(json.dumps(answer()) + "\n")


if __name__ == "__main__":
    main()
