"""The depthwise convolution of training on a CPU against torch's own."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

from convnext_cli.training import depthwise
from convnext_cli.training.depthwise import DepthwiseConvolution, replace_depthwise, weight_gradient
from tests.helpers.training import recipe_of, start_of, trainer_of


def drawn(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> torch.Tensor:
    values = torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)
    return values.contiguous(memory_format=torch.channels_last) if len(shape) == 4 else values


@pytest.mark.parametrize(
    ("height", "width", "square"), [(8, 8, 0), (5, 3, 0), (1, 1, 0), (2, 9, 0), (8, 16, 8), (6, 4, 2)]
)
@pytest.mark.parametrize("kernel", [3, 7])
def test_the_gradient_is_that_of_the_definition(height: int, width: int, square: int, kernel: int) -> None:
    x, slope = drawn(4, 5, height, width), drawn(4, 5, height, width, seed=1)
    weight = drawn(5, 1, kernel, kernel, seed=2).requires_grad_()
    (expected,) = torch.autograd.grad(F.conv2d(x, weight, padding=kernel // 2, groups=5), weight, slope)
    torch.testing.assert_close(weight_gradient(x, slope, kernel, square), expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("edge", [1, 4, 7, 8, 11, 16, 20])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_layer_has_the_outputs_and_gradients_of_torch(edge: int, dtype: torch.dtype) -> None:
    theirs = torch.nn.Conv2d(6, 6, 7, padding=3, groups=6)
    ours = DepthwiseConvolution(theirs)
    x = drawn(4, 6, edge, edge, dtype=dtype).requires_grad_()
    slope = drawn(4, 6, edge, edge, seed=1, dtype=dtype)
    found = []
    for layer in (ours, theirs):
        with torch.autocast("cpu", torch.bfloat16, enabled=dtype == torch.bfloat16):
            y = layer(x)
        assert y.dtype == dtype
        found.append((y, *torch.autograd.grad(y, (x, theirs.weight, theirs.bias), slope)))
    most = 0.01 if dtype == torch.bfloat16 else 1e-6  # of the size of all values together
    for one, other in zip(*found, strict=True):
        assert one.dtype == other.dtype
        assert float((one - other).detach().norm() / other.detach().norm()) < most


def test_a_run_on_a_cpu_uses_it_and_writes_the_same_names(tmp_path: Path) -> None:
    start = start_of()
    names = list(start.network.state_dict())
    trainer = trainer_of(recipe_of(), tmp_path, start=start)
    layers = [layer for layer in trainer.network.modules() if isinstance(layer, DepthwiseConvolution)]
    assert len(layers) == sum(trainer.network.config.depths)
    assert list(trainer.network.state_dict()) == names
    replace_depthwise(trainer.network)  # a second time
    assert all(isinstance(layer.weight, torch.nn.Parameter) for layer in layers)
    assert list(trainer.network.state_dict()) == names


def test_it_can_be_compiled(monkeypatch: pytest.MonkeyPatch) -> None:
    layer = DepthwiseConvolution(torch.nn.Conv2d(4, 4, 3, padding=1, groups=4))
    x = drawn(2, 4, 5, 5, dtype=torch.float32)
    compiled = torch.compile(layer, backend="aot_eager")
    slopes = [torch.autograd.grad(made(x).square().sum(), layer.weight)[0] for made in (compiled, layer)]
    torch.testing.assert_close(*slopes)
    monkeypatch.setattr(depthwise, "_WHOLE", {})
    torch.testing.assert_close(slopes[0], torch.autograd.grad(layer(x).square().sum(), layer.weight)[0])
