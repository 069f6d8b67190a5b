"""Optimisers: AdamW (arXiv 1711.05101), or Muon for the pointwise layers; layer-wise decay of the learning rate."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TypeVar

import torch
from torch import Tensor, nn

from convnext_cli.model.config import ConvNextConfig
from convnext_cli.model.network import ConvNextForImageClassification
from convnext_cli.training.muon import Muon
from convnext_cli.training.settings import TrainingSettings

K = TypeVar("K", int, tuple[int, bool])
_GROUP = 3  # blocks of a stage that share a learning rate, as the authors' fine-tuning has them


def depth_of(name: str, config: ConvNextConfig) -> int:
    """How high in the network a parameter is: 0 for the stem, ``depth`` for the classifier."""
    if config.bare:
        return 1 + int(name.split(".")[1]) // _GROUP if name.startswith("blocks.") else _top(name, config)
    parts = name.split(".")
    if parts[0] not in ("downsample_layers", "stages"):
        return _top(name, config)
    stage = int(parts[1])
    if parts[0] == "downsample_layers" and stage == 0:
        return 0
    below = sum(-(-depth // _GROUP) for depth in config.depths[:stage])
    block = int(parts[2]) if parts[0] == "stages" else 0
    return 1 + below + block // _GROUP


def _top(name: str, config: ConvNextConfig) -> int:
    return 0 if name.startswith("stem") else 1 + sum(-(-depth // _GROUP) for depth in config.depths)


def decays(parameter: Tensor, name: str) -> bool:
    """Whether weight decay is for it: not for biases, norms, layer scale and GRN."""
    return parameter.ndim > 1 and ".grn." not in name


def optimisers(network: ConvNextForImageClassification, recipe: TrainingSettings) -> list[torch.optim.Optimizer]:
    """Each group of parameters carries ``share``, the part of the learning rate that it gets."""
    config = network.config
    top = _top("head", config)
    adam: dict[tuple[int, bool], list[Tensor]] = {}
    muon: dict[int, list[Tensor]] = {}
    for name, parameter in network.named_parameters():
        if not parameter.requires_grad:
            continue
        depth = depth_of(name, config) if recipe.layer_decay < 1 else top
        if recipe.optimiser == "muon" and ".pwconv" in name and parameter.ndim == 2:
            muon.setdefault(depth, []).append(parameter)
        else:
            adam.setdefault((depth, decays(parameter, name)), []).append(parameter)

    def groups(parts: Iterable[tuple[int, float, list[Tensor]]]) -> list[dict[str, object]]:
        return [
            {"params": some, "weight_decay": decay, "share": recipe.layer_decay ** (top - depth)}
            for depth, decay, some in parts
        ]

    decay = recipe.weight_decay
    plain = groups((depth, decay if decayed else 0.0, some) for (depth, decayed), some in sorted_items(adam))
    both: list[torch.optim.Optimizer] = [
        torch.optim.AdamW(plain, lr=recipe.lr, betas=(0.9, recipe.beta2), fused=_fused(network))
    ]
    if muon:
        both.append(Muon(groups((depth, decay, some) for depth, some in sorted_items(muon)), lr=recipe.lr))
    return both


def sorted_items(groups: dict[K, list[Tensor]]) -> list[tuple[K, list[Tensor]]]:
    """In an order that does not depend on the network's names, so that a saved state finds its groups."""
    return sorted(groups.items(), key=lambda item: item[0])


def set_rate(optimisers: Iterable[torch.optim.Optimizer], rate: float) -> None:
    """The learning rate of all groups, each its share of it."""
    for optimiser in optimisers:
        for group in optimiser.param_groups:
            group["lr"] = rate * group["share"]


def _fused(network: nn.Module) -> bool:
    return next(network.parameters()).device.type in ("cpu", "cuda")


class Average:
    """The exponential moving average of the weights (timm's and the authors' ``model_ema``)."""

    def __init__(self, network: ConvNextForImageClassification) -> None:
        self._of = list[Tensor](network.parameters())
        self.values = [parameter.detach().clone() for parameter in self._of]

    @torch.no_grad()
    def update(self, decay: float) -> None:
        torch._foreach_lerp_(self.values, self._of, 1 - decay)

    @torch.no_grad()
    def swap(self) -> None:
        """Put the average into the network and the network's own weights here; the same again takes that back."""
        for parameter, value in zip(self._of, self.values, strict=True):
            kept = parameter.detach().clone()
            parameter.copy_(value)
            value.copy_(kept)
