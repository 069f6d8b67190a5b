"""mmpretrain (open-mmlab/mmpretrain, mmpretrain/models/backbones/convnext.py)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from convnext_cli.checkpoints.layouts.layout import Layout, Target
from convnext_cli.checkpoints.layouts.rules import stages

if TYPE_CHECKING:
    from torch import Tensor

_BLOCK = "stages.{i}.{j}."


def wrap(state: Mapping[str, Tensor], names: list[str] | None) -> dict[str, object]:
    """The checkpoint that mmpretrain's ``get_model(config, pretrained=FILE)`` opens.

    Args:
        state: tensors by mmpretrain's names.
        names: of the classes; None if they have none.
    """
    return {"meta": {} if names is None else {"dataset_meta": {"classes": names}}, "state_dict": state}


MMPRETRAIN = Layout(
    "mmpretrain",
    marker=r"stages\.0\.0\.depthwise_conv\.weight",
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
    target=Target(
        "mmpretrain",
        (".pth",),
        free=frozenset({"num_channels", "patch_size", "layer_scale_init_value", "use_grn"}),
        rules=(stages,),
        wrap=wrap,
    ),
)


def classes(checkpoint: Mapping[str, object]) -> list[str] | None:
    """The names of the classes in a checkpoint of mmpretrain 1.x, or of mmcls 0.x before it; None if there are none."""
    meta = checkpoint.get("meta")
    if not isinstance(meta, dict):
        return None
    dataset = meta.get("dataset_meta")
    names = dataset.get("classes") if isinstance(dataset, dict) else meta.get("CLASSES")
    are_names = isinstance(names, list | tuple) and all(isinstance(name, str) for name in names)
    return list(names) if are_names and names else None
