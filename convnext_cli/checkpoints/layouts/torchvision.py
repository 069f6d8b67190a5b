"""torchvision (torchvision/models/convnext.py): stages and downsampling alternate in one list of features."""

from __future__ import annotations

from convnext_cli.checkpoints.layouts.layout import Layout, Pair


def _stage(i: int) -> tuple[Pair, ...]:
    block, canonical = f"features.{2 * i + 1}.{{j}}.", f"stages.{i}.{{j}}."
    return (
        (f"features.{2 * i}.{{k}}", f"downsample_layers.{i}.{{k}}"),
        (f"{block}block.0", f"{canonical}dwconv"),
        (f"{block}block.2", f"{canonical}norm"),
        (f"{block}block.3", f"{canonical}pwconv1"),
        (f"{block}block.5", f"{canonical}pwconv2"),
        (f"{block}layer_scale", f"{canonical}gamma"),
    )


TORCHVISION = Layout(
    "torchvision",
    pairs=(*(pair for i in range(4) for pair in _stage(i)), ("classifier.0", "norm"), ("classifier.2", "head")),
    shapes={".layer_scale": (-1, 1, 1)},
)
