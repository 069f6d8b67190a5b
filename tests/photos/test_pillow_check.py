"""The check of the installed Pillow."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from PIL import Image

from convnext_cli.photos import pillow_check


def test_the_official_pillow_is_exact() -> None:
    assert pillow_check.resizes_exactly.__wrapped__() is True
    assert pillow_check.kind() == "exact"


def test_a_pillow_that_rounds_differently_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    resize = Image.Image.resize

    def other(image: Image.Image, *arguments: Any, **options: Any) -> Image.Image:
        pixels = np.array(resize(image, *arguments, **options))
        pixels[0, 0, 0] ^= 1  # one value, by one level
        return Image.fromarray(pixels)

    monkeypatch.setattr(Image.Image, "resize", other)
    assert pillow_check.resizes_exactly.__wrapped__() is False
