"""Hugging Face transformers: ConvNext, ConvNextV2 and their backbones, and DINOv3's ConvNeXt."""

from __future__ import annotations

import dataclasses

from convnext_cli.base.text import JsonObject
from convnext_cli.checkpoints import foreign_preprocessing
from convnext_cli.checkpoints.companion_files import CONFIG, PROCESSOR
from convnext_cli.checkpoints.layouts.layout import Layout, Pair, Target
from convnext_cli.checkpoints.layouts.rules import scale_or_grn
from convnext_cli.model.card import Card, Problem
from convnext_cli.model.config import ConvNextConfig
from convnext_cli.model.preprocessing import Preprocessing

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


def _written(config: ConvNextConfig) -> tuple[Layout, JsonObject]:
    description = describe(config)
    assert description is not None, "expressible.check accepted a network that transformers does not have"
    return description


def _words(card: Card, names: list[str] | None, dtype: str) -> JsonObject:
    """The fields of transformers' config.json besides the network's shape."""
    words: JsonObject = {} if "," in dtype else {"dtype": dtype}
    if card.task == "classification" and card.problem != "single_label":
        words["problem_type"] = PROBLEMS[card.problem]
    if rows := card.config.num_labels:
        names = names or [f"LABEL_{row}" for row in range(rows)]
        words["id2label"] = {str(row): name for row, name in enumerate(names)}
        words["label2id"] = {name: row for row, name in enumerate(names)}
    return words


def _json(card: Card, names: list[str] | None, dtype: str) -> tuple[dict[str, JsonObject], list[str]]:
    """See ``Target.json``. The processor is left out where it would not be the model's preprocessing."""
    cfg = foreign_preprocessing.to_huggingface(card.preprocessing)
    lost = foreign_preprocessing.lost(card.preprocessing, lambda: Preprocessing.from_huggingface(cfg))
    files = {CONFIG: _written(card.config)[1] | _words(card, names, dtype)}
    return files if lost else files | {PROCESSOR: cfg}, lost


_TARGET = Target(
    "hf",
    folder=True,
    free=frozenset({"num_channels", "patch_size", "hidden_act", "layer_norm_eps", "layer_scale_init_value", "use_grn"}),
    rules=(scale_or_grn,),
    names=lambda config: _written(config)[0],
    json=_json,
)
HUGGINGFACE = Layout(
    "huggingface",
    marker=r"embeddings\.patch_embeddings\.weight",
    pairs=_PAIRS,
    prefix="convnext.",
    bare=("classifier",),
    dropped=_BACKBONE,
    target=_TARGET,
)
HUGGINGFACE_V2 = dataclasses.replace(
    HUGGINGFACE,
    marker=r"encoder\.stages\.\d+\.layers\.\d+\.grn\.weight",
    prefix="convnextv2.",
    target=dataclasses.replace(_TARGET, only=lambda config: config.use_grn),
)

DINO_PROCESSOR: JsonObject = {"image_processor_type": "DINOv3ViTImageProcessorFast"}
_DINO = "stages.{i}.layers.{j}."
DINOV3 = Layout(
    "dinov3",
    marker=r"stages\.0\.downsample_layers\.0\.weight",
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
    usual=lambda _: Preprocessing.from_huggingface(DINO_PROCESSOR),
)
