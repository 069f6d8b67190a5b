"""Layout: how one library names the tensors of a ConvNeXt, as data, readable in both directions."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING

from convnext_cli.base.text import JsonObject
from convnext_cli.model.card import Card
from convnext_cli.model.config import ConvNextConfig
from convnext_cli.model.preprocessing import Preprocessing

if TYPE_CHECKING:
    from torch import Tensor

# A foreign prefix and the canonical one. ``{i}``, ``{j}`` and ``{k}`` stand for numbers, the same on both sides. A
# prefix ends where a dot or the name ends, so one pair carries weight and bias.
Pair = tuple[str, str]
Shapes = dict[str, tuple[int, ...]]
PLAIN = ConvNextConfig(layer_norm_eps=1e-6)
# The problem with a network, beginning with the field's name, or None.
Rule = Callable[[ConvNextConfig], str | None]


@dataclass(frozen=True)
class Target:
    """How ``convnext convert`` writes a layout, and which networks the library's own class can hold.

    Args:
        name: as ``--to`` takes it. Several layouts may share one; the first whose ``only`` fits the network is written.
        suffixes: of a file; empty if it is always a folder.
        folder: whether it may be a folder, with the JSON of the library.
        free: the fields of a config that the class accepts, or reads from the tensors; all others are fixed.
        rules: further conditions on the fields.
        plain: a config with the fixed values.
        bare_rule: the condition on a file without the JSON, if it needs one.
        only: the networks that this layout is for; None for all.
        names: the layout to write, where the library's names depend on the network.
        json: the JSON files of a folder by name, and the parts of the preprocessing that they cannot express, from the
            card, the names of the classes (None if they have none) and the dtype of the tensors.
        wrap: the contents of a pickle, from the tensors and the names of the classes; None for the tensors alone.
    """

    name: str
    suffixes: tuple[str, ...] = ()
    folder: bool = False
    free: frozenset[str] = frozenset()
    rules: tuple[Rule, ...] = ()
    plain: ConvNextConfig = PLAIN
    bare_rule: Rule | None = None
    only: Callable[[ConvNextConfig], bool] | None = None
    names: Callable[[ConvNextConfig], Layout] | None = None
    json: Callable[[Card, list[str] | None, str], tuple[dict[str, JsonObject], list[str]]] | None = None
    wrap: Callable[[dict[str, Tensor], list[str] | None], dict[str, object]] | None = None


@dataclass(frozen=True)
class Layout:
    """The names of one library.

    Args:
        name: of the library.
        marker: a pattern of a tensor name that only this layout has.
        pairs: foreign and canonical prefixes. In reading, the first foreign prefix that fits decides; in writing, the
            first canonical one.
        prefix: the library's prefix of every name, except for those that begin with one of ``bare``.
        bare: beginnings of names without the prefix.
        dropped: prefixes of tensors that this library saves and classification does not need.
        shapes: the library's own shapes, by the end of its names: -1 and -2 are the first and second dimension of the
            canonical tensor, not counting axes of size 1.
        value: makes the canonical tensor from a foreign name and tensor, where more than the shape differs.
        usual: the preprocessing of a file without a description, by its architecture ("" for none); None for that of
            the official repositories.
        target: how it is written; None if it is only read.
    """

    name: str
    marker: str
    pairs: tuple[Pair, ...]
    prefix: str = ""
    bare: tuple[str, ...] = ()
    dropped: tuple[str, ...] = ()
    shapes: Shapes = field(default_factory=dict)
    value: Callable[[str, Tensor], Tensor] | None = None
    usual: Callable[[str], Preprocessing] | None = None
    target: Target | None = None

    @cached_property
    def _reading(self) -> list[tuple[re.Pattern[str], str]]:
        return [_rule(foreign, canonical) for foreign, canonical in self.pairs]

    @cached_property
    def _writing(self) -> list[tuple[re.Pattern[str], str]]:
        return [_rule(canonical, foreign) for foreign, canonical in self.pairs]

    def canonical(self, name: str) -> str | None:
        """The canonical name of a foreign one (without ``prefix``); None when no pair fits."""
        return _apply(self._reading, name)

    def foreign(self, name: str) -> str | None:
        """The library's name, ``prefix`` included, of a canonical one; None when the library has no place for it."""
        key = _apply(self._writing, name)
        return key if key is None or key.startswith(self.bare) else self.prefix + key

    def shape(self, foreign: str, shape: Iterable[int]) -> tuple[int, ...]:
        """The library's shape of a tensor whose canonical shape this is."""
        shape = tuple(shape)
        for end, template in self.shapes.items():
            if foreign.endswith(end):
                extents = [size for size in shape if size != 1]
                return tuple(extents[-size - 1] if size < 0 else size for size in template)
        return shape


def _rule(source: str, target: str) -> tuple[re.Pattern[str], str]:
    pattern = re.sub(r"\\\{(\w)\\\}", r"(?P<\1>\\d+)", re.escape(source))
    return re.compile(pattern + r"(?=\.|$)"), target


def _apply(rules: list[tuple[re.Pattern[str], str]], name: str) -> str | None:
    for pattern, target in rules:
        if match := pattern.match(name):
            return target.format(**match.groupdict()) + name[match.end() :]
    return None
