"""timm (huggingface/pytorch-image-models, timm/models/convnext.py)."""

from __future__ import annotations

import dataclasses

from convnext_cli.base.text import JsonObject
from convnext_cli.checkpoints import foreign_preprocessing
from convnext_cli.checkpoints.companion_files import CONFIG
from convnext_cli.checkpoints.infer_config import architecture_of
from convnext_cli.checkpoints.layouts.layout import PLAIN, Layout, Target
from convnext_cli.checkpoints.layouts.rules import STAGES, shown, stages
from convnext_cli.checkpoints.layouts.timm_trunk import CONV_MLP_SHAPES, FLAT_NAMES, NAMES, SHAPES
from convnext_cli.model.card import Card
from convnext_cli.model.config import VARIANTS, ConvNextConfig
from convnext_cli.model.preprocessing import CLIP_MEAN, CLIP_STD, INCEPTION_MEAN, INCEPTION_STD, Preprocessing

_HEAD = (
    ("head.norm", "norm"),
    ("head.pre_logits.fc", "head_hidden"),
    ("head.fc", "head"),
)
DILATES_AT = 64  # pixels for each position of the last stage; timm keeps to 32
_NORM_FIRST = ("norm_pre", "norm")

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


def _json(card: Card, names: list[str] | None, dtype: str) -> tuple[dict[str, JsonObject], list[str]]:
    """See ``Target.json``."""
    cfg = foreign_preprocessing.to_timm(card.preprocessing, card.config.num_channels)
    lost = foreign_preprocessing.lost(card.preprocessing, lambda: Preprocessing.from_timm(cfg))
    return {CONFIG: describe(card, cfg, names)}, lost


def _norms(config: ConvNextConfig) -> str | None:
    if config.norm_eps != config.layer_norm_eps:
        return f"layer_norm_eps is {config.layer_norm_eps:g}, there it is that of all norms, {config.norm_eps:g}"
    if config.norm_bias != (config.norm == "layer"):
        return f"norm_bias is {config.norm_bias}, there it is {not config.norm_bias} for {config.norm} norms"
    return None


def _stem(config: ConvNextConfig) -> str | None:
    if stem_type(config) is None:
        return f"stem_width is {config.stem_width}, there hidden_sizes decide it"
    if config.stem == "patch" and config.stem_downsample != (config.patch_size == 2):
        return f"stem_downsample is {config.stem_downsample}, there it is {not config.stem_downsample} for such patches"
    if config.stem == "patch" and config.patch_size * 2 ** (STAGES - 1) >= DILATES_AT:
        return f"patch_size is {config.patch_size}, there it would dilate the last stage"
    return None


def _head(config: ConvNextConfig) -> str | None:
    if config.head_norm == "none":
        return "head_norm is none, and there is always a last norm there"
    if config.head_norm == "before_pool" and config.head_hidden_size:
        return "head_hidden_size stands beside a norm before pooling, there it is either"
    return None


def _unseen(config: ConvNextConfig) -> str | None:
    """The problems of a file whose tensors and architecture do not show all fields, and that has no config.json."""
    usual = VARIANTS.get(architecture_of(config), PLAIN)
    pairs = [(name, getattr(config, name), getattr(usual, name)) for name in ("hidden_act", "norm_eps", "norm")]
    clauses = [
        f"{name} is {shown(value)}, and a file without a config.json counts as {shown(due)}"
        for name, value, due in pairs
        if value != due
    ]
    return "; ".join(clauses) or None


TIMM = Layout(
    "timm",
    marker=r"stages[._]0\.blocks\.0\.conv_dw\.weight",
    pairs=(*NAMES, *_HEAD, _NORM_FIRST, *FLAT_NAMES),
    shapes=SHAPES,
    usual=usual,
    target=Target(
        "timm",
        (".safetensors", ".pth", ".bin"),
        folder=True,
        free=frozenset(
            {"num_channels", "patch_size", "hidden_act", "layer_norm_eps", "norm_eps", "layer_scale_init_value"}
            | {"use_grn", "kernel_sizes", "stem", "stem_width", "stem_downsample", "norm", "norm_bias", "conv_bias"}
            | {"head_norm", "head_hidden_size"}
        ),
        rules=(stages, _norms, _stem, _head),
        bare_rule=_unseen,
        names=lambda config: model_of(config)[2],
        json=_json,
    ),
)
