"""Layout: how one library names the tensors of a ConvNeXt, as data, readable in both directions."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

# A foreign prefix and the canonical one. ``{i}``, ``{j}`` and ``{k}`` stand for numbers, the same on both sides. A
# prefix ends where a dot or the name ends, so one pair carries weight and bias.
Pair = tuple[str, str]
Shapes = dict[str, tuple[int, ...]]


@dataclass(frozen=True)
class Layout:
    """The names of one library.

    Args:
        name: of the library.
        pairs: foreign and canonical prefixes. In reading, the first foreign prefix that fits decides; in writing, the
            first canonical one.
        prefix: the library's prefix of every name, except for those that begin with one of ``bare``.
        bare: beginnings of names without the prefix.
        dropped: prefixes of tensors that this library saves and classification does not need.
        shapes: the library's own shapes, by the end of its names: -1 and -2 are the first and second dimension of the
            canonical tensor, not counting axes of size 1.
        value: makes the canonical tensor from a foreign name and tensor, where more than the shape differs.
    """

    name: str
    pairs: tuple[Pair, ...]
    prefix: str = ""
    bare: tuple[str, ...] = ()
    dropped: tuple[str, ...] = ()
    shapes: Shapes = field(default_factory=dict)
    value: Callable[[str, Tensor], Tensor] | None = None

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
