"""The photos that come with the program."""

from __future__ import annotations

from pathlib import Path

_PACKAGE = Path(__file__).resolve().parent.parent


def samples() -> list[str]:
    """The paths of the sample photos: in the package of a wheel, beside it in a checkout."""
    folders = (sorted(folder.glob("*.jpg")) for folder in (_PACKAGE / "samples", _PACKAGE.parent / "samples"))
    return [str(path) for path in next(filter(None, folders), [])]
