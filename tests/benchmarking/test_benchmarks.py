"""The scripts behind the figures of docs/performance.md still fit the package."""

from __future__ import annotations

import importlib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent.parent


@pytest.mark.parametrize("name", sorted(path.stem for path in (ROOT / "benchmarks").glob("*.py")))
def test_it_can_be_imported(name: str) -> None:
    importlib.import_module("benchmarks" if name == "__init__" else f"benchmarks.{name}")
