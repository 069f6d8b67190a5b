"""Whether a network fits into float16.

Runtimes for processors that lack float16 compute such a file in float32, and its values never overflow there; on a GPU
they would become infinite. So the network's values are looked at, not those of a runtime.
"""

from __future__ import annotations

import numpy as np
import torch
from PIL import Image
from torch import nn

from convnext_cli import checkpoints
from convnext_cli.base.errors import ModelError
from convnext_cli.checkpoints.checkpoint import Checkpoint
from convnext_cli.photos.resize import apply_preprocessing
from convnext_cli.photos.samples import samples
from convnext_cli.runtimes.reference import reference_input

_MOST = float(np.finfo(np.float16).max)


def refuse_overflow(checkpoint: Checkpoint) -> None:
    """Raise ModelError when what a layer gives for the sample photos does not fit into float16.

    Norms are left out: graphs have their affine parts in the layers behind them, and compute them in float32.
    """
    preprocessing, largest = checkpoint.card.preprocessing, 0.0

    def look(module: nn.Module, _inputs: object, output: torch.Tensor) -> None:
        nonlocal largest
        largest = max(largest, float(output.abs().max()))

    network = checkpoints.build(checkpoint)
    for name, module in network.named_modules():
        if isinstance(module, nn.Conv2d | nn.Linear) or name.endswith((".act", ".grn")):
            module.register_forward_hook(look)
    photos = [apply_preprocessing(preprocessing, Image.open(path).convert("RGB")) for path in samples()]
    with torch.inference_mode():
        for photo in (*photos, reference_input(*preprocessing.size)[0]):
            network(torch.from_numpy(photo[None]))
    if not largest <= _MOST:
        raise ModelError(
            f"the network's values reach {largest:,.0f}, and float16 ends at {_MOST:,.0f}: they would become infinite",
            "take --dtype bfloat16, which has the range of float32, or float32",
        )
