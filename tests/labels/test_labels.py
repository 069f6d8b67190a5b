"""Label sets: the known facts of each list, the traps of published ones, and what users' files may do."""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from convnext_cli import labels
from convnext_cli.base.errors import ModelError
from convnext_cli.labels import LabelSet, bundled, json_form, wordnet

SIZES = {
    "imagenet-1k": 1000,
    "imagenet-12k": 11821,
    "imagenet-22k": 21841,
    "imagenet-21k": 21843,
    "imagenet-21k-miil": 11221,
    "imagenet-21k-miil-w21": 10450,
    "tiny-imagenet-200": 200,
}
TEDDY, PICTURE, BLEACHER = "n04399382", "n03931044", "n09859684"


@pytest.fixture
def base() -> LabelSet:
    return LabelSet.from_names(
        "animals", ["tabby", "tiger cat", "beagle", "crane", "crane"], [f"n0000000{i}" for i in range(5)]
    )


@pytest.fixture
def write(tmp_path: Path):
    def make(content: str | bytes | object, name: str = "names.txt") -> Path:
        path = tmp_path / name
        if not isinstance(content, (str, bytes)):
            content = json.dumps(content)
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return path

    return make


class TestBundled:
    @pytest.mark.parametrize(("name", "size"), SIZES.items())
    def test_size_order_and_uniqueness(self, name: str, size: int) -> None:
        found = labels.load(name)
        assert len(found) == len(found.names) == size
        assert list(found.ids) == sorted(set(found.ids))
        assert len({text.casefold() for text in found.names}) == size
        assert all(found.names) and all(found.lemmas) and all(found.definitions)
        assert found.name == name and found.groups is None

    def test_names_and_sizes(self) -> None:
        assert set(labels.names()) == set(SIZES)
        assert {labels.for_size(n) for n in SIZES.values() if n != 200} == set(SIZES) - {"tiny-imagenet-200"}
        assert [labels.for_size(n) for n in (0, 2, 200, 999, 21842)] == [None] * 5

    @pytest.mark.parametrize(
        ("name", "index", "identity", "lemma"),
        [
            ("imagenet-1k", 0, "n01440764", "tench, Tinca tinca"),
            ("imagenet-1k", 281, "n02123045", "tabby, tabby cat"),
            ("imagenet-1k", 850, TEDDY, "teddy, teddy bear"),
            ("imagenet-1k", 999, "n15075141", "toilet tissue, toilet paper, bathroom tissue"),
            ("imagenet-22k", 0, "n00004475", "organism, being"),
            ("imagenet-22k", 21840, "n15102894", "knothole"),
            ("imagenet-21k", 9205, PICTURE, "picture, image, icon, ikon"),
            ("imagenet-21k", 15027, BLEACHER, "bleacher"),
            ("tiny-imagenet-200", 0, "n01443537", "goldfish, Carassius auratus"),
        ],
    )
    def test_known_classes(self, name: str, index: int, identity: str, lemma: str) -> None:
        label = labels.load(name)[index]
        assert (label.index, label.id, label.lemma) == (index, identity, lemma)

    def test_how_the_sets_lie_in_each_other(self) -> None:
        ids = {name: set(labels.load(name).ids) for name in SIZES}
        assert ids["imagenet-21k"] - ids["imagenet-22k"] == {PICTURE, BLEACHER}
        assert ids["imagenet-1k"] - ids["imagenet-22k"] == ids["imagenet-1k"] - ids["imagenet-21k"] == {TEDDY}
        one = labels.load("imagenet-1k")
        lacking = {label.index for label in one if label.id not in ids["imagenet-12k"]}
        assert lacking == {152, 165, 166, 175, 262, 268, 850}
        for name in ("imagenet-21k-miil", "imagenet-21k-miil-w21"):
            assert {label.index for label in one if label.id not in ids[name]} == lacking | {167, 241}
        assert ids["imagenet-12k"] < ids["imagenet-22k"]
        assert ids["tiny-imagenet-200"] < ids["imagenet-1k"]

    def test_namesakes_are_told_apart_by_meaning(self) -> None:
        one = labels.load("imagenet-1k")
        assert (one.names[134], one.names[517]) == ("crane (bird)", "crane (machine)")
        assert (one.names[638], one.names[639]) == ("maillot (tights)", "maillot (swimsuit)")
        assert (one.names[836], one.names[837]) == ("sunglass (lens)", "sunglasses (spectacles)")
        assert sum("(" in name for name in one.names) == 8  # and Cardigan, the dog and the garment
        assert "avocado (fruit)" in labels.load("imagenet-22k").names

    def test_only_namesakes_within_the_set_carry_a_meaning(self) -> None:
        small = labels.load("tiny-imagenet-200")
        assert not any("(" in name for name in small.names)

    def test_ids_are_the_last_resort(self) -> None:
        named = [label for label in labels.load("imagenet-21k") if label.name.endswith(f"({label.id})")]
        assert 0 < len(named) < 200

    def test_a_wrong_name_is_told_the_near_ones(self) -> None:
        with pytest.raises(ModelError, match="imagenet1k") as error:
            labels.load("imagenet1k")
        assert "imagenet-1k" in str(error.value.hint)

    def test_lists_are_those_of_timm(self) -> None:
        info = pytest.importorskip("timm.data").ImageNetInfo
        for name, theirs in (
            ("imagenet-1k", "imagenet-1k"),
            ("imagenet-12k", "imagenet-12k"),
            ("imagenet-22k", "imagenet-22k"),
            ("imagenet-21k", "imagenet-21k-goog"),
            ("imagenet-21k-miil", "imagenet-21k-miil"),
        ):
            other, ours = info(theirs), labels.load(name)
            assert list(ours.ids) == other.label_names()
            assert list(ours.lemmas) == [other.index_to_description(i) for i in range(len(ours))]

    def test_data_is_small(self) -> None:
        folder = Path(bundled.__file__).parent
        assert sum(file.stat().st_size for file in folder.glob("*.xz")) < 800_000

    def test_import_reads_nothing(self) -> None:
        code = "import sys, convnext_cli.labels; print(sorted({'numpy', 'torch', 'lzma', 'csv'} & set(sys.modules)))"
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
        assert done.stdout.strip() == "[]"


