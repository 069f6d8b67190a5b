"""The data of ``convnext train``: what is wrong is said, and every form and place of it gives the same."""

from __future__ import annotations

import csv
import shutil
import tomllib
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from convnext_cli.datasets import open_data
from convnext_cli.training.data import arrange
from convnext_cli.training.loop import Trainer
from tests.helpers.command import Run
from tests.helpers.training import (
    COLOURS,
    ONE_STEP,
    SAME,
    SCRATCH,
    TRAIN,
    called,
    facts,
    log,
    place,
    sets,
    split,
    the_same_model,
    tinted,
)


def _photo_without_class(data: Path) -> str:
    shutil.copy(data / "train" / "red" / "300.png", data / "train" / "loose.png")
    return "1 photo has no class: {data}/train/loose.png"


def _empty_class(data: Path) -> str:
    (data / "train" / "violet").mkdir()
    return "1 class has no photo: violet"


def _class_of_val_alone(data: Path) -> str:
    shutil.rmtree(data / "train" / "red")
    return "that train does not have: red"


def _bad_photo(part: str) -> Callable[[Path], str]:
    def make(data: Path) -> str:
        (data / part / "grey" / "bad.png").write_bytes(b"no photo")
        return f"{{data}}/{part}/grey/bad.png: not_an_image"

    return make


PROBLEMS: dict[str, Callable[[Path], str]] = {
    "a photo without a class": _photo_without_class,
    "an empty class": _empty_class,
    "a class of val that train has not": _class_of_val_alone,
    **{f"a bad photo in {part}": _bad_photo(part) for part in ("train", "val", "test")},
}


