"""Writes a Checkpoint to a file, or makes its network."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from convnext_cli.checkpoints import canonical
from convnext_cli.checkpoints.checkpoint import Checkpoint

if TYPE_CHECKING:
    from convnext_cli.model.network import ConvNextForImageClassification


def save(checkpoint: Checkpoint, path: str | Path) -> None:
    """Write canonical safetensors: official names in the order of the network, the card in the metadata.

    The card gets the fingerprint of the tensors.

    Raises:
        OutputError: the file cannot be written.
    """
    tensors = {name: checkpoint.tensors[name] for name in checkpoint.card.config.shapes()}
    canonical.write(Path(path), tensors, checkpoint.card.replace(sha256=canonical.fingerprint(tensors)))


def build(checkpoint: Checkpoint, *, features: bool = False) -> ConvNextForImageClassification:
    """The network in eval mode. It uses the checkpoint's tensors without a copy.

    Args:
        checkpoint: the weights.
        features: leave the classifier out, so that the outputs are the pooled features, (N, C).
    """
    from convnext_cli.model import network

    config, tensors = checkpoint.card.config, checkpoint.tensors
    if features:
        config = config.replace(num_labels=0, head_hidden_size=None)
        tensors = {name: tensors[name] for name in config.shapes()}
    return network.build(config, tensors)
