"""What photo managers call keywords: a row's labels as flat words, and as words below a root of our own.

A tree of keywords is for people, so it is not a copy of WordNet's, which takes a dozen steps from a tabby to an entity.
It has shelves: the few dozen words below. A label stands on the shelf of the nearest synset above it that has one, so
that its path is short, and does not depend on other labels: ``AI|animal|cat|tabby``.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cache

from convnext_cli.base.errors import ModelError, UsageError
from convnext_cli.labels import wordnet
from convnext_cli.predict.rows import Row

# Below it everything is ours; a bar parts levels, as Lightroom wrote it first and all others read it.
ROOT = "AI"
BAR = "|"
# What a bar inside a label becomes: a sign that looks alike and parts levels nowhere.
_LIKE_A_BAR = "¦"
# Beyond what XML cannot hold, the control characters of Latin-1, which are nothing but accidents.
_NO_TEXT = re.compile("[^\x20-\x7e\xa0-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]+")

# Path by synset. Several synsets share a shelf where WordNet parts what people do not.
_SHELVES = {
    "n00015388": "animal",
    "n01627424": "animal|amphibian",
    "n01769347": "animal|arachnid",
    "n02131653": "animal|bear",
    "n02127808": "animal|big cat",
    "n01503061": "animal|bird",
    "n02121620": "animal|cat",
    "n01974773": "animal|crustacean",
    "n02084071": "animal|dog",
    "n02512053": "animal|fish",
    "n02374451": "animal|horse",
    "n02159955": "animal|insect",
    "n01861778": "animal|mammal",
    "n01940736": "animal|mollusk",
    "n02469914": "animal|primate",
    "n01661091": "animal|reptile",
    "n02913152": "building",
    "n03385557": "building",  # fortifications: a castle
    "n03546340": "building",  # housing: a palace
    "n03051540": "clothing",
    "n03380867": "clothing|footwear",
    "n03502509": "clothing|headgear",
    "n03597469": "clothing|jewelry",
    "n03094503": "container",
    "n02773037": "container|bag",
    "n02876657": "container|bottle",
    "n03183080": "device",
    "n04437953": "device|clock",
    "n03699975": "device|machine",
    "n03278248": "electronics",
    "n04400289": "electronics",  # telecommunication: a television
    "n02942699": "electronics|camera",
    "n03082979": "electronics|computer",
    "n04401088": "electronics|telephone",
    "n03309808": "fabric",
    "n00021265": "food",
    "n07555863": "food",  # solid food
    "n07679356": "food|bread",
    "n07609840": "food|dessert",
    "n07557434": "food|dish",
    "n07881800": "food|drink",
    "n07705931": "food|fruit",
    "n07707451": "food|vegetable",
    "n12992868": "fungus",
    "n03405265": "furniture",
    "n02729837": "household|appliance",
    "n04516672": "household|kitchenware",
    "n04381994": "household|kitchenware",  # tableware
    "n09287968": "landscape",
    "n09359803": "landscape|mountain",
    "n09433442": "landscape|shore",
    "n09225146": "landscape|water",
    "n03800933": "musical instrument",
    "n00021939": "object",
    "n00007846": "person",
    "n00017222": "plant",
    "n13086908": "plant",  # parts of plants: an ear of corn
    "n11669921": "plant|flower",
    "n13104059": "plant|tree",
    "n06263609": "print",
    "n06410904": "print",  # books
    "n06793231": "sign",
    "n00433216": "sport",
    "n00523513": "sport",
    "n03414162": "sport|equipment",
    "n04285146": "sport|equipment",
    "n04341686": "structure",
    "n02898711": "structure|bridge",
    "n04451818": "tool",
    "n03964744": "toy",
    "n04524313": "vehicle",
    "n02686568": "vehicle|aircraft",
    "n02834778": "vehicle|bicycle",
    "n04530566": "vehicle|boat",
    "n02924116": "vehicle|bus",
    "n02958343": "vehicle|car",
    "n03790512": "vehicle|motorcycle",
    "n04264914": "vehicle|spacecraft",
    "n04468005": "vehicle|train",
    "n03684823": "vehicle|train",  # locomotives
    "n04490091": "vehicle|truck",
    "n04565375": "weapon",
}


@dataclass(frozen=True, slots=True)
class Keywords:
    """flat: words as they are. tree: paths from the root down to each of them, or nothing."""

    flat: tuple[str, ...] = ()
    tree: tuple[str, ...] = ()


def keywords(row: Row, *, top: int = 1, root: str = ROOT, tree: bool = True) -> Keywords:
    """The keywords of a row; none unless its status is "ok". Where there is an answer, it is the only one.

    top: so many of its guesses, the best first. root: as ``root_of`` gives it. tree: paths too, not flat words alone.
    """
    if row.status != "ok":
        return Keywords()
    labels: dict[str, str | None] = {}
    if row.answer is not None:  # a broader word rather than a wrong one
        labels[clean(row.answer.label or "")] = row.answer.id
    else:
        for guess in row.predictions[:top]:
            labels.setdefault(clean(guess.label), guess.id)
    words = [word for word in labels if word]
    paths = [BAR.join((root, *_levels(labels[word], word))) for word in words] if tree else []
    return Keywords(tuple(words), tuple(paths))


def root_of(text: str) -> str:
    """The root as a user names it; bars in it part levels. Raises UsageError when a level is empty."""
    levels = [clean(level) for level in text.split(BAR)]
    if not all(levels):
        raise UsageError(
            f"the root of keywords {text!r} has an empty level", f"a word such as {ROOT}, or {ROOT}{BAR}new"
        )
    return BAR.join(levels)


def clean(text: str) -> str:
    """The text on one line, without what XML cannot hold and without bars."""
    return " ".join(_NO_TEXT.sub(" ", text).split()).replace(BAR, _LIKE_A_BAR)


@cache
def _levels(identity: str | None, word: str) -> tuple[str, ...]:
    """The levels below the root, down to the word. A shelf that is called like the word ends the path."""
    levels = _shelf(identity) if identity else ()
    for number, level in enumerate(levels):
        if level.casefold() == word.casefold():
            return (*levels[:number], word)
    return (*levels, word)


def _shelf(identity: str) -> tuple[str, ...]:
    try:
        above = wordnet.ancestors(identity)
    except ModelError:  # an id of the user's own labels
        return ()
    for synset in (identity, *above):
        if synset in _SHELVES:
            return tuple(_SHELVES[synset].split(BAR))
    return ()
