"""mmpretrain (open-mmlab/mmpretrain, mmpretrain/models/backbones/convnext.py)."""

from __future__ import annotations

from convnext_cli.checkpoints.layout import Layout

_BLOCK = "stages.{i}.{j}."
MMPRETRAIN = Layout(
    "mmpretrain",
    pairs=(
        ("downsample_layers", "downsample_layers"),
        (f"{_BLOCK}depthwise_conv", f"{_BLOCK}dwconv"),
        (f"{_BLOCK}pointwise_conv1", f"{_BLOCK}pwconv1"),
        (f"{_BLOCK}pointwise_conv2", f"{_BLOCK}pwconv2"),
        ("stages", "stages"),
        ("norm3", "norm"),
        ("head.fc", "head"),
    ),
    prefix="backbone.",
    bare=("head.fc",),
    dropped=("norm0.", "norm1.", "norm2.", "data_preprocessor."),
    shapes={".grn.gamma": (-1,), ".grn.beta": (-1,)},
)
