"""Which label of a tar shard belongs to which photo: never another photo's, never one of two."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path

import pytest

from convnext_cli.base.errors import ModelError
from convnext_cli.datasets import open_data, problems
from convnext_cli.training.data import arrange
from tests.helpers.photos import encoded, picture


def shard(path: Path, files: list[tuple[str, str]]) -> Path:
    """A tar of these names in this order; photos for the names of photos, else the text."""
    with tarfile.open(path, "w") as tar:
        for seed, (name, text) in enumerate(files):
            data = text.encode() or encoded(picture(20, 16, seed=seed))
            entry = tarfile.TarInfo(name)
            entry.size = len(data)
            tar.addfile(entry, io.BytesIO(data))
    return path


def labels(tmp_path: Path, *files: str) -> dict[str, str | None]:
    """The label of each photo. files: names of photos, and ``name=text`` for label files."""
    members = [(name, text) for name, _, text in (file.partition("=") for file in files)]
    dataset = open_data(str(shard(tmp_path / "a.tar", members)))
    return {Path(photo.path).name: photo.label for photo in dataset.photos}


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        # dots in names
        (("22.05.png", "22.05.cls=a", "22.06.png", "22.06.cls=b"), {"22.05.png": "a", "22.06.png": "b"}),
        (("22.05.cls=a", "22.06.cls=b", "22.06.png", "22.05.png"), {"22.05.png": "a", "22.06.png": "b"}),
        (("i.v1.jpg", 'i.v1.json={"class": "a"}', "i.v2.jpg", "i.v2.txt=b"), {"i.v1.jpg": "a", "i.v2.jpg": "b"}),
        # a photo without a label does not take its neighbour's
        (("22.05.png", "22.05.cls=a", "22.06.png"), {"22.05.png": "a", "22.06.png": None}),
        (("22.05.cls=a", "22.06.png"), {"22.06.png": None}),
        (("22.05.cls=a", "22.png"), {"22.png": None}),
        (("22.png", "22.cls=a", "22.05.png"), {"22.png": "a", "22.05.png": None}),
        # the longest stem counts
        (("a.b.c.png", "a.cls=x", "a.b.cls=y"), {"a.b.c.png": "y"}),
        (("22.05.png", "22.06.png", "22.cls=a"), {"22.05.png": "a", "22.06.png": "a"}),
        # WebDataset's fields
        (("a.jpg", "a.cls=x", 'a.json={"label": "x"}', "a.seg.png"), {"a.jpg": "x", "a.seg.png": "x"}),
        (("a.left.png", "a.right.png", "a.cls=x"), {"a.left.png": "x", "a.right.png": "x"}),
        (
            ("a.left.png", 'a.info.json={"label": "x"}', "b.left.png", 'b.info.json={"label": "y"}'),
            {"a.left.png": "x", "b.left.png": "y"},
        ),
        (("a.jpg", "a.target.cls=x", "b.jpg", "b.target.cls=y"), {"a.jpg": "x", "b.jpg": "y"}),
        # words that do not recur are names
        (("mr.alice.png", "mr.bob.cls=x"), {"mr.alice.png": None}),
        (("d/a.jpg", "e/a.cls=x"), {"a.jpg": None}),
        # the first kind counts, and a caption never contradicts
        (("a.jpg", "a.txt=a photo", "a.cls=x"), {"a.jpg": "x"}),
        (("a.jpg", "a.cls=3", 'a.json={"label": "x"}'), {"a.jpg": "3"}),
        (("a.jpg", "a.cls=\ufeffx"), {"a.jpg": "x"}),
        (("a.jpg", 'a.json={"label": true}'), {"a.jpg": None}),
        (("a.jpg", 'a.json={"caption": "x"}', "a.txt=y"), {"a.jpg": "y"}),
    ],
)  # fmt: skip
def test_the_longest_common_stem_decides(tmp_path: Path, files: tuple[str, ...], expected: dict[str, str]) -> None:
    assert labels(tmp_path, *files) == expected


@pytest.mark.parametrize(
    "files",
    [
        ("a.jpg=", "a.cls=x", "a.cls=y"),
        ("a.jpg=", "a.cls=x", "a.CLS=y"),
        ("a.jpg=", "a.cls=x", 'a.json={"label": "y"}'),
        ("a.jpg=", "a.cls=3", 'a.json={"label": 4}'),
        # two shards that were joined, with the same names
        ("a.jpg=", "a.cls=x", "b.jpg=", "b.cls=y", "a.jpg=", "a.cls=y"),
    ],
)
def test_two_labels_are_a_problem_and_not_a_label(tmp_path: Path, files: tuple[str, ...]) -> None:
    members = [(name, text) for name, _, text in (file.partition("=") for file in files)]
    members += [(f"c{i}.{kind}", text) for i in range(8) for kind, text in (("jpg", ""), ("cls", "xy"[i % 2]))]
    path = str(shard(tmp_path / "a.tar", members))
    dataset = open_data(path)
    assert {photo.label for photo in dataset.photos if photo.path.endswith("/a.jpg")} == {None}
    problem = next(problem for problem in problems.by_name(dataset) if problem.kind == "two_labels")
    assert problem.names == (f"{path}/a.jpg",)
    assert str(problem) == f"1 photo has more than one class (left out): {path}/a.jpg"
    with pytest.raises(ModelError, match="1 photo has more than one class"):
        arrange(dataset)
    assert all(not photo.path.endswith("/a.jpg") for photo in arrange(dataset, skip_bad=True).train)


def test_two_rows_of_a_table_that_contradict_each_other(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("path,label\na.jpg,x\nb.jpg,y\n./a.jpg,y\nb.jpg,y\n")
    dataset = open_data(str(tmp_path / "a.csv"))
    assert [photo.label for photo in dataset.photos] == [None, "y", None, "y"]
    assert dataset.contradictory == (str(tmp_path / "a.jpg"),)


def test_many_names_that_begin_alike_and_a_name_of_many_dots(tmp_path: Path) -> None:
    # each name is looked at a few times, however many others begin like it
    files = [(f"photo.{i:06}.{kind}", text) for i in range(3000) for kind, text in (("jpg", "?"), ("cls", str(i)))]
    files += [(".".join(["x"] * 20_000) + ".jpg", "?"), ("x.cls", "dots")]
    dataset = open_data(str(shard(tmp_path / "a.tar", files)))
    assert [photo.label for photo in dataset.photos] == [*map(str, range(3000)), "dots"]
