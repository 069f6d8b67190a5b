"""Renames tensors from a library's layout to the canonical one, strictly: nothing is lost, and nothing is guessed."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

from convnext_cli.base.errors import ModelError
from convnext_cli.checkpoints.detect import DROPPED
from convnext_cli.checkpoints.layouts.layout import Layout
from convnext_cli.model.config import ConvNextConfig

if TYPE_CHECKING:
    from torch import Tensor

_BLOCK = r"(?:stages\.\d+|blocks)\.\d+"
_FORMER = {"weight": "gamma", "bias": "beta"}  # the former ends of names that transformers renamed
_SWALLOWED = re.compile(rf"{_BLOCK}(?:\.weight|\.grn\.(?:weight|bias))")
_SCALES = re.compile(rf"{_BLOCK}(?:\.gamma|\.grn\.(?:gamma|beta))")
_SHOWN = 12  # names that an error lists of each kind


def rename(tensors: Mapping[str, Tensor], layout: Layout) -> tuple[dict[str, Tensor], dict[str, str], list[str]]:
    """Rename tensors to the canonical names.

    Args:
        tensors: by the names in the file.
        layout: of the file.

    Returns:
        The canonical tensors, the foreign name of each, and notes on tensors that were left out.

    Raises:
        ModelError: a name is not part of the layout, or two names are the same.
    """
    renamed: dict[str, Tensor] = {}
    origin: dict[str, str] = {}
    dropped: list[str] = []
    unknown: list[str] = []
    swallowed = 0
    for foreign, tensor in tensors.items():
        if foreign.startswith(layout.dropped + DROPPED) or foreign.endswith(DROPPED):
            dropped.append(foreign)
        elif (name := _place(foreign, layout)) is None or name in renamed:
            unknown.append(foreign)
        else:
            swallowed += name != layout.canonical(foreign)
            value = layout.value(foreign, tensor) if layout.value else tensor
            renamed[name] = _canonical_shape(name, value)
            origin[name] = foreign
    if unknown:
        raise mismatch(layout, missing=(), unexpected=unknown, shapes=())
    groups = sorted({name.partition(".")[0] for name in dropped})
    notes = (
        [f"{len(dropped)} tensors are not needed for classification, and were left out: {', '.join(groups)}"]
        if dropped
        else []
    )
    if swallowed:
        notes.append(
            f"{swallowed} tensors are named weight or bias instead of gamma or beta, as older versions of transformers "
            "saved them; they were recognised by their place and shape"
        )
    return renamed, origin, notes


def _place(foreign: str, layout: Layout) -> str | None:
    """The canonical name of a tensor, even where transformers renamed it: a block itself has no weight."""
    name = layout.canonical(foreign)
    if name is None or _SWALLOWED.fullmatch(name):
        stem, _, last = foreign.rpartition(".")
        former = layout.canonical(f"{stem}.{_FORMER[last]}") if last in _FORMER else None
        if former is not None and _SCALES.fullmatch(former):
            return former
    return name


def to_layout(tensors: Mapping[str, Tensor], layout: Layout) -> dict[str, Tensor]:
    """Rename canonical tensors to a library's names, and give them its shapes; the values are the same.

    Raises:
        ModelError: the layout has no name for a tensor.
    """
    foreign = {name: layout.foreign(name) for name in tensors}
    if homeless := [name for name, its in foreign.items() if its is None]:
        raise ModelError(
            f"the layout {layout.name} has no names for {len(homeless)} of the tensors, such as {homeless[0]}",
            "choose another layout with --to",
        )
    return {its: tensors[name].reshape(layout.shape(its, tensors[name].shape)) for name, its in foreign.items() if its}


def _canonical_shape(name: str, tensor: Tensor) -> Tensor:
    """Give a tensor its canonical shape.

    Libraries append axes of size 1 to pointwise weights, layer scales and classifiers, or drop those of GRN.
    """
    if ".grn." in name:
        return tensor.reshape(1, 1, 1, -1)
    if name.endswith(("pwconv1.weight", "pwconv2.weight", "head.weight", "head_hidden.weight")):
        return tensor.flatten(1) if tensor.ndim == 4 and tensor.shape[2:] == (1, 1) else tensor
    if name.endswith(".gamma"):
        return tensor.flatten() if tensor.numel() == max(tensor.shape, default=0) else tensor
    return tensor


def check(config: ConvNextConfig, tensors: Mapping[str, Tensor], origin: Mapping[str, str], layout: Layout) -> None:
    """Raise ModelError, with every difference listed, unless these are exactly the tensors of the network."""
    expected = config.shapes()
    shapes = [
        (origin.get(name, name), tuple(tensors[name].shape), shape)
        for name, shape in expected.items()
        if name in tensors and tuple(tensors[name].shape) != shape
    ]
    missing = [layout.foreign(name) or name for name in expected if name not in tensors]
    unexpected = [origin.get(name, name) for name in tensors if name not in expected]
    if missing or unexpected or shapes:
        raise mismatch(layout, missing, unexpected, shapes)


def mismatch(
    layout: Layout,
    missing: Iterable[str],
    unexpected: Iterable[str],
    shapes: Iterable[tuple[str, tuple[int, ...], tuple[int, ...]]],
) -> ModelError:
    """The error that lists missing tensors with -, unexpected ones with +, and wrong shapes with both shapes."""
    kinds = {
        "missing": [f"  - {name}" for name in missing],
        "unexpected": [f"  + {name}" for name in unexpected],
        "of a wrong shape": [f"  ! {name}: is {_size(is_)}, should be {_size(due)}" for name, is_, due in shapes],
    }
    counts = ", ".join(f"{len(lines)} {kind}" for kind, lines in kinds.items() if lines)
    listed: list[str] = []
    for lines in kinds.values():
        listed += lines[:_SHOWN]
        if len(lines) > _SHOWN:
            listed.append(f"  {lines[0][2]} … and {len(lines) - _SHOWN} more")
    return ModelError(
        f"the tensors of this {layout.name} checkpoint are not those of a ConvNeXt: {counts}\n" + "\n".join(listed),
        "download the file again, or save the complete network; other heads and adapters are not supported",
    )


def _size(shape: tuple[int, ...]) -> str:
    return "×".join(map(str, shape)) or "a number"
