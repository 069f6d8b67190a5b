"""Labelled data in each of its forms: the same photos, classes and splits, and what is wrong with them, by name."""

from __future__ import annotations

import json
import threading
import zipfile
from collections import Counter
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from convnext_cli.base.errors import ModelError, PhotoError, UnavailableError, UsageError
from convnext_cli.datasets import Dataset, LabelledPhoto, hf_parquet, open_data, problems, split
from tests.helpers.photos import encoded, picture


def photo(seed: int = 0, form: str = "PNG") -> bytes:
    return encoded(picture(20, 16, seed=seed), form)


def place(folder: Path, *names: str) -> Path:
    """Different photos under these names."""
    for seed, name in enumerate(names):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(photo(seed))
    return folder


def zipped(path: Path, members: dict[str, bytes]) -> Path:
    with zipfile.ZipFile(path, "w") as file:
        for name, data in members.items():
            file.writestr(name, data)
    return path


def parquet(path: Path, rows: list[dict[str, Any]], names: list[str] | None = None, group: int = 2) -> Path:
    """Hugging Face's image layout."""
    table = pa.Table.from_pylist(rows)
    if names is not None:
        features = {"image": {"_type": "Image"}, "label": {"_type": "ClassLabel", "names": names}}
        table = table.replace_schema_metadata({"huggingface": json.dumps({"info": {"features": features}})})
    pq.write_table(table, path, row_group_size=group)
    return path


def rows(labels: list[Any]) -> list[dict[str, Any]]:
    return [{"image": {"bytes": photo(i), "path": f"{i}.png"}, "label": label} for i, label in enumerate(labels)]


def seen(dataset: Dataset) -> list[tuple[str, str | None, str | None]]:
    """Name, label and split of each photo."""
    return [(Path(photo.path).name, photo.label, photo.split) for photo in dataset.photos]


def kinds(dataset: Dataset) -> dict[str, tuple[str, ...]]:
    return {problem.kind: problem.names for problem in problems.by_name(dataset)}


