"""Exports that tests make: small networks of every kind, written by one format's writer and nothing else."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from convnext_cli import checkpoints
from convnext_cli.checkpoints import canonical
from convnext_cli.checkpoints.checkpoint import Checkpoint
from convnext_cli.model.card import Card, Export, Problem
from convnext_cli.model.config import VARIANTS, ConvNextConfig
from convnext_cli.model.preprocessing import Preprocessing
from convnext_cli.photos.resize import apply_preprocessing
from convnext_cli.runtimes.exporting.check import Network
from convnext_cli.runtimes.exporting.plan import Plan
from convnext_cli.runtimes.registry import FORMATS
from tests.helpers.paths import SAMPLES
from tests.helpers.weights import SMALL, random_tensors

V2 = SMALL.replace(use_grn=True, layer_scale_init_value=0.0)
# One block, where compiling takes long and the network does not matter
TINY = SMALL.replace(depths=(1,), hidden_sizes=(16,), kernel_sizes=(7,))
CONFIGS = {
    "V1": SMALL,
    "V2": V2,
    "isotropic": SMALL.replace(depths=(3,), hidden_sizes=(16,), kernel_sizes=(7,), patch_size=16, stem_norm=False),
    "rms": SMALL.replace(norm="rms", norm_bias=False),
    "simple": SMALL.replace(norm="simple"),
    "overlapping stem": SMALL.replace(stem="overlap_act", stem_width=8, hidden_act="silu"),
    "norm before the pool": SMALL.replace(head_norm="before_pool", hidden_act="relu"),
    "hidden head": SMALL.replace(head_hidden_size=20, hidden_act="gelu_tanh"),
    "no classifier": V2.replace(num_labels=0),
    "no last norm": SMALL.replace(head_norm="none", mlp_bias=False, conv_bias=False, head_bias=False),
    "patches of two": SMALL.replace(patch_size=2, stem_downsample=True),
    "test_convnext3": VARIANTS["test_convnext3"].replace(num_labels=37),
}
# Those that every format writes in the fast tier; the others are tests that are marked slow
FAST = ("V1", "V2", "overlapping stem")
PREPROCESSINGS = {
    "shortest, bicubic": Preprocessing(size=(64, 64), resize_to=(73, 73)),
    "oblong crop": Preprocessing(size=(63, 70), resize_to=(73, 73), crop_offset="round"),
    "bilinear, floor": Preprocessing(size=(64, 64), resize_to=(81, 81), interpolation="bilinear", crop_offset="floor"),
    "squash": Preprocessing(size=(64, 64), resize_to=(64, 64), resize="squash"),
    "squash and crop": Preprocessing(size=(60, 64), resize_to=(71, 75), resize="squash", interpolation="bilinear"),
}
REFUSED = {
    "longest": (Preprocessing(resize="longest"), "no resize 'longest'"),
    "none": (Preprocessing(resize="none"), "no resize 'none'"),
    "lanczos": (Preprocessing(interpolation="lanczos"), "not lanczos"),
    "floats": (Preprocessing(float_resize=True), "as floats"),
    "edges": (Preprocessing(resize_to=(256, 300)), "256 and 300 pixels"),
    "padding": (Preprocessing(size=(300, 224)), "padded"),
}
# (width, height): smaller and larger than the preprocessing's, portrait, landscape, tall, a pixel off, the same
SIZES = [
    (451, 300),
    (73, 73),
    (74, 73),
    (73, 74),
    (72, 75),
    (37, 53),
    (1000, 750),
    (200, 601),
    (1, 1),
    (3, 7),
    (901, 64),
]


def checkpoint(
    folder: Path,
    config: ConvNextConfig = SMALL,
    *,
    preprocessing: Preprocessing | None = None,
    problem: Problem = "single_label",
    temperature: float | None = None,
    changed: dict[str, torch.Tensor] | None = None,
    seed: int = 0,
) -> Checkpoint:
    tensors = random_tensors(config, seed) | (changed or {})
    card = Card(
        config,
        preprocessing or Preprocessing(size=(64, 64), resize_to=(73, 73)),
        problem=problem,
        temperature=temperature,
    )
    card = card.replace(sha256=canonical.fingerprint(tensors))
    canonical.write(folder / "weights.safetensors", tensors, card)
    return checkpoints.load(folder / "weights.safetensors")


def written(form: str, found: Checkpoint, plan: Plan, path: Path) -> Card:
    """Write it as ``runtimes.exporting.export.export`` does, without its check."""
    card = found.card.replace(
        temperature=None if plan.scores else found.card.temperature,
        export=Export(
            form,
            plan.dtype,
            plan.batch,
            plan.size,
            plan.preprocessing,
            "scores" if plan.scores else "logits",
            plan.features,
        ),
    )
    writer = FORMATS[form].load_writer()
    writer.refuse(card, plan)
    writer.write(found, card, plan, path)
    return card


def off(engine: Any, found: Checkpoint, x: np.ndarray) -> float:
    """The largest difference from network.py of an output, as a share of its range."""
    network = Network(found, engine.card)
    given, wanted = engine.outputs(x), network.answer(x)
    assert [each.shape for each in given] == [each.shape for each in wanted]
    assert all(each.dtype == np.float32 for each in given)
    with np.errstate(invalid="ignore"):
        return max(float(np.abs(a - b).max() / np.ptp(b)) for a, b in zip(given, wanted, strict=True))


def noise(n: int = 2, height: int = 64, width: int = 64, seed: int = 1) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((n, 3, height, width), np.float32)


def calibration(photos: int = 40, size: int = 64) -> Iterator[np.ndarray]:
    return iter(noise(photos, size, size, seed=7))


def loud(config: ConvNextConfig, factor: float) -> dict[str, torch.Tensor]:
    """Weights whose last block has values larger by a factor, and none in its sum."""
    tensors = random_tensors(config)
    block = f"stages.{len(config.depths) - 1}.0"
    wide, narrow = f"{block}.pwconv1.weight", f"{block}.pwconv2.weight"
    return {wide: factor * tensors[wide], narrow: tensors[narrow] / factor}


def pictures(size: tuple[int, int]) -> list[Image.Image]:
    """The samples at (width, height)."""
    return [Image.open(path).convert("RGB").resize(size, Image.Resampling.LANCZOS) for path in SAMPLES]


def crops(preprocessing: Preprocessing, each: int = 40) -> np.ndarray:
    """Tensors of random crops of the samples."""
    rng, found = np.random.default_rng(0), []
    for path in SAMPLES:
        picture = Image.open(path).convert("RGB")
        for _ in range(each):
            edge = int(rng.integers(64, min(picture.size) + 1))
            left, top = (int(rng.integers(0, side - edge + 1)) for side in picture.size)
            found.append(apply_preprocessing(preprocessing, picture.crop((left, top, left + edge, top + edge))))
    return np.stack(found)
