"""Which precision trains faster here: measured, where the device may be faster in bfloat16 at all."""

from __future__ import annotations

import time
from collections.abc import Callable

import torch
from torch.nn.functional import cross_entropy

from convnext_cli.base import machine
from convnext_cli.model.network import ConvNextForImageClassification
from convnext_cli.training.depthwise import replace_depthwise
from convnext_cli.training.distributed import Processes
from convnext_cli.training.settings import TrainingSettings

_PHOTOS, _PAIRS = 16, 4
_LONGEST = 30.0  # seconds for all pairs, after which the pairs so far decide
WORTH = 0.9  # of float32's time; less of a gain is not worth the rounding
CLEAR = 1.2  # times float32's time: no later pair makes bfloat16 the faster one
NATIVE = frozenset({"avx512_bf16", "amx_bf16", "bf16"})  # of ``machine.instruction_sets``


def fastest(
    network: ConvNextForImageClassification,
    recipe: TrainingSettings,
    processes: Processes,
    say: Callable[[str], None] = lambda _: None,
    progress: Callable[[int, int], None] = lambda *_: None,
) -> str:
    """Its name: bfloat16 where a step takes clearly less time in it, else float32; the same in all processes.

    A processor that says that it lacks instructions for bfloat16 emulates it, up to 18 times slower: nothing is
    measured there. progress: called with how many photos went through the network, and how many may.
    """
    device = processes.device
    if device.type == "cpu" and not may_be_native(machine.instruction_sets()):
        ratio = None
    else:
        say("measuring whether bfloat16 trains faster here than float32")
        ratio = _ratio(network, recipe, device, progress)
    (faster,) = processes.shared(ratio is not None and ratio < WORTH)
    if ratio is not None and processes.first:
        say(f"a step in bfloat16 takes {ratio:.2f} times as long: training in {'bfloat16' if faster else 'float32'}")
    return "bfloat16" if faster else "float32"


def may_be_native(instruction_sets: tuple[str, ...]) -> bool:
    """Whether a processor with these computes in bfloat16 itself; where the system names none, it may."""
    return not instruction_sets or bool(NATIVE.intersection(instruction_sets))


def _ratio(
    network: ConvNextForImageClassification,
    recipe: TrainingSettings,
    device: torch.device,
    progress: Callable[[int, int], None],
) -> float | None:
    """The time of a step in bfloat16 over that in float32; None on a device that does not know it."""
    network = network.to(device).to(memory_format=torch.channels_last).train()
    if device.type == "cpu":
        replace_depthwise(network)
    photos = min(_PHOTOS, recipe.batch_size)
    x = torch.zeros((photos, network.config.num_channels, recipe.size, recipe.size), device=device)
    x = x.contiguous(memory_format=torch.channels_last)
    rows = torch.zeros(photos, dtype=torch.int64, device=device)

    def seconds(dtype: torch.dtype) -> float:
        begun = time.perf_counter()
        with torch.autocast(device.type, dtype, enabled=dtype != torch.float32):
            logits = network(x).logits
        cross_entropy(logits.float(), rows).backward()  # type: ignore[no-untyped-call]
        float(next(network.parameters()).grad.sum())  # type: ignore[union-attr]  # waits for the device
        network.zero_grad(set_to_none=True)
        return time.perf_counter() - begun

    times: dict[torch.dtype, float] = {}
    done, all_photos = 0, 2 * _PAIRS * photos
    progress(done, all_photos)
    begun = time.perf_counter()
    try:
        for pair in range(_PAIRS):  # in turn; the first calls prepare
            for dtype in (torch.float32, torch.bfloat16):
                taken = seconds(dtype)
                times[dtype] = taken if pair <= 1 else min(times[dtype], taken)
                done += photos
                progress(done, all_photos)
            ratio = times[torch.bfloat16] / times[torch.float32]
            prepares = pair == 0 and device.type != "cpu"  # kernels are loaded and chosen in the first calls of a GPU
            if (ratio > CLEAR and not prepares) or time.perf_counter() - begun > _LONGEST:
                break
    except RuntimeError:
        return None
    finally:
        progress(all_photos, all_photos)  # the rest is left out
    return ratio