class TestLabelSet:
    def test_numbered(self) -> None:
        found = LabelSet.numbered(3)
        assert found.names == ("class_0", "class_1", "class_2") and found.ids == (None,) * 3

    def test_from_names_tells_namesakes_apart(self, base: LabelSet) -> None:
        assert base.names[2:] == ("beagle", "crane (n00000003)", "crane (n00000004)")
        assert LabelSet.from_names("x", ["a", "b", "a"]).names == ("a (0)", "b", "a (2)")
        assert base[4].lemma == "crane"

    @given(st.lists(st.sampled_from(["a", "a (0)", "a (1)", "a (1) (2)", "b", ""]), max_size=9))
    def test_names_are_always_different(self, names: list[str]) -> None:
        found = LabelSet.from_names("x", names)
        assert len(set(found.names)) == len(names)
        assert all(new.startswith(old) for new, old in zip(found.names, names, strict=True))

    def test_rows_of_groups(self) -> None:
        one = LabelSet("g", (None,) * 4, ("cat", "dog"), ("a", "b", "c", "d"), ("",) * 4, ((0, 2), (3,)))
        assert [label.name for label in one] == ["cat", "", "cat", "dog"]
        assert len(one) == 4 and one[-1].index == 3
        with pytest.raises(IndexError):
            one[4]

    @pytest.mark.parametrize(
        "change",
        [
            {"names": ("a", "a")},
            {"names": ("a",)},
            {"lemmas": ("a",)},
            {"groups": ((0, 1), (1,))},
            {"groups": ((0,), (2,))},
            {"groups": ((0,), ())},
        ],
    )
    def test_what_does_not_fit_is_refused(self, change: dict[str, object]) -> None:
        fields = {"name": "x", "ids": (None, None), "names": ("a", "b"), "lemmas": ("a", "b"), "definitions": ("", "")}
        assert len(LabelSet(**fields)) == 2
        with pytest.raises(ValueError):
            LabelSet(**{**fields, **change})

    def test_json_and_back(self, base: LabelSet, write) -> None:
        merged = labels.read(write({"tabby": "cat", "1": "cat", "beagle": "-"}), base)
        for one in (base, merged, LabelSet.numbered(4), labels.load("imagenet-1k")):
            values = json.loads(json.dumps(json_form.to_dict(one)))
            assert json_form.from_dict(values) == one
        assert json_form.to_dict(labels.load("imagenet-22k")) == {"bundled": "imagenet-22k"}


