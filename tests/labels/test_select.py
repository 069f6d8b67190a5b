"""A few labels out of many, and floors for single ones."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from convnext_cli import labels
from convnext_cli.base.errors import ModelError
from convnext_cli.labels import LabelSet, json_form, wordnet

TINY = labels.load("tiny-imagenet-200")


def members(chosen: labels.LabelSet, name: str) -> set[str]:
    assert chosen.groups is not None
    return {TINY.names[row] for row in chosen.groups[chosen.names.index(name)]}


def test_a_name_an_id_and_what_is_above() -> None:
    chosen = labels.select(["espresso", "n02123045", "dog"], TINY)
    assert members(chosen, "espresso") == {"espresso"}
    assert members(chosen, "tabby") == {"tabby"}
    dogs = {TINY.names[i] for i, wnid in enumerate(TINY.ids) if wnid and "n02084071" in wordnet.ancestors(wnid)}
    assert members(chosen, "dog") == dogs
    assert len(dogs) > 3
    assert chosen.group_ids == ("n07920052", "n02123045", "n02084071")


def test_every_ancestor_gathers_just_what_is_below_it() -> None:
    for ancestor in {above for wnid in TINY.ids if wnid for above in wordnet.ancestors(wnid)}:
        chosen = labels.select([ancestor], TINY)
        below = {i for i, wnid in enumerate(TINY.ids) if wnid == ancestor or ancestor in wordnet.ancestors(wnid or "")}
        assert set(chosen.groups[0]) == below  # type: ignore[index]


def test_case_and_underscores_do_not_matter() -> None:
    assert labels.select(["Egyptian_cat" if "Egyptian cat" in TINY.names else "TABBY"], TINY).groups


@pytest.mark.parametrize("name", ["golden_retriever", "a  b", "_", "X_ray"])
def test_names_of_users_are_found_as_they_are_written(name: str) -> None:
    mine = LabelSet.from_names("mine", ["cat", name, "house"])
    chosen = labels.select([f" {name} ", "HOUSE"], mine)
    assert chosen.groups == ((1,), (2,))
    assert chosen.names[0] == name


@pytest.mark.parametrize(
    ("terms", "said"),
    [
        (["espreso"], "espresso"),
        (["n00000000"], "n00000000"),
        (["dog", "n02099712"], "share"),
        ([""], "no label"),
    ],
)
def test_mistakes(terms: list[str], said: str) -> None:
    with pytest.raises(ModelError) as told:
        labels.select(terms, TINY)
    assert said in told.value.message + str(told.value.hint)


def test_a_set_of_groups_survives_its_json() -> None:
    chosen = labels.select(["dog", "cat"], TINY)
    assert json_form.from_dict(json_form.to_dict(chosen)) == chosen


def test_probabilities_are_added() -> None:
    from convnext_cli import classify
    from tests.helpers.paths import SAMPLES

    whole = classify(SAMPLES[0], k=0)[0]
    (row,) = classify(SAMPLES[0], k=0, classes="dog,cat")
    for prediction in row.predictions:
        below = {prediction.id, *wordnet.descendants(str(prediction.id))}
        wanted = sum(p.score for p in whole.predictions if p.id in below)
        assert prediction.score == pytest.approx(wanted, rel=1e-5)
    assert np.all(np.diff([p.score for p in row.predictions]) <= 0)


def test_floors(tmp_path: Path) -> None:
    path = tmp_path / "floors.csv"
    path.write_text("label,score\n# a remark\ntabby,0.6\nn07920052,0.25\n")
    assert labels.floors(path, TINY) == {"tabby": 0.6, "n07920052": 0.25}
    odd = LabelSet.from_names("odd", ["a\rb", "c\u2028d", "e"])
    path.write_bytes('"a\rb",0.6\r\nc\u2028d,0.5\r\n'.encode())
    assert labels.floors(path, odd) == {"a\rb": 0.6, "c\u2028d": 0.5}
    path.write_text("tabby,0.6\ntabby,0.6\ntabby,0.5\n")
    with pytest.raises(ModelError, match="line 3: 'tabby' has two scores"):
        labels.floors(path, TINY)
    for text in ("tabby,high\ntabby,high\n", "no such label,0.5\n", "tabby,0.5,1\ntabby\n", "tabby,nan\nx,nan\n"):
        path.write_text(text)
        with pytest.raises(ModelError):
            labels.floors(path, TINY)
    with pytest.raises(ModelError):
        labels.floors(tmp_path / "gone", TINY)
