"""timm (huggingface/pytorch-image-models, timm/models/convnext.py)."""

from __future__ import annotations

import dataclasses

from convnext_cli.checkpoints.layout import Layout
from convnext_cli.checkpoints.trunk import CONV_MLP_SHAPES, FLAT_NAMES, NAMES, SHAPES
from convnext_cli.config import ConvNextConfig

_HEAD = (
    ("head.norm", "norm"),
    ("head.pre_logits.fc", "head_hidden"),
    ("head.fc", "head"),
)
_NORM_FIRST = ("norm_pre", "norm")

TIMM = Layout("timm", pairs=(*NAMES, *_HEAD, _NORM_FIRST, *FLAT_NAMES), shapes=SHAPES)


def written(config: ConvNextConfig, *, conv_mlp: bool) -> Layout:
    """The layout to write for this network: some of timm's names depend on it."""
    first = []
    if config.head_norm == "before_pool":
        first.append(_NORM_FIRST)
    if config.stem_downsample:
        first += [pair for pair in NAMES if pair[0].startswith("stages.0.downsample")]
    shapes = SHAPES | CONV_MLP_SHAPES if conv_mlp else SHAPES
    return dataclasses.replace(TIMM, pairs=(*first, *TIMM.pairs), shapes=shapes)
