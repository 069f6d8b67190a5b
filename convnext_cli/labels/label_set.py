"""LabelSet: what the rows of a classifier are called."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import chain, count
from typing import Any

from convnext_cli.base.errors import ModelError
from convnext_cli.base.text import is_well_formed, well_formed

_PLACEHOLDER = re.compile(r"LABEL_\d+")
# transformers' own 22k lists were made from Google's 21,843 names by deleting two keys without renumbering the rest.
_HOLED_SIZE, _HOLED_LAST = 21841, 21842


@dataclass(frozen=True)
class Label:
    """One class. ``lemma`` is the whole list of synonyms, ``definition`` is empty where none is known."""

    index: int
    id: str | None
    name: str
    lemma: str
    definition: str


@dataclass(frozen=True)
class LabelSet:
    """The names of a classifier's rows; ``len`` is the number of rows.

    ids, lemmas, definitions: one entry a row; an id is a WordNet id ("n01440764") or None.
    names: short and all different. One a row, or one a group where there are ``groups``.
    groups: the rows whose scores are added under one name; a row that is in no group is hidden. None when every
        row stands for itself.
    group_ids: the id that stands for a group in place of its best member's, or None; one a group.

    All texts are well-formed: lone surrogates, as in names of folders that are not UTF-8, are written out.

    Raises ValueError when the lengths disagree, a name comes twice or the groups overlap.
    """

    name: str
    ids: tuple[str | None, ...]
    names: tuple[str, ...]
    lemmas: tuple[str, ...]
    definitions: tuple[str, ...]
    groups: tuple[tuple[int, ...], ...] | None = None
    group_ids: tuple[str | None, ...] | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "name", well_formed(self.name))
        for field in ("ids", "names", "lemmas", "definitions", "group_ids"):
            texts = getattr(self, field)
            if texts is not None and not is_well_formed("".join(text for text in texts if isinstance(text, str))):
                object.__setattr__(self, field, tuple(text and well_formed(text) for text in texts))
        rows = len(self.ids)
        if not len(self.lemmas) == len(self.definitions) == rows:
            raise ValueError(f"{rows} ids, {len(self.lemmas)} lemmas and {len(self.definitions)} definitions")
        if len(self.names) != (rows if self.groups is None else len(self.groups)):
            raise ValueError(f"{len(self.names)} names for another number of classes")
        if len(set(self.names)) != len(self.names):
            raise ValueError(f"the name {Counter(self.names).most_common(1)[0][0]!r} comes twice")
        if self.groups is not None:
            members = list(chain.from_iterable(self.groups))
            if len(set(members)) != len(members) or not all(0 <= row < rows for row in members):
                raise ValueError("the groups overlap or reach past the last class")
            if not all(self.groups):
                raise ValueError("a group has no members")
        if self.group_ids is not None and len(self.group_ids) != len(self.groups or ()):
            raise ValueError("the ids of groups are not as many as the groups")

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, row: int) -> Label:
        """The class of one row, under the name of its group; a hidden row has an empty name."""
        index = range(len(self))[row]
        group = index if self.groups is None else self._group_of_row.get(index)
        name = "" if group is None else self.names[group]
        return Label(index, self.ids[index], name, self.lemmas[index], self.definitions[index])

    def __iter__(self) -> Iterator[Label]:
        return map(self.__getitem__, range(len(self)))

    @cached_property
    def _group_of_row(self) -> dict[int, int]:
        return {row: group for group, rows in enumerate(self.groups or ()) for row in rows}

    @classmethod
    def numbered(cls, n: int) -> LabelSet:
        """``class_0`` … for a classifier whose classes have no known names."""
        return cls.from_names("numbered", [f"class_{i}" for i in range(n)])

    @classmethod
    def from_names(cls, name: str, names: Sequence[str], ids: Sequence[str | None] | None = None) -> LabelSet:
        """A set of names in the order of the rows; a name that comes twice gets its id or its number behind it."""
        known = tuple(ids) if ids is not None else (None,) * len(names)
        hints = [identity or str(i) for i, identity in enumerate(known)]
        return cls(name, known, tell_apart(names, hints), tuple(names), ("",) * len(names))

    @classmethod
    def from_id2label(cls, mapping: Mapping[Any, Any]) -> LabelSet | None:
        """The ``id2label`` of a Hugging Face config.json; None when it holds no names (``LABEL_0`` …).

        Keys are numbers, mostly written as strings. Where the names are those of a bundled set, WordNet ids and
        definitions come from it. Raises ModelError when the numbers are not 0 … n-1.
        """
        if not mapping:
            return None
        try:
            by_number = {int(key): str(value).strip() for key, value in mapping.items()}
        except (TypeError, ValueError) as error:
            raise ModelError(f"id2label: {error}", "its keys must be the numbers of the classes") from error
        if len(by_number) != len(mapping):
            raise ModelError("id2label: a number comes twice", "each class has one number and one name")
        given = in_order(by_number)
        if given is None:
            raise ModelError(
                f"id2label has {len(by_number)} names, but its numbers run from {min(by_number)} to {max(by_number)}",
                "numbers count from 0 without holes; give the names with --labels FILE",
            )
        if all(_PLACEHOLDER.fullmatch(value) for value in given):
            return None
        from convnext_cli.labels import bundled

        return bundled.recognise("id2label", given) or cls.from_names("id2label", given)

    def to_dict(self, *, whole: bool = False) -> dict[str, Any]:
        """Plain JSON values; a bundled set is only named, unless ``whole``. The inverse of ``from_dict``."""
        from convnext_cli.labels import bundled

        if not whole and self.name in bundled.SETS and self == bundled.load(self.name):
            return {"bundled": self.name}
        return {
            "name": self.name,
            "names": list(self.names),
            "lemmas": list(self.lemmas),
            **({"ids": list(self.ids)} if any(self.ids) else {}),
            **({"definitions": list(self.definitions)} if any(self.definitions) else {}),
            **({"groups": [list(rows) for rows in self.groups]} if self.groups is not None else {}),
            **({"group_ids": list(self.group_ids)} if self.group_ids is not None else {}),
        }

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> LabelSet:
        """A set from a card's JSON. Raises KeyError, TypeError or ValueError when it is damaged."""
        if "bundled" in values:
            from convnext_cli.labels import bundled

            return bundled.load(values["bundled"])
        lemmas = tuple(values["lemmas"])
        groups, group_ids = values.get("groups"), values.get("group_ids")
        return cls(
            name=values["name"],
            ids=tuple(values.get("ids", (None,) * len(lemmas))),
            names=tuple(values["names"]),
            lemmas=lemmas,
            definitions=tuple(values.get("definitions", ("",) * len(lemmas))),
            groups=None if groups is None else tuple(tuple(rows) for rows in groups),
            group_ids=None if group_ids is None else tuple(group_ids),
        )


def in_order(by_number: Mapping[int, str]) -> list[str] | None:
    """The names by rising number; None when the numbers are not 0 … n-1 (or the one known list with two holes)."""
    numbers = sorted(by_number)
    holed = len(numbers) == _HOLED_SIZE and numbers[0] == 0 and numbers[-1] == _HOLED_LAST
    if numbers != list(range(len(numbers))) and not holed:
        return None
    return [by_number[number] for number in numbers]


def tell_apart(names: Sequence[str], hints: Sequence[str]) -> tuple[str, ...]:
    """The names; those that come more than once with their hint in brackets, and a number where that is taken."""
    often = Counter(names)
    taken = {name for name, times in often.items() if times == 1}
    result = []
    for row, (name, hint) in enumerate(zip(names, hints, strict=True)):
        if often[name] > 1:
            tries = chain((hint, str(row)), (f"{row}.{k}" for k in count(2)))
            name = next(t for t in (f"{name} ({more})" for more in tries) if t not in taken)
            taken.add(name)
        result.append(name)
    return tuple(result)