class TestFolders:
    def test_class_folders(self, tmp_path: Path) -> None:
        place(tmp_path, "dog/b.png", "cat/x/a.png", "dog/a.png")
        (tmp_path / "dog" / "notes.txt").write_text("no photo")
        dataset = open_data(str(tmp_path))
        assert seen(dataset) == [("a.png", "cat", None), ("a.png", "dog", None), ("b.png", "dog", None)]
        assert (dataset.form, dataset.classes, dataset.splits()) == ("folders", ("cat", "dog"), ())
        assert dataset.passed_over == {".txt": 1}
        assert dataset.read(dataset.photos[1]) == (tmp_path / "dog" / "a.png").read_bytes()

    def test_split_folders_by_any_of_their_names(self, tmp_path: Path) -> None:
        place(tmp_path, "Training/dog/a.png", "valid/dog/b.png", "test/cat/c.png")
        dataset = open_data(str(tmp_path))
        assert seen(dataset) == [("a.png", "dog", "train"), ("c.png", "cat", "test"), ("b.png", "dog", "val")]
        assert dataset.splits() == ("train", "val", "test")
        assert [photo.label for photo in dataset.of("val")] == ["dog"]

    def test_one_split_alone(self, tmp_path: Path) -> None:
        assert open_data(str(place(tmp_path, "val/dog/a.png", "val/cat/b.png"))).splits() == ("val",)

    @pytest.mark.parametrize("names", [["train/a.png", "car/b.png"], ["train/steam/a.png", "car/b.png"]])
    def test_a_class_may_be_called_train(self, tmp_path: Path, names: list[str]) -> None:
        assert {photo.label for photo in open_data(str(place(tmp_path, *names))).photos} == {"train", "car"}

    def test_a_folder_beside_the_splits_is_named(self, tmp_path: Path) -> None:
        place(tmp_path, "train/dog/a.png", "test/dog/b.png", "old/dog/c.png")
        dataset = open_data(str(tmp_path))
        assert [name for name, _, _ in seen(dataset)] == ["b.png", "a.png"]
        assert kinds(dataset)["folder_aside"] == ("old",)

    def test_a_photo_in_no_class_folder_has_no_label(self, tmp_path: Path) -> None:
        dataset = open_data(str(place(tmp_path, "a.png", "dog/b.png")))
        assert seen(dataset) == [("a.png", None, None), ("b.png", "dog", None)]
        assert kinds(dataset)["no_label"] == (str(tmp_path / "a.png"),)

    def test_linked_class_folders_are_gone_into(self, tmp_path: Path) -> None:
        place(tmp_path / "elsewhere", "a.png")
        (tmp_path / "data" / "back").mkdir(parents=True)
        (tmp_path / "data" / "dog").symlink_to(tmp_path / "elsewhere")
        (tmp_path / "data" / "back" / "circle").symlink_to(tmp_path / "data")
        dataset = open_data(str(tmp_path / "data"))
        assert ("a.png", "dog", None) in seen(dataset)

    @pytest.mark.parametrize("given", [".", "./", "../data"])
    def test_however_the_folder_is_written(self, tmp_path: Path, given: str, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.chdir(place(tmp_path / "data", "dog/a.png", "cat/b.png"))
        assert seen(open_data(given)) == [("b.png", "cat", None), ("a.png", "dog", None)]

    def test_no_photo(self, tmp_path: Path) -> None:
        (tmp_path / "dog").mkdir()
        with pytest.raises(ModelError, match="there is no photo in"):
            open_data(str(tmp_path))


class TestZip:
    def test_like_the_folder_that_was_packed(self, tmp_path: Path) -> None:
        files = {"train/dog/a.png": photo(1), "val/dog/b.png": photo(2), "val/cat/no suffix": photo(3)}
        dataset = open_data(str(zipped(tmp_path / "data.zip", files | {"README.txt": b"words", "val/owl/": b""})))
        assert seen(dataset) == [("a.png", "dog", "train"), ("no suffix", "cat", "val"), ("b.png", "dog", "val")]
        assert dataset.classes == ("cat", "dog", "owl")
        assert dataset.photos[0].path == f"{tmp_path}/data.zip/train/dog/a.png"
        assert dataset.passed_over == {".txt": 1}
        assert [shown.data for shown in dataset.stream(dataset.photos)] == [photo(1), photo(3), photo(2)]

    def test_a_folder_around_everything_does_not_count(self, tmp_path: Path) -> None:
        files = {"pets/dog/a.png": photo(1), "pets/cat/b.png": photo(2), "__MACOSX/pets/dog/._a.png": b"x"}
        assert open_data(str(zipped(tmp_path / "a.zip", files))).classes == ("cat", "dog")
        assert open_data(str(zipped(tmp_path / "c.zip", {"val/dog/x/a.png": photo(1)}))).splits() == ("val",)
        deeper = {"pets/train/dog/a.png": photo(1), "pets/test/dog/b.png": photo(2)}
        assert open_data(str(zipped(tmp_path / "b.zip", deeper))).splits() == ("train", "test")

    def test_a_damaged_member_is_one_bad_photo(self, tmp_path: Path) -> None:
        path = zipped(tmp_path / "data.zip", {"dog/a.png": photo(1), "dog/b.png": photo(2), "dog/c.png": b""})
        path.write_bytes(path.read_bytes().replace(photo(1)[40:60], bytes(20)))
        dataset = open_data(str(path))
        first, second, third = dataset.stream(dataset.photos)
        assert (first.problem.kind, second.data, third.problem.kind) == ("corrupt", photo(2), "empty")

    def test_an_encrypted_member_says_so(self, tmp_path: Path) -> None:
        path = zipped(tmp_path / "data.zip", {"dog/a.png": photo(1)})
        data = bytearray(path.read_bytes())
        data[data.index(b"PK\x01\x02") + 8] |= 1
        path.write_bytes(data)
        dataset = open_data(str(path))
        with pytest.raises(PhotoError, match="encrypted"):
            dataset.read(dataset.photos[0])

    @pytest.mark.parametrize(
        ("data", "said"),
        [
            (b"PK\x03\x04 and then nothing", "cannot be read as a zip"),
            (b"just words\n", "cannot be read as a zip"),
            (b"", "is empty"),
            (None, "no photo"),
        ],
    )
    def test_what_is_no_data(self, tmp_path: Path, data: bytes | None, said: str) -> None:
        path = zipped(tmp_path / "data.zip", {"a.txt": b"words"})
        if data is not None:
            path.write_bytes(data)
        with pytest.raises(ModelError, match=said):
            open_data(str(path))

    def test_words_called_parquet(self, tmp_path: Path) -> None:
        (tmp_path / "data.parquet").write_text("path,label\na.png,dog\n")
        with pytest.raises(ModelError, match="cannot be read as parquet"):
            open_data(str(tmp_path / "data.parquet"))


class TestTable:
    @pytest.mark.parametrize(
        "text",
        [
            "path,label\na.png,dog\nb c.png,big cat\n",
            "a.png,dog\nb c.png,big cat\n",
            "\ufefflabel;file_name\ndog;a.png\nbig cat;b c.png\n",
            'id,filename,class\n1,a.png,dog\n2,"b c.png",big cat\n\n',
            "a.png, dog\r\nb c.png, big cat\r\n",
            "Bild,Tier\na.png,dog\nb c.png,big cat\n",
        ],
        ids=["header", "none", "semicolon", "more columns", "spaces", "other words"],
    )
    def test_columns(self, tmp_path: Path, text: str) -> None:
        place(tmp_path, "a.png", "b c.png")
        (tmp_path / "data.csv").write_text(text)
        dataset = open_data(str(tmp_path / "data.csv"))
        assert seen(dataset) == [("a.png", "dog", None), ("b c.png", "big cat", None)]
        assert dataset.read(dataset.photos[1]) == (tmp_path / "b c.png").read_bytes()
        assert dataset.classes == ("big cat", "dog")

    def test_splits_and_tabs(self, tmp_path: Path) -> None:
        (tmp_path / "data.tsv").write_text(
            "path\tlabel\tsplit\na,b.png\tdog\tTrain\nc.png\tdog\tvalidation\nd.png\t\t\n"
        )
        dataset = open_data(str(tmp_path / "data.tsv"))
        assert seen(dataset) == [("a,b.png", "dog", "train"), ("c.png", "dog", "val"), ("d.png", None, None)]

    def test_paths_lead_from_the_table_then_from_here(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        place(tmp_path, "tables/a.png", "a.png", "b.png")
        (tmp_path / "tables" / "data.csv").write_text(f"a.png,x\nb.png,x\n{tmp_path}/a.png,x\ngone.png,x\n")
        monkeypatch.chdir(tmp_path)
        dataset = open_data("tables/data.csv")
        assert [p.path for p in dataset.photos] == ["tables/a.png", "b.png", f"{tmp_path}/a.png", "tables/gone.png"]
        assert kinds(dataset)["wrong_path"] == ("tables/gone.png",)

    def test_a_path_that_is_not_utf8(self, tmp_path: Path) -> None:
        name = b"caf\xe9.png".decode("utf-8", "surrogateescape")
        (tmp_path / name).write_bytes(photo(1))
        (tmp_path / "data.csv").write_bytes(b"path,label\ncaf\xe9.png,dog\n")
        dataset = open_data(str(tmp_path / "data.csv"))
        assert dataset.read(dataset.photos[0]) == photo(1)

    def test_parquet(self, tmp_path: Path) -> None:
        place(tmp_path, "a.png")
        columns = {"label": [3, 4], "split": ["train", "test"], "path": ["a.png", "b.png"]}
        pq.write_table(pa.table(columns), tmp_path / "data.parquet")
        dataset = open_data(str(tmp_path / "data.parquet"))
        assert dataset.form == "table"
        assert seen(dataset) == [("a.png", "3", "train"), ("b.png", "4", "test")]

    @pytest.mark.parametrize(
        ("text", "said"),
        [
            ("path,label,split\na.png,dog,fold 1\n", "line 2: 'fold 1' is not a split"),
            ("path,a,b,c\nx.png,1,2,3\n", "no column 'label'; its columns are path, a, b, c"),
            ("path,label\nx.png\n", "line 2: there are only 1 columns"),
            ("path,label\n", "lists no photos"),
            ("just words\n", "no column"),
            ("", "is empty"),
            ("\0\1\2", "not labelled data"),
        ],
    )
    def test_what_is_no_table(self, tmp_path: Path, text: str, said: str) -> None:
        (tmp_path / "data.csv").write_text(text)
        with pytest.raises(ModelError, match=said):
            open_data(str(tmp_path / "data.csv"))


class TestHuggingFace:
    def test_names_come_from_the_metadata(self, tmp_path: Path) -> None:
        path = parquet(tmp_path / "validation-00000-of-00001.parquet", rows([1, 0, -1]), ["dog", "cat", "owl"])
        dataset = open_data(str(path))
        assert dataset.classes == ("dog", "cat", "owl")  # in their own order
        assert seen(dataset) == [("0.png", "cat", "val"), ("1.png", "dog", "val"), ("2.png", None, "val")]
        assert dataset.photos[2].path == f"{path}/2/2.png"
        assert [shown.data for shown in dataset.stream(dataset.photos)] == [photo(0), photo(1), photo(2)]
        found = kinds(dataset)
        assert (found["no_label"], found["empty_class"]) == ((f"{path}/2/2.png",), ("owl",))

    def test_a_folder_of_files(self, tmp_path: Path) -> None:
        (tmp_path / "data").mkdir()
        for name in ("train-00000-of-00002", "train-00001-of-00002", "test-00000-of-00001"):
            parquet(tmp_path / "data" / f"{name}.parquet", rows([0, 1]), ["a", "b"])
        dataset = open_data(str(tmp_path))
        assert Counter(photo.split for photo in dataset.photos) == {"train": 4, "test": 2}
        shards = sorted(str(path) for path in (tmp_path / "data").glob("train*"))
        assert len(open_data(shards).photos) == 4

    def test_without_metadata(self, tmp_path: Path) -> None:
        assert open_data(str(parquet(tmp_path / "a.parquet", rows([7, 10])))).classes == ("10", "7")
        plain = [{"img": photo(1), "label": "dog"}]
        dataset = open_data(str(parquet(tmp_path / "b.parquet", plain)))
        assert dataset.classes == ("dog",) and dataset.read(dataset.photos[0]) == photo(1)

    def test_a_row_without_bytes_is_one_bad_photo(self, tmp_path: Path) -> None:
        data = [{"image": {"bytes": None, "path": "a.png"}, "label": 0}, *rows([0])]
        dataset = open_data(str(parquet(tmp_path / "a.parquet", data, ["dog"])))
        first, second = dataset.stream(dataset.photos)
        assert (first.problem.kind, second.data) == ("empty", photo(0))

    def test_each_row_group_is_read_once_and_few_are_kept(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(hf_parquet, "_KEPT", 3 * len(photo()))
        dataset = open_data(str(parquet(tmp_path / "a.parquet", rows([0] * 20), ["dog"])))
        read, source = [], dataset.source
        group = pq.ParquetFile.read_row_group
        monkeypatch.setattr(pq.ParquetFile, "read_row_group", lambda *a, **k: read.append(a[1]) or group(*a, **k))
        assert [len(shown.data) for shown in dataset.stream(dataset.photos)] == [len(photo(i)) for i in range(20)]
        assert read == list(range(10))
        assert isinstance(source, hf_parquet.ParquetSource) and len(source._kept) == 1

    def test_threads_read_at_random(self, tmp_path: Path) -> None:
        dataset = open_data(str(parquet(tmp_path / "a.parquet", rows([0] * 30), ["dog"])))
        found: dict[int, bytes] = {}

        def read(numbers: range) -> None:
            for number in numbers:
                found[number] = dataset.read(dataset.photos[number])

        threads = [threading.Thread(target=read, args=(range(start, 30, 3),)) for start in (2, 0, 1)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert found == {number: photo(number) for number in range(30)}

    def test_what_does_not_belong_together(self, tmp_path: Path) -> None:
        one = parquet(tmp_path / "a.parquet", rows([0]), ["dog"])
        two = parquet(tmp_path / "b.parquet", rows([0]), ["cat"])
        with pytest.raises(ModelError, match=r"b\.parquet has other columns or classes"):
            open_data([str(one), str(two)])
        with pytest.raises(UsageError, match="several at a time"):
            open_data([str(one), str(tmp_path)])

    def test_several_columns_of_classes(self, tmp_path: Path) -> None:
        features = {
            "img": {"_type": "Image"},
            **{n: {"_type": "ClassLabel", "names": ["a"]} for n in ("fine", "coarse")},
        }
        table = pa.Table.from_pylist([{"img": {"bytes": photo(), "path": None}, "fine": 0, "coarse": 0}])
        meta = {"huggingface": json.dumps({"info": {"features": features}})}
        pq.write_table(table.replace_schema_metadata(meta), tmp_path / "a.parquet")
        with pytest.raises(ModelError, match="several columns of classes: fine, coarse"):
            open_data(str(tmp_path / "a.parquet"))

    def test_damaged(self, tmp_path: Path) -> None:
        path = parquet(tmp_path / "a.parquet", rows([0]), ["dog"])
        path.write_bytes(path.read_bytes()[:-20])
        with pytest.raises(ModelError, match="cannot be read as parquet"):
            open_data(str(path))

    def test_without_pyarrow(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        path = parquet(tmp_path / "a.parquet", rows([0]), ["dog"])
        monkeypatch.setitem(__import__("sys").modules, "pyarrow", None)
        with pytest.raises(UnavailableError, match="needs pyarrow") as error:
            open_data(str(path))
        assert error.value.hint == "pip install pyarrow"


def test_what_is_not_there_and_what_is_a_photo(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="'gone' does not exist"):
        open_data("gone")
    (tmp_path / "a.png").write_bytes(photo())
    with pytest.raises(ModelError, match="a single photo"):
        open_data(str(tmp_path / "a.png"))


class TestProblems:
    def test_all_that_names_tell(self, tmp_path: Path) -> None:
        names = [*(f"train/dog/{i}.png" for i in range(3)), "train/Dog /x.png", "train/owl/a.png", "test/dog/y.png"]
        place(tmp_path, *names)
        (tmp_path / "train" / "newt").mkdir()
        found = kinds(open_data(str(tmp_path)))
        assert found == {
            "alike_names": ("'Dog ' = 'dog'",),
            "empty_class": ("newt",),
            "one_photo_class": ("Dog ", "owl"),
            "missing_in_split": ("Dog ", "owl"),
        }

    def test_nothing_wrong(self, tmp_path: Path) -> None:
        assert problems.by_name(open_data(str(place(tmp_path, "a/1.png", "a/2.png", "b/1.png", "b/2.png")))) == []

    def test_one_line_with_the_first_names(self) -> None:
        few = problems.Problem("empty_class", "2 classes have no photo", ("a", "b"))
        many = problems.Problem("empty_class", "7 classes have no photo", tuple("abcdefg"))
        assert str(few) == "2 classes have no photo: a, b"
        assert str(many) == "7 classes have no photo: a, b, c, d, e and 2 more"

    @pytest.mark.parametrize("threads", [1, 3])
    def test_bad_photos_by_decoding(self, tmp_path: Path, threads: int) -> None:
        place(tmp_path, *(f"dog/{i:02}.png" for i in range(20)))
        (tmp_path / "dog" / "03.png").write_bytes(photo()[:-30])
        (tmp_path / "dog" / "11.png").write_bytes(b"words")
        dataset, told = open_data(str(tmp_path)), list[int]()
        bad = problems.bad_photos(dataset, dataset.photos, threads=threads, progress=told.append)
        assert [(Path(p.path).name, e.kind) for p, e in bad] == [("03.png", "truncated"), ("11.png", "not_an_image")]
        assert told == list(range(1, 21))


def made(counts: dict[str, int]) -> tuple[list[LabelledPhoto], list[bytes]]:
    photos = [LabelledPhoto(f"{label}/{i}", label) for label, count in counts.items() for i in range(count)]
    return photos, [photo.path.encode() for photo in photos]


class TestSplit:
    def test_every_class_in_its_share(self) -> None:
        photos, digests = made({"dog": 100, "cat": 50, "owl": 10})
        found = split.stratified(photos, digests, {"val": 0.2, "test": 0.1})
        counts = Counter((photo.label, side) for photo, side in zip(photos, found, strict=True))
        assert [counts["dog", side] for side in ("train", "val", "test")] == [70, 20, 10]
        assert [counts["cat", side] for side in ("train", "val", "test")] == [35, 10, 5]
        assert [counts["owl", side] for side in ("train", "val", "test")] == [7, 2, 1]

    def test_the_same_whatever_the_order_and_the_paths(self) -> None:
        photos, digests = made({"dog": 30, "cat": 20})
        first = dict(zip(digests, split.stratified(photos, digests, {"val": 0.3}), strict=True))
        moved = [LabelledPhoto(f"/elsewhere/{i}", photo.label) for i, photo in enumerate(photos)][::-1]
        again = dict(zip(digests[::-1], split.stratified(moved, digests[::-1], {"val": 0.3}), strict=True))
        assert first == again
        # what a seed gives is fixed for good: another split would let a model see what it is tested on
        assert sorted(d.decode() for d in digests if first[d] == "val")[:4] == ["cat/12", "cat/18", "cat/19", "cat/5"]
        assert split.stratified(photos, digests, {"val": 0.3}, seed=1) != [first[d] for d in digests]

    @settings(max_examples=60)
    @given(
        st.lists(st.tuples(st.sampled_from("abc"), st.integers(0, 12)), min_size=1, max_size=60),
        st.sampled_from([{"val": 0.2}, {"val": 0.5}, {"val": 0.1, "test": 0.3}]),
    )
    def test_nothing_on_both_sides_and_every_class_in_train(
        self, drawn: list[tuple[str, int]], shares: dict[str, float]
    ) -> None:
        photos = [LabelledPhoto(str(i), label) for i, (label, _) in enumerate(drawn)]
        digests = [bytes([number]) for _, number in drawn]
        found = split.stratified(photos, digests, shares)
        sides: dict[bytes, set[str]] = {}
        for digest, side in zip(digests, found, strict=True):
            sides.setdefault(digest, set()).add(side)
        assert all(len(each) == 1 for each in sides.values())
        trained = {photo.label for photo, side in zip(photos, found, strict=True) if side == "train"}
        assert trained == {photo.label for photo in photos}

    def test_one_different_photo_goes_to_train_and_two_are_parted(self) -> None:
        photos, _ = made({"dog": 3, "cat": 2})
        found = split.stratified(photos, [b"d", b"d", b"d", b"1", b"2"], {"val": 0.1})
        assert found[:3] == ["train"] * 3
        assert sorted(found[3:]) == ["train", "val"]

    def test_photos_without_a_class_stay_in_train(self) -> None:
        photos = [LabelledPhoto(str(i), None) for i in range(10)]
        assert set(split.stratified(photos, [bytes([i]) for i in range(10)], {"val": 0.5})) == {"train"}

    @pytest.mark.parametrize("shares", [{"val": 0.0}, {"val": 0.6, "test": 0.4}, {"val": 1.5}])
    def test_shares_that_are_none(self, shares: dict[str, float]) -> None:
        with pytest.raises(ValueError, match="shares must be"):
            split.stratified([], [], shares)

    def test_digests_are_of_the_bytes(self, tmp_path: Path) -> None:
        place(tmp_path, "dog/a.png", "dog/b.png")
        (tmp_path / "dog" / "c.png").write_bytes((tmp_path / "dog" / "a.png").read_bytes())
        dataset = open_data(str(tmp_path))
        (tmp_path / "dog" / "b.png").write_bytes(b"")
        first, second, third = split.digests(dataset, dataset.photos)
        assert first == third != second
