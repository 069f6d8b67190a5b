"""LabelSet: the names of a classifier's rows."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import chain, count

from convnext_cli.base.text import is_well_formed, well_formed


@dataclass(frozen=True)
class Label:
    """One class. ``lemma`` is the list of all synonyms, ``definition`` is empty if none is known."""

    index: int
    id: str | None
    name: str
    lemma: str
    definition: str


@dataclass(frozen=True)
class LabelSet:
    """The names of a classifier's rows; ``len`` is the number of rows.

    All texts are well-formed: lone surrogates, as in names of folders that are not UTF-8, are written out.

    Args:
        ids, lemmas, definitions: one entry a row; an id is a WordNet id ("n01440764") or None.
        names: short and all different. One a row, or one a group where there are ``groups``.
        groups: the rows whose scores are added under one name; a row that is in no group is hidden. None when every row
            stands for itself.
        group_ids: the id that stands for a group in place of its best member's, or None; one a group.
        parents: the broader groups that a row belongs to, broadest first, such as ("animal", "feline"); one tuple a
            row, empty where only WordNet may know them. None when no row has any.

    Raises:
        ValueError: the lengths disagree, a name comes twice, the groups overlap or a parent has no name.
    """

    name: str
    ids: tuple[str | None, ...]
    names: tuple[str, ...]
    lemmas: tuple[str, ...]
    definitions: tuple[str, ...]
    groups: tuple[tuple[int, ...], ...] | None = None
    group_ids: tuple[str | None, ...] | None = None
    parents: tuple[tuple[str, ...], ...] | None = None

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
            raise ValueError(f"{len(self.names)} names for {rows if self.groups is None else len(self.groups)} classes")
        if len(set(self.names)) != len(self.names):
            raise ValueError(f"the name {Counter(self.names).most_common(1)[0][0]!r} occurs twice")
        if self.groups is not None:
            members = list(chain.from_iterable(self.groups))
            if len(set(members)) != len(members) or not all(0 <= row < rows for row in members):
                raise ValueError("the groups overlap or reach past the last class")
            if not all(self.groups):
                raise ValueError("a group has no members")
        if self.group_ids is not None and len(self.group_ids) != len(self.groups or ()):
            raise ValueError(f"{len(self.group_ids)} ids for {len(self.groups or ())} groups")
        if self.parents is not None:
            if len(self.parents) != rows:
                raise ValueError(f"{len(self.parents)} lists of parents for {rows} classes")
            if not all(isinstance(parent, str) and parent for parents in self.parents for parent in parents):
                raise ValueError("a parent has no name")
            well = tuple(tuple(map(well_formed, parents)) for parents in self.parents)
            object.__setattr__(self, "parents", well if any(well) else None)

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
        """A set of names in the order of the rows; a repeated name is followed by its id or its number."""
        class_ids = tuple(ids) if ids is not None else (None,) * len(names)
        hints = [identity or str(i) for i, identity in enumerate(class_ids)]
        return cls(name, class_ids, tell_apart(names, hints), tuple(names), ("",) * len(names))


def tell_apart(names: Sequence[str], hints: Sequence[str]) -> tuple[str, ...]:
    """Make names unique: a repeated name is followed by its hint in brackets, or by a number if that is taken."""
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
