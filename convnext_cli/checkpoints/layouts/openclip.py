"""OpenCLIP image towers: timm's network under ``visual.trunk.``, a projection behind it (open_clip/timm_model.py).

The projection becomes the classifier, as timm folds it: the outputs are embeddings, not classes.
"""

from __future__ import annotations

from convnext_cli.checkpoints.layouts.layout import Layout
from convnext_cli.checkpoints.layouts.timm_trunk import NAMES, SHAPES
from convnext_cli.model.preprocessing import Preprocessing

OPENCLIP = Layout(
    "openclip",
    marker=r"trunk\.stem\.0\.weight",
    pairs=(
        *((f"trunk.{foreign}", canonical) for foreign, canonical in NAMES),
        ("trunk.head.norm", "norm"),
        ("trunk.norm_pre", "norm"),
        ("head.proj", "head"),
        ("head.mlp.fc1", "head_hidden"),
        ("head.mlp.fc2", "head"),
        ("trunk.head.fc", "head"),
    ),
    prefix="visual.",
    dropped=(
        *("logit_scale", "logit_bias", "positional_embedding", "text_projection", "token_embedding.", "transformer."),
        *("ln_final.", "attn_mask", "text."),
    ),
    shapes=SHAPES,
    usual=lambda _: Preprocessing.from_open_clip(224),
)
