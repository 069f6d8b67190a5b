"""Selections of labels: by name, by id, or by a WordNet term above them."""

from __future__ import annotations

import math
from collections.abc import Container, Iterable
from pathlib import Path

from convnext_cli.base import shares
from convnext_cli.base.errors import ModelError
from convnext_cli.labels import wordnet
from convnext_cli.labels.bundled import is_id
from convnext_cli.labels.label_set import LabelSet

Rows = tuple[int, ...]


def select(terms: Iterable[str], base: LabelSet) -> LabelSet:
    """A label set of these labels only. Each covers the classes that it names, whose scores are added.

    Args:
        terms: names of the set, ids, or names and ids of WordNet synsets above them: "dog" covers all breeds.
        base: the label set to select from.

    Raises:
        ModelError: a term names no class or has several meanings, or two terms share classes.
    """
    chosen: dict[str, tuple[Rows, str | None]] = {}
    names = {name.casefold() for name in base.names}
    for term in map(str.strip, terms):
        if term.casefold() not in names:  # WordNet's own spelling, such as Egyptian_cat
            term = " ".join(term.replace("_", " ").split())
        if term:
            classes = _classes(term, base)
            chosen.setdefault(_name(term, chosen), classes)
    if not chosen:
        raise ModelError("--classes names no label", "for example: --classes cat,dog")
    owner: dict[int, str] = {}
    for term, (rows, _) in chosen.items():
        for row in rows:
            if row in owner:
                raise ModelError(
                    f"{owner[row]!r} and {term!r} share classes ({base.lemmas[row]})", "leave out one of the two"
                )
            owner[row] = term
    return LabelSet(
        name=f"{len(chosen)} of {base.name}",
        ids=base.ids,
        names=tuple(chosen),
        lemmas=base.lemmas,
        definitions=base.definitions,
        groups=tuple(rows for rows, _ in chosen.values()),
        group_ids=tuple(identity for _, identity in chosen.values()),
        parents=base.parents,
    )


def floors(path: Path, names: LabelSet, *, logits: bool = False) -> dict[str, float]:
    """Read thresholds by label from lines of ``label,score`` (a name or an id; # starts a comment).

    Args:
        path: the file.
        names: the label set.
        logits: the scores are logits; otherwise they are from 0 to 1, and may be written as percentages.

    Raises:
        ModelError: the file cannot be read, a label is not in the set, or a score is out of range.
    """
    import csv
    import io

    class_names = {*names.names, *(identity for identity in (*names.ids, *(names.group_ids or ())) if identity)}
    thresholds: dict[str, float] = {}
    try:
        # a label may hold any sign at which splitlines would cut
        lines = io.StringIO(path.read_bytes().decode("utf-8-sig"), newline="")
    except (OSError, UnicodeDecodeError) as error:
        raise ModelError(f"{path} cannot be read: {error}", "write lines of label,score, such as tabby,0.6") from error
    try:
        rows = list(csv.reader(lines, delimiter="\t" if path.suffix.lower() == ".tsv" else ","))
    except csv.Error as error:
        raise ModelError(f"{path} is not a table: {error}", "write lines of label,score, such as tabby,0.6") from error
    for number, cells in enumerate(rows, 1):
        if not cells or cells[0].lstrip().startswith("#"):
            continue
        label, score = cells[0].strip(), cells[-1].strip()
        try:
            floor = float(score) if logits else shares.parse(score)
        except ValueError:
            floor = math.nan
        if len(cells) != 2 or not math.isfinite(floor):
            if number == 1 and not any(map(str.isdigit, "".join(cells[1:]))):  # a title
                continue
            raise ModelError(f"{path}, line {number}: this is not label,score", "for example: tabby,0.6")
        if not logits and not 0 <= floor <= 1:
            raise ModelError(
                f"{path}, line {number}: {score} is not a score between 0 and 1", f"for example: {label},0.6"
            )
        if label not in class_names:
            raise ModelError(
                f"{path}, line {number}: no label is called {label!r}",
                "convnext models labels NAME lists the labels of a model",
            )
        if thresholds.setdefault(label, floor) != floor:
            raise ModelError(f"{path}, line {number}: {label!r} has two scores", "keep the line that counts")
    return thresholds


def _name(term: str, taken: Container[str]) -> str:
    """The label of a term in the rows: the term itself, or the usual word for an id."""
    if not is_id(term):
        return term
    try:
        word = wordnet.lemma(term).split(",")[0]
    except ModelError:  # an id of the user's own set
        return term
    return f"{word} ({term})" if word in taken else word


def _classes(term: str, base: LabelSet) -> tuple[Rows, str | None]:
    """The rows that a term names, and the id for all of them."""
    word = term.casefold()
    groups = base.groups if base.groups is not None else tuple((row,) for row in range(len(base)))
    for name, rows in zip(base.names, groups, strict=True):
        if name.casefold() == word:
            return rows, base.ids[rows[0]] if len(rows) == 1 else None
    shown = {row for rows in groups for row in rows}
    if is_id(term):
        return _below(term, base, shown), term
    synonyms = tuple(
        row for row in sorted(shown) if word in (part.strip().casefold() for part in base.lemmas[row].split(","))
    )
    if len(synonyms) == 1:
        return synonyms, base.ids[synonyms[0]]
    # each meaning of the word that has classes below it, unless it is below another meaning
    meanings = [identity for identity in wordnet.meanings(word) if _below_or_none(identity, base, shown)]
    first = [identity for identity in meanings if wordnet.lemma(identity).split(",")[0].casefold() == word]
    meanings = first or meanings
    if len(meanings) > 1:
        choices = ", ".join(f"{identity} ({wordnet.lemma(identity)})" for identity in meanings)
        raise ModelError(f"{term!r} has several meanings: {choices}", "give the id of the one that you mean")
    if meanings:
        return _below(meanings[0], base, shown), meanings[0]
    if synonyms:
        return synonyms, None
    raise _unknown(term, base)


def _below(identity: str, base: LabelSet, shown: set[int]) -> Rows:
    if rows := _below_or_none(identity, base, shown):
        return rows
    raise _unknown(identity, base)


def _below_or_none(identity: str, base: LabelSet, shown: set[int]) -> Rows:
    try:
        kinds = {identity, *wordnet.descendants(identity)}
    except ModelError:
        kinds = {identity}
    return tuple(row for row in sorted(shown) if base.ids[row] in kinds)


def _unknown(term: str, base: LabelSet) -> ModelError:
    from difflib import get_close_matches

    near = get_close_matches(term, base.names, 3)
    hint = f"did you mean {', '.join(near)}?" if near else "convnext models labels NAME lists the labels of a model"
    return ModelError(f"no class of {base.name} is called {term!r} or is a kind of it", hint)