class TestData:
    @pytest.mark.parametrize("problem", PROBLEMS)
    def test_problems_are_named_before_it_begins(
        self, convnext: Run, tmp_path: Path, model: Path, problem: str, undrawn: None
    ) -> None:
        data, target = split(tmp_path / "data", 5, 2, 2), tmp_path / "run"
        said = PROBLEMS[problem](data).format(data=data)
        done = convnext(*TRAIN, data, "-o", target, "--from", model, *ONE_STEP)
        assert done.status == 3 and said in done.err and "--skip-bad" in done.err.splitlines()[-1]
        assert not target.exists()
        done = convnext(*TRAIN, data, "-o", target, "--from", model, *ONE_STEP, "--skip-bad")
        assert done.status == 0 and said in done.err, done.err
        found = facts(target)
        lacking = problem == "a class of val that train has not"
        assert found["classes"] == [name for name in COLOURS if name != "red" or not lacking]
        each = {"train": 5, "val": 2, "test": 2}
        assert found["photos"] == {part: number * len(found["classes"]) for part, number in each.items()}

    def test_all_problems_are_named_at_once(self, convnext: Run, tmp_path: Path, model: Path) -> None:
        data = split(tmp_path / "data", 5, 2, 2)
        loose, empty = _photo_without_class(data).format(data=data), _empty_class(data)
        (data / "notes.txt").write_text("words")
        done = convnext(*TRAIN, data, "-o", tmp_path / "run", "--from", model, *ONE_STEP)
        assert done.status == 3 and loose in done.err and empty in done.err

    @pytest.mark.parametrize("part", ["train", "val"])
    def test_all_bad_photos_are_named_at_once(self, convnext: Run, tmp_path: Path, model: Path, part: str) -> None:
        data = split(tmp_path / "data", 5, 3, 2)
        for number in range(12):
            (data / part / list(COLOURS)[number % 4] / f"bad{number:02}.png").write_bytes(b"no photo")
        done = convnext(*TRAIN, data, "-o", tmp_path / "run", "--from", model, *ONE_STEP)
        assert done.status == 3 and "12 photos cannot be read" in done.err
        assert done.err.count("not_an_image") == 10 and "and 2 more" in done.err

    def test_a_default_batch_that_bad_photos_leave_too_few_for(
        self, convnext: Run, tmp_path: Path, model: Path, undrawn: None
    ) -> None:
        data = split(tmp_path / "data", 5, 2, 2)
        (data / "train" / "grey" / "200.png").write_bytes(b"no photo")
        given = ("--from", model, "--epochs", "1", "--skip-bad")
        done = convnext(*TRAIN, data, "-o", tmp_path / "run", *given)
        assert done.status == 0, done.err
        assert log(tmp_path / "run")[-1]["step"] >= 1

    def test_all_classes_but_one_lose_their_photos(self, convnext: Run, tmp_path: Path, model: Path) -> None:
        data = split(tmp_path / "data", 2, 2, 2)
        for name in ("red", "blue", "grey"):
            for path in (data / "train" / name).iterdir():
                path.write_bytes(b"no photo")
        done = convnext(*TRAIN, data, "-o", tmp_path / "run", "--from", model, *ONE_STEP, "--skip-bad")
        assert done.status == 3 and "1 class has any" in done.err and not (tmp_path / "run").exists()

    @pytest.mark.parametrize("more", [(), ("--skip-bad",)])
    def test_one_class_alone(self, convnext: Run, tmp_path: Path, model: Path, more: tuple[str, ...]) -> None:
        data = place(tmp_path / "data", 6, ("red",))
        done = convnext(*TRAIN, data, "-o", tmp_path / "run", "--from", model, *ONE_STEP, *more)
        assert done.status == 3 and "there is one class alone, red" in done.err and not (tmp_path / "run").exists()

    def test_a_class_that_val_lacks_is_noted(self, convnext: Run, tmp_path: Path, model: Path, undrawn: None) -> None:
        data = split(tmp_path / "data", 5, 2, 2)
        shutil.rmtree(data / "val" / "red")
        done = convnext(*TRAIN, data, "-o", tmp_path / "run", "--from", model, *ONE_STEP)
        assert done.status == 0 and "note: 1 class is missing in val: red" in done.err
        assert facts(tmp_path / "run")["classes"] == list(COLOURS)

    def test_a_class_of_one_photo_is_noted(self, convnext: Run, tmp_path: Path, model: Path, undrawn: None) -> None:
        data = place(tmp_path / "data", 8, ("blue", "red"))
        place(data, 1, ("grey",))
        done = convnext(*TRAIN, data, "-o", tmp_path / "run", "--from", model, *ONE_STEP)
        assert done.status == 0 and "1 class has only one photo: grey" in done.err
        with (tmp_path / "run" / "splits.csv").open(newline="") as file:
            assert [row["split"] for row in csv.DictReader(file) if row["label"] == "grey"] == ["train"]

    def test_a_photo_with_a_carriage_return(self, convnext: Run, tmp_path: Path, model: Path, undrawn: None) -> None:
        data = place(tmp_path / "data", 8, ("blue", "red"))
        first = min((data / "red").iterdir())
        first.rename(first.with_name("a\rb.png"))
        done = convnext(*TRAIN, data, "-o", tmp_path / "run", "--from", model, *ONE_STEP)
        assert done.status == 0, done.err
        with (tmp_path / "run" / "splits.csv").open(newline="") as file:
            assert {row["path"] for row in csv.DictReader(file)} == {str(path) for path in data.rglob("*.png")}

    def test_rare_classes_count_for_more(self, convnext: Run, tmp_path: Path, model: Path, undrawn: None) -> None:
        data = place(tmp_path / "data", 16, ("blue",))
        place(data, 4, ("red",))
        assert convnext(*TRAIN, data, "-o", tmp_path / "run", "--from", model, *ONE_STEP).status == 0
        assert tomllib.loads((tmp_path / "run" / "recipe.toml").read_text())["class_weights"] == "balanced"

    def test_given_splits_are_kept(
        self, convnext: Run, folders: Path, tmp_path: Path, model: Path, undrawn: None
    ) -> None:
        assert convnext(*TRAIN, folders, "-o", tmp_path / "run", "--from", model, *ONE_STEP).status == 0
        assert facts(tmp_path / "run")["photos"] == {"train": 32, "val": 12, "test": 12}
        assert not (tmp_path / "run" / "splits.csv").exists()

    @pytest.mark.parametrize("share", ["0.25", "25%"])
    def test_val_is_taken_from_train(
        self, convnext: Run, folders: Path, tmp_path: Path, model: Path, undrawn: None, share: str
    ) -> None:
        data = tmp_path / "data"
        shutil.copytree(folders, data, ignore=shutil.ignore_patterns("val"))
        done = convnext(*TRAIN, data, "-o", tmp_path / "run", "--from", model, *ONE_STEP, "--val", share)
        assert done.status == 0, done.err
        assert facts(tmp_path / "run")["photos"] == {"train": 24, "val": 8, "test": 12}
        with (tmp_path / "run" / "splits.csv").open(newline="") as file:
            rows = list(csv.DictReader(file))
        parts = {(Path(row["path"]).relative_to(data).parts[0], row["split"]) for row in rows}
        assert parts == {("train", "train"), ("train", "val"), ("test", "test")}

    def test_copies_are_never_on_two_sides(self, tmp_path: Path) -> None:
        for number in range(12):
            photo = tinted("red", number)
            for copy in "abc":  # of other names, and one of another class
                folder = tmp_path / ("blue" if copy == "c" else "red")
                folder.mkdir(exist_ok=True)
                (folder / f"{number}{copy}.png").write_bytes(photo)
        found = arrange(open_data(str(tmp_path)), val=0.3, test=0.3)
        sides = [{Path(photo.path).name[:-5] for photo in part} for part in (found.train, found.val, found.test)]
        assert found.is_split_here and sum(map(len, sides)) == 12 and all(sides)
        assert sum(map(len, (found.train, found.val, found.test))) == 36

    def test_no_test_where_none_is_wanted(self, convnext: Run, tmp_path: Path, model: Path, undrawn: None) -> None:
        data = place(tmp_path / "data", 6)
        done = convnext(*TRAIN, data, "-o", tmp_path / "run", "--from", model, *ONE_STEP, "--test", "0")
        assert done.status == 0, done.err
        assert facts(tmp_path / "run")["photos"] == {"train": 20, "val": 4, "test": 0}
        assert "test" not in facts(tmp_path / "run")["results"]

    def test_a_table_with_a_wrong_path(
        self, convnext: Run, folders: Path, tmp_path: Path, model: Path, undrawn: None
    ) -> None:
        rows = [(path, path.parent.name, path.parent.parent.name) for path in sorted(folders.rglob("*.png"))]
        rows.append((folders / "gone.png", "red", "train"))
        table = tmp_path / "photos.csv"
        table.write_text("path,label,split\n" + "".join(",".join(map(str, row)) + "\n" for row in rows))
        done = convnext(*TRAIN, table, "-o", tmp_path / "run", "--from", model, *ONE_STEP)
        assert done.status == 3 and f"1 path leads to no file: {folders}/gone.png" in done.err
        assert not (tmp_path / "run").exists()
        done = convnext(*TRAIN, table, "-o", tmp_path / "run", "--from", model, *ONE_STEP, "--skip-bad")
        assert done.status == 0 and f"left out: 1 path leads to no file: {folders}/gone.png" in done.err
        assert facts(tmp_path / "run")["photos"]["train"] == 32

    @pytest.mark.parametrize(
        ("arguments", "status", "said"),
        [
            (["gone"], 2, "'gone' does not exist"),
            ([], 2, "no data is named"),
            (["{empty}"], 3, "there is no photo in"),
            (["{data}", "{data}"], 2, "several at a time"),
        ],
    )
    def test_what_is_no_data(
        self, convnext: Run, folders: Path, tmp_path: Path, arguments: list[str], status: int, said: str
    ) -> None:
        (tmp_path / "empty" / "red").mkdir(parents=True)
        named = (argument.format(data=folders, empty=tmp_path / "empty") for argument in arguments)
        done = convnext(*TRAIN, *named, "-o", tmp_path / "run", *SCRATCH)
        assert done.status == status and said in done.err and not done.out
        assert not (tmp_path / "run").exists()


