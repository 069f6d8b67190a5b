"""The label sets that come with the package. README.md beside this file names their sources and licence.

Two xz-compressed tables hold every class once, sorted by WordNet id: ``imagenet-1k.tsv.xz`` the 1,000 that are used
most, ``imagenet-more.tsv.xz`` the rest. A row is ``id, sets, meaning, lemmas, definition``: ``sets`` has a letter
for each set that contains the class, ``meaning`` is a word that distinguishes it from classes of the same name. In
every set the classes have the order of their ids, so a set needs no list of its own.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import NamedTuple

from convnext_cli.base.errors import ModelError
from convnext_cli.labels.label_set import LabelSet, tell_apart


class Bundled(NamedTuple):
    """A bundled label set.

    Args:
        letter: its mark in the tables.
        size: number of classes.
        certain: whether no other common classifier has this size.
    """

    letter: str
    size: int
    certain: bool = True


SETS: dict[str, Bundled] = {
    "imagenet-1k": Bundled("k", 1000),
    "imagenet-12k": Bundled("t", 11821),
    "imagenet-22k": Bundled("f", 21841),
    "imagenet-21k": Bundled("g", 21843),
    "imagenet-21k-miil": Bundled("m", 11221),
    "imagenet-21k-miil-w21": Bundled("w", 10450),
    "tiny-imagenet-200": Bundled("z", 200, certain=False),
}
_CORE, _MORE = "imagenet-1k.tsv.xz", "imagenet-more.tsv.xz"
_INSIDE_CORE = ("imagenet-1k", "tiny-imagenet-200")
# The share of names that must agree for a list to count as a bundled set; publishers' spellings differ in a few.
_ALIKE = 0.9


class Row(NamedTuple):
    """One class of the tables."""

    id: str
    sets: str
    meaning: str
    lemma: str
    definition: str

    @property
    def short(self) -> str:
        return self.lemma.partition(", ")[0]


def names() -> tuple[str, ...]:
    """The names of the bundled sets."""
    return tuple(SETS)


def for_size(n: int) -> str | None:
    """The bundled set of a classifier with n rows; None where that is not certain."""
    return next((name for name, description in SETS.items() if description.certain and description.size == n), None)


@cache
def load(name: str) -> LabelSet:
    """A bundled set by its name.

    Raises:
        ModelError: there is no set of this name; the hint has the nearest names.
    """
    if name not in SETS:
        from difflib import get_close_matches

        near = get_close_matches(name, SETS, n=3) or list(SETS)
        raise ModelError(f"no label set is called {name!r}", f"did you mean {', '.join(near)}?")
    letter = SETS[name].letter
    table = _table(_CORE) if name in _INSIDE_CORE else rows()
    return _describe(name, [row for row in table if letter in row.sets])


def rows() -> list[Row]:
    """Every class of every set, in the order of the ids."""
    return sorted((*_table(_CORE), *_table(_MORE)))


@cache
def _table(file: str) -> tuple[Row, ...]:
    return tuple(Row(*line.split("\t")) for line in read_lines(file))


def read_lines(file: str) -> list[str]:
    """The lines of a compressed data file of this folder."""
    import lzma

    text = lzma.decompress(Path(__file__).with_name(file).read_bytes()).decode("utf-8")
    return text.removesuffix("\n").split("\n")


def from_ids(name: str, ids: Sequence[str]) -> LabelSet | None:
    """The classes with these WordNet ids, in this order; None unless all are known and different."""
    if len(set(ids)) != len(ids) or not all(is_id(identity) for identity in ids):
        return None
    by_id = {row.id: row for row in _table(_CORE)}
    if not by_id.keys() >= set(ids):
        by_id |= {row.id: row for row in _table(_MORE)}
    return _describe(name, [by_id[identity] for identity in ids]) if by_id.keys() >= set(ids) else None


def recognise(name: str, names: Sequence[str]) -> LabelSet | None:
    """The label set that a list of names stands for: WordNet ids, or a bundled set in its order, in any spelling.

    Args:
        name: for the label set.
        names: one name a row. Rows whose name differs from the bundled set keep theirs.

    Returns:
        The label set; None if the names are something else.
    """
    label_set = from_ids(name, names)
    if label_set is not None:
        return label_set
    for candidate, description in SETS.items():
        if description.size != len(names):
            continue
        base = load(candidate)
        same = [says(base, row, text) for row, text in enumerate(names)]
        if all(same):
            return base
        if sum(same) >= _ALIKE * len(names):
            own = [base.names[row] if same[row] else text for row, text in enumerate(names)]
            return LabelSet(name, base.ids, tell_apart(own, _numbers(own)), base.lemmas, base.definitions)
    return None


def restates(base: LabelSet, names: Sequence[str]) -> bool:
    """Whether nearly all of these names, one a row, are the names that the rows already have."""
    return sum(says(base, row, text) for row, text in enumerate(names)) >= _ALIKE * len(base)


def says(base: LabelSet, row: int, text: str) -> bool:
    """Whether ``text`` is a known name of a row: its short name, its lemmas, or one of them."""
    text, lemma = _plain(text), _plain(base.lemmas[row])
    return text in (_plain(base[row].name), lemma) or text in lemma.split(", ")


def is_id(text: str) -> bool:
    """Whether this looks like a WordNet id of a noun, "n" and eight digits."""
    return len(text) == 9 and text[0] == "n" and text[1:].isdecimal() and text.isascii()


def sense_key(name: str) -> str:
    """A key for names that are too similar: case does not count, and sunglass and sunglasses have the same key."""
    key = name.casefold()
    if key.endswith(("sses", "xes", "ches", "shes")):
        return key[:-2]
    return key[:-1] if len(key) > 3 and key.endswith("s") and not key.endswith("ss") else key


def _describe(name: str, rows: Sequence[Row]) -> LabelSet:
    often = Counter(sense_key(row.short) for row in rows if row.meaning)  # a name without a meaning is unique
    return LabelSet(
        name,
        ids=tuple(row.id for row in rows),
        names=tuple(
            f"{row.short} ({row.meaning})" if row.meaning and often[sense_key(row.short)] > 1 else row.short
            for row in rows
        ),
        lemmas=tuple(row.lemma for row in rows),
        definitions=tuple(row.definition for row in rows),
    )


def _numbers(rows: Sequence[str]) -> list[str]:
    return [str(row) for row in range(len(rows))]


def _plain(text: str) -> str:
    return " ".join(text.replace("_", " ").casefold().split())
