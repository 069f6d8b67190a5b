"""The official isotropic networks: one stage, a bare stem (facebookresearch/ConvNeXt, models/convnext_isotropic.py)."""

from __future__ import annotations

from convnext_cli.checkpoints.layouts.layout import Layout, Target
from convnext_cli.checkpoints.layouts.rules import classifier
from convnext_cli.model.config import ConvNextConfig

ISOTROPIC = Layout(
    "isotropic",
    marker=r"blocks\.0\.dwconv\.weight",
    pairs=tuple((name, name) for name in ("stem", "blocks", "norm", "head")),
    target=Target(
        "official",
        (".pth", ".pt", ".safetensors"),
        free=frozenset({"num_channels", "layer_scale_init_value"}),
        rules=(classifier,),
        plain=ConvNextConfig(layer_norm_eps=1e-6, patch_size=16, stem_norm=False),
        only=lambda config: config.bare,
        wrap=lambda tensors, _: {"model": tensors},
    ),
)
