"""Networks of other libraries, with weights of which every parameter matters."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn


def randomise(model: nn.Module, seed: int = 0) -> None:
    """Draw every parameter by what it is, such that activations keep their size through the network."""
    generator = torch.Generator().manual_seed(seed)

    def normal(shape: torch.Size, std: float, mean: float = 0.0) -> Tensor:
        return mean + std * torch.randn(shape, generator=generator)

    for name, parameter in model.named_parameters():
        shape, leaf = parameter.shape, name.rpartition(".")[2]
        if ".grn." in name:
            value = normal(shape, 0.5)
        elif leaf in ("gamma", "layer_scale", "layer_scale_parameter"):
            value = 0.2 + 0.8 * torch.rand(shape, generator=generator)
        elif leaf == "bias":
            value = normal(shape, 0.3)
        elif parameter.squeeze().ndim < 2:
            value = normal(shape, 0.3, 1.0)
        else:
            value = normal(shape, parameter[0].numel() ** -0.5)
        parameter.data.copy_(value)


def timm_net(**arguments: Any) -> nn.Module:
    from timm.models.convnext import ConvNeXt

    return ConvNeXt(**{"depths": (1, 2, 3, 1), "dims": (16, 24, 32, 48), "num_classes": 37} | arguments)


def timm_named(name: str, **arguments: Any) -> nn.Module:
    import timm

    model: nn.Module = timm.create_model(name, pretrained=False, **arguments)
    return model


def save_state(model: nn.Module, folder: Path, wrap: Callable[[dict[str, Tensor]], Any] = lambda x: x) -> Path:
    path = folder / "weights.pth"
    torch.save(wrap(model.state_dict()), path)
    return path


def save_timm(model: nn.Module, folder: Path, safe: bool = True, **arguments: Any) -> Path:
    from timm.models import save_for_hf

    save_for_hf(model, str(folder), model_args=arguments or None, safe_serialization=safe)
    return folder


class Isotropic(nn.Module):
    """Section 3.3: patches, ``depth`` blocks at one resolution, mean, norm, classifier."""

    def __init__(self, dim: int, depth: int, gamma: bool) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, dim, 16, stride=16)
        self.blocks = nn.ModuleList()
        for _ in range(depth):
            block = nn.Module()
            block.dwconv = nn.Conv2d(dim, dim, 7, padding=3, groups=dim)
            block.norm = nn.LayerNorm(dim, eps=1e-6)
            block.pwconv1, block.pwconv2 = nn.Linear(dim, 4 * dim), nn.Linear(4 * dim, dim)
            if gamma:
                block.gamma = nn.Parameter(torch.ones(dim))
            self.blocks.append(block)
        self.norm, self.head = nn.LayerNorm(dim, eps=1e-6), nn.Linear(dim, 37)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        for block in self.blocks:
            y = block.norm(block.dwconv(x).movedim(1, -1))
            y = block.pwconv2(torch.nn.functional.gelu(block.pwconv1(y)))
            x = x + (getattr(block, "gamma", 1) * y).movedim(-1, 1)
        logits: Tensor = self.head(self.norm(x.flatten(2).mean(-1)))
        return logits
