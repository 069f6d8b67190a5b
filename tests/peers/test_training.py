"""A training step against timm: the same weights, photos and targets have the same loss, slopes and new weights."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from convnext_cli import checkpoints
from convnext_cli.model.preprocessing import Preprocessing
from convnext_cli.training import mixup
from convnext_cli.training import optimiser as optimise
from convnext_cli.training.distributed import Processes
from convnext_cli.training.initial_network import Start
from convnext_cli.training.listener import SILENT
from convnext_cli.training.loop import Photos, Trainer
from convnext_cli.training.photo_cache import InMemory
from convnext_cli.training.run_folder import RunFolder
from convnext_cli.training.settings import TrainingSettings
from convnext_cli.training.validation import normaliser
from tests.helpers.peers import randomise, save_state, timm_net
from tests.helpers.photos import picture

pytestmark = pytest.mark.peers
CLASSES, SIZE, PHOTOS = 37, 64, 8
ALONE = Processes(0, 1, torch.device("cpu"))
KINDS: dict[str, dict[str, Any]] = {
    "V1": {"conv_mlp": True},
    "V1, linear": {},
    "V2": {"use_grn": True, "ls_init_value": None},
    "V2, patches of 2": {"use_grn": True, "ls_init_value": None, "conv_mlp": True, "patch_size": 2},
}
MIXES = {"plain": None, "mixup": mixup.Mix(0.7, None), "cutmix": mixup.Mix(0.5, (0.25, 0.125, 0.5))}


@pytest.fixture(params=KINDS.values(), ids=KINDS.keys())
def theirs(request: pytest.FixtureRequest) -> nn.Module:
    """timm's network with random weights, each of which matters."""
    torch.manual_seed(0)
    network = timm_net(**request.param).train()
    randomise(network)
    return network


def photos() -> Photos:
    kept = InMemory(10**7)
    for number in range(PHOTOS):
        kept.add(np.asarray(picture(SIZE, SIZE, seed=number)), PHOTOS - number - 1)
    rows = torch.arange(PHOTOS) * 4
    return Photos(kept, rows, kept, rows)


def trainer(theirs: nn.Module, folder: Path, **settings: Any) -> Trainer:
    """Ours, about to train a copy of their weights."""
    loaded = checkpoints.load(save_state(theirs, folder))
    network = checkpoints.build(loaded).requires_grad_(True)
    with torch.no_grad():
        for parameter in network.parameters():  # a mapped file is not written to
            parameter.data = parameter.detach().clone()
    given: dict[str, Any] = {"start": "x", "size": SIZE, "batch_size": PHOTOS, "epochs": 10.0, "optimiser": "adamw"}
    recipe = TrainingSettings(**given | {"augment": "none", "drop_path": 0.0, "smoothing": 0.1, "ema": 0.0} | settings)
    start = Start(network, Preprocessing(size=(SIZE, SIZE), resize_to=(SIZE, SIZE)), "", "timm's")
    return Trainer(
        *(recipe, start, photos(), ALONE, RunFolder(folder), SILENT),
        dtype="float32",
        workers=0,
        write=lambda path: None,
    )


def batch(ours: Trainer) -> tuple[Tensor, Tensor]:
    """Normalised photos, and their labels."""
    x = normaliser(Preprocessing(), ALONE.device)(torch.stack([ours.photos.train[number] for number in range(PHOTOS)]))
    return x, ours.photos.train_labels


def soft(labels: Tensor, share: float = 1.0) -> Tensor:
    """Targets as timm's own mixup makes them, for neighbours instead of the batch in its opposite order."""
    from timm.data.mixup import one_hot

    on, off = 1 - 0.1 + 0.1 / CLASSES, 0.1 / CLASSES
    own = one_hot(labels, CLASSES, on, off)
    return own * share + own.view(-1, 2, CLASSES).flip(1).reshape(own.shape) * (1 - share)


def as_ours(tensors: dict[str, Tensor], folder: Path) -> dict[str, Tensor]:
    """Tensors of timm's names under ours."""
    folder.mkdir(exist_ok=True)
    torch.save(tensors, folder / "tensors.pth")
    return checkpoints.load(folder / "tensors.pth", dtype="stored").tensors


def slopes(theirs: nn.Module, folder: Path) -> dict[str, Tensor]:
    found = {name: parameter.grad.detach().clone() for name, parameter in theirs.named_parameters()}
    return as_ours(found, folder)


@pytest.mark.parametrize("blend", MIXES.values(), ids=MIXES.keys())
def test_the_loss_and_its_slopes_are_timms(theirs: nn.Module, tmp_path: Path, blend: mixup.Mix | None) -> None:
    from timm.loss import SoftTargetCrossEntropy

    ours = trainer(theirs, tmp_path)
    x, labels = batch(ours)
    loss = ours._loss(x, labels, torch.arange(PHOTOS), blend)
    loss.backward()

    mixed, other = x.clone(), x.view(-1, 2, *x.shape[1:]).flip(1).reshape(x.shape)
    share = 1.0
    if blend is not None and blend.box is None:
        mixed, share = 0.7 * x + 0.3 * other, 0.7
    elif blend is not None:
        mixed[:, :, 16:48, 8:40], share = other[:, :, 16:48, 8:40], 0.75
    wanted = SoftTargetCrossEntropy()(theirs(mixed), soft(labels, share))
    wanted.backward()

    assert float(wanted.detach()) > 0.5
    assert float(loss.detach()) == pytest.approx(float(wanted.detach()), rel=1e-5)
    expected = slopes(theirs, tmp_path / "slopes")
    found = dict(ours.network.named_parameters())
    assert found.keys() == expected.keys()
    for name, slope in expected.items():
        grad = found[name].grad
        assert grad is not None and float(slope.norm()) > 0, name
        assert float((grad - slope).norm()) < 2e-4 * float(slope.norm()), name