IN_FORMS = ("--epochs", "1", "-b", "8", "--lr", "0.003", *sets("mixup=0.2"))


FORMS = ("zip", "csv", "parquet", "streamed", "zip, streamed", "parquet, streamed")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory, model: Path) -> tuple[Path, Path]:
    """Class folders, and a run on them."""
    folder = tmp_path_factory.mktemp("forms")
    data = place(folder / "photos", 8, ("blue", "green", "red"))
    done = called(*TRAIN, data, "-o", folder / "run", "--from", model, *IN_FORMS)
    assert done.status == 0, done.err
    return data, folder / "run"


class TestForms:
    """The same photos make the same model, wherever they lie, and whether they fit into memory."""

    def form(self, data: Path, name: str, folder: Path) -> Path:
        photos = sorted(data.rglob("*.png"))
        if name == "zip":
            with zipfile.ZipFile(folder / "photos.zip", "w") as file:
                for path in photos:
                    file.write(path, f"photos/{path.relative_to(data)}")
            return folder / "photos.zip"
        if name == "csv":
            (folder / "photos.csv").write_text(
                "path,label\n" + "".join(f"{path},{path.parent.name}\n" for path in photos)
            )
            return folder / "photos.csv"
        if name == "parquet":
            rows = [
                {"image": {"bytes": path.read_bytes(), "path": path.name}, "label": path.parent.name} for path in photos
            ]
            pq.write_table(pa.Table.from_pylist(rows), folder / "photos.parquet", row_group_size=5)
            return folder / "photos.parquet"
        return data

    @pytest.mark.parametrize("form", FORMS)
    def test_the_same_model(
        self, made: tuple[Path, Path], model: Path, tmp_path: Path, form: str, undrawn: None
    ) -> None:
        kind, _, streamed = form.partition(", ")
        data = self.form(made[0], kind, tmp_path)
        more = ("-j", "1", "--memory", "0") if "streamed" in (kind, streamed) else ("-j", "0")
        done = called("train", *SAME, data, "-o", tmp_path / "run", "--from", model, *IN_FORMS, *more)
        assert done.status == 0, done.err
        the_same_model(tmp_path / "run", made[1])

    def test_whole_batches_want_all_photos_in_memory(
        self, convnext: Run, made: tuple[Path, Path], model: Path, tmp_path: Path
    ) -> None:
        given = ("--from", model, *ONE_STEP, *sets("augment=affine"), "--memory", "0")
        done = convnext(*TRAIN, made[0], "-o", tmp_path / "run", *given)
        assert done.status == 3 and "needs all photos in memory" in done.err

    def test_a_photo_that_goes_away(
        self, convnext: Run, folders: Path, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, undrawn: None
    ) -> None:
        data = tmp_path / "data"
        shutil.copytree(folders, data)
        begin = Trainer.run

        def lose(trainer: Trainer) -> Any:
            shutil.rmtree(data / "train" / "red")
            return begin(trainer)

        monkeypatch.setattr(Trainer, "run", lose)
        given = ("--from", model, "--epochs", "2", "-b", "8", "--memory", "0")
        done = convnext(*TRAIN, data, "-o", tmp_path / "run", *given)
        assert done.status == 3 and "a photo can no longer be read: missing" in done.err
