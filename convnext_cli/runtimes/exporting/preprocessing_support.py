"""Which recipes the formats can hold in their graphs."""

from __future__ import annotations

from convnext_cli.base.errors import UsageError
from convnext_cli.model.preprocessing import Preprocessing

_HINT = "leave --with-preprocessing out, and give the file tensors that the recipe made"


def refuse_recipe(recipe: Preprocessing) -> None:
    """Raise UsageError for a recipe that is more than a resize of bytes, a crop and a normalisation."""
    if recipe.resize in ("longest", "none"):
        raise UsageError(
            f"the preprocessing in a graph has no resize {recipe.resize!r}: only shortest and squash", _HINT
        )
    if recipe.float_resize:
        raise UsageError("this model's photos are resized as floats, and the preprocessing in a graph has bytes", _HINT)
    if recipe.interpolation not in ("bilinear", "bicubic"):
        raise UsageError(
            f"the preprocessing in a graph is bilinear or bicubic, not {recipe.interpolation} as this model's", _HINT
        )
    height, width = recipe.resize_to
    if recipe.resize == "shortest" and height != width:
        raise UsageError(f"the preprocessing in a graph has one shortest edge, not {height} and {width} pixels", _HINT)
    if recipe.size[0] > height or recipe.size[1] > width:
        raise UsageError("this model's photos are padded, and the preprocessing in a graph pads nothing", _HINT)
