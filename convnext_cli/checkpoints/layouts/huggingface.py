"""Hugging Face transformers: ConvNext, ConvNextV2 and their backbones, and DINOv3's ConvNeXt."""

from __future__ import annotations

import dataclasses

from convnext_cli.base.text import JsonObject
from convnext_cli.checkpoints.layouts.layout import Layout, Pair
from convnext_cli.model.card import Problem
from convnext_cli.model.config import ConvNextConfig

_BLOCK, _CANONICAL = "encoder.stages.{i}.layers.{j}.", "stages.{i}.{j}."
_PAIRS: tuple[Pair, ...] = (
    ("embeddings.patch_embeddings", "downsample_layers.0.0"),
    ("embeddings.layernorm", "downsample_layers.0.1"),
    ("encoder.stages.{i}.downsampling_layer.{k}", "downsample_layers.{i}.{k}"),
    (f"{_BLOCK}dwconv", f"{_CANONICAL}dwconv"),
    (f"{_BLOCK}layernorm", f"{_CANONICAL}norm"),
    (f"{_BLOCK}pwconv1", f"{_CANONICAL}pwconv1"),
    (f"{_BLOCK}pwconv2", f"{_CANONICAL}pwconv2"),
    (f"{_BLOCK}grn.weight", f"{_CANONICAL}grn.gamma"),  # V2; not to be taken for V1's layer scale
    (f"{_BLOCK}grn.bias", f"{_CANONICAL}grn.beta"),
    (f"{_BLOCK}layer_scale_parameter", f"{_CANONICAL}gamma"),
    ("layernorm", "norm"),
    ("classifier", "head"),
)
_BACKBONE = ("hidden_states_norms.",)  # norms of a backbone's outputs, for detectors

HUGGINGFACE = Layout("huggingface", _PAIRS, prefix="convnext.", bare=("classifier",), dropped=_BACKBONE)
HUGGINGFACE_V2 = Layout("huggingface", _PAIRS, prefix="convnextv2.", bare=("classifier",), dropped=_BACKBONE)

_DINO = "stages.{i}.layers.{j}."
DINOV3 = Layout(
    "dinov3",
    pairs=(
        ("stages.{i}.downsample_layers.{k}", "downsample_layers.{i}.{k}"),
        (f"{_DINO}depthwise_conv", f"{_CANONICAL}dwconv"),
        (f"{_DINO}layer_norm", f"{_CANONICAL}norm"),
        (f"{_DINO}pointwise_conv1", f"{_CANONICAL}pwconv1"),
        (f"{_DINO}pointwise_conv2", f"{_CANONICAL}pwconv2"),
        (f"{_DINO}gamma", f"{_CANONICAL}gamma"),
        ("layer_norm", "norm"),
    ),
    prefix="model.",
    bare=("layer_norm",),
)

# What a card calls ``problem``, as ``problem_type`` of config.json.
PROBLEMS: dict[Problem, str] = {
    "single_label": "single_label_classification",
    "multi_label": "multi_label_classification",
    "regression": "regression",
}
_ACTIVATIONS = {"gelu": "gelu", "gelu_tanh": "gelu_pytorch_tanh", "silu": "silu", "relu": "relu"}


def describe(config: ConvNextConfig) -> tuple[Layout, JsonObject] | None:
    """The layout and the config.json of a network in transformers; None when it has no such network.

    A network without a classifier becomes a ConvNextModel, whose names have no prefix.
    """
    scale = config.layer_scale_init_value
    plain = ConvNextConfig(
        num_channels=config.num_channels,
        patch_size=config.patch_size,
        hidden_sizes=config.hidden_sizes,
        depths=config.depths,
        hidden_act=config.hidden_act,
        initializer_range=config.initializer_range,
        layer_norm_eps=config.layer_norm_eps,
        layer_scale_init_value=scale,
        drop_path_rate=config.drop_path_rate,
        image_size=config.image_size,
        num_labels=config.num_labels,
        use_grn=config.use_grn,
    )
    if plain != config or (config.use_grn and scale > 0):
        return None
    kind, layout = ("ConvNextV2", HUGGINGFACE_V2) if config.use_grn else ("ConvNext", HUGGINGFACE)
    fields = ("num_channels", "patch_size", "hidden_sizes", "depths", "initializer_range", "layer_norm_eps")
    values = config.to_dict()
    description = {
        "model_type": kind.lower(),
        "architectures": [kind + ("ForImageClassification" if config.num_labels else "Model")],
        **{name: values[name] for name in (*fields, "drop_path_rate", "image_size")},
        "num_stages": config.num_stages,
        "hidden_act": _ACTIVATIONS[config.hidden_act],
        **({} if config.use_grn else {"layer_scale_init_value": scale}),
    }
    return layout if config.num_labels else dataclasses.replace(layout, prefix=""), description
