"""Hugging Face transformers: ConvNext, ConvNextV2 and their backbones, and DINOv3's ConvNeXt."""

from __future__ import annotations

from convnext_cli.checkpoints.layout import Layout, Pair

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
