"""The broader groups above the classes of a label set: tabby, cat, feline, carnivore."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from dataclasses import dataclass
from functools import cache, cached_property

import numpy as np

from convnext_cli.base.errors import ModelError
from convnext_cli.labels import LabelSet, wordnet

SEPARATOR = "/"  # of a class from the groups above it, in names such as animal/feline/cat
_MOST = 0.5  # the share of the classes beyond which a group says nothing


@dataclass(frozen=True, eq=False)
class Node:
    """A label, or a broader group.

    Args:
        name: of it.
        id: its WordNet id; None where it has none.
        rows: the classifier's rows whose probabilities are added, ascending.
    """

    name: str
    id: str | None
    rows: np.ndarray


@dataclass(frozen=True, eq=False)
class Tree:
    """The groups above each label.

    Args:
        labels: the label set.
        chains: for each label the label itself, then the groups above it; each contains the rows of the one before,
            and more. Groups are shared between chains.
    """

    labels: LabelSet
    chains: tuple[tuple[Node, ...], ...]

    @classmethod
    def of(cls, labels: LabelSet) -> Tree:
        """The tree of a label set.

        The groups above a class are its parents in the label set; failing that, the synsets above its WordNet id,
        along the first parent of each; failing that, those in a name such as ``animal/cat``. A group of a synset has
        all classes below it, by any parent. Groups that have the same rows as the one below them are left out, and so
        are those with more than half of all rows.
        """
        leaves = _leaves(labels)
        shown = {row for leaf in leaves for row in leaf.rows.tolist()}
        paths = _paths(labels)
        nodes = _nodes({key for row in shown for key in paths[row]}, _members(labels, shown, paths))
        chains = []
        for leaf in leaves:
            chain = [leaf]
            for key in paths[leaf.rows[0]]:
                node = nodes[key]
                if len(node.rows) > _MOST * len(shown):
                    break
                has_leaf = len(leaf.rows) == 1 or np.isin(leaf.rows, node.rows).all()
                if has_leaf and len(node.rows) > len(chain[-1].rows):
                    chain.append(node)
            chains.append(tuple(chain))
        return cls(labels, tuple(chains))

    @property
    def has_groups(self) -> bool:
        """Whether any answer can be broader than a class."""
        return any(len(chain) > 1 for chain in self.chains)

    @cached_property
    def above(self) -> tuple[tuple[tuple[str, ...], ...], ...]:
        """For each node of each chain the names of the groups above it, broadest first.

        A class that is a group itself (ImageNet-21k has "dog" beside its breeds) does not stand above itself.
        """
        return tuple(
            tuple(
                tuple(group.name for group in reversed(chain[place + 1 :]) if node.id is None or group.id != node.id)
                for place, node in enumerate(chain)
            )
            for chain in self.chains
        )

    def fingerprint(self) -> str:
        """A digest of which rows each node has, without names: equal for two languages of the same labels."""
        digest = hashlib.sha256()
        for chain in self.chains:
            for node in chain:
                digest.update(len(node.rows).to_bytes(8, "little"))
                digest.update(node.rows.astype("<u4").tobytes())
            digest.update(b"\xff" * 8)
        return digest.hexdigest()


# A group: the id of a synset, or the names from the broadest group down to it.
_Key = str | tuple[str, ...]


def _leaves(labels: LabelSet) -> list[Node]:
    groups = labels.groups if labels.groups is not None else [(row,) for row in range(len(labels))]
    ids = labels.group_ids or (None,) * len(groups)
    return [
        Node(name, identity or (labels.ids[rows[0]] if len(rows) == 1 else None), np.array(sorted(rows)))
        for name, identity, rows in zip(labels.names, ids, groups, strict=True)
    ]


def _paths(labels: LabelSet) -> list[tuple[_Key, ...]]:
    """The groups above each row, the lowest first."""
    names = [labels[row].name for row in range(len(labels))]
    return [_path(labels, row, names[row]) for row in range(len(labels))]


def _path(labels: LabelSet, row: int, name: str) -> tuple[_Key, ...]:
    if labels.parents is not None and labels.parents[row]:
        return _prefixes(labels.parents[row])
    identity = labels.ids[row]
    if identity is not None:
        return _first_parents(identity)
    *parents, _ = (part.strip() for part in name.split(SEPARATOR))
    return _prefixes(tuple(parents)) if all(parents) else ()


def _prefixes(names: tuple[str, ...]) -> tuple[_Key, ...]:
    return tuple(names[:length] for length in range(len(names), 0, -1))


@cache
def _first_parents(identity: str) -> tuple[_Key, ...]:
    """A synset and those above it, one a level; none for an id that is not in the bundled tree."""
    try:
        path = [identity]
        while parents := wordnet.parents(path[-1]):
            path.append(parents[0])
    except ModelError:
        return ()
    return tuple(path)


def _members(labels: LabelSet, shown: set[int], paths: list[tuple[_Key, ...]]) -> dict[_Key, np.ndarray]:
    """The shown rows of each group."""
    members: defaultdict[_Key, list[int]] = defaultdict(list)
    for row in sorted(shown):
        identity = labels.ids[row]
        known = () if identity is None or not _first_parents(identity) else (identity, *wordnet.ancestors(identity))
        for key in {*paths[row], *known}:
            members[key].append(row)
    return {key: np.array(rows) for key, rows in members.items()}


def _nodes(keys: set[_Key], members: dict[_Key, np.ndarray]) -> dict[_Key, Node]:
    """The node of each group; of several groups with the same rows the lowest gives the name."""

    def height(key: _Key) -> tuple[int, str]:
        depth = len(_first_parents(key)) if isinstance(key, str) else len(key)
        return -depth, key if isinstance(key, str) else SEPARATOR.join(key)

    by_rows: dict[bytes, Node] = {}
    nodes: dict[_Key, Node] = {}
    for key in sorted(keys, key=height):
        rows = members[key]
        name = wordnet.lemma(key).split(",")[0] if isinstance(key, str) else key[-1]
        nodes[key] = by_rows.setdefault(rows.tobytes(), Node(name, key if isinstance(key, str) else None, rows))
    return nodes
