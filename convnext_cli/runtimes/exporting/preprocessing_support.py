"""Which preprocessing the formats can hold in their graphs."""

from __future__ import annotations

from convnext_cli.base.errors import UsageError
from convnext_cli.model.preprocessing import Preprocessing

_HINT = "leave --with-preprocessing out, and give the file preprocessed tensors"


def refuse_preprocessing(preprocessing: Preprocessing) -> None:
    """Raise UsageError for preprocessing that is more than a resize of bytes, a crop and a normalisation."""
    if preprocessing.resize in ("longest", "none"):
        raise UsageError(
            f"the preprocessing in a graph has no resize {preprocessing.resize!r}: only shortest and squash", _HINT
        )
    if preprocessing.float_resize:
        raise UsageError("this model's photos are resized as floats, and the preprocessing in a graph has bytes", _HINT)
    if preprocessing.interpolation not in ("bilinear", "bicubic"):
        raise UsageError(
            f"the preprocessing in a graph is bilinear or bicubic, not {preprocessing.interpolation} as this model's",
            _HINT,
        )
    height, width = preprocessing.resize_to
    if preprocessing.resize == "shortest" and height != width:
        raise UsageError(f"the preprocessing in a graph has one shortest edge, not {height} and {width} pixels", _HINT)
    if preprocessing.size[0] > height or preprocessing.size[1] > width:
        raise UsageError("this model's photos are padded, and the preprocessing in a graph pads nothing", _HINT)