class TestId2Label:
    def test_numbers_sort_as_numbers(self) -> None:
        found = json_form.from_id2label({str(i): f"name {i}" for i in (10, 2, 0, 1, 9, 8, 7, 6, 5, 4, 3)})
        assert found is not None and found.names[2] == "name 2" and found.names[10] == "name 10"

    def test_placeholders_are_no_names(self) -> None:
        assert json_form.from_id2label({i: f"LABEL_{i}" for i in range(1000)}) is None
        assert json_form.from_id2label({}) is None

    @pytest.mark.parametrize("keys", [("1", "2"), ("0", "2"), ("-1", "0"), ("a", "b"), ("0", "00")])
    def test_holes_are_refused(self, keys: tuple[str, str]) -> None:
        with pytest.raises(ModelError):
            json_form.from_id2label(dict.fromkeys(keys, "x"))

    def test_a_known_list_gets_its_ids(self) -> None:
        one = labels.load("imagenet-1k")
        assert json_form.from_id2label({str(i): lemma for i, lemma in enumerate(one.lemmas)}) is one
        names = {i: lemma.split(", ")[0] for i, lemma in enumerate(one.lemmas)}
        assert json_form.from_id2label(names) is one
        found = json_form.from_id2label({**names, 3: "my own shark"})
        assert found is not None and found.ids == one.ids
        assert found.names[3] == "my own shark" and found.names[134] == "crane (bird)"

    def test_another_order_is_not_mistaken_for_a_known_list(self) -> None:
        lemmas = labels.load("imagenet-1k").lemmas
        found = json_form.from_id2label({i: lemmas[999 - i] for i in range(1000)})
        assert found is not None and found.ids == (None,) * 1000
        assert found[999].name == "tench, Tinca tinca"

    def test_folders_named_by_id(self) -> None:
        found = json_form.from_id2label({0: "n02123045", 1: TEDDY, 2: PICTURE})
        assert found is not None and found.names == ("tabby", "teddy", "picture") and found.ids[1] == TEDDY

    def test_the_22k_list_with_two_holes(self) -> None:
        google = labels.load("imagenet-21k").lemmas
        holed = {str(i): lemma for i, lemma in enumerate(google) if i not in (9205, 15027)}
        assert len(holed) == 21841 and max(map(int, holed)) == 21842
        found = json_form.from_id2label(holed)
        assert found is labels.load("imagenet-22k")
        assert [found.lemmas[j] for j in (9204, 9205, 15025, 15026)] == [google[k] for k in (9204, 9206, 15026, 15028)]


class TestList:
    def test_one_name_a_line(self, base: LabelSet, write) -> None:
        found = labels.read(write("a\nb\nc, d\ne\nf\n\n"), base)
        assert found.names == ("a", "b", "c, d", "e", "f") and found.groups is None
        assert found.ids == base.ids and found.name == "names.txt"

    @pytest.mark.parametrize("text", ["﻿ä\r\nb\r\nc\r\nd\r\ne\r\n", "ä\rb\rc\rd\re", '["ä", "b", "c", "d", "e"]'])
    def test_marks_and_line_ends(self, text: str, base: LabelSet, write) -> None:
        assert labels.read(write(text), base).names == ("ä", "b", "c", "d", "e")

    def test_namesakes_in_another_language(self, write) -> None:
        one = labels.load("imagenet-1k")
        words = [f"Wort {i}" for i in range(1000)]
        words[281] = words[282] = "Katze"
        words[134] = words[517] = "crane"
        found = labels.read(write("\n".join(words)), one)
        assert (found.names[281], found.names[282]) == ("Katze (tabby)", "Katze (tiger cat)")
        assert (found.names[134], found.names[517]) == ("crane (bird)", "crane (machine)")
        assert found[281].id == "n02123045" and found[281].lemma == "tabby, tabby cat"

    def test_a_known_list_gives_ids_to_nameless_classes(self, write) -> None:
        text = "\n".join(lemma.split(", ")[0] for lemma in labels.load("imagenet-1k").lemmas)
        found = labels.read(write(text), LabelSet.numbered(1000))
        assert found.ids == labels.load("imagenet-1k").ids and found.names[517] == "crane (machine)"

    def test_a_list_of_ids(self, write) -> None:
        found = labels.read(write("n02123045\nn02123159\n"), LabelSet.numbered(2))
        assert found.names == ("tabby", "tiger cat") and found.ids == ("n02123045", "n02123159")

    def test_a_line_may_hide(self, base: LabelSet, write) -> None:
        found = labels.read(write("a\n-\nb\n\nc\n"), base)
        assert found.names == ("a", "b", "c") and found.groups == ((0,), (2,), (4,))

    @pytest.mark.parametrize("text", ["a\nb\nc\nd\n", "a\nb\nc\nd\ne\nf", '["a"]', "{}", "[]"])
    def test_a_wrong_count_is_refused(self, text: str, base: LabelSet, write) -> None:
        with pytest.raises(ModelError, match="5 classes"):
            labels.read(write(text), base)


