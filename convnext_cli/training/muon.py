"""Muon (K. Jordan, 2024, https://kellerjordan.github.io/posts/muon/): momentum whose update is made orthogonal.

Torch's own works in bfloat16, in which a CPU without it spends a third of a small network's step. This one is in
float32, and iterates on the Gram matrix: the same polynomial of the update, with fewer products.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.optim.optimizer import ParamsT

# of the quintic that pulls singular values towards 1, and how often it is applied, as published
_A, _B, _C = 3.4445, -4.7750, 2.0315
_TIMES = 5


class Muon(torch.optim.Optimizer):
    """For matrices only. Nesterov momentum; weight decay as AdamW's; an update of the size that AdamW's has (0.2 times
    the root of the longer edge, arXiv 2502.16982 section 2.2), so that one learning rate serves both."""

    def __init__(self, params: ParamsT, lr: float, *, weight_decay: float = 0.1, momentum: float = 0.95) -> None:
        super().__init__(params, {"lr": lr, "weight_decay": weight_decay, "momentum": momentum})

    @torch.no_grad()
    def step(self, closure: Callable[[], object] | None = None) -> None:  # type: ignore[override]
        """Take one step. ``closure`` is not used."""
        for group in self.param_groups:
            for matrix in group["params"]:
                if matrix.grad is None:
                    continue
                state = self.state[matrix]
                if not state:
                    state["momentum_buffer"] = torch.zeros_like(matrix)
                kept = state["momentum_buffer"].lerp_(matrix.grad, 1 - group["momentum"])
                update = orthogonal(matrix.grad.lerp(kept, group["momentum"]))
                matrix.mul_(1 - group["lr"] * group["weight_decay"])
                matrix.add_(update, alpha=-group["lr"] * 0.2 * max(matrix.shape) ** 0.5)


def orthogonal(matrix: Tensor) -> Tensor:
    """The matrix (M, N) with its singular values brought to about 1, and its singular vectors as they were."""
    flat = matrix.float()
    if flat.shape[0] > flat.shape[1]:
        return orthogonal(matrix.T).T
    flat = flat / flat.norm().clamp(min=1e-7)
    gram = flat @ flat.T
    # q(G) X with q the product of p(G), p(p(G) G p(G)) and so on equals p applied to X again and again
    product = _polynomial(gram)
    once = product
    for _ in range(_TIMES - 1):
        gram = once @ gram @ once
        once = _polynomial(gram)
        product = once @ product
    return torch.mm(product, flat).to(matrix.dtype)


def _polynomial(gram: Tensor) -> Tensor:
    """a + b G + c G² of a symmetric G."""
    cubic = torch.addmm(gram, gram, gram, beta=_B, alpha=_C)
    cubic.diagonal().add_(_A)
    return cubic
