"""Weights whose layer scale or GRN was renamed: older releases of transformers saved every ``gamma`` as ``weight``."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from convnext_cli import checkpoints
from convnext_cli.base.errors import ModelError
from convnext_cli.checkpoints.layouts.registry import LAYOUTS
from convnext_cli.checkpoints.rename import to_layout
from convnext_cli.model.config import ConvNextConfig
from convnext_cli.model.network import build
from tests.helpers.command import Run
from tests.helpers.weights import SMALL, random_tensors

V2 = SMALL.replace(use_grn=True, layer_scale_init_value=0.0)
ISOTROPIC = ConvNextConfig(
    depths=(3,), hidden_sizes=(16,), patch_size=16, stem_norm=False, num_labels=7, layer_norm_eps=1e-6
)
NO_HEAD = SMALL.replace(num_labels=0)
CASES = {
    "official V1": ("official", SMALL, ""),
    "official V2": ("official", V2, ""),
    "official, wrapped": ("official", SMALL, "convnext."),
    "official, in parallel": ("official", V2, "module."),
    "timm": ("timm", SMALL, ""),
    "timm in transformers": ("timm", SMALL, "timm_model."),
    "timm, wrapped": ("timm", SMALL, "model."),
    "mmpretrain V1": ("mmpretrain", SMALL, ""),
    "mmpretrain V2": ("mmpretrain", V2, ""),
    "isotropic": ("isotropic", ISOTROPIC, ""),
    "dinov3": ("dinov3", NO_HEAD, ""),
    "dinov3, without its prefix": ("dinov3", NO_HEAD, "-model."),
    "openclip": ("openclip", SMALL, ""),
}


def swallowed(layout: str, config: ConvNextConfig, prefix: str) -> dict[str, torch.Tensor]:
    tensors = to_layout(random_tensors(config), LAYOUTS[layout])
    renamed = {name.replace("gamma", "weight").replace("beta", "bias"): tensor for name, tensor in tensors.items()}
    assert renamed.keys() != tensors.keys()
    if prefix.startswith("-"):
        return {name.removeprefix(prefix[1:]): tensor.contiguous() for name, tensor in renamed.items()}
    return {prefix + name: tensor.contiguous() for name, tensor in renamed.items()}


def outputs(config: ConvNextConfig, tensors: dict[str, torch.Tensor]) -> torch.Tensor:
    x = torch.randn(2, 3, 64, 64, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        found = build(config, {name: tensor.double() for name, tensor in tensors.items()})(x)
    return found.logits


@pytest.mark.parametrize("name", CASES)
def test_swallowed_names_are_read(name: str, tmp_path: Path) -> None:
    layout, config, prefix = CASES[name]
    path = tmp_path / "swallowed.pth"
    torch.save(swallowed(layout, config, prefix), path)
    found = checkpoints.load(path)
    assert found.card.config.replace(layer_norm_eps=1e-6) == config
    assert any("as older versions of transformers saved them" in note for note in found.notes)
    right = outputs(config, random_tensors(config))
    assert torch.equal(outputs(found.card.config.replace(layer_norm_eps=1e-6), found.tensors), right)
    for scale in (key for key in found.tensors if key.endswith(("gamma", "beta"))):
        changed = {**found.tensors, scale: found.tensors[scale] + 0.01}
        assert not torch.allclose(outputs(config, changed), right), scale


def test_both_names_for_one_place_are_refused(tmp_path: Path) -> None:
    tensors = random_tensors(SMALL)
    tensors["stages.0.0.weight"] = tensors["stages.0.0.gamma"].clone()
    torch.save(tensors, tmp_path / "both.pth")
    with pytest.raises(ModelError, match=r"\+ stages\.0\.0\.(weight|gamma)"):
        checkpoints.load(tmp_path / "both.pth")


def test_another_shape_is_refused(tmp_path: Path) -> None:
    tensors = swallowed("official", SMALL, "")
    tensors["stages.0.0.weight"] = torch.zeros(9)
    torch.save(tensors, tmp_path / "odd.pth")
    with pytest.raises(ModelError, match=r"stages\.0\.0\.weight: is 9, should be 8"):
        checkpoints.load(tmp_path / "odd.pth")


def test_the_command_names_the_cause(convnext: Run, tmp_path: Path) -> None:
    path = tmp_path / "swallowed.pth"
    torch.save(swallowed("timm", SMALL, "timm_model."), path)
    done = convnext("models", "info", path)
    assert done.status == 0 and "5 tensors are named weight or bias instead of gamma or beta" in done.err
