"""float32 that is float32: torch lets cuDNN take TF32 by itself, and programs ask for less precision elsewhere too."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import NamedTuple

import torch


@contextmanager
def real_float32() -> Iterator[None]:
    """Have torch compute float32 in float32 meanwhile, and give the process its own settings back."""
    old, new = _old_settings(), _new_settings()
    # Both interfaces work on the same state, but the old one refuses to read what the new one has set; so what is in
    # use is used on. The compiler reads the old one.
    settings = old if _readable(old) and getattr(torch.backends, "fp32_precision", "none") == "none" else new
    before = [getattr(place, name) for place, name, _ in settings]
    try:
        for place, name, real in settings:
            setattr(place, name, real)
        yield
    finally:
        for (place, name, _), value in zip(settings, before, strict=True):
            setattr(place, name, value)


class Setting(NamedTuple):
    """An attribute of torch, and the value that means float32."""

    place: object
    name: str
    value: str | bool


class _Matmul:
    """torch's pair of functions as an attribute."""

    @property
    def precision(self) -> str:
        return torch.get_float32_matmul_precision()

    @precision.setter
    def precision(self, value: str) -> None:
        torch.set_float32_matmul_precision(value)


def _old_settings() -> list[Setting]:
    return [Setting(_Matmul(), "precision", "highest"), Setting(torch.backends.cudnn, "allow_tf32", False)]


def _new_settings() -> list[Setting]:
    """The same since torch 2.9."""
    backends: ModuleType = torch.backends
    if not hasattr(backends.cudnn, "conv"):
        return []
    places = [backends.cuda.matmul, backends.cudnn.conv, backends.cudnn.rnn]
    places += [backends.mkldnn.matmul, backends.mkldnn.conv]
    return [Setting(place, "fp32_precision", "ieee") for place in places]


def _readable(settings: list[Setting]) -> bool:
    try:
        for place, name, _ in settings:
            getattr(place, name)
    except RuntimeError:
        return False
    return True