class TestMapping:
    @pytest.mark.parametrize(
        ("name", "text"),
        [
            ("a.json", '{"0": "cat", "n00000001": "cat", "beagle": "dog", "3": ""}'),
            ("a.json", '{"id2label": {"0": "cat", "1": "cat", "2": "dog", "3": "-"}}'),
            ("a.txt", "{0: 'cat', 1: 'cat', 2: 'dog', 3: None}"),
            ("a.csv", "0,cat\n1,cat\n2,dog\n3,-\n"),
            ("a.csv", "index,name\r\n0,cat\r\nn00000001,cat\r\nBeagle,dog\r\n3,\r\n"),
            ("a.csv", 'label;class\n"cat";0\ncat;1\ndog;2\n-;3\n'),
            ("a.csv", "class,wnid,name\n0,n0,cat\n1,n1,cat\n2,n2,dog\n3,n3,-\n"),
            ("a.tsv", "tabby\tcat\ntiger cat\tcat\n2\tdog\n003\t-\n"),
            ("a.txt", "0\tcat\n1\tcat\n2\tdog\n3\t-\n"),
            ("a.txt", "n00000000 cat\nn00000001 cat\nn00000002 dog\nn00000003 -\n"),
            ("a.json", '{"0": ["n00000000", "cat"], "1": ["n00000001", "cat"], "2": "dog", "3": ""}'),
        ],
    )
    def test_merge_hide_and_keep(self, name: str, text: str, base: LabelSet, write) -> None:
        found = labels.read(write(text, name), base)
        assert found.names == ("cat", "dog", "crane (n00000004)")
        assert found.groups == ((0, 1), (2,), (4,))
        assert len(found) == 5 and found.ids == base.ids
        assert [label.name for label in found] == ["cat", "cat", "dog", "", "crane (n00000004)"]

    def test_a_name_that_another_class_has_already(self, base: LabelSet, write) -> None:
        assert labels.read(write({"1": "tabby"}), base).groups == ((0, 1), (2,), (3,), (4,))

    def test_new_names_alone_make_no_groups(self, base: LabelSet, write) -> None:
        found = labels.read(write({"1": "my cat"}), base)
        assert found.groups is None and found.names[1] == "my cat"

    @pytest.mark.parametrize("line", ["{0},name{0}", "{0} name{0}", "{0}: name{0}", "{0:03};name{0}"])
    def test_lines_that_begin_with_the_number(self, line: str, base: LabelSet, write) -> None:
        text = "\n".join(line.format(i) for i in reversed(range(5)))
        assert labels.read(write(text), base).names == tuple(f"name{i}" for i in range(5))
        found = labels.read(write("\n".join(line.format(i) for i in (3, 1))), base)
        assert found.names == ("tabby", "name1", "beagle", "name3", "crane (n00000004)")

    def test_lines_that_begin_with_the_id(self, base: LabelSet, write) -> None:
        text = "n00000001,goldfish, gold\nn00000000,\n"
        assert labels.read(write(text), base).names[0] == "goldfish, gold"

    def test_lines_that_count_from_one_are_no_names(self, base: LabelSet, write) -> None:
        with pytest.raises(ModelError, match="is called '5'"):
            labels.read(write("1 a\n2 b\n3 c\n4 d\n5 e"), base)

    def test_names_may_begin_with_numbers(self, base: LabelSet, write) -> None:
        names = ("101 dalmatians", "7 dwarfs", "3 series", "5 series", "2 euros")
        assert labels.read(write("\n".join(names)), base).names == names

    @pytest.mark.parametrize("key", ["label2id", "class_to_idx"])
    def test_wrapped_numbers(self, key: str, base: LabelSet, write) -> None:
        content = {key: {f"name {i}": i for i in range(5)}, "extra": 1}
        assert labels.read(write(content), base).names[4] == "name 4"

    @pytest.mark.parametrize("key", ["names", "classes", "id2label"])
    def test_wrapped_lists(self, key: str, base: LabelSet, write) -> None:
        assert labels.read(write({key: list("abcde")}), base).names == tuple("abcde")

    def test_class_to_idx_of_folders_named_by_id(self, write) -> None:
        folders = {"n02123045": 1, "n01443537": 0}
        for content in (folders, {"class_to_idx": folders}):
            found = labels.read(write(content), LabelSet.numbered(2))
            assert (found.names, found.ids) == (("goldfish", "tabby"), ("n01443537", "n02123045"))
        some = labels.read(write(folders), LabelSet.numbered(3))
        assert some.names == ("goldfish", "tabby", "class_2")

    def test_label2id(self, base: LabelSet, write) -> None:
        assert labels.read(write({"x": 0, "y": 4}), base).names == (
            "x", "tiger cat", "beagle", "crane (n00000003)", "y",
        )  # fmt: skip

    def test_a_published_map_does_not_merge_namesakes(self, write) -> None:
        one = labels.load("imagenet-1k")
        given = {str(i): lemma for i, lemma in enumerate(one.lemmas)}
        for start in (one, LabelSet.numbered(1000)):
            found = labels.read(write(given), start)
            assert found.groups is None and found.names[134] == "crane (bird)" and found.ids == one.ids

    def test_the_22k_list_with_two_holes(self, write) -> None:
        base, google = labels.load("imagenet-22k"), labels.load("imagenet-21k").lemmas
        holed = {str(i): lemma for i, lemma in enumerate(google) if i not in (9205, 15027)}
        found = labels.read(write(holed, "a.json"), base)
        assert found.names[9205] == "picture frame" and found.names[-1] == "knothole" and found.groups is None

    def test_files_stack(self, base: LabelSet, write) -> None:
        first = labels.read(write({"0": "cat", "1": "cat", "2": "-"}), base)
        second = labels.read(write({"3": "bird", "4": "bird"}), first)
        assert second.names == ("cat", "bird") and second.groups == ((0, 1), (3, 4))

    @pytest.mark.parametrize(
        ("text", "message", "hint"),
        [
            ('{"5": "x"}', "is called '5'", "from 0 to 4"),
            ('{"n02123045": "x"}', "is called 'n02123045'", "WordNet id"),
            ('{"beagel": "x"}', "is called 'beagel'", "did you mean beagle"),
            ('{"crane": "x"}', "'crane' names several classes", "id or number"),
            ('{"0": "x", "0": "y"}', "occurs twice", "once"),
            ('{"0": "x", "tabby": "y"}', "two names, 'x' and 'y'", "once"),
            ('{"a": 0, "b": 0}', "same number", "number"),
            ('{"0": {"name": "x"}}', "not a name", "strings"),
            ('{"0": "-", "1": "", "2": "-", "3": "-", "4": "-"}', "hides every class", "at least one"),
            ('{"0": "x"', "not JSON", "list of names"),
            ('{"' + "1" * 5000 + '": "x"}', "is called '111", "from 0 to 4"),
            ("{0x" + "f" * 5000 + ": 'x'}", "not JSON", "list of names"),
        ],
    )
    def test_refusals(self, text: str, message: str, hint: str, base: LabelSet, write) -> None:
        with pytest.raises(ModelError, match=message) as error:
            labels.read(write(text), base)
        assert hint in str(error.value.hint)

    @pytest.mark.parametrize(
        "content",
        [
            {"0": ["x" * 5000] * 200},
            {"0": {str(i): "x" for i in range(200)}},
            {"1" * 5000: "x"},
            {"x" * 5000: "x"},
            {"0": "x" * 5000, "tabby": "y" * 5000},
        ],
    )
    def test_messages_stay_short(self, content: object, tmp_path: Path, base: LabelSet, write) -> None:
        with pytest.raises(ModelError) as error:
            labels.read(write(content), base)
        assert len(str(error.value).replace(str(tmp_path), "")) < 300

    def test_a_misspelt_set_is_told_the_near_ones(self, base: LabelSet) -> None:
        with pytest.raises(ModelError, match="imagenet1k cannot be read") as error:
            labels.read("imagenet1k", base)
        assert "a bundled set: imagenet-1k" in str(error.value.hint)

    @pytest.mark.parametrize(
        ("text", "message"),
        [
            ("0,tench, Tinca tinca\n1,b\n", "line 2: the number of columns"),
            ("0,a,b\n1,c,d\n", "3 columns"),
            ('0,"a\n', "not a table"),
            ("index,name\n7,b\n", "line 2: none of the 5 classes is called '7'"),
        ],
    )
    def test_tables_that_do_not_fit(self, text: str, message: str, base: LabelSet, write) -> None:
        with pytest.raises(ModelError, match=message):
            labels.read(write(text, "a.csv"), base)


