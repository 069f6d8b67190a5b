"""What a network has to do for one photo: multiply-adds and bytes, on paper."""

from __future__ import annotations

from convnext_cli.model.config import ConvNextConfig

FLOPS_PER_MAC = 2
TRAINING = 3  # a backward pass multiplies twice as often as a forward pass
MACS_RULE = (
    "multiply-adds of convolutions and linear layers for one photo; 1 MAC = 2 FLOPs; norms and activations not "
    "counted; a training step is 3 forward passes"
)
BYTES_RULE = (
    "activations read and written once by each block, as if all of it were one kernel, and all weights once a batch"
)
ITEM_SIZE = {"float32": 4, "bfloat16": 2, "float16": 2, "int8": 1}


def macs(config: ConvNextConfig, size: tuple[int, int]) -> int:
    """Multiply-adds for one photo of (height, width)."""
    return round(config.gmacs(*size) * 1e9)


def flops(macs_: int, mode: str) -> int:
    """Floating-point operations of one photo; mode as in ``Setting``."""
    return FLOPS_PER_MAC * macs_ * (TRAINING if mode == "train" else 1)


def minimum_bytes(config: ConvNextConfig, size: tuple[int, int], dtype: str, batch_size: int) -> int:
    """Bytes that a batch moves at least (``BYTES_RULE``)."""
    stem = config.stride // 2 ** (config.num_stages - 1)
    numbers = config.num_channels * size[0] * size[1]
    for i, (depth, channels) in enumerate(zip(config.depths, config.hidden_sizes, strict=True)):
        pixels = (size[0] // (stem * 2**i)) * (size[1] // (stem * 2**i))
        numbers += channels * pixels * (2 * depth + 2)  # in and out of each block, out of and into downsampling
    return ITEM_SIZE[dtype] * (numbers * batch_size + config.num_parameters)
