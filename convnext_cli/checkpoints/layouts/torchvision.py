"""torchvision (torchvision/models/convnext.py): stages and downsampling alternate in one list of features."""

from __future__ import annotations

from convnext_cli.checkpoints.layouts.layout import Layout, Pair, Target
from convnext_cli.checkpoints.layouts.rules import STAGES, classifier, stages
from convnext_cli.model.config import ConvNextConfig
from convnext_cli.model.preprocessing import Preprocessing


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


def _usual(architecture: str) -> Preprocessing:
    published = architecture in ("convnext_tiny", "convnext_small", "convnext_base", "convnext_large")
    return Preprocessing.from_torchvision(architecture if published else "convnext_base")


def _at_most_four(config: ConvNextConfig) -> str | None:
    return None if config.num_stages <= STAGES else stages(config)


def _scale(config: ConvNextConfig) -> str | None:
    return None if config.layer_scale_init_value > 0 else "layer_scale_init_value is 0, there it never is"


TORCHVISION = Layout(
    "torchvision",
    marker=r"features\.1\.0\.(layer_scale|block\.5\.weight)",
    pairs=(*(pair for i in range(4) for pair in _stage(i)), ("classifier.0", "norm"), ("classifier.2", "head")),
    shapes={".layer_scale": (-1, 1, 1)},
    usual=_usual,
    target=Target(
        "torchvision",
        (".pth", ".safetensors"),
        free=frozenset({"layer_scale_init_value"}),
        rules=(_at_most_four, classifier, _scale),
    ),
)