class TestParents:
    """The broader groups of classes, in a column of a table."""

    def test_names_stay(self, base: LabelSet, write) -> None:
        result = labels.read(write("parent,class\nsea/fish,tabby\nsea,2\n", "tree.csv"), base)
        assert result.parents is not None
        assert result.parents[:3] == (("sea", "fish"), (), ("sea",))
        assert dataclasses.replace(result, parents=None, name=base.name) == base

    @pytest.mark.parametrize("header", ["class,name,parent", "index,parent,name", "parent,id,label"])
    def test_names_and_parents(self, header: str, base: LabelSet, write) -> None:
        cells = {"parent": "a/b", "name": "X", "label": "X"}
        line = ",".join(cells.get(word, "0" if word != "id" else str(base.ids[0])) for word in header.split(","))
        result = labels.read(write(f"{header}\n{line}\n", "tree.csv"), base)
        assert result[0].name == "X" and result.parents is not None and result.parents[0] == ("a", "b")

    def test_the_name_column_may_be_the_key(self, base: LabelSet, write) -> None:
        result = labels.read(write(f"name,parent\n{base[3].name},a / b\n{base[4].name},\n", "tree.csv"), base)
        assert result.parents is not None and result.parents[3:5] == (("a", "b"), ())

    def test_json_and_selections_keep_them(self, base: LabelSet, write) -> None:
        result = labels.read(write("class;parent\n0;a\n1;a\n", "tree.csv"), base)
        assert json_form.from_dict(json.loads(json.dumps(json_form.to_dict(result)))) == result
        assert labels.select([base[0].name], result).parents == result.parents
        again = labels.read(write("class,name\n1,eins\n", "german.csv"), result)
        assert again.parents == result.parents

    @pytest.mark.parametrize(
        ("text", "message"),
        [("class,parent\n0,a//b\n", "is not a parent"), ("class,parent\n0,a\n0,b\n", "two parents")],
    )
    def test_refusals(self, text: str, message: str, base: LabelSet, write) -> None:
        with pytest.raises(ModelError, match=message):
            labels.read(write(text, "tree.csv"), base)

    @pytest.mark.parametrize("parents", [["a"], [["a"], [""]], [["a"], [1]], [[], [], []], 5])
    def test_damaged_json(self, parents: object) -> None:
        with pytest.raises((TypeError, ValueError)):
            json_form.from_dict({"name": "own", "names": ["a", "b"], "lemmas": ["a", "b"], "parents": parents})


