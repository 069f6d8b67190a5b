"""timm (huggingface/pytorch-image-models, timm/models/convnext.py)."""

from __future__ import annotations

import dataclasses

from convnext_cli.base.text import JsonObject
from convnext_cli.checkpoints.infer_config import architecture_of
from convnext_cli.checkpoints.layouts.layout import Layout
from convnext_cli.checkpoints.layouts.timm_trunk import CONV_MLP_SHAPES, FLAT_NAMES, NAMES, SHAPES
from convnext_cli.model.card import Card
from convnext_cli.model.config import VARIANTS, ConvNextConfig
from convnext_cli.model.preprocessing import CLIP_MEAN, CLIP_STD, INCEPTION_MEAN, INCEPTION_STD, Preprocessing

_HEAD = (
    ("head.norm", "norm"),
    ("head.pre_logits.fc", "head_hidden"),
    ("head.fc", "head"),
)
_NORM_FIRST = ("norm_pre", "norm")

TIMM = Layout("timm", pairs=(*NAMES, *_HEAD, _NORM_FIRST, *FLAT_NAMES), shapes=SHAPES)

_095: JsonObject = {"crop_pct": 0.95}
_HALF: JsonObject = {"mean": INCEPTION_MEAN, "std": INCEPTION_STD}
_CLIP: JsonObject = {"crop_pct": 1.0, "mean": CLIP_MEAN, "std": CLIP_STD}
# The pretrained_cfg of timm's default weights of each architecture, where it is not 224 pixels, crop_pct 0.875,
# bicubic and ImageNet's mean: what timm's resolve_data_config answers for a network without a tag.
_USUAL: dict[str, JsonObject] = {
    "convnext_zepto_rms": _HALF,
    "convnext_zepto_rms_ols": {**_HALF, "crop_pct": 0.9},
    "convnext_pico_ols": _095,
    "convnext_nano": _095,
    "convnext_nano_ols": _095,
    "convnext_tiny": _095,
    "convnext_tiny_hnf": _095,
    "convnext_small": _095,
    "convnext_large_mlp": {**_CLIP, "input_size": (3, 320, 320)},
    "convnext_xxlarge": {**_CLIP, "input_size": (3, 256, 256)},
    "convnextv2_huge": {"input_size": (3, 384, 384), "crop_pct": 1.0, "crop_mode": "squash"},
    **{f"test_convnext{i}": {**_HALF, **_095, "input_size": (3, 160, 160)} for i in ("", "2", "3")},
}
# Architectures whose pointwise layers are convolutions.
_CONV_MLP = {
    name
    for name in VARIANTS
    if name.partition("_")[2].startswith(("zepto", "atto", "femto", "pico", "nano", "tiny_hnf"))
}


def usual(architecture: str) -> Preprocessing:
    """timm's preprocessing for bare weights of an architecture; "" for one that timm does not have."""
    return Preprocessing.from_timm(_USUAL.get(architecture, {}))


def written(config: ConvNextConfig, *, conv_mlp: bool) -> Layout:
    """The layout to write for this network: some of timm's names depend on it."""
    first = []
    if config.head_norm == "before_pool":
        first.append(_NORM_FIRST)
    if config.stem_downsample:
        first += [pair for pair in NAMES if pair[0].startswith("stages.0.downsample")]
    shapes = SHAPES | CONV_MLP_SHAPES if conv_mlp else SHAPES
    return dataclasses.replace(TIMM, pairs=(*first, *TIMM.pairs), shapes=shapes)


def stem_type(config: ConvNextConfig) -> str | None:
    """timm's word for a network's stem; None when timm has no stem of this width."""
    if config.stem == "patch":
        return "patch"
    width = config.hidden_sizes[0]
    if config.stem_width == width:
        return config.stem
    # half as wide, rounded to a multiple of 8, and never down by more than a tenth (timm's make_divisible)
    half = width // 2
    tiered = max(8, (half + 4) // 8 * 8)
    tiered += 8 * (tiered < 0.9 * half)
    return "overlap_tiered" if config.stem == "overlap" and config.stem_width == tiered else None


def model_of(config: ConvNextConfig) -> tuple[str, JsonObject, Layout]:
    """timm's architecture that is most like a network, the arguments that make it this one, and the layout to write.

    The number of channels and of classes is not an argument, but part of ``pretrained_cfg``.
    """
    architecture = architecture_of(config) or ("convnextv2_tiny" if config.use_grn else "convnext_tiny")
    ours, usual = _arguments(config), _arguments(VARIANTS[architecture])
    arguments = {name: value for name, value in ours.items() if value != usual[name]}
    return architecture, arguments, written(config, conv_mlp=architecture in _CONV_MLP)


def _arguments(config: ConvNextConfig) -> JsonObject:
    """Of the constructor of timm's class."""
    return {
        "depths": list(config.depths),
        "dims": list(config.hidden_sizes),
        "kernel_sizes": list(config.kernel_sizes),
        "ls_init_value": config.layer_scale_init_value or None,
        "stem_type": stem_type(config),
        "patch_size": config.patch_size,
        "head_norm_first": config.head_norm == "before_pool",
        "head_hidden_size": config.head_hidden_size,
        "conv_bias": config.conv_bias,
        "use_grn": config.use_grn,
        "act_layer": config.hidden_act,
        "norm_layer": f"{config.norm}norm",
        "norm_eps": config.norm_eps,
    }


def describe(card: Card, preprocessing: JsonObject, names: list[str] | None) -> JsonObject:
    """The config.json of a folder that ``timm.create_model("local-dir:FOLDER", pretrained=True)`` opens.

    Args:
        card: of the weights.
        preprocessing: in timm's format.
        names: of the classes; None if they have none. WordNet ids take precedence, as in timm.
    """
    config = card.config
    architecture, arguments, _ = model_of(config)
    labels: JsonObject = {}
    if names is not None:
        ids, lemmas = card.label_set().ids, card.label_set().lemmas
        label_names = list(ids) if all(ids) and len(set(ids)) == len(ids) else names
        labels["label_names"] = label_names
        if list(lemmas) != label_names:
            labels["label_descriptions"] = dict(zip(label_names, lemmas, strict=True))
    tag = card.name.partition(".")[2] if card.name.startswith(f"{architecture}.") else ""
    return {
        "architecture": architecture,
        "num_classes": config.num_labels,
        "num_features": config.head_hidden_size or config.hidden_sizes[-1],
        "global_pool": "avg",
        **labels,
        **({"model_args": arguments} if arguments else {}),
        "pretrained_cfg": {
            **({"tag": tag} if tag else {}),
            "custom_load": False,
            **preprocessing,
            "fixed_input_size": False,
            "num_classes": config.num_labels,
            "pool_size": [max(1, edge // config.stride) for edge in card.preprocessing.size],
            "first_conv": "stem.0",
            "classifier": "head.fc",
            **({"license": card.license} if card.license else {}),
        },
    }
