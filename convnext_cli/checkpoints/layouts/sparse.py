"""FCMAE pre-training files of ConvNeXt V2, written with MinkowskiEngine's sparse convolutions.

The kernel of a sparse convolution is a matrix for each tap, and its taps run along x first, so the two spatial axes are
exchanged. Without the transpose here, the file would load without an error and give wrong answers.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from convnext_cli.checkpoints.layouts.layout import Layout

if TYPE_CHECKING:
    from torch import Tensor


def _value(name: str, tensor: Tensor) -> Tensor:
    """(taps, C) -> (C, 1, k, k) and (taps, C_in, C_out) -> (C_out, C_in, k, k); biases lose their leading axis."""
    if name.endswith(".kernel"):
        k = math.isqrt(tensor.shape[0])
        if tensor.ndim == 2:
            tensor = tensor.unsqueeze(1)
        return tensor.permute(2, 1, 0).reshape(*tensor.shape[:0:-1], k, k).transpose(-1, -2).contiguous()
    if name.endswith(".bias") and tensor.ndim == 2:
        return tensor.flatten()
    return tensor


SPARSE = Layout(
    "sparse",
    marker=r"stages\.0\.0\.dwconv\.kernel|stages\.0\.0\.norm\.ln\.weight",
    pairs=(
        ("downsample_layers.{i}.{k}.ln", "downsample_layers.{i}.{k}"),
        ("downsample_layers.{i}.{k}.kernel", "downsample_layers.{i}.{k}.weight"),
        ("downsample_layers.{i}.{k}", "downsample_layers.{i}.{k}"),
        ("stages.{i}.{j}.dwconv.kernel", "stages.{i}.{j}.dwconv.weight"),
        ("stages.{i}.{j}.norm.ln", "stages.{i}.{j}.norm"),
        ("stages.{i}.{j}.pwconv1.linear", "stages.{i}.{j}.pwconv1"),
        ("stages.{i}.{j}.pwconv2.linear", "stages.{i}.{j}.pwconv2"),
        ("stages", "stages"),
    ),
    prefix="encoder.",
    dropped=("decoder.", "proj.", "pred.", "mask_token"),
    value=_value,
)
