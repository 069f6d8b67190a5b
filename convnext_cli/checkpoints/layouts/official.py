"""The official repositories' names, which are the canonical ones: facebookresearch/ConvNeXt, ConvNeXt-V2, dinov3.

Segmentation and detection forks of that code put them under ``backbone.``, with a norm for each stage's output.
"""

from __future__ import annotations

from convnext_cli.checkpoints.layouts.layout import Layout, Target
from convnext_cli.checkpoints.layouts.rules import classifier, scale_or_grn, stages

OFFICIAL = Layout(
    "official",
    marker=r"stages\.0\.0\.dwconv\.weight",
    pairs=tuple((name, name) for name in ("downsample_layers", "stages", "norm", "head_hidden", "head")),
    dropped=(
        "norms.",  # DINOv3 and EUPE keep a second copy of the last norm
        "projectors.",
        *(f"norm{i}." for i in range(4)),
        *("decode_head.", "auxiliary_head.", "neck.", "rpn_head.", "roi_head."),
        *("dino_head.", "ibot_head."),
    ),
    target=Target(
        "official",
        (".pth", ".pt", ".safetensors"),
        free=frozenset({"num_channels", "layer_scale_init_value", "use_grn"}),
        rules=(stages, classifier, scale_or_grn),
        wrap=lambda tensors, _: {"model": tensors},
    ),
)
