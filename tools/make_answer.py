"""Write weights/reference.json: what the bundled model answers to the reference input, by network.py in float64.

An engine without torch is held against it before it is used (convnext_cli/runtimes).
Run it when the default changes:

    python tools/make_answer.py
"""

from __future__ import annotations

import json
from pathlib import Path

import torch

from convnext_cli import checkpoints
from convnext_cli.model.network import build
from convnext_cli.runtimes.reference import reference_input

WEIGHTS = Path(__file__).resolve().parent.parent / "weights"


def answer() -> dict[str, object]:
    """The checksum of the default's tensors, and its logits (1, classes)."""
    found = checkpoints.load(WEIGHTS / "default.safetensors", dtype=torch.float64)
    network = build(found.card.config, found.tensors)
    with torch.inference_mode():
        logits = network(torch.from_numpy(reference_input(*found.card.preprocessing.size)).double()).logits
    return {"sha256": found.card.sha256, "logits": [[round(value, 9) for value in row] for row in logits.tolist()]}


if __name__ == "__main__":
    (WEIGHTS / "reference.json").write_text(json.dumps(answer()) + "\n")
