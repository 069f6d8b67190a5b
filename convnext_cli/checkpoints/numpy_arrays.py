"""A canonical file as numpy arrays, for engines without torch."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from convnext_cli.base.errors import ModelError
from convnext_cli.checkpoints.calibration_file import PREFIX
from convnext_cli.model.card import METADATA_KEY, Card

if TYPE_CHECKING:
    import numpy as np


def read_arrays(path: Path) -> tuple[Card, dict[str, np.ndarray]]:
    """The card, and the tensors in float32 by canonical name.

    Raises:
        ModelError: the file is damaged, or not canonical (numpy cannot read bfloat16).
    """
    import numpy as np
    import safetensors

    try:
        with safetensors.safe_open(path, "numpy") as file:
            card = Card.from_json(file.metadata()[METADATA_KEY])
            names = [name for name in file.keys() if not name.startswith(PREFIX)]  # noqa: SIM118 - not a dict
            arrays = {name: file.get_tensor(name).astype(np.float32) for name in names}
    except (OSError, safetensors.SafetensorError, LookupError, TypeError, AttributeError) as error:
        raise ModelError(
            f"{path.name} is damaged or not in the canonical layout: {error}", "download the file again"
        ) from error
    if {name: array.shape for name, array in arrays.items()} != card.config.shapes():
        raise ModelError(f"{path.name} is damaged: its tensors do not match its card", "download the file again")
    return card, arrays
