"""The official isotropic networks: one stage, a bare stem (facebookresearch/ConvNeXt, models/convnext_isotropic.py)."""

from __future__ import annotations

from convnext_cli.checkpoints.layouts.layout import Layout

ISOTROPIC = Layout("isotropic", pairs=tuple((name, name) for name in ("stem", "blocks", "norm", "head")))
