"""The map of a class sums to its logit, and each place has the share that is its own."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from convnext_cli import checkpoints
from convnext_cli.checkpoints.layouts.registry import ALL, LAYOUTS
from convnext_cli.checkpoints.rename import to_layout
from convnext_cli.explanation.evidence import evidence_for
from convnext_cli.model.config import ConvNextConfig
from convnext_cli.model.network import ConvNextForImageClassification, build
from tests.helpers.checkpoints import save
from tests.helpers.weights import SMALL, random_tensors

V2 = SMALL.replace(use_grn=True, layer_scale_init_value=0.0)
ISOTROPIC = ConvNextConfig(
    depths=(3,), hidden_sizes=(16,), patch_size=16, stem_norm=False, num_labels=7, layer_norm_eps=1e-6
)
NORMS: list[dict[str, Any]] = [
    {"norm": norm, "head_norm": place, "norm_bias": bias}
    for norm in ("layer", "rms", "simple")
    for place, bias in (("after_pool", True), ("before_pool", False), ("before_pool", True))
]
CONFIGS = {
    "V1": SMALL,
    "V2": V2,
    "isotropic": ISOTROPIC,
    "isotropic with a stem norm": ISOTROPIC.replace(stem_norm=True),
    **{" ".join(map(str, fields.values())): SMALL.replace(**fields) for fields in NORMS},
    "no norm": SMALL.replace(head_norm="none"),
    "no bias": SMALL.replace(head_bias=False, norm_bias=False, conv_bias=False, mlp_bias=False),
    "large epsilon": SMALL.replace(layer_norm_eps=0.5),
    "hidden layer": SMALL.replace(head_hidden_size=11),
    "hidden layer, no norm": V2.replace(head_hidden_size=11, head_norm="none"),
    "hidden layer, norm first": SMALL.replace(head_hidden_size=11, head_norm="before_pool", norm="simple"),
    "overlapping stem": SMALL.replace(stem="overlap_act", stem_width=6),
    "small patches": SMALL.replace(patch_size=2, stem_downsample=True, hidden_act="silu"),
    "one class": SMALL.replace(num_labels=1),
}


def features_of(network: ConvNextForImageClassification, dtype: torch.dtype, size: tuple[int, int]) -> Tensor:
    x = torch.randn(1, 3, *size, generator=torch.Generator().manual_seed(3)).to(dtype)
    with torch.inference_mode():
        return network(x, output_hidden_states=True).hidden_states[-1]


def logits_of(network: ConvNextForImageClassification, features: Tensor) -> np.ndarray:
    with torch.inference_mode():
        return network.classify(network.pool(features))[0].double().numpy()


def check_sums(network: ConvNextForImageClassification, features: Tensor, tolerance: float) -> None:
    """Every map sums to the logit, or to what it has above the mean, within a share of the span of the logits."""
    logits = logits_of(network, features)
    span = np.ptp(logits) or abs(logits[0])
    for compared in (False, True):
        maps = evidence_for(network, features, range(len(logits)), compared=compared)
        mean = logits.mean() if compared else 0.0
        for logit, evidence in zip(logits, maps, strict=True):
            assert evidence.places.shape == features.shape[-2:]
            assert evidence.places.dtype == np.float64
            assert evidence.mean_logit == pytest.approx(mean, abs=tolerance * span)
            assert evidence.places.sum() == pytest.approx(logit - mean, abs=tolerance * span)


def test_there_are_twenty_configurations() -> None:
    assert len(CONFIGS) >= 20


@pytest.mark.parametrize("name", CONFIGS)
def test_maps_sum_to_the_logits(name: str) -> None:
    config = CONFIGS[name]
    for dtype, tolerance in ((torch.float32, 1e-5), (torch.float64, 1e-10)):
        network = build(config, {key: tensor.to(dtype) for key, tensor in random_tensors(config, seed=5).items()})
        features = features_of(network, dtype, (96, 70))
        assert features.shape[-2] > features.shape[-1] > 1
        check_sums(network, features, tolerance)


# Files of "sparse" never have a classifier, and those of "dinov3" neither.
@pytest.mark.parametrize("layout", [layout.name for layout in ALL if layout.name != "sparse"])
def test_maps_sum_to_the_logits_in_every_layout(layout: str, tmp_path: Path) -> None:
    config = {"isotropic": ISOTROPIC, "huggingface_v2": V2}.get(layout, SMALL)
    if layout == "dinov3":
        config = config.replace(num_labels=0)
    tensors = random_tensors(config)
    path = save(
        {key: tensor.contiguous() for key, tensor in to_layout(tensors, LAYOUTS[layout]).items()},
        tmp_path / "weights.pth",
    )
    checkpoint = checkpoints.load(path)
    assert checkpoint.layout == layout
    network = checkpoints.build(checkpoint)
    features = features_of(network, torch.float32, (64, 96))
    if config.num_labels:
        check_sums(network, features, 1e-5)
    else:
        assert checkpoint.card.task == "features"  # which `explain` refuses


@pytest.mark.parametrize(
    "name", ["no norm", "layer before_pool True", "rms before_pool False", "simple before_pool True"]
)
def test_without_a_norm_after_the_pooling_a_place_is_a_photo_of_its_own(name: str) -> None:
    config = CONFIGS[name]
    network = build(config, {key: tensor.double() for key, tensor in random_tensors(config).items()})
    features = features_of(network, torch.float64, (64, 96))
    maps = np.stack([one.places for one in evidence_for(network, features, range(7), compared=False)])
    for row in range(2):
        for column in range(3):
            alone = logits_of(network, features[:, :, row : row + 1, column : column + 1])
            assert maps[:, row, column] == pytest.approx(alone / 6, rel=1e-5)


@pytest.mark.parametrize("norm", ["layer", "rms", "simple"])
def test_a_place_is_the_change_of_the_logit_without_it(norm: str) -> None:
    """The norm follows the pooling: it keeps the deviation that it has for this photo."""
    config = SMALL.replace(norm=norm)
    network = build(config, {key: tensor.double() for key, tensor in random_tensors(config).items()})
    features = features_of(network, torch.float64, (64, 96))
    pooled = features.mean((-2, -1))[0]
    power = pooled.square().mean() if norm == "rms" else pooled.var(unbiased=norm == "simple")

    def logits(x: Tensor) -> np.ndarray:
        mean = x.mean((-2, -1))[0]
        centred = mean - mean.mean() if norm == "layer" else mean
        normalised = centred / (power + config.layer_norm_eps).sqrt() * network.norm.weight + network.norm.bias
        with torch.inference_mode():
            return network.head(normalised).numpy()

    assert logits(features) == pytest.approx(logits_of(network, features), rel=1e-5)
    maps = evidence_for(network, features, range(7), compared=False)
    for row in range(2):
        for column in range(3):
            without = features.clone()
            without[:, :, row, column] = 0
            change = logits(features) - logits(without)
            places = [one.places[row, column] - one.constant / 6 for one in maps]
            assert places == pytest.approx(change, rel=1e-6)


def test_the_constant_is_what_a_photo_of_nothing_would_get() -> None:
    network = build(SMALL, {key: tensor.double() for key, tensor in random_tensors(SMALL).items()})
    features = features_of(network, torch.float64, (64, 96))
    nothing = logits_of(network, torch.zeros_like(features))
    maps = evidence_for(network, features, range(7), compared=False)
    assert [one.constant for one in maps] == pytest.approx(nothing, rel=1e-6)
    compared = evidence_for(network, features, range(7), compared=True)
    assert [one.constant for one in compared] == pytest.approx(nothing - nothing.mean(), rel=1e-5)
    assert sum(one.places for one in compared) == pytest.approx(np.zeros((2, 3)), abs=1e-9)
