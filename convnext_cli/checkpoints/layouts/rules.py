"""Conditions on networks that several libraries' classes share (``layout.Rule``)."""

from __future__ import annotations

from convnext_cli.model.config import ConvNextConfig

STAGES = 4


def classifier(config: ConvNextConfig) -> str | None:
    return None if config.num_labels else "num_labels is 0, there it always has a classifier"


def stages(config: ConvNextConfig) -> str | None:
    count = config.num_stages
    return None if count == STAGES else f"depths has {count} stage{'s' * (count != 1)}, there it has {STAGES}"


def scale_or_grn(config: ConvNextConfig) -> str | None:
    both = config.use_grn and config.layer_scale_init_value > 0
    return "use_grn stands beside a layer scale, there it is either" if both else None


def shown(value: object) -> str:
    """A value of a config, for messages."""
    if isinstance(value, tuple):
        return "-".join(map(str, value))
    return f"{value:g}" if isinstance(value, float) else str(value)
