"""timm (huggingface/pytorch-image-models, timm/models/convnext.py)."""

from __future__ import annotations

import dataclasses
from typing import Any

from convnext_cli.checkpoints.layout import Layout
from convnext_cli.checkpoints.trunk import CONV_MLP_SHAPES, FLAT_NAMES, NAMES, SHAPES
from convnext_cli.config import ConvNextConfig
from convnext_cli.photos.recipe import CLIP_MEAN, CLIP_STD, INCEPTION_MEAN, INCEPTION_STD, Recipe

_HEAD = (
    ("head.norm", "norm"),
    ("head.pre_logits.fc", "head_hidden"),
    ("head.fc", "head"),
)
_NORM_FIRST = ("norm_pre", "norm")

TIMM = Layout("timm", pairs=(*NAMES, *_HEAD, _NORM_FIRST, *FLAT_NAMES), shapes=SHAPES)

_095: dict[str, Any] = {"crop_pct": 0.95}
_HALF: dict[str, Any] = {"mean": INCEPTION_MEAN, "std": INCEPTION_STD}
_CLIP: dict[str, Any] = {"crop_pct": 1.0, "mean": CLIP_MEAN, "std": CLIP_STD}
# The pretrained_cfg of timm's default weights of each architecture, where it is not 224 pixels, crop_pct 0.875,
# bicubic and ImageNet's mean: what timm's resolve_data_config answers for a network without a tag.
_USUAL: dict[str, dict[str, Any]] = {
    "convnext_zepto_rms": _HALF,
    "convnext_zepto_rms_ols": {**_HALF, "crop_pct": 0.9},
    "convnext_pico_ols": _095,
    "convnext_nano": _095,
    "convnext_nano_ols": _095,
    "convnext_tiny": _095,
    "convnext_tiny_hnf": _095,
    "convnext_small": _095,
    "convnext_large_mlp": {**_CLIP, "input_size": (3, 320, 320)},
    "convnext_xxlarge": {**_CLIP, "input_size": (3, 256, 256)},
    "convnextv2_huge": {"input_size": (3, 384, 384), "crop_pct": 1.0, "crop_mode": "squash"},
    **{f"test_convnext{i}": {**_HALF, **_095, "input_size": (3, 160, 160)} for i in ("", "2", "3")},
}


def usual(architecture: str) -> Recipe:
    """What timm does to photos for bare weights of this architecture ("" for one that it has not)."""
    return Recipe.from_timm(_USUAL.get(architecture, {}))


def written(config: ConvNextConfig, *, conv_mlp: bool) -> Layout:
    """The layout to write for this network: some of timm's names depend on it."""
    first = []
    if config.head_norm == "before_pool":
        first.append(_NORM_FIRST)
    if config.stem_downsample:
        first += [pair for pair in NAMES if pair[0].startswith("stages.0.downsample")]
    shapes = SHAPES | CONV_MLP_SHAPES if conv_mlp else SHAPES
    return dataclasses.replace(TIMM, pairs=(*first, *TIMM.pairs), shapes=shapes)