class TestBytes:
    @pytest.mark.parametrize(
        ("content", "message"),
        [
            ("naïve".encode("latin-1"), "not UTF-8"),
            ("names".encode("utf-16"), "not UTF-8"),
            (b"a\0b", "not text"),
            (b" \n\n", "empty"),
            (b"x" * (64 * 2**20 + 1), "too large"),
        ],
    )
    def test_unreadable(self, content: bytes, message: str, base: LabelSet, write) -> None:
        with pytest.raises(ModelError, match=message) as error:
            labels.read(write(content), base)
        assert error.value.hint

    def test_missing_and_folder(self, tmp_path: Path, base: LabelSet) -> None:
        for path in (tmp_path, tmp_path / "none.txt"):
            with pytest.raises(ModelError, match="cannot be read"):
                labels.read(path, base)

    @settings(max_examples=300)
    @given(
        st.one_of(
            st.binary(max_size=60),
            st.text('[]{}":,\n\t-n0123 abc', max_size=60).map(str.encode),
            st.recursive(
                st.one_of(st.none(), st.booleans(), st.integers(), st.text(max_size=4)),
                lambda inner: st.lists(inner, max_size=5) | st.dictionaries(st.sampled_from("01234a"), inner),
            ).map(lambda value: json.dumps(value).encode()),
        ),
        st.sampled_from([".txt", ".csv", ".tsv", ".json"]),
    )
    def test_any_bytes_give_a_set_or_a_hint(self, tmp_path_factory, content: bytes, suffix: str) -> None:
        path = tmp_path_factory.getbasetemp() / f"any{suffix}"
        path.write_bytes(content)
        base = LabelSet.from_names("x", list("abcde"))
        try:
            found = labels.read(path, base)
        except ModelError as error:
            assert error.hint
        else:
            assert len(found) == 5 and 1 <= len(found.names) <= 5

    @given(st.lists(st.sampled_from(["cat", "dog", "-", "", "a", "b"]), min_size=5, max_size=5))
    def test_every_row_is_in_one_group_or_hidden(self, tmp_path_factory, names: list[str]) -> None:
        path = tmp_path_factory.getbasetemp() / "groups.json"
        path.write_text(json.dumps(dict(enumerate(names))))
        base = LabelSet.from_names("x", list("vwxyz"))
        if not any(name not in ("-", "") for name in names):
            with pytest.raises(ModelError):
                labels.read(path, base)
            return
        found = labels.read(path, base)
        assert [label.name for label in found] == ["" if name == "-" else name for name in names]
        rows = [row for group in found.groups or [(i,) for i in range(5)] for row in group]
        assert sorted(rows) == [row for row, name in enumerate(names) if name not in ("-", "")]


