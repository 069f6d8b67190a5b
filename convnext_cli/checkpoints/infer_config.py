"""Infers the ConvNextConfig of a network from the names and shapes of its tensors.

Shapes do not show the epsilons, the activation, whether a norm is RMS or SimpleNorm, the size of the training photos,
and whether the last norm is before or after the pooling. For these, the values of most published weights are assumed.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import NamedTuple

from convnext_cli.base.errors import ModelError
from convnext_cli.model.config import VARIANTS, ConvNextConfig, Stem

Extents = Mapping[str, tuple[int, ...]]  # shapes by canonical name
_BLOCK = re.compile(r"(?:stages\.(\d+)|blocks)\.(\d+)\.")
_ODD_EPS = ((3, 4, 30, 3), 1e-5)  # xxlarge: depths and epsilon


class MissingTensorError(ModelError):
    """A tensor is missing without which the config cannot be inferred.

    Args:
        name: its canonical name.
    """

    def __init__(self, name: str) -> None:
        super().__init__(f"the weights lack {name}, or it is not a convolution", "download the file again")
        self.name = name


class _Stem(NamedTuple):
    kind: Stem
    width: int
    patch_size: int
    norm: bool
    downsample: bool


def config_of(shapes: Extents, *, norm_first: bool = False) -> ConvNextConfig:
    """The config of a network whose tensors have these canonical names and shapes.

    Args:
        shapes: by canonical name.
        norm_first: whether the library's names show that the last norm is before the pooling.

    Raises:
        ModelError: a part that every ConvNeXt has is missing.
    """
    found_blocks: dict[int, set[int]] = {}
    for name in shapes:
        if match := _BLOCK.match(name):
            found_blocks.setdefault(int(match[1] or 0), set()).add(int(match[2]))
    for stage, numbers in found_blocks.items():
        if max(numbers) + 1 != len(numbers):
            raise ModelError(
                f"stage {stage} has {len(numbers)} blocks, but one of them has the number {max(numbers)}",
                "the file is truncated, or is only part of a network: name the complete checkpoint",
            )
    blocks = {stage: len(numbers) for stage, numbers in found_blocks.items()}
    bare = "blocks.0.dwconv.weight" in shapes
    stem_name = "stem.weight" if bare else "downsample_layers.0.0.weight"
    if stem_name not in shapes and sorted(blocks) == list(range(len(blocks))) and blocks:
        raise MissingTensorError(stem_name)
    if stem_name not in shapes or sorted(blocks) != list(range(len(blocks))) or len(shapes[stem_name]) != 4:
        raise ModelError(
            "the weights have no stem, or lack a whole stage",
            "the file is truncated, or is only part of a network: name the complete checkpoint",
        )
    depths = tuple(blocks[i] for i in range(len(blocks)))
    firsts = ["blocks.0" if bare else f"stages.{i}.0" for i in range(len(depths))]
    kernels, dims = [], []
    for first in firsts:
        dwconv = shapes.get(f"{first}.dwconv.weight", ())
        if len(dwconv) != 4:
            raise MissingTensorError(f"{first}.dwconv.weight")
        dims.append(dwconv[0])
        kernels.append(dwconv[-1])
    stem = _stem(shapes, stem_name)
    ends = {_BLOCK.sub("", name) for name in shapes if _BLOCK.match(name)}  # in any block: one may lack its own
    norm_bias = "norm.bias" in ends
    eps = _ODD_EPS[1] if depths == _ODD_EPS[0] else 1e-6
    hidden = shapes.get("head_hidden.weight")
    head = shapes.get("head.weight") or shapes.get("head.bias")
    return ConvNextConfig(
        num_channels=shapes[stem_name][1],
        patch_size=stem.patch_size,
        hidden_sizes=tuple(dims),
        depths=depths,
        layer_norm_eps=eps,
        norm_eps=eps,
        layer_scale_init_value=1e-6 if "gamma" in ends else 0.0,
        num_labels=head[0] if head else 0,
        use_grn=any(name.endswith(".grn.gamma") for name in shapes),
        kernel_sizes=tuple(kernels),
        mlp_ratio=shapes.get(f"{firsts[0]}.pwconv1.weight", (4 * dims[0],))[0] // dims[0],
        stem=stem.kind,
        stem_width=stem.width,
        stem_norm=stem.norm,
        stem_downsample=stem.downsample,
        norm="layer" if norm_bias else "simple" if dims[0] == VARIANTS["convnext_zepto_rms"].hidden_sizes[0] else "rms",
        norm_bias=norm_bias,
        conv_bias="dwconv.bias" in ends,
        mlp_bias="pwconv1.bias" in ends,
        head_bias="head.bias" in shapes or head is None,
        head_norm="none" if not _has(shapes, "norm") else "before_pool" if norm_first else "after_pool",
        head_hidden_size=hidden[0] if hidden else None,
    )


def _stem(shapes: Extents, first: str) -> _Stem:
    """The kind of the stem: a second 3×3 convolution after the first makes it overlap."""
    stem = shapes[first]
    if first == "stem.weight":
        return _Stem("patch", 0, stem[-1], norm=False, downsample=False)
    for kind, second in (("overlap", 1), ("overlap_act", 2)):
        conv = shapes.get(f"downsample_layers.0.{second}.weight", ())
        if len(conv) == 4 and conv[-1] == 3:
            norm = _has(shapes, f"downsample_layers.0.{second + 1}")
            return _Stem(kind, stem[0], 4, norm, downsample=False)  # type: ignore[arg-type]
    norm = _has(shapes, "downsample_layers.0.1")
    return _Stem("patch", 0, stem[-1], norm, downsample="downsample_layers.0.3.weight" in shapes)


def _has(shapes: Extents, layer: str) -> bool:
    return f"{layer}.weight" in shapes or f"{layer}.bias" in shapes


def architecture_of(config: ConvNextConfig) -> str:
    """The name of the published variant with this body; "" if there is none."""
    ours = _body(config)
    return next((name for name, variant in VARIANTS.items() if _body(variant) == ours), "")


def _body(config: ConvNextConfig) -> dict[str, object]:
    """The fields that distinguish variants when the head may have been replaced and epsilons are unknown."""
    fields = ("depths", "hidden_sizes", "patch_size", "kernel_sizes", "use_grn", "stem", "stem_width", "norm_bias")
    return {name: getattr(config, name) for name in fields} | {
        "hidden_head": bool(config.head_hidden_size),
        "norm_first": config.head_norm == "before_pool",
    }
