"""The network that training begins with: published weights with a classifier for these classes, or new ones."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor

from convnext_cli import checkpoints
from convnext_cli.base.errors import ModelError
from convnext_cli.evaluation.class_matching import match
from convnext_cli.model.config import VARIANTS, ConvNextConfig
from convnext_cli.model.network import ConvNextForImageClassification, DropPath, build
from convnext_cli.model.preprocessing import Preprocessing
from convnext_cli.training.seeds import generator, seed_of
from convnext_cli.training.settings import SCRATCH, TrainingSettings

_HEAD = ("head.weight", "head.bias")


@dataclass(frozen=True)
class Start:
    """The network before its first step.

    Args:
        network: in float32.
        preprocessing: of the photos that it is validated on.
        architecture: of the card.
        begun: the name of the weights, for the card.
        license: of the weights, for the card.
        new_head: whether the classifier is new.
        notes: for people.
    """

    network: ConvNextForImageClassification
    preprocessing: Preprocessing
    architecture: str
    begun: str
    license: str = ""
    new_head: bool = True
    notes: tuple[str, ...] = field(default=())


def scratch(recipe: TrainingSettings, classes: int) -> Start:
    """New weights, drawn by the seed."""
    config = VARIANTS[recipe.arch].replace(num_labels=classes, drop_path_rate=recipe.drop_path, image_size=recipe.size)
    if recipe.patch_size is not None:
        config = config.replace(patch_size=recipe.patch_size)
    if recipe.layer_scale is not None:
        config = config.replace(layer_scale_init_value=recipe.layer_scale)
    _fits(config, recipe)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed_of(recipe.seed, "weights"))
        network = ConvNextForImageClassification(config)
    _scale_head(network, recipe)
    photos = Preprocessing(resize=recipe.resize).at_size(recipe.size, crop_pct=recipe.crop_pct)
    return Start(network, photos, recipe.arch, "new weights")


def from_weights(recipe: TrainingSettings, path: Path, classes: tuple[str, ...]) -> Start:
    """Weights of any layout. Their classifier's rows are kept for classes that it knows when it knows all of them.

    Raises ModelError for weights that cannot be trained.
    """
    checkpoint = checkpoints.load(path)
    card, tensors = checkpoint.card, dict(checkpoint.tensors)
    notes = list(checkpoint.notes)
    config = card.config.replace(num_labels=len(classes), drop_path_rate=recipe.drop_path, head_bias=True)
    _fits(config, recipe)
    shapes = config.shapes()
    rows = _known_rows(checkpoint, classes)
    if rows is not None:
        head = {name: tensors[name][rows].clone() for name in _HEAD if name in tensors}
        head.setdefault("head.bias", torch.zeros(len(classes)))
        if len(classes) != card.config.num_labels or rows != list(range(len(rows))):
            notes.append(f"the classifier begins with {card.name}'s own rows for these {len(classes)} classes")
    else:
        random = generator(recipe.seed, "head")
        weight = torch.empty(shapes["head.weight"])
        torch.nn.init.trunc_normal_(weight, std=config.initializer_range, generator=random)
        head = {"head.weight": weight * recipe.head_scale, "head.bias": torch.zeros(len(classes))}
        notes.append(f"the classifier is new: {len(classes)} classes, which {card.name or 'the weights'} does not know")
    # clones: a mapped file must not be written to
    tensors = {name: (head[name] if name in _HEAD else tensors[name].float().clone()) for name in shapes}
    network = build(config, tensors).requires_grad_(True)
    for module in network.modules():
        if isinstance(module, DropPath):
            module.kept = None
    photos = card.preprocessing.changed(resize=recipe.resize, float_resize=False, test_size=None, test_resize_to=None)
    photos = photos.at_size(recipe.size, crop_pct=recipe.crop_pct)
    return Start(network, photos, card.architecture, card.name or str(path), card.license, rows is None, tuple(notes))


def begin(recipe: TrainingSettings, path: Path | None, classes: tuple[str, ...]) -> Start:
    """path: of the weights that ``recipe.start`` names; None for scratch."""
    return (
        scratch(recipe, len(classes))
        if recipe.start == SCRATCH or path is None
        else from_weights(recipe, path, classes)
    )


def _known_rows(checkpoint: checkpoints.Checkpoint, classes: tuple[str, ...]) -> list[int] | None:
    """The classifier's row of each class; None unless it has one of its own for all."""
    card = checkpoint.card
    if card.task != "classification" or card.problem != "single_label" or card.labels is None:
        return None
    answers = match(classes, card.label_set()).answers
    rows = [answers[name] for name in classes if name in answers]
    return rows if len(rows) == len(classes) == len(set(rows)) else None


def _scale_head(network: ConvNextForImageClassification, recipe: TrainingSettings) -> None:
    with torch.no_grad():
        network.head.weight.mul_(recipe.head_scale)


def _fits(config: ConvNextConfig, recipe: TrainingSettings) -> None:
    """Raise ModelError for photos that are smaller than one position of the last feature map."""
    smallest = min([recipe.size, *(size for _, size in recipe.sizes)])
    if smallest < config.stride:
        raise ModelError(
            f"photos of {smallest} pixels are too small for this network: it halves them to one position at "
            f"{config.stride}",
            "use a larger --size, or --set patch_size=2 from scratch",
        )


class KeptPaths:
    """Which samples keep their branches, drawn for all processes at once, so that it does not matter how many."""

    def __init__(self, network: ConvNextForImageClassification, photos: int, device: torch.device) -> None:
        """photos: that one pass through the network has."""
        self._modules = [m for m in network.modules() if isinstance(m, DropPath) and m.rate > 0]
        for module in self._modules:
            module.kept = torch.ones(photos, device=device)
        rates = [module.rate for module in self._modules]
        self._keep = 1 - torch.tensor(rates).view(-1, 1)

    def draw(self, seed: int, step: int, batch: int) -> Tensor:
        """(blocks, batch), of all processes."""
        drawn = torch.rand((len(self._modules), batch), generator=generator(seed, "paths", step))
        return (drawn < self._keep).float()

    def use(self, kept: Tensor) -> None:
        """kept: (blocks, photos), a part of the random draws."""
        for module, row in zip(self._modules, kept, strict=True):
            assert module.kept is not None
            module.kept.copy_(row)