def test_the_loss_in_double_precision(theirs: nn.Module, tmp_path: Path) -> None:
    """So that what is left is the rounding of the loss alone."""
    from timm.loss import SoftTargetCrossEntropy

    ours = trainer(theirs, tmp_path)
    ours.network.double()
    x, labels = batch(ours)
    loss = ours._loss(x.double(), labels, torch.arange(PHOTOS), None)
    loss.backward()
    wanted = SoftTargetCrossEntropy()(theirs.double()(x.double()), soft(labels).double())
    wanted.backward()
    assert float(loss.detach()) == pytest.approx(float(wanted.detach()), rel=1e-6)
    expected = slopes(theirs, tmp_path / "slopes")
    for name, parameter in ours.network.named_parameters():
        assert parameter.grad is not None
        difference = float((parameter.grad.double() - expected[name].double()).norm())
        assert difference < 2e-6 * float(expected[name].norm()), name


@pytest.mark.parametrize("settings", [{"clip": 0.0}, {"clip": 0.5}, {"clip": 0.0, "accumulate": 2}], ids=str)
def test_steps_leave_the_weights_that_timms_leave(theirs: nn.Module, tmp_path: Path, settings: dict[str, Any]) -> None:
    """Which parameters decay, how gradients are clipped, and the optimiser's own constants.

    In double precision, since AdamW makes a step of whatever a gradient of nearly nothing was rounded to.
    """
    from timm.loss import SoftTargetCrossEntropy
    from timm.optim import create_optimizer_v2
    from timm.utils import dispatch_clip_grad

    ours = trainer(theirs, tmp_path, lr=1e-3, min_lr=1.0, warmup=0.0, weight_decay=0.3, beta2=0.99, **settings)
    before = {name: parameter.detach().clone() for name, parameter in ours.network.named_parameters()}
    ours.network.double()
    theirs.double()
    normalise = ours._normalise
    ours._normalise = lambda pixels: normalise(pixels).double()
    x, labels = batch(ours)
    optimiser = create_optimizer_v2(theirs, "adamw", lr=1e-3, weight_decay=0.3, betas=(0.9, 0.99))
    numbers = torch.arange(PHOTOS)
    pixels = torch.stack([ours.photos.train[number] for number in range(PHOTOS)])
    for _ in range(2):
        optimiser.zero_grad()
        SoftTargetCrossEntropy()(theirs(x.double()), soft(labels).double()).backward()
        if settings["clip"]:
            dispatch_clip_grad(theirs.parameters(), settings["clip"])
        optimiser.step()
        ours._step(pixels, numbers)
        ours.state.step += 1

    wanted = as_ours({name: tensor.detach() for name, tensor in theirs.state_dict().items()}, tmp_path / "after")
    found = dict(ours.network.named_parameters())
    assert found.keys() == wanted.keys()
    for name, tensor in wanted.items():
        assert float((tensor - before[name]).abs().max()) > 5e-4, name
        # what is left is the loss, which is computed in float32
        apart = (found[name].detach() - tensor).abs()
        assert float((apart < 1e-6).double().mean()) > 0.999 and float(apart.max()) < 1e-5, name


def test_lower_layers_learn_more_slowly() -> None:
    """As with timm's layer_decay: the same order from stem to classifier, and none for norms and biases to decay by."""
    from timm.optim._param_groups import param_groups_layer_decay

    from convnext_cli.model.config import VARIANTS
    from convnext_cli.model.network import ConvNextForImageClassification
    from tests.helpers.peers import timm_named

    theirs = timm_named("convnext_atto")
    groups = param_groups_layer_decay(theirs, 0.05, layer_decay=0.8)
    scale = {id(parameter): group["lr_scale"] for group in groups for parameter in group["params"]}
    names = {name: scale[id(parameter)] for name, parameter in theirs.named_parameters()}
    network = ConvNextForImageClassification(VARIANTS["convnext_atto"])
    recipe = TrainingSettings(start="x", layer_decay=0.8, optimiser="adamw")
    (made,) = optimise.optimisers(network, recipe)
    share = {id(parameter): group["share"] for group in made.param_groups for parameter in group["params"]}
    ours = {name: share[id(parameter)] for name, parameter in network.named_parameters()}
    pairs = [("stem.0.weight", "downsample_layers.0.0.weight"), ("head.fc.weight", "head.weight")]
    pairs += [
        (f"stages.{i}.blocks.{j}.conv_dw.weight", f"stages.{i}.{j}.dwconv.weight")
        for i, depth in enumerate(VARIANTS["convnext_atto"].depths)
        for j in range(depth)
    ]
    ranked = sorted((names[name], ours[own]) for name, own in pairs)
    assert [own for _, own in ranked] == sorted(own for _, own in ranked)
    assert ours["downsample_layers.0.0.weight"] < ours["stages.2.0.dwconv.weight"] < ours["head.weight"] == 1.0
