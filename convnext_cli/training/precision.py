"""Which precision trains faster here: measured, since some processors are three times slower in bfloat16."""

from __future__ import annotations

import time

import torch
from torch.nn.functional import cross_entropy

from convnext_cli.model import ConvNextForImageClassification
from convnext_cli.training.processes import Processes
from convnext_cli.training.recipe import TrainingRecipe

_PHOTOS, _REPEATS = 16, 3
WORTH = 0.9  # of float32's time; less of a gain is not worth the rounding


def fastest(network: ConvNextForImageClassification, recipe: TrainingRecipe, processes: Processes) -> str:
    """Its name: bfloat16 where a step takes clearly less time in it, else float32; the same in all processes."""
    device = processes.device
    network = network.to(device).to(memory_format=torch.channels_last).train()
    photos = min(_PHOTOS, recipe.batch_size)
    x = torch.zeros((photos, network.config.num_channels, recipe.size, recipe.size), device=device)
    x = x.contiguous(memory_format=torch.channels_last)
    rows = torch.zeros(photos, dtype=torch.int64, device=device)

    def seconds(dtype: torch.dtype) -> float:
        begun = time.perf_counter()
        with torch.autocast(device.type, dtype, enabled=dtype != torch.float32):
            found = network(x).logits
        cross_entropy(found.float(), rows).backward()  # type: ignore[no-untyped-call]
        float(next(network.parameters()).grad.sum())  # type: ignore[union-attr]  # waits for the device
        network.zero_grad(set_to_none=True)
        return time.perf_counter() - begun

    taken: dict[torch.dtype, float] = {}
    try:
        for repeat in range(1 + _REPEATS):  # in turn; the first calls prepare
            for dtype in (torch.float32, torch.bfloat16):
                found = seconds(dtype)
                taken[dtype] = found if repeat <= 1 else min(taken[dtype], found)
        faster = taken[torch.bfloat16] < WORTH * taken[torch.float32]
    except RuntimeError:  # a device that does not know it
        faster = False
    (shared,) = processes.shared(faster)
    return "bfloat16" if shared else "float32"
