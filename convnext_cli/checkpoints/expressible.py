"""Whether a library can hold a network, decided from its config before anything is written.

A library holds a network if its own class, opened as its users open it, computes the same function from the tensors. It
does not if its class would replace an epsilon or an activation by its own.

Sources: models/convnext.py, convnext_isotropic.py and convnextv2.py of facebookresearch/ConvNeXt and ConvNeXt-V2;
timm/models/convnext.py; torchvision/models/convnext.py; transformers' modeling_convnext.py and modeling_convnextv2.py;
mmpretrain/models/backbones/convnext.py.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from convnext_cli.base.errors import ModelError
from convnext_cli.checkpoints.infer_config import architecture_of
from convnext_cli.checkpoints.layouts import timm
from convnext_cli.model.config import VARIANTS, ConvNextConfig

# Fields that no output depends on; and depth and width, which all classes accept.
_ALWAYS = {"initializer_range", "drop_path_rate", "image_size", "depths", "hidden_sizes", "num_labels"}
_TIMM_DILATES_AT = 64  # pixels for each position of the last stage; timm keeps to 32
_STAGES = 4

Rule = Callable[[ConvNextConfig], str | None]


class _Class(NamedTuple):
    """A library's class.

    Args:
        free: the fields that it accepts, or reads from the tensors; all others are fixed.
        rules: conditions on the fields. Each returns the problem, beginning with the field's name, or None.
        plain: a config with the fixed values.
    """

    free: frozenset[str]
    rules: tuple[Rule, ...]
    plain: ConvNextConfig = ConvNextConfig(layer_norm_eps=1e-6)


def _classifier(config: ConvNextConfig) -> str | None:
    return None if config.num_labels else "num_labels is 0, there it always has a classifier"


def _stages(config: ConvNextConfig) -> str | None:
    stages = config.num_stages
    return None if stages == _STAGES else f"depths has {stages} stage{'s' * (stages != 1)}, there it has {_STAGES}"


def _at_most_four(config: ConvNextConfig) -> str | None:
    return None if config.num_stages <= _STAGES else _stages(config)


def _scale_or_grn(config: ConvNextConfig) -> str | None:
    both = config.use_grn and config.layer_scale_init_value > 0
    return "use_grn stands beside a layer scale, there it is either" if both else None


def _scale(config: ConvNextConfig) -> str | None:
    return None if config.layer_scale_init_value > 0 else "layer_scale_init_value is 0, there it never is"


def _timms_norms(config: ConvNextConfig) -> str | None:
    if config.norm_eps != config.layer_norm_eps:
        return f"layer_norm_eps is {config.layer_norm_eps:g}, there it is that of all norms, {config.norm_eps:g}"
    if config.norm_bias != (config.norm == "layer"):
        return f"norm_bias is {config.norm_bias}, there it is {not config.norm_bias} for {config.norm} norms"
    return None


def _timms_stem(config: ConvNextConfig) -> str | None:
    if timm.stem_type(config) is None:
        return f"stem_width is {config.stem_width}, there hidden_sizes decide it"
    if config.stem == "patch" and config.stem_downsample != (config.patch_size == 2):
        return f"stem_downsample is {config.stem_downsample}, there it is {not config.stem_downsample} for such patches"
    if config.stem == "patch" and config.patch_size * 2 ** (_STAGES - 1) >= _TIMM_DILATES_AT:
        return f"patch_size is {config.patch_size}, there it would dilate the last stage"
    return None


def _timms_head(config: ConvNextConfig) -> str | None:
    if config.head_norm == "none":
        return "head_norm is none, and there is always a last norm there"
    if config.head_norm == "before_pool" and config.head_hidden_size:
        return "head_hidden_size stands beside a norm before pooling, there it is either"
    return None


_OFFICIAL = _Class(
    frozenset({"num_channels", "layer_scale_init_value", "use_grn"}), (_stages, _classifier, _scale_or_grn)
)
_ISOTROPIC = _Class(
    frozenset({"num_channels", "layer_scale_init_value"}),
    (_classifier,),
    ConvNextConfig(layer_norm_eps=1e-6, patch_size=16, stem_norm=False),
)
_CLASSES: dict[str, _Class] = {
    "official": _OFFICIAL,
    "timm": _Class(
        frozenset(
            {"num_channels", "patch_size", "hidden_act", "layer_norm_eps", "norm_eps", "layer_scale_init_value"}
            | {"use_grn", "kernel_sizes", "stem", "stem_width", "stem_downsample", "norm", "norm_bias", "conv_bias"}
            | {"head_norm", "head_hidden_size"}
        ),
        (_stages, _timms_norms, _timms_stem, _timms_head),
    ),
    "torchvision": _Class(frozenset({"layer_scale_init_value"}), (_at_most_four, _classifier, _scale)),
    "hf": _Class(
        frozenset({"num_channels", "patch_size", "hidden_act", "layer_norm_eps", "layer_scale_init_value", "use_grn"}),
        (_scale_or_grn,),
    ),
    "mmpretrain": _Class(
        frozenset({"num_channels", "patch_size", "layer_scale_init_value", "use_grn"}),
        (_stages,),
    ),
}


def problems(config: ConvNextConfig, layout: str, *, bare: bool = False) -> list[str]:
    """Why a library cannot hold a network, in one clause for each field; empty if it can.

    Args:
        config: of the network.
        layout: as ``--to`` names it.
        bare: whether the file is timm's state dict alone, without the config.json that has the rest.
    """
    if layout == "canonical":
        return []
    kind = _ISOTROPIC if layout == "official" and config.bare else _CLASSES[layout]
    plain = kind.plain.replace(depths=config.depths, hidden_sizes=config.hidden_sizes, kernel_sizes=())
    messages = [
        f"{name} is {_shown(value)}, there it is always {_shown(getattr(plain, name))}"
        for name, value in vars(config).items()
        if name not in _ALWAYS | kind.free and value != getattr(plain, name)
    ]
    messages += [message for rule in kind.rules if (message := rule(config))]
    if bare and not messages:
        messages += _unseen(config)
    return messages


def check(config: ConvNextConfig, layout: str, *, bare: bool = False) -> None:
    """Raise ModelError, with the fields and with layouts that work, if the library cannot hold the network."""
    messages = problems(config, layout, bare=bare)
    if not messages:
        return
    others = [to for to in ("canonical", *_CLASSES) if to != layout and not problems(config, to)]
    if bare and not problems(config, layout):
        others.insert(0, f"{layout} as a folder")
    hint = f"these can: {', '.join(others)}"
    if all(message.startswith("layer_norm_eps") for message in messages):
        hint += f"; or give the network another epsilon: --layer-norm-eps {config.norm_eps:g}"
    raise ModelError(f"{layout} cannot hold this network: {'; '.join(messages)}", hint)


def _unseen(config: ConvNextConfig) -> list[str]:
    """The problems of a timm file whose tensors and architecture do not show all fields."""
    usual = VARIANTS.get(architecture_of(config), _CLASSES["timm"].plain)
    pairs = [(name, getattr(config, name), getattr(usual, name)) for name in ("hidden_act", "norm_eps", "norm")]
    return [
        f"{name} is {_shown(value)}, and a file without a config.json counts as {_shown(due)}"
        for name, value, due in pairs
        if value != due
    ]


def _shown(value: object) -> str:
    if isinstance(value, tuple):
        return "-".join(map(str, value))
    return f"{value:g}" if isinstance(value, float) else str(value)
