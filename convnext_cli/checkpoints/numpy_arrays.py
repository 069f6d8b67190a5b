"""A canonical file as numpy arrays: what engines without torch read."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from convnext_cli.base.errors import ModelError
from convnext_cli.model.card import METADATA_KEY, Card

if TYPE_CHECKING:
    import numpy as np


def read_arrays(path: Path) -> tuple[Card, dict[str, np.ndarray]]:
    """The card, and the tensors in float32 by canonical name.

    Raises ModelError when the file is damaged or not canonical; bfloat16, which numpy lacks, counts as such.
    """
    import numpy as np
    import safetensors

    try:
        with safetensors.safe_open(path, "numpy") as file:
            card = Card.from_json(file.metadata()[METADATA_KEY])
            arrays = {name: file.get_tensor(name).astype(np.float32) for name in file.keys()}  # noqa: SIM118
    except (OSError, safetensors.SafetensorError, LookupError, TypeError, AttributeError) as error:
        raise ModelError(f"{path.name} is damaged or not in the canonical form: {error}", "fetch it again") from error
    if {name: array.shape for name, array in arrays.items()} != card.config.shapes():
        raise ModelError(f"{path.name} is damaged: its tensors are not those of its card", "fetch it again")
    return card, arrays