class TestWordNet:
    def test_a_tabby_is_a_cat_is_an_animal(self) -> None:
        found = wordnet.ancestors("n02123045")
        assert found[:2] == ("n02121808", "n02121620") and found[-1] == "n00001740"
        assert wordnet.lemma("n02121620") == "cat, true cat" and wordnet.lemma("n00001740") == "entity"
        assert "n00015388" in found and "n02123045" not in found

    def test_down_is_up_turned_over(self) -> None:
        dogs = wordnet.descendants("n02084071")
        assert len(dogs) == len(set(dogs)) > 150
        assert all("n02084071" in wordnet.ancestors(dog) for dog in dogs)
        assert set(wordnet.children("n02084071")) <= set(dogs)
        assert wordnet.children("n02123045") == ()

    def test_every_class_hangs_on_the_tree(self) -> None:
        below = {"n00001740", *wordnet.descendants("n00001740")}
        assert {row.id for row in bundled.rows()} < below
        assert wordnet.parents("n00001740") == ()

    def test_an_unknown_id(self) -> None:
        for ask in (wordnet.parents, wordnet.ancestors, wordnet.descendants, wordnet.lemma):
            with pytest.raises(ModelError, match="n99999999"):
                ask("n99999999")


class TestDocs:
    """docs/labels.md says what is so."""

    text = (Path(__file__).parent.parent.parent / "docs" / "labels.md").read_text("utf-8")

    def test_table(self) -> None:
        rows = [[cell.strip() for cell in line.split("|")[1:3]] for line in self.text.splitlines() if "| `" in line]
        assert rows == [[f"`{name}`", str(size)] for name, size in SIZES.items()]

    def test_csv_example(self, write) -> None:
        example = self.text.split("```csv\n")[1].split("```")[0]
        found = labels.read(write(example, "own.csv"), labels.load("imagenet-1k"))
        assert found.groups is not None and (281, 282, 285) in found.groups
        assert found[285].name == "cat" and found[850].name == "" and found[0].name == "tench"

    def test_python_example(self, capsys: pytest.CaptureFixture[str]) -> None:
        example = self.text.split("```python\n")[1].split("```")[0]
        exec(compile(example, "docs/labels.md", "exec"), {})
        said = [line.split("# ")[1] for line in example.splitlines() if "# " in line]
        assert capsys.readouterr().out.splitlines() == said

    def test_figures(self) -> None:
        found = labels.load("imagenet-21k")
        assert f"for {sum(label.name.endswith(f'({label.id})') for label in found)} classes of 21k" in self.text
        keys = [bundled.sense_key(lemma.split(", ")[0]) for lemma in found.lemmas]
        shared = sum(times > 1 for times in Counter(keys).values())
        assert f"{shared:,} of them are shared in 21k" in self.text
