"""Whether a library can hold a network, decided from its config before anything is written.

A library holds a network if its own class, opened as its users open it, computes the same function from the tensors. It
does not if its class would replace an epsilon or an activation by its own.

Sources: models/convnext.py, convnext_isotropic.py and convnextv2.py of facebookresearch/ConvNeXt and ConvNeXt-V2;
timm/models/convnext.py; torchvision/models/convnext.py; transformers' modeling_convnext.py and modeling_convnextv2.py;
mmpretrain/models/backbones/convnext.py.
"""

from __future__ import annotations

from convnext_cli.base.errors import ModelError
from convnext_cli.checkpoints.layouts.registry import TARGETS, layout_to_write
from convnext_cli.checkpoints.layouts.rules import shown
from convnext_cli.model.config import ConvNextConfig

# Fields that no output depends on; and depth and width, which all classes accept.
_ALWAYS = {"initializer_range", "drop_path_rate", "image_size", "depths", "hidden_sizes", "num_labels"}


def problems(config: ConvNextConfig, layout: str, *, bare: bool = False) -> list[str]:
    """Why a library cannot hold a network, in one clause for each field; empty if it can.

    Args:
        config: of the network.
        layout: as ``--to`` names it.
        bare: whether it is a file alone, without the JSON of a folder.
    """
    if layout == "canonical":
        return []
    _, target = layout_to_write(layout, config)
    plain = target.plain.replace(depths=config.depths, hidden_sizes=config.hidden_sizes, kernel_sizes=())
    messages = [
        f"{name} is {shown(value)}, there it is always {shown(getattr(plain, name))}"
        for name, value in vars(config).items()
        if name not in _ALWAYS | target.free and value != getattr(plain, name)
    ]
    messages += [message for rule in target.rules if (message := rule(config))]
    if bare and not messages and target.bare_rule is not None and (message := target.bare_rule(config)):
        messages.append(message)
    return messages


def check(config: ConvNextConfig, layout: str, *, bare: bool = False) -> None:
    """Raise ModelError, with the fields and with layouts that work, if the library cannot hold the network."""
    messages = problems(config, layout, bare=bare)
    if not messages:
        return
    others = [to for to in TARGETS if to != layout and not problems(config, to)]
    if bare and not problems(config, layout):
        others.insert(0, f"{layout} as a folder")
    hint = f"these can: {', '.join(others)}"
    if all(message.startswith("layer_norm_eps") for message in messages):
        hint += f"; or give the network another epsilon: --layer-norm-eps {config.norm_eps:g}"
    raise ModelError(f"{layout} cannot hold this network: {'; '.join(messages)}", hint)
