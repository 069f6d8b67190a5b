"""What all tests of training share."""

from __future__ import annotations

from pathlib import Path

import pytest

from convnext_cli.training import plots
from tests.helpers.training import (
    split,
    write_labelled,
)


@pytest.fixture
def undrawn(monkeypatch: pytest.MonkeyPatch) -> None:
    """No pictures, which take longer than these small runs."""
    monkeypatch.setattr(plots, "available", lambda: False)


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Class folders with splits."""
    return split(tmp_path_factory.mktemp("data") / "split")


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Weights that know other classes."""
    return write_labelled(tmp_path_factory.mktemp("model") / "other.safetensors", tuple("abcdefg"))


@pytest.fixture(autouse=True)
def _threads(torch_threads: None) -> None:
    """Every test of training gives torch its threads back."""
