"""Whose class is whose: the names in the data, found among a model's labels."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace

from convnext_cli.labels import LabelSet
from convnext_cli.labels.bundled import is_id

# Folders may say both, as in n02085620-Chihuahua.
_ID_FIRST = re.compile(r"(n[0-9]{8})[-_. ]")


@dataclass(frozen=True)
class Match:
    """answers: by class of the data, the number of the model's label (its place in ``LabelSet.names``).

    unmatched: the other classes. ambiguous: those of them that may be several labels, with these.
    """

    answers: dict[str, int]
    unmatched: tuple[str, ...] = ()
    ambiguous: dict[str, tuple[str, ...]] = field(default_factory=dict)


def match(classes: Sequence[str], labels: LabelSet, *, by_index: bool = False) -> Match:
    """Find each class by its WordNet id, else by name: a label's, all its synonyms, or one that no other label has.

    Capitals, spaces and underscores do not count, unless a label has exactly that name. A label that gathers several
    classes of the model is found by the ids and names of all of them. by_index: classes are numbers of labels instead:
    what they say where all are digits, else their place among ``classes``.
    """
    if by_index:
        numbered = all(name.isascii() and name.isdecimal() for name in classes)
        numbers = {name: int(name) if numbered else place for place, name in enumerate(classes)}
        answers_by_class = {name: number for name, number in numbers.items() if number < len(labels.names)}
        return Match(answers_by_class, tuple(name for name in classes if name not in answers_by_class))
    names, exact = _by_name(labels), defaultdict[str, list[int]](list)
    for answer, label in enumerate(labels.names):
        exact[label].append(answer)
    ids = answers_by_id(labels)
    answers, unmatched, ambiguous = dict[str, int](), list[str](), dict[str, tuple[str, ...]]()
    for name in classes:
        word = _ID_FIRST.match(name)
        identity = name if is_id(name) else word[1] if word else None
        if identity in ids:
            answers[name] = ids[identity]
            continue
        if len(exact[name]) == 1:
            answers[name] = exact[name][0]
            continue
        candidates = next((known[_plain(name)] for known in names if _plain(name) in known), ())
        if len(candidates) == 1:
            answers[name] = candidates[0]
        else:
            unmatched.append(name)
            if candidates:
                ambiguous[name] = tuple(labels.names[answer] for answer in candidates)
    return Match(answers, tuple(unmatched), ambiguous)


def answers_by_id(labels: LabelSet) -> dict[str | None, int]:
    """The label that stands for each WordNet id."""
    answers: dict[str | None, int] = {}
    for answer, rows in enumerate(_groups(labels)):
        for row in rows:
            answers.setdefault(labels.ids[row], answer)
    answers |= {identity: answer for answer, identity in enumerate(labels.group_ids or ())}
    answers.pop(None, None)
    return answers


def only(labels: LabelSet, answers: Iterable[int]) -> LabelSet:
    """The same labels without those that are not among ``answers``: their scores go to nobody."""
    groups = _groups(labels)
    kept = sorted(set(answers))
    return replace(
        labels,
        name=f"{len(kept)} of {labels.name}",
        names=tuple(labels.names[answer] for answer in kept),
        groups=tuple(groups[answer] for answer in kept),
        group_ids=None if labels.group_ids is None else tuple(labels.group_ids[answer] for answer in kept),
    )


def _groups(labels: LabelSet) -> tuple[tuple[int, ...], ...]:
    return labels.groups if labels.groups is not None else tuple((row,) for row in range(len(labels)))


def _by_name(labels: LabelSet) -> tuple[dict[str, tuple[int, ...]], ...]:
    """Labels by what they may be called, the surest first: by name, by all synonyms at once, by each of them."""
    known = [defaultdict[str, dict[int, None]](dict) for _ in range(3)]  # answers in their order, each once
    for answer, (name, rows) in enumerate(zip(labels.names, _groups(labels), strict=True)):
        known[0][_plain(name)][answer] = None
        for lemma in (labels.lemmas[row] for row in rows):
            known[1][_plain(lemma)][answer] = None
            for word in lemma.split(","):
                known[2][_plain(word)][answer] = None
    return tuple({name: tuple(places) for name, places in level.items()} for level in known)


def _plain(name: str) -> str:
    return " ".join(name.replace("_", " ").casefold().split())
