"""A depthwise convolution whose weight gradient is one matrix product a channel, for training on a CPU.

oneDNN takes 5 to 60 forward passes for this gradient, the more the smaller the map and in bfloat16. Here all positions
of a map (or of a square of it) are multiplied with all positions of the output's gradient, summed over the photos; the
gradient of one place of the kernel is the sum over those pairs that lie as far apart as it does from the middle.
"""

from __future__ import annotations

from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from convnext_cli.model.network import Block

# Edges of maps, measured on AVX-512: up to which all pairs of positions take less time than the library; and of the
# squares of larger ones, in bfloat16 alone.
_WHOLE = {torch.float32: 7, torch.bfloat16: 12}
_SQUARE = 8


def replace_depthwise(network: nn.Module) -> None:
    """Have the blocks of a network that learns on a CPU convolve so; their parameters stay the same objects."""
    for block in [module for module in network.modules() if isinstance(module, Block)]:
        if isinstance(block.dwconv, nn.Conv2d):
            block.dwconv = DepthwiseConvolution(block.dwconv)  # type: ignore[assignment]


class DepthwiseConvolution(nn.Module):
    """With stride 1, an odd square kernel, and maps that keep their size."""

    def __init__(self, convolution: nn.Conv2d) -> None:
        super().__init__()
        self.weight, self.bias = convolution.weight, convolution.bias

    def forward(self, x: Tensor) -> Tensor:
        """x: (N, C, H, W). Gives the same shape, in autocast's dtype where that is on."""
        if torch.is_autocast_enabled(x.device.type):
            x = x.to(torch.get_autocast_dtype(x.device.type))
        if not torch.is_grad_enabled():
            return _convolve(x, self.weight, self.bias)
        return _Convolve.apply(x, self.weight, self.bias)  # type: ignore[no-any-return]


def _convolve(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    bias = None if bias is None else bias.to(x.dtype)
    return F.conv2d(x, weight.to(x.dtype), bias, padding=weight.shape[-1] // 2, groups=len(weight))


class _Kept(Protocol):
    """What torch keeps from the forward pass for the backward pass."""

    has_bias: bool
    saved_tensors: tuple[Tensor, ...]
    needs_input_grad: tuple[bool, ...]

    def save_for_backward(self, *tensors: Tensor) -> None: ...


class _Convolve(torch.autograd.Function):
    @staticmethod
    def forward(ctx: _Kept, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.has_bias = bias is not None
        return _convolve(x, weight, bias)

    @staticmethod
    @once_differentiable
    def backward(ctx: _Kept, slope: Tensor) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
        """slope: of the loss by the output."""
        x, weight = ctx.saved_tensors
        edge = weight.shape[-1]
        slope = slope.contiguous(memory_format=torch.channels_last)
        square = _square_of(x)
        needed = [ctx.needs_input_grad[0], square is None and ctx.needs_input_grad[1], False]
        by_x, by_weight, _ = torch.ops.aten.convolution_backward(
            *(slope, x, weight.to(x.dtype), None, [1, 1], [edge // 2] * 2, [1, 1], False, [0, 0], len(weight), needed)
        )
        if ctx.needs_input_grad[1]:
            by_weight = (by_weight if square is None else weight_gradient(x, slope, edge, square)).to(weight.dtype)
        by_bias = slope.sum((0, 2, 3), dtype=weight.dtype) if ctx.has_bias and ctx.needs_input_grad[2] else None
        return by_x, by_weight, by_bias


def _square_of(x: Tensor) -> int | None:
    """Edge of the squares that a map is cut into; 0 for the map as it is, None where the library takes less time."""
    height, width = x.shape[-2:]
    if height * width <= _WHOLE.get(x.dtype, 0) ** 2:
        return 0
    if x.dtype == torch.bfloat16 and height % _SQUARE == 0 and width % _SQUARE == 0:
        return _SQUARE
    return None


def weight_gradient(x: Tensor, slope: Tensor, kernel: int, square: int = 0) -> Tensor:
    """(C, 1, kernel, kernel), float32 or wider, of x and the slope by the output, (N, C, H, W) both.

    square: edge of the squares of ``slope`` that are multiplied with what the kernel reaches from them; 0 for all of
    the map at once. It divides H and W.
    """
    photos, channels, height, width = x.shape
    middle = kernel // 2
    wide = torch.promote_types(x.dtype, torch.float32)
    x, slope = x.transpose(0, 1), slope.transpose(0, 1)  # a channel is one product of the batch
    if not square:
        left = x.reshape(channels, photos, height * width)
        right = slope.reshape(channels, photos, height * width)
        pairs = torch.bmm(left.transpose(1, 2), right).view(channels, height, width, height, width)
        pairs = F.pad(pairs, (0, 0, 0, 0, middle, middle, middle, middle))
    else:
        reached = square + 2 * middle
        left = F.pad(x, (middle, middle, middle, middle))
        left = left.unfold(2, reached, square).unfold(3, reached, square).reshape(channels, -1, reached**2)
        right = slope.unfold(2, square, square).unfold(3, square, square).reshape(channels, -1, square**2)
        pairs = torch.bmm(left.transpose(1, 2), right).view(channels, reached, reached, square, square)
    # (C, row of x, column of x, row of slope, column of slope) -> (C, row apart, column apart, row, column)
    by_channel, *steps = pairs.stride()
    apart = pairs.as_strided(
        (channels, kernel, kernel, *pairs.shape[3:]),
        (by_channel, steps[0], steps[1], steps[0] + steps[2], steps[1] + steps[3]),
    )
    return apart.sum((3, 4), dtype=wide)[:, None]
