"""WordNet's tree of hypernyms above the bundled classes: a tabby is a cat is a feline … is an animal.

It holds every class of the bundled sets and all that is above them up to n00001740, "entity". A few synsets have two
parents, so it is a directed graph without cycles. Source: the "@" and "@i" pointers of WordNet 3.0's nouns; the data
file ``wordnet.tsv.xz`` has the rows ``id, parents, lemmas``, with lemmas only for synsets that are not classes.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from functools import cache

from convnext_cli.base.errors import ModelError
from convnext_cli.labels import bundled


@cache
def _tree() -> dict[str, tuple[str, ...]]:
    return {row[0]: tuple(row[1].split()) for row in _rows()}


@cache
def _rows() -> tuple[tuple[str, str, str], ...]:
    fields = (line.split("\t") for line in bundled.read_lines("wordnet.tsv.xz"))
    return tuple((identity, above, lemmas) for identity, above, lemmas in fields)


@cache
def _below() -> dict[str, tuple[str, ...]]:
    by_parent = defaultdict(list)
    for identity, above in _tree().items():
        for parent in above:
            by_parent[parent].append(identity)
    return {parent: tuple(kinds) for parent, kinds in by_parent.items()}


@cache
def _lemmas() -> dict[str, str]:
    inner = {identity: lemmas for identity, _, lemmas in _rows() if lemmas}
    return inner | {row.id: row.lemma for row in bundled.rows()}


def parents(identity: str) -> tuple[str, ...]:
    """The synsets that this one is a kind of.

    Raises:
        ModelError: the id is not in the tree; the other functions here raise it too.
    """
    try:
        return _tree()[identity]
    except KeyError:
        raise ModelError(
            f"the WordNet id {identity!r} belongs to no bundled class, nor to a synset above one",
            "use ids of WordNet 3.0's nouns, such as n02121620",
        ) from None


def children(identity: str) -> tuple[str, ...]:
    """The kinds of this synset, by id; empty for a leaf."""
    parents(identity)
    return _below().get(identity, ())


def ancestors(identity: str) -> tuple[str, ...]:
    """All synsets that this one is a kind of, the nearest first, without itself."""
    return _reach(identity, parents)


def descendants(identity: str) -> tuple[str, ...]:
    """All kinds of this synset, the nearest first, without itself."""
    return _reach(identity, children)


def lemma(identity: str) -> str:
    """The synonyms of a synset, comma-joined, the usual word first."""
    parents(identity)
    return _lemmas()[identity]


def meanings(word: str) -> tuple[str, ...]:
    """The synsets that have this word among their synonyms, whatever its case."""
    return _meanings().get(word.casefold(), ())


@cache
def _meanings() -> dict[str, tuple[str, ...]]:
    synsets = defaultdict(list)
    for identity, lemmas in _lemmas().items():
        for word in dict.fromkeys(part.strip().casefold() for part in lemmas.split(",")):
            synsets[word].append(identity)
    return {word: tuple(identities) for word, identities in synsets.items()}


def _reach(identity: str, step: Callable[[str], tuple[str, ...]]) -> tuple[str, ...]:
    seen = dict.fromkeys(step(identity))
    queue = list(seen)
    for synset in queue:
        new = [reached for reached in step(synset) if reached not in seen]
        seen.update(dict.fromkeys(new))
        queue += new
    return tuple(queue)
