"""The names of timm's network (timm/models/convnext.py), which OpenCLIP's image towers have inside."""

from __future__ import annotations

from convnext_cli.checkpoints.layouts.layout import Pair, Shapes


def _pairs(stem: str, stages: str) -> tuple[Pair, ...]:
    block, canonical = f"{stages}{{i}}.blocks.{{j}}.", "stages.{i}.{j}."
    return (
        (f"{stem}{{k}}", "downsample_layers.0.{k}"),
        (f"{stages}0.downsample.0", "downsample_layers.0.2"),  # behind a stem of stride 2
        (f"{stages}0.downsample.1", "downsample_layers.0.3"),
        (f"{stages}{{i}}.downsample.{{k}}", "downsample_layers.{i}.{k}"),
        (f"{block}conv_dw", f"{canonical}dwconv"),
        (f"{block}norm", f"{canonical}norm"),
        (f"{block}mlp.fc1", f"{canonical}pwconv1"),
        (f"{block}mlp.fc2", f"{canonical}pwconv2"),
        (f"{block}mlp.grn.weight", f"{canonical}grn.gamma"),
        (f"{block}mlp.grn.bias", f"{canonical}grn.beta"),
        (f"{block}gamma", f"{canonical}gamma"),
    )


NAMES = _pairs("stem.", "stages.")
FLAT_NAMES = _pairs("stem_", "stages_")  # features_only networks
SHAPES: Shapes = {"mlp.grn.weight": (-1,), "mlp.grn.bias": (-1,)}
# timm's small models compute the pointwise layers as 1×1 convolutions.
CONV_MLP_SHAPES: Shapes = {"mlp.fc1.weight": (-1, -2, 1, 1), "mlp.fc2.weight": (-1, -2, 1, 1)}
