"""The model that comes of a run: canonical safetensors with its card."""

from __future__ import annotations

from pathlib import Path

from convnext_cli.certainty.calibration import Calibration
from convnext_cli.checkpoints import canonical
from convnext_cli.model.card import Card
from convnext_cli.model.network import ConvNextForImageClassification
from convnext_cli.training import setting_effects
from convnext_cli.training.data import OWN, TrainingData
from convnext_cli.training.initial_network import Start
from convnext_cli.training.settings import TrainingSettings


def card(name: str, start: Start, data: TrainingData, settings: TrainingSettings) -> Card:
    """The card of weights of this run."""
    labels = data.label_set()
    return Card(
        start.network.config.replace(drop_path_rate=0.0, image_size=settings.size),
        name=name or "trained",
        architecture=start.architecture,
        labels=labels if labels.name == OWN else labels.name,
        license=start.license,
        description=f"trained by convnext train on {len(data.train):,} photos of {len(data.classes)} classes, "
        f"beginning with {start.begun}",
        # further training of these weights continues with the optimiser that made them, frozen or not
        training=setting_effects.in_force(settings) | {"optimiser": settings.optimiser},
        preprocessing=start.preprocessing,
    )


def write(
    path: Path, network: ConvNextForImageClassification, card: Card, calibration: Calibration | None = None
) -> None:
    """Write the weights in float32, with the fingerprint in the card. Raises OutputError."""
    state = network.state_dict()
    tensors = {name: state[name].detach().float().cpu().contiguous() for name in card.config.shapes()}
    canonical.write(path, tensors, card.replace(sha256=canonical.fingerprint(tensors)), calibration)
