"""Every layout: a new one is a file beside this one, and a line in ``ALL``."""

from __future__ import annotations

from convnext_cli.checkpoints.layouts.huggingface import DINOV3, HUGGINGFACE, HUGGINGFACE_V2
from convnext_cli.checkpoints.layouts.isotropic import ISOTROPIC
from convnext_cli.checkpoints.layouts.layout import Layout, Target
from convnext_cli.checkpoints.layouts.mmpretrain import MMPRETRAIN
from convnext_cli.checkpoints.layouts.official import OFFICIAL
from convnext_cli.checkpoints.layouts.openclip import OPENCLIP
from convnext_cli.checkpoints.layouts.sparse import SPARSE
from convnext_cli.checkpoints.layouts.timm import TIMM
from convnext_cli.checkpoints.layouts.torchvision import TORCHVISION
from convnext_cli.model.config import ConvNextConfig

# A file has the first of these whose marker one of its names matches.
ALL: tuple[Layout, ...] = (
    OPENCLIP,
    SPARSE,
    MMPRETRAIN,
    HUGGINGFACE_V2,
    HUGGINGFACE,
    DINOV3,
    TORCHVISION,
    TIMM,
    ISOTROPIC,
    OFFICIAL,
)
LAYOUTS: dict[str, Layout] = {layout.name: layout for layout in reversed(ALL)}
# By the names that ``convnext convert --to`` takes. The canonical layout has the official names, and any network.
TARGETS: dict[str, Target] = {"canonical": Target("canonical", (".safetensors",))}
TARGETS |= {layout.target.name: layout.target for layout in reversed(ALL) if layout.target is not None}


def layout_to_write(name: str, config: ConvNextConfig) -> tuple[Layout, Target]:
    """The layout of a target for this network, before its names are fitted to it (``Target.names``).

    Args:
        name: a key of ``TARGETS``.
        config: of the network.
    """
    if name == "canonical":
        return layout_to_write("official", config)[0], TARGETS[name]
    return next(
        (layout, target)
        for layout in ALL
        if (target := layout.target) is not None
        and target.name == name
        and (target.only is None or target.only(config))
    )
