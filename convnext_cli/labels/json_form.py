"""Label sets as JSON: in model cards, and as ``id2label`` of Hugging Face configs."""

from __future__ import annotations

import re
from collections.abc import Mapping

from convnext_cli.base.errors import ModelError
from convnext_cli.base.text import JsonObject, JsonValue
from convnext_cli.labels import bundled
from convnext_cli.labels.label_set import LabelSet

_PLACEHOLDER = re.compile(r"LABEL_\d+")
# transformers' own 22k lists were made from Google's 21,843 names by deleting two keys without renumbering the rest.
_HOLED_SIZE, _HOLED_LAST = 21841, 21842


def from_id2label(mapping: Mapping[JsonValue, JsonValue]) -> LabelSet | None:
    """The label set of an ``id2label``; None if it has no real names (``LABEL_0`` …).

    If the names are those of a bundled set, its WordNet ids and definitions are added.

    Args:
        mapping: names by number; the numbers are usually strings.

    Raises:
        ModelError: the numbers are not 0 … n-1.
    """
    if not mapping:
        return None
    try:
        by_number = {int(key): str(value).strip() for key, value in mapping.items()}
    except (TypeError, ValueError) as error:
        raise ModelError(f"id2label: {error}", "its keys must be the numbers of the classes") from error
    if len(by_number) != len(mapping):
        raise ModelError("id2label: a number occurs twice", "give each class one number and one name")
    names = in_order(by_number)
    if names is None:
        raise ModelError(
            f"id2label has {len(by_number)} names, but its numbers run from {min(by_number)} to {max(by_number)}",
            "number the classes from 0 without gaps, or name them with --labels FILE",
        )
    if all(_PLACEHOLDER.fullmatch(name) for name in names):
        return None
    return bundled.recognise("id2label", names) or LabelSet.from_names("id2label", names)


def to_dict(labels: LabelSet, *, full: bool = False) -> JsonObject:
    """Plain JSON values, the inverse of ``from_dict``.

    Args:
        labels: the set.
        full: write out a bundled set, which is otherwise only named.
    """
    if not full and labels.name in bundled.SETS and labels == bundled.load(labels.name):
        return {"bundled": labels.name}
    return {
        "name": labels.name,
        "names": list(labels.names),
        "lemmas": list(labels.lemmas),
        **({"ids": list(labels.ids)} if any(labels.ids) else {}),
        **({"definitions": list(labels.definitions)} if any(labels.definitions) else {}),
        **({"groups": [list(rows) for rows in labels.groups]} if labels.groups is not None else {}),
        **({"group_ids": list(labels.group_ids)} if labels.group_ids is not None else {}),
        **({"parents": [list(names) for names in labels.parents]} if labels.parents is not None else {}),
    }


def from_dict(values: JsonObject) -> LabelSet:
    """A set from a card's JSON.

    Raises:
        KeyError, TypeError, ValueError: the JSON is damaged.
    """
    if "bundled" in values:
        return bundled.load(values["bundled"])
    lemmas = tuple(values["lemmas"])
    groups, group_ids, parents = values.get("groups"), values.get("group_ids"), values.get("parents")
    if parents is not None and not all(isinstance(names, list) for names in parents):
        raise ValueError("parents must be lists of text")
    return LabelSet(
        name=values["name"],
        ids=tuple(values.get("ids", (None,) * len(lemmas))),
        names=tuple(values["names"]),
        lemmas=lemmas,
        definitions=tuple(values.get("definitions", ("",) * len(lemmas))),
        groups=None if groups is None else tuple(tuple(rows) for rows in groups),
        group_ids=None if group_ids is None else tuple(group_ids),
        parents=None if parents is None else tuple(tuple(names) for names in parents),
    )


def in_order(by_number: Mapping[int, str]) -> list[str] | None:
    """The names in the order of their numbers; None if these are not 0 … n-1 (or the one known list with two gaps)."""
    numbers = sorted(by_number)
    holed = len(numbers) == _HOLED_SIZE and numbers[0] == 0 and numbers[-1] == _HOLED_LAST
    if numbers != list(range(len(numbers))) and not holed:
        return None
    return [by_number[number] for number in numbers]
