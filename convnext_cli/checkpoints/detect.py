"""Finds the tensors in the contents of a file, and detects their layout, by names and shapes alone."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

from convnext_cli.base.errors import ModelError
from convnext_cli.checkpoints.layouts.huggingface import HUGGINGFACE_V2
from convnext_cli.checkpoints.layouts.layout import Layout
from convnext_cli.checkpoints.layouts.registry import ALL, LAYOUTS

if TYPE_CHECKING:
    from torch import Tensor

# Where training scripts put the weights; averaged (EMA) ones first, as timm prefers them.
CONTAINERS = (
    *("state_dict_ema", "model_ema", "ema_state_dict", "state_dict", "model", "teacher", "module", "network", "net"),
    *("weights", "student"),
)
_DEEPEST = 20  # nested containers; a pickle can hold one that contains itself
_AVERAGED = ("state_dict_ema", "model_ema", "ema_state_dict")

_FEWEST, _NEARLY = 8, 0.9  # how many names a layout must recognise, and what share of them

# Prefixes that wrappers put before names. Weights under some of them replace the other weights of the file.
_ALONE = {
    "ema_model.": "the averaged (EMA) weights",
    "teacher.": "the teacher's weights",
    "student.": "the student's weights",
}
PREFIXES = (
    *(*_ALONE, "module.", "timm_model.", "convnext.", "convnextv2.", "visual.", "backbone.", "model.", "net."),
    *("network.", "encoder.", "trunk."),
)
_INSIDE = re.compile(r"\b(?:_orig_mod|_fsdp_wrapped_module|_checkpoint_wrapped_module)\.")

# Tensors beside the weights of any layout, which classification does not need.
DROPPED = ("n_averaged", "steps", "num_batches_tracked", "data_preprocessor.")


def unwrap(state: Mapping[str, object]) -> tuple[dict[str, Tensor], list[str]]:
    """Take the tensors of a checkpoint out of the containers that training scripts use.

    Returns:
        The tensors by name, and notes.

    Raises:
        ModelError: there are no tensors.
    """
    import torch

    notes: list[str] = []
    for _ in range(_DEEPEST):
        containers = {name: inner for name in CONTAINERS if isinstance(inner := state.get(name), dict) and inner}
        if not containers:
            break
        first, *others = containers
        if first in _AVERAGED:
            others = [name for name in others if name not in _AVERAGED]
            rather = f", not {others[0]!r}" if others else ""
            notes.append(f"the averaged (EMA) weights of the checkpoint are used, {first!r}{rather}")
        elif others:
            notes.append(f"{first!r} of the checkpoint is used, not {', '.join(map(repr, others))}")
        state = {str(name): value for name, value in containers[first].items()}
    else:
        raise ModelError("the dicts in the file are nested without end", "name a checkpoint of a ConvNeXt")
    tensors = {_INSIDE.sub("", k): v.detach() for k, v in state.items() if isinstance(v, torch.Tensor)}
    if not tensors:
        inside = ", ".join(list(state)[:8]) or "nothing"
        raise ModelError(f"the file contains no weights, only {inside}", "name a checkpoint of a ConvNeXt")
    return tensors, notes


def recognise(names: Iterable[str]) -> Layout | None:
    """The layout of these names; None if it is not known."""
    names = set(names)
    for layout in ALL:
        pattern = re.compile(layout.marker)
        if any(pattern.fullmatch(name) for name in names):
            return layout
    return None


def nearest(names: Iterable[str]) -> Layout | None:
    """The layout that has nearly all of these names, although the one that identifies it is missing; else None."""
    names = set(names)

    def count_known(layout: Layout) -> float:
        canonical_names = [name for name in map(layout.canonical, names) if name is not None]
        block = any(name.endswith((".dwconv.weight", ".pwconv1.weight")) for name in canonical_names)
        # between two layouts with the same names, the right version
        return block * len(canonical_names) + 0.5 * (
            (layout is HUGGINGFACE_V2) == any(".grn." in name for name in names)
        )

    best = max(reversed(ALL), key=count_known)
    return best if int(count_known(best)) >= max(_FEWEST, _NEARLY * len(names)) else None


def sniff(tensors: dict[str, Tensor]) -> tuple[dict[str, Tensor], Layout, list[str]]:
    """Remove the prefixes of wrappers until the names are those of a known layout.

    Returns:
        The tensors, their layout, and notes.

    Raises:
        ModelError: no layout fits.
    """
    notes: list[str] = []
    original, likely = tensors, None
    while (layout := recognise(tensors)) is None:
        if likely is None and (layout := nearest(tensors)):
            likely = tensors, layout, list(notes)
        prefix = next((p for p in PREFIXES if any(name.startswith(p) for name in tensors)), None)
        if prefix is None and likely:  # the missing tensors are reported later, by name
            return likely
        if prefix is None:
            raise ModelError(
                "these are not the weights of a ConvNeXt, or their layout is not supported: "
                f"{len(original)} tensors, {', '.join(sorted(original)[:4])} …",
                "supported layouts: " + ", ".join(LAYOUTS),
            )
        inner = {name.removeprefix(prefix): t for name, t in tensors.items() if name.startswith(prefix)}
        rest = {name: t for name, t in tensors.items() if not name.startswith(prefix)}
        if rest and (only := _ALONE.get(prefix)):
            notes.append(f"{only} ({prefix}*) are used, and {len(rest)} other tensors are not")
            rest = {}
        tensors = rest | inner
    return tensors, layout, notes
