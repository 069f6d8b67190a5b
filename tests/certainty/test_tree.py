"""The groups above labels."""

from __future__ import annotations

import dataclasses
from functools import cache
from itertools import pairwise

import pytest

from convnext_cli import labels
from convnext_cli.certainty.tree import Tree
from convnext_cli.labels import LabelSet, wordnet


def names(tree: Tree, label: str) -> list[str]:
    return [node.name for node in tree.chains[tree.labels.names.index(label)]]


def own(*label_names: str, parents: tuple[tuple[str, ...], ...] | None = None) -> LabelSet:
    return dataclasses.replace(LabelSet.from_names("own", label_names), parents=parents)


@pytest.mark.parametrize("name", ["tiny-imagenet-200", "imagenet-1k"])
def test_groups_of_wordnet(name: str) -> None:
    label_set = labels.load(name)
    tree = Tree.of(label_set)
    named: dict[bytes, str] = {}

    @cache
    def below(synset: str) -> list[int]:
        kinds = {synset, *wordnet.descendants(synset)}
        return [row for row, identity in enumerate(label_set.ids) if identity in kinds]

    for row, chain in enumerate(tree.chains):
        assert chain[0].rows.tolist() == [row] and chain[0].name == label_set.names[row]
        path = [str(label_set.ids[row])]
        while above := wordnet.parents(path[-1]):
            path.append(above[0])
        for node, group in pairwise(chain):
            assert set(node.rows) < set(group.rows), "each group has more classes than the one below"
            assert len(group.rows) <= len(label_set) / 2
            # all classes below the synset, by any parent
            assert group.id in wordnet.ancestors(path[0]) and group.id is not None
            assert group.rows.tolist() == below(group.id)
            assert named.setdefault(group.rows.tobytes(), group.id) == group.id, "one name for the same classes"
        # no synset of the path is left out without a reason
        sizes = {len(node.rows) for node in chain}
        for synset in path:
            assert len(below(synset)) in sizes or len(below(synset)) > len(label_set) / 2


def test_a_tabby_is_a_cat() -> None:
    tree = Tree.of(labels.load("imagenet-1k"))
    above = ["domestic cat", "cat", "feline", "carnivore", "placental", "mammal", "vertebrate", "animal", "organism"]
    assert names(tree, "tabby") == ["tabby", *above]
    row = tree.labels.names.index("tabby")
    assert tree.above[row][0] == tuple(reversed(above))
    assert tree.above[row][-1] == ()


def test_a_class_that_is_a_group_itself() -> None:
    """In ImageNet-21k a beagle is a hound, and both are classes."""
    label_set = labels.bundled.from_ids("few", ["n02088364", "n02087551", "n02121620", "n07747607", "n07739125"])
    assert label_set is not None
    tree = Tree.of(label_set)
    beagle, hound, *_ = tree.chains
    assert [node.rows.tolist() for node in beagle] == [[0], [0, 1]]
    assert [node.rows.tolist() for node in hound] == [[1], [0, 1]]
    assert tree.above[1][0] == (), "a hound does not stand above itself"
    assert tree.above[0][0] == (hound[1].name,)


def test_groups_in_names() -> None:
    tree = Tree.of(own("animal/feline/cat", "animal/feline/lion", "animal/dog", "tool/saw", "tool/axe", "AC/DC", "sky"))
    assert names(tree, "animal/feline/cat") == ["animal/feline/cat", "feline", "animal"]
    assert names(tree, "animal/dog") == ["animal/dog", "animal"]
    assert names(tree, "AC/DC") == ["AC/DC"], "a group of one class is that class"
    assert names(tree, "sky") == ["sky"]
    assert tree.above[0] == (("animal", "feline"), ("animal",), ())


def test_equal_names_below_different_groups_are_different_groups() -> None:
    tree = Tree.of(own("sea/small/crab", "sea/small/shrimp", "land/small/mouse", "land/small/ant", "sea/whale"))
    assert [node.rows.tolist() for node in tree.chains[0]] == [[0], [0, 1]]
    assert [node.rows.tolist() for node in tree.chains[2]] == [[2], [2, 3]]


def test_parents_come_before_wordnet() -> None:
    base = labels.load("tiny-imagenet-200")
    parents = (("pond", "shore"),) * 3 + ((),) * 197
    tree = Tree.of(dataclasses.replace(base, parents=parents))
    assert names(tree, "goldfish") == ["goldfish", "shore"], "of groups with the same classes the lowest has the name"
    assert tree.chains[0][1].id is None
    assert names(tree, "brown bear") == names(Tree.of(base), "brown bear")
    assert 0 in next(node for node in tree.chains[5] if node.name == "animal").rows


def test_more_than_half_of_the_classes_say_nothing() -> None:
    assert names(Tree.of(own("a/x", "a/y", "b", "c")), "a/x") == ["a/x", "a"]
    assert names(Tree.of(own("a/x", "a/y", "b")), "a/x") == ["a/x"]


def test_labels_outside_wordnet_have_no_groups() -> None:
    tree = Tree.of(LabelSet.from_names("own", ["cat", "dog", "axe"], ["n99999999", None, "my-id"]))
    assert not tree.has_groups
    assert [len(chain) for chain in tree.chains] == [1, 1, 1]


def test_merged_and_hidden_classes() -> None:
    base = LabelSet.from_names("own", ["a/w", "a/x", "a/y", "b/z", "c", "d", "e", "f"])
    merged = dataclasses.replace(base, names=("wx", "y", "z", "c", "d"), groups=((0, 1), (2,), (3,), (4,), (5, 6)))
    tree = Tree.of(merged)
    assert [node.rows.tolist() for node in tree.chains[0]] == [[0, 1]], "merged classes have one name, which has no /"
    select = labels.select(["dog", "cat", "bee"], labels.load("tiny-imagenet-200"))
    assert [node.name for node in Tree.of(select).chains[2]] == ["bee"]


def test_the_fingerprint_ignores_names_and_sees_groups() -> None:
    first = own("a/x", "a/y", "b", "c")
    assert Tree.of(first).fingerprint() == Tree.of(own("z/1", "z/2", "k", "m")).fingerprint()
    assert Tree.of(first).fingerprint() != Tree.of(own("x", "y", "b", "c")).fingerprint()
    assert Tree.of(first).fingerprint() != Tree.of(own("a/x", "b", "a/y", "c")).fingerprint()
