"""``convnext train``: it learns, it can be cut anywhere, and what it says of itself is what others find."""

from __future__ import annotations

import csv
import json
import os
import shlex
import shutil
import subprocess
import sys
import tomllib
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
import pytest
import torch
from safetensors.torch import load_file

from convnext_cli import checkpoints
from convnext_cli.datasets import Dataset, LabelledPhoto
from convnext_cli.model.config import VARIANTS
from convnext_cli.training import precision, schedule, setting_effects
from convnext_cli.training.data import TrainingData
from convnext_cli.training.initial_network import from_weights, scratch
from convnext_cli.training.loop import Trainer
from convnext_cli.training.photo_cache import InMemory
from convnext_cli.training.run_folder import RunFolder
from convnext_cli.training.settings import TrainingSettings
from tests.helpers.command import Done, Run
from tests.helpers.training import (
    COLOURS,
    EVALUATE,
    LEARN,
    ONE_STEP,
    SCRATCH,
    TRAIN,
    body_of,
    called,
    evaluations,
    facts,
    killed_at,
    log,
    moved,
    nothing,
    nth,
    place,
    recipe_of,
    sets,
    split,
    tensors_of,
    the_same_model,
    tinted,
    without_clock,
    write_labelled,
)


@pytest.fixture(scope="module")
def learnt(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, Done]:
    """Data in class folders, a run on it, and what it said."""
    folder = tmp_path_factory.mktemp("learnt")
    data = place(folder / "photos", 28)
    for copy in ("copy.png", "another copy.png"):
        shutil.copy(data / "red" / "300.png", data / "red" / copy)
    target = folder / "colours"
    return data, target, called(*TRAIN, data, "-o", target, *LEARN)


@pytest.mark.slow
def test_a_closed_standard_output_costs_only_the_table(folders: Path, tmp_path: Path, home: Path) -> None:
    arguments = [*TRAIN, folders, *SCRATCH, "--epochs", "0.01", "-o", tmp_path / "run"]
    command = shlex.join([sys.executable, "-m", "convnext_cli", *map(str, arguments)])
    done = subprocess.run(["bash", "-c", f"{command} >&-"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "written: " in done.stderr and "error" not in done.stderr
    done = subprocess.run(["bash", "-c", f"{command} --json >&-"], capture_output=True, text=True)
    assert done.returncode == 74 and "standard output is closed" in done.stderr


class TestFromScratch:
    def test_it_learns(self, learnt: tuple[Path, Path, Done]) -> None:
        _, target, done = learnt
        assert done.status == 0, done.err
        found = facts(target)
        assert found["results"]["val"]["top1"] > 0.7 and found["results"]["test"]["top1"] > 0.7
        assert evaluations(target)[-1]["val_loss"] < evaluations(target)[0]["val_loss"]
        assert "written: " in done.err and "convnext classify -m" in done.err and "top-1" in done.out

    def test_what_is_in_the_folder(self, learnt: tuple[Path, Path, Done]) -> None:
        target = learnt[1]
        names = {str(path.relative_to(target)) for path in target.rglob("*")}
        assert names == {
            *("recipe.toml", "run.json", "log.jsonl", "splits.csv", "model.safetensors", "checkpoints"),
            *(f"checkpoints/{name}" for name in ("last.pt", "ema.safetensors", "best.safetensors")),
            *("curves.png", "confusion.png", "reliability.png"),
        }
        for name in ("curves", "confusion", "reliability"):
            assert (target / f"{name}.png").read_bytes().startswith(b"\x89PNG")
        steps = [line["step"] for line in log(target) if "loss" in line]
        assert {1, 10} < set(steps) == {1, 10} | {line["step"] for line in evaluations(target)}
        assert all("lr" in line and "size" in line for line in log(target) if "loss" in line)
        recipe = TrainingSettings(**tomllib.loads((target / "recipe.toml").read_text()))
        for line in log(target):
            if "loss" in line:
                # a step is taken at the rate of where it leads
                share = line["step"] / evaluations(target)[-1]["step"]
                assert line["lr"] == pytest.approx(0.004 * schedule.lr_factor(recipe, share))
        # an evaluation after each epoch
        assert [line["epoch"] for line in evaluations(target)] == [float(number) for number in range(1, 13)]

    def test_what_the_run_says(self, learnt: tuple[Path, Path, Done]) -> None:
        data, target, _ = learnt
        found = facts(target)
        assert found["data"] == [str(data)] and found["classes"] == list(COLOURS)
        assert sum(found["photos"].values()) == 114 and min(found["photos"].values()) >= 8
        assert (found["seed"], found["device"], found["dtype"], found["processes"]) == (0, "cpu", "float32", 1)
        assert torch.__version__.startswith(found["environment"]["versions"]["torch"])
        recipe = tomllib.loads((target / "recipe.toml").read_text())
        assert setting_effects.in_force(TrainingSettings(**recipe)) == recipe
        assert (recipe["arch"], recipe["epochs"], recipe["lr"], recipe["augment"]) == (
            *("test_convnext2", 12.0, 0.004, "none"),
        )

    def test_splits_are_stratified_and_copies_stay_together(self, learnt: tuple[Path, Path, Done]) -> None:
        data, target, done = learnt
        with (target / "splits.csv").open(newline="") as file:
            rows = list(csv.DictReader(file))
        assert {row["path"] for row in rows} == {str(path) for path in data.rglob("*.png")}
        assert all(Path(row["path"]).parent.name == row["label"] for row in rows)
        counts = Counter((row["label"], row["split"]) for row in rows)
        assert all(counts[name, part] == 4 for name in ("blue", "green", "grey") for part in ("val", "test"))
        sides = {row["split"] for row in rows if Path(row["path"]).name in ("300.png", "copy.png", "another copy.png")}
        assert len(sides) == 1 and "2 photos occur more than once" in done.err

    def test_the_card(self, learnt: tuple[Path, Path, Done]) -> None:
        target = learnt[1]
        found, results = facts(target), facts(target)["results"]
        loaded = checkpoints.load(target, verify=True)
        card = loaded.card
        assert loaded.layout == "canonical" and card.name == "colours" and card.architecture == "test_convnext2"
        assert list(card.label_set().names) == list(COLOURS)
        assert card.config == VARIANTS["test_convnext2"].replace(num_labels=4, image_size=32)
        assert card.preprocessing.size == (results["size"],) * 2
        assert card.temperature == results["temperature"]
        assert card.training == tomllib.loads((target / "recipe.toml").read_text())
        for name in ("val", "test"):
            assert card.metrics[f"{name} top-1"] == pytest.approx(100 * results[name]["top1"], abs=1e-3)
            assert card.metrics[f"{name} ece"] == pytest.approx(results[name]["ece"], abs=1e-4)
        assert card.metrics["val ece without temperature"] == pytest.approx(results["val_ece_before"], abs=1e-4)
        assert f"{found['photos']['train']} photos of 4 classes" in card.description

    def test_it_is_calibrated_on_val_and_judged_on_test(self, convnext: Run, learnt: tuple[Path, Path, Done]) -> None:
        target = learnt[1]
        command = (*EVALUATE, "-m", target, target / "splits.csv", "--sure", "0.4", "--json")
        refused = convnext(*command, "--split", "val")
        assert refused.status == 3 and "calibrat" in refused.err
        done = convnext(*command, "--split", "test")
        assert done.status == 0, done.err
        document = json.loads(done.out)
        assert document["photos"] == facts(target)["photos"]["test"] and document["sure"]

    @pytest.mark.parametrize("part", ["val", "test"])
    def test_evaluate_agrees(self, convnext: Run, learnt: tuple[Path, Path, Done], part: str) -> None:
        target = learnt[1]
        done = convnext(*EVALUATE, "-m", target, target / "splits.csv", "--split", part, "--json")
        assert done.status == 0, done.err
        found, results = json.loads(done.out), facts(target)["results"][part]
        assert found["photos"] == facts(target)["photos"][part]
        assert found["top1"]["right"] == round(results["top1"] * found["photos"])
        assert found["calibration"]["ece"] == pytest.approx(results["ece"], abs=1e-5)
        assert found["temperature"] == facts(target)["results"]["temperature"]

    def test_classify_agrees(self, convnext: Run, learnt: tuple[Path, Path, Done]) -> None:
        _, target, _ = learnt
        with (target / "splits.csv").open(newline="") as file:
            rows = [row for row in csv.DictReader(file) if row["split"] == "test"]
        done = convnext("classify", "-e", "torch", "-t", "1", "-m", target, "--json", *(row["path"] for row in rows))
        assert done.status == 0, done.err
        answers = [each["predictions"][0]["label"] for each in json.loads(done.out)]
        right = sum(answer == row["label"] for answer, row in zip(answers, rows, strict=True))
        assert right == round(facts(target)["results"]["test"]["top1"] * len(rows))

    def test_larger_sizes_are_tried(self, learnt: tuple[Path, Path, Done]) -> None:
        results = facts(learnt[1])["results"]
        tried = results["val_top1_by_size"]
        assert set(tried) == {"32", "64"}  # of 36, 40 and 48, none but 64 is another multiple of the stride
        assert results["size"] == max(map(int, tried), key=lambda edge: (tried[str(edge)], -edge))

    def test_few_photos_are_warned_of(self, learnt: tuple[Path, Path, Done]) -> None:
        assert "photos are few for training from scratch (below 50,000)" in learnt[2].err

    def test_finished_again_does_nothing(self, convnext: Run, learnt: tuple[Path, Path, Done]) -> None:
        data, target, done = learnt
        before = {path: (path.stat().st_mtime_ns, path.stat().st_ino) for path in target.rglob("*")}
        again = convnext(*TRAIN, data, "-o", target, *LEARN)
        assert again.status == 0 and again.out.split() == done.out.split()
        assert {path: (path.stat().st_mtime_ns, path.stat().st_ino) for path in target.rglob("*")} == before
        shown = convnext(*TRAIN, "-o", target, "--json")
        assert shown.status == 0 and json.loads(shown.out) == facts(target)

    def test_another_seed_is_another_beginning(self) -> None:
        begun = [scratch(recipe_of(seed=seed), 4).network.state_dict() for seed in (0, 0, 1)]
        assert all(torch.equal(begun[0][name], begun[1][name]) for name in begun[0])
        assert not torch.equal(begun[0]["head.weight"], begun[2]["head.weight"])


def test_without_matplotlib(convnext: Run, folders: Path, tmp_path: Path, undrawn: None) -> None:
    done = convnext(*TRAIN, folders, "-o", tmp_path / "run", *SCRATCH, *ONE_STEP)
    assert done.status == 0 and "plots are not drawn: pip install matplotlib" in done.err
    assert not list((tmp_path / "run").glob("*.png"))


class TestShown:
    """What a person sees meanwhile."""

    def test_a_live_table_on_a_terminal(
        self, convnext: Run, folders: Path, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, undrawn: None
    ) -> None:
        monkeypatch.setenv("FORCE_COLOR", "1")
        monkeypatch.setenv("COLUMNS", "120")
        done = convnext(*TRAIN, folders, "-o", tmp_path / "run", "--from", model, "--epochs", "3", "-b", "8")
        assert done.status == 0
        table = done.err[done.err.rindex("val loss") :]
        for line in evaluations(tmp_path / "run"):
            assert f"{line['val_loss']:.3f}" in table and f"{100 * line['val_top1']:.1f} %" in table
        assert "photos/s" in done.err and "100 %" in done.err

    def test_the_table_of_a_frozen_network(
        self, convnext: Run, folders: Path, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, undrawn: None
    ) -> None:
        monkeypatch.setenv("FORCE_COLOR", "1")
        done = convnext(*TRAIN, folders, "-o", tmp_path / "run", "--from", model, "--freeze")
        assert done.status == 0 and "penalty 0.001" in done.err

    def test_a_line_an_evaluation_elsewhere(
        self, convnext: Run, folders: Path, model: Path, tmp_path: Path, undrawn: None
    ) -> None:
        done = convnext(*TRAIN, folders, "-o", tmp_path / "run", "--from", model, "--epochs", "3", "-b", "8")
        lines = [line for line in done.err.splitlines() if line.startswith("epoch ")]
        assert [line.split(":")[0] for line in lines] == ["epoch 1.0", "epoch 2.0", "epoch 3.0"]
        for line, values in zip(lines, evaluations(tmp_path / "run"), strict=True):
            assert f"val loss {values['val_loss']:.3f}, top-1 {100 * values['val_top1']:.1f} %" in line
        assert "4 classes; photos: 32 train, 12 val, 12 test" in done.err
        assert "settings: epochs 3.0, size 32, resize shortest, batch_size 8, optimiser adamw" in done.err

    @pytest.mark.parametrize(
        ("seconds", "told"), [(4.4, "4 s"), (99, "99 s"), (130, "2 min"), (3600, "60 min"), (7500, "2 h 5 min")]
    )
    def test_durations(self, seconds: float, told: str) -> None:
        from convnext_cli.base.text import duration

        assert duration(seconds) == told


class TestOutput:
    def test_a_place_that_cannot_be_written_to(
        self, convnext: Run, folders: Path, model: Path, tmp_path: Path, undrawn: None
    ) -> None:
        (tmp_path / "file").write_text("words")
        for target in (tmp_path / "file" / "run", Path("/proc/run")):
            done = convnext(*TRAIN, folders, "-o", target, "--from", model, *ONE_STEP)
            assert done.status == 74 and "hint: " in done.err, done.err

    def test_interrupted_while_photos_are_read(
        self, convnext: Run, folders: Path, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def interrupt(*arguments: Any) -> None:
            raise KeyboardInterrupt

        monkeypatch.setattr(InMemory, "add", interrupt)
        done = convnext(*TRAIN, folders, "-o", tmp_path / "run", "--from", model, *ONE_STEP)
        assert done.status == 130 and not done.out and "Traceback" not in done.err
        assert not (tmp_path / "run").exists()

    def test_names_of_any_bytes(self, convnext: Run, folders: Path, model: Path, tmp_path: Path, undrawn: None) -> None:
        odd = b"caf\xe9 [b]\n".decode("utf-8", "surrogateescape")
        data = tmp_path / odd
        shutil.copytree(folders, data)
        for part in ("train", "val", "test"):
            (data / part / "red").rename(data / part / odd)
        done = convnext(*TRAIN, data, "-o", tmp_path / "run", "--from", model, *ONE_STEP)
        assert done.status == 0, done.err
        again = convnext(*TRAIN, "-o", tmp_path / "run")
        assert again.status == 0 and again.out == done.out, again.err
        assert json.loads(convnext(*TRAIN, data, "-o", tmp_path / "run", "--json").out)["classes"][-1]
        found = convnext(*EVALUATE, data, "-m", tmp_path / "run", "--split", "test", "--json")
        assert found.status == 0 and json.loads(found.out)["photos"] == 12

    def test_half_the_precision(self, convnext: Run, folders: Path, model: Path, tmp_path: Path, undrawn: None) -> None:
        for dtype in ("bfloat16", "float32"):
            given = ("--from", model, "--epochs", "1", "-b", "8", "--dtype", dtype)
            assert convnext(*TRAIN, folders, "-o", tmp_path / dtype, *given).status == 0
            assert facts(tmp_path / dtype)["dtype"] == dtype
            assert {tensor.dtype for tensor in tensors_of(tmp_path / dtype).values()} == {torch.float32}
        assert moved(tmp_path / "bfloat16", tensors_of(tmp_path / "float32")) > 0

    def test_measured_precision_is_kept(
        self, convnext: Run, folders: Path, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, undrawn: None
    ) -> None:
        """Whatever a measurement would say when the run goes on."""
        arguments = (*TRAIN, folders, "-o", tmp_path / "run", "--from", model, *ONE_STEP, "--dtype", "auto")
        monkeypatch.setattr(precision, "fastest", lambda *_: "bfloat16")
        killed_at(lambda: nth(Trainer, "run", 1, nothing), *arguments)
        monkeypatch.setattr(precision, "fastest", lambda *_: "float32")
        done = convnext(*arguments)
        assert done.status == 0 and "on cpu in bfloat16" in done.err and facts(tmp_path / "run")["dtype"] == "bfloat16"


class TestBudget:
    @pytest.mark.parametrize(
        ("text", "minutes"),
        [
            *(("90s", 1.5), ("20m", 20), ("1.5h", 90), ("7", 7), (" 2H ", 120), ("0.5", 0.5), ("300s", 5)),
            *(("5min", 5), ("5 min", 5), ("1h30m", 90), ("1h 30min 30s", 90.5), ("2m30s", 2.5), (".5h", 30)),
        ],
    )
    def test_times(self, text: str, minutes: float) -> None:
        from convnext_cli.cli.train import _Minutes

        assert _Minutes().convert(text, None, None) == pytest.approx(minutes)

    @pytest.mark.parametrize(
        "text", ["", "m", "0", "-5m", "5x", "nan", "inf", "1e9h", "9999999h", "30m1h", "1h30", "5m5m", "1 30m"]
    )
    def test_no_times(self, text: str) -> None:
        from convnext_cli.cli.train import _Minutes

        with pytest.raises(click.BadParameter, match="is not a time such as"):
            _Minutes().convert(text, None, None)

    def test_epochs_and_time_whichever_is_spent_first(
        self, convnext: Run, folders: Path, model: Path, tmp_path: Path, undrawn: None
    ) -> None:
        target = tmp_path / "run"
        given = ("--from", model, "--time", "10h", "--epochs", "0.5", "-b", "4")
        assert convnext(*TRAIN, folders, "-o", target, *given).status == 0
        assert log(target)[-1]["step"] == 4  # of the 8 of an epoch

    def test_it_ends_when_it_gets_no_better(
        self, convnext: Run, folders: Path, model: Path, tmp_path: Path, undrawn: None
    ) -> None:
        target = tmp_path / "run"
        given = ("--from", model, "--epochs", "50", "-b", "8", "--lr", "1e-9", *sets("patience=2", "ema=0"))
        assert convnext(*TRAIN, folders, "-o", target, *given).status == 0
        steps = [line["step"] for line in evaluations(target)]
        assert len(steps) < 10
        best = facts(target)["results"]["best_step"]
        assert steps[-1] == best + 2 * 4  # two epochs without a better one


class TestFromWeights:
    NAMES = ("grey", "lilac", "blue", "red", "green")

    @pytest.fixture
    def knowing(self, tmp_path: Path) -> Path:
        return write_labelled(tmp_path / "knowing.safetensors", self.NAMES)

    def test_rows_of_known_classes_are_kept_in_any_order(self, knowing: Path) -> None:
        before = load_file(knowing)
        for classes in (self.NAMES, tuple(COLOURS), ("red", "grey")):
            start = from_weights(recipe_of(start="x", arch=""), knowing, classes)
            rows = [self.NAMES.index(name) for name in classes]
            state = start.network.state_dict()
            assert torch.equal(state["head.weight"], before["head.weight"][rows])
            assert torch.equal(state["head.bias"], before["head.bias"][rows])
            assert all(torch.equal(state[name], tensor) for name, tensor in body_of(knowing).items())
            assert any("own rows for these" in note for note in start.notes) == (classes != self.NAMES)

    def test_the_classifier_is_new_when_one_class_is_unknown(self, knowing: Path) -> None:
        recipe = recipe_of(start="x", arch="", head_scale=2.0)
        start = from_weights(recipe, knowing, ("blue", "pink", "red"))
        state = start.network.state_dict()
        assert state["head.weight"].shape == (3, 32) and not state["head.bias"].any()
        assert 0.03 < float(state["head.weight"].std()) < 0.05  # 0.02, twice
        assert all(torch.equal(state[name], tensor) for name, tensor in body_of(knowing).items())
        assert any("the classifier is new: 3 classes, which knowing does not know" in note for note in start.notes)

    def test_new_weights_as_the_recipe_has_them(self) -> None:
        start = scratch(recipe_of(patch_size=2, layer_scale=0.1, drop_path=0.3, head_scale=0.0), 5)
        config = start.network.config
        assert config == VARIANTS["test_convnext2"].replace(
            patch_size=2, layer_scale_init_value=0.1, drop_path_rate=0.3, num_labels=5, image_size=32
        )
        state = start.network.state_dict()
        assert state["downsample_layers.0.0.weight"].shape[-1] == 2 and float(state["stages.0.0.gamma"].mean()) == (
            pytest.approx(0.1)
        )
        assert not state["head.weight"].any() and 0.01 < float(state["stages.0.0.pwconv1.weight"].std()) < 0.03

    def test_classes_by_wordnet_id_have_names(self) -> None:
        classes = ("n01443537", "n02123045")
        photos = tuple(LabelledPhoto(f"{i}.png", name) for i, name in enumerate(classes))
        data = TrainingData(Dataset("x", "folders", classes, photos), classes, photos, photos, (), is_split_here=False)
        assert data.label_set().names == ("goldfish", "tabby") and data.label_set().ids == classes

    def test_two_classes_of_one_row_do_not_count_as_known(self, knowing: Path) -> None:
        start = from_weights(recipe_of(start="x", arch=""), knowing, ("Blue", "blue", "red"))
        assert not start.network.state_dict()["head.bias"].any()

    def test_the_file_is_never_written_to(
        self, convnext: Run, folders: Path, tmp_path: Path, knowing: Path, undrawn: None
    ) -> None:
        before = knowing.read_bytes()
        target = tmp_path / "run"
        done = convnext(*TRAIN, folders, "-o", target, "--from", knowing, "--epochs", "1", "-b", "8", "--lr", "0.01")
        assert done.status == 0 and knowing.read_bytes() == before
        assert "the classifier begins with knowing's own rows for these 4 classes" in done.err
        assert facts(target)["begun_with"] == "knowing"
        assert not torch.equal(tensors_of(target)["norm.weight"], load_file(knowing)["norm.weight"])

    def test_size_and_preprocessing_are_those_of_the_weights(
        self, convnext: Run, folders: Path, tmp_path: Path, undrawn: None
    ) -> None:
        grey = {"mean": (0.5, 0.5, 0.5), "std": (0.25, 0.25, 0.25)}
        path = write_labelled(tmp_path / "larger.safetensors", ("a", "b"), size=64, **grey)
        target = tmp_path / "run"
        assert convnext(*TRAIN, folders, "-o", target, "--from", path, *ONE_STEP).status == 0
        preprocessing = checkpoints.read_card(target).preprocessing
        assert (
            preprocessing.size == (64, 64) and preprocessing.mean == grey["mean"] and preprocessing.std == grey["std"]
        )
        assert [line["size"] for line in log(target) if "loss" in line] == [64]

    def test_it_goes_through_smaller_sizes(self, convnext: Run, folders: Path, tmp_path: Path, undrawn: None) -> None:
        path = write_labelled(tmp_path / "larger.safetensors", ("a", "b"), size=64)
        target = tmp_path / "run"
        given = ("--from", path, "--epochs", "2", "-b", "4", *sets("sizes=[[0.5, 32]]"))
        assert convnext(*TRAIN, folders, "-o", target, *given).status == 0
        assert [(line["step"], line["size"]) for line in log(target) if "loss" in line] == [
            *((1, 32), (8, 32), (10, 64), (16, 64)),
        ]


@pytest.fixture(scope="module")
def short(folders: Path, model: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[tuple[Any, ...], Path]:
    """Arguments of a run of two epochs, and its folder; it was killed after the first."""
    target = tmp_path_factory.mktemp("short") / "run"
    arguments = (folders, "--from", model, "--epochs", "2", "-b", "8")
    killed_at(lambda: nth(RunFolder, "write_state", 2, nothing), *TRAIN, *arguments, "-o", target)
    return arguments, target


@pytest.mark.skipif(not hasattr(os, "fork"), reason="processes are killed as on Unix")
class TestExisting:
    @pytest.fixture
    def cut(self, short: tuple[tuple[Any, ...], Path], tmp_path: Path) -> tuple[tuple[Any, ...], Path]:
        """A copy of it for each test."""
        shutil.copytree(short[1], tmp_path / "run")
        return (*TRAIN, *short[0], "-o", tmp_path / "run"), tmp_path / "run"

    @staticmethod
    def contents(folder: Path) -> dict[str, bytes]:
        return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}

    @pytest.mark.parametrize(
        ("more", "said"),
        [
            (("--lr", "0.5"), "with lr = "),
            (("--epochs", "3"), "with epochs = 2.0, not 3"),
            (("--seed", "1"), "with seed = 0, not 1"),
            (sets("mixup=0.7"), "with mixup = 0.0, not 0.7"),
            (("--time", "1h"), "with minutes = None, not 60"),
            (("--freeze",), "with freeze = False, not True"),
            (("--from", "scratch"), "with start = "),
        ],
    )
    def test_other_settings(
        self, convnext: Run, cut: tuple[tuple[Any, ...], Path], more: tuple[str, ...], said: str
    ) -> None:
        before = self.contents(cut[1])
        done = convnext(*cut[0], *more)
        assert done.status == 2 and f"holds a run {said}" in done.err and "--overwrite" in done.err.splitlines()[-1]
        assert self.contents(cut[1]) == before

    def test_the_same_settings_in_other_words(
        self, convnext: Run, cut: tuple[tuple[Any, ...], Path], undrawn: None
    ) -> None:
        done = convnext(
            *cut[0], *sets("epochs=2.0", "batch_size=8", "drop_path=0.1"), "--recipe", cut[1] / "recipe.toml"
        )
        assert done.status == 0, done.err

    def test_other_photos(self, convnext: Run, cut: tuple[tuple[Any, ...], Path], tmp_path: Path) -> None:
        before = self.contents(cut[1])
        other = split(tmp_path / "other", 8, 3, 3)
        (other / "train" / "red" / "000.png").write_bytes(tinted("red", 999))
        done = convnext(*TRAIN, other, *cut[0][len(TRAIN) + 1 :])
        assert done.status == 2 and "are not those that the run in" in done.err and "--overwrite" in done.err
        assert self.contents(cut[1]) == before

    def test_the_same_photos_elsewhere(
        self, convnext: Run, cut: tuple[tuple[Any, ...], Path], tmp_path: Path, undrawn: None
    ) -> None:
        shutil.copytree(cut[0][len(TRAIN)], tmp_path / "moved")
        done = convnext(*TRAIN, tmp_path / "moved", *cut[0][len(TRAIN) + 1 :])
        assert done.status == 0 and "resuming at step 4" in done.err, done.err

    def test_other_photos_for_a_finished_run(
        self, convnext: Run, learnt: tuple[Path, Path, Done], tmp_path: Path
    ) -> None:
        """Its figures are not those of these photos."""
        done = convnext(*TRAIN, place(tmp_path / "other", 9), "-o", learnt[1], *LEARN)
        assert done.status == 2 and "are not those that the run in" in done.err and not done.out

    def test_overwrite(self, convnext: Run, cut: tuple[tuple[Any, ...], Path], undrawn: None) -> None:
        done = convnext(*cut[0], "--overwrite", "--seed", "7")
        assert done.status == 0, done.err
        assert facts(cut[1])["seed"] == 7 and "resuming" not in done.err
        assert [line["step"] for line in log(cut[1])] == [1, 4, 4, 8, 8]

    @pytest.mark.parametrize(
        ("change", "times"),
        [("hardlink_to", 1), ("hardlink_to", 4), ("rename", 1), ("unlink", 1), ("unlink", 5), ("rmdir", 1)],
    )
    def test_overwrite_keeps_the_run_until_the_new_one_is_done(
        self, convnext: Run, cut: tuple[tuple[Any, ...], Path], undrawn: None, change: str, times: int
    ) -> None:
        """Killed before some changes of a name."""
        arguments, folder = cut
        (folder / "model.safetensors").write_bytes(b"hours of work")
        before = self.contents(folder)
        killed_at(lambda: nth(Path, change, times, nothing), *arguments, "--overwrite", "--seed", "7")
        former = folder / "former"
        after = self.contents(former if former.exists() else folder)
        assert {name: after.get(name) for name in before} == before
        if former.exists():
            assert convnext(*arguments, "--overwrite", "--seed", "8").status == 0
            assert not former.exists() and facts(folder)["seed"] == 8

    def test_a_run_in_place_of_another_goes_on(
        self, convnext: Run, cut: tuple[tuple[Any, ...], Path], undrawn: None
    ) -> None:
        arguments, folder = cut
        killed_at(lambda: nth(RunFolder, "write_state", 2, nothing), *arguments, "--overwrite", "--seed", "7")
        assert (folder / "former" / "checkpoints" / "last.pt").exists()
        done = convnext(*arguments, "--seed", "7")
        assert done.status == 0 and "resuming" in done.err
        assert not (folder / "former").exists()

    @pytest.mark.parametrize("name", ["thesis.tex", "checkpoints/epoch-3.pt", "figure.png"])
    def test_overwrite_removes_nothing_else(
        self, convnext: Run, cut: tuple[tuple[Any, ...], Path], name: str, undrawn: None
    ) -> None:
        (cut[1] / name).write_text("years of work")
        done = convnext(*cut[0], "--overwrite")
        assert (cut[1] / name).exists() and (cut[1] / name).read_text() == "years of work"
        assert done.status == 0, done.err

    @pytest.mark.parametrize(
        "wrong", [("gone",), ("{folders}", "--set", "nonsense=1"), ("{folders}", "--recipe", "gone.toml")]
    )
    def test_overwrite_destroys_nothing_for_a_command_that_cannot_work(
        self, convnext: Run, cut: tuple[tuple[Any, ...], Path], folders: Path, wrong: tuple[str, ...]
    ) -> None:
        before = self.contents(cut[1])
        named = [part.format(folders=folders) for part in wrong]
        done = convnext(*TRAIN, *named, *cut[0][len(TRAIN) + 1 :], "--overwrite")
        assert done.status == 2 and self.contents(cut[1]) == before

    def test_a_folder_that_holds_no_run(self, convnext: Run, folders: Path, model: Path, tmp_path: Path) -> None:
        (tmp_path / "mine").mkdir()
        (tmp_path / "mine" / "thesis.tex").write_text("years of work")
        for target in (tmp_path / "mine", tmp_path / "mine" / "thesis.tex"):
            for more in ((), ("--overwrite",)):
                done = convnext(*TRAIN, folders, "-o", target, "--from", model, *ONE_STEP, *more)
                assert done.status == 2 and "does not hold a run" in done.err
        assert self.contents(tmp_path / "mine") == {"thesis.tex": b"years of work"}

    def test_an_empty_folder_will_do(
        self, convnext: Run, folders: Path, model: Path, tmp_path: Path, undrawn: None
    ) -> None:
        (tmp_path / "run").mkdir()
        assert convnext(*TRAIN, folders, "-o", tmp_path / "run", "--from", model, *ONE_STEP).status == 0

    @pytest.mark.parametrize("damage", [lambda data: data[: len(data) // 2], lambda data: b"x" * 50, lambda data: b""])
    def test_a_damaged_checkpoint(
        self, convnext: Run, cut: tuple[tuple[Any, ...], Path], damage: Callable[[bytes], bytes], undrawn: None
    ) -> None:
        last = cut[1] / "checkpoints" / "last.pt"
        last.write_bytes(damage(last.read_bytes()))
        done = convnext(*cut[0])
        assert done.status == 3 and f"{last} is damaged" in done.err and "--overwrite" in done.err
        assert convnext(*cut[0], "--overwrite").status == 0

    @pytest.mark.parametrize("values", [{"other": 1}, [1, 2]], ids=["dict", "list"])
    def test_a_checkpoint_of_something_else(
        self, convnext: Run, cut: tuple[tuple[Any, ...], Path], values: Any
    ) -> None:
        torch.save(values, cut[1] / "checkpoints" / "last.pt")
        done = convnext(*cut[0])
        assert done.status == 3 and "last.pt belongs to another run" in done.err

    @pytest.mark.parametrize("text", ["{", "", "[]", "{}"])
    def test_damaged_notes(self, convnext: Run, cut: tuple[tuple[Any, ...], Path], text: str, undrawn: None) -> None:
        (cut[1] / "run.json").write_text(text)
        for arguments in (cut[0], (*TRAIN, "-o", cut[1])):  # DATA may be left out where they name it
            done = convnext(*arguments)
            assert done.status == 3 and "run.json" in done.err and "--overwrite" in done.err
        assert convnext(*cut[0], "--overwrite").status == 0

    def test_a_damaged_recipe(self, convnext: Run, cut: tuple[tuple[Any, ...], Path]) -> None:
        (cut[1] / "recipe.toml").write_text("lr = = 1")
        done = convnext(*cut[0])
        assert done.status == 3 and "recipe.toml" in done.err

    def test_a_checkpoint_that_is_gone(
        self, convnext: Run, cut: tuple[tuple[Any, ...], Path], tmp_path: Path, undrawn: None
    ) -> None:
        """Then it begins anew, with the recipe that it had, and a log of its own."""
        (cut[1] / "checkpoints" / "last.pt").unlink()
        assert convnext(*cut[0]).status == 0
        assert [line["step"] for line in log(cut[1])] == [1, 4, 4, 8, 8]


class TestSettings:
    @pytest.mark.parametrize(
        ("arguments", "status", "said"),
        [
            (sets("nonsense=1"), 2, "there is no setting 'nonsense'"),
            (sets("mixap=0.2"), 2, "near: mixup"),
            (sets("lr=-1"), 2, "lr must be a number from 0 to 10"),
            (sets("lr=nan"), 2, "lr must be a number"),
            (sets("lr=true"), 2, "lr must be a number"),
            (sets("epochs=inf"), 2, "epochs must be a number from 0, not inf"),
            (sets("clip=inf"), 2, "clip must be a number"),
            (sets("lr"), 2, "'lr' sets nothing"),
            (sets("epochs=ten"), 2, "epochs must be a number"),
            (sets("minutes=0"), 2, "minutes must be above 0"),
            (sets("batch_size=many"), 2, "batch_size must be a whole number"),
            (sets("batch_size=0"), 2, "batch_size must be a whole number"),
            (sets("batch_size=8.0"), 2, "batch_size must be a whole number"),
            (sets("seed=x"), 2, "seed must be a whole number"),
            (sets("start=3"), 2, "start must be"),
            (sets("arch=3"), 2, "arch must be"),
            (sets("teacher=3"), 2, "teacher must be"),
            (sets("augment=mad"), 2, "augment must be one of none, rand, trivial, affine, not 'mad'"),
            (sets("flip=maybe"), 2, "flip must be true or false"),
            (sets("sizes=3"), 2, "these settings do not work"),
            (sets("sizes=[[0.5, 64], [0.3, 32]]"), 2, "sizes must have rising shares"),
            (sets("patch_size=0"), 2, "patch_size must be a whole number"),
            (("--lr", "0"), 2, "--lr"),
            (("--lr", "nan"), 2, "nan"),
            (("--epochs", "inf"), 2, "inf"),
            (("--time", "5x"), 2, "is not a time such as 90s, 20m, 1.5h or 1h30m"),
            (("--size", "5000"), 2, "size must be at most 4096"),
            (("--size", "16"), 3, "photos of 16 pixels are too small for this network"),
            (("--arch", "convnext_tinny"), 2, "arch must be a known variant"),
            (("-b", "7", *sets("mixup=0.2")), 2, "mixup mixes photos in pairs: a batch of 7 has one left over"),
            (("-b", "6", *sets("cutmix=1", "accumulate=2")), 2, "cutmix mixes photos in pairs: each of 2 passes has 3"),
            (("-b", "1"), 2, "--batch-size"),
            (("-b", "16", *sets("accumulate=3")), 2, "a batch of 16 photos cannot be shared evenly by 3 passes"),
            (("-b", "16", *sets("accumulate=3")), 2, "use a --batch-size that 3 divides"),
            (("--freeze",), 2, "freeze needs weights to begin with"),
            (("--val", "20"), 2, "20 is above 1: write 0.2 or 20%"),
            (("--test", "100%"), 2, "not between 0 and 1"),
            (("--val", "nan"), 2, "not a number such as 0.5 or 50%"),
            (("--val", "60%", "--test", "50%"), 2, "--val and --test must be below 1 together"),
            (("--val", "0.6", "--test", "0.5"), 2, "--val and --test must be below 1 together"),
            (("--val", "0", *sets("patience=2")), 2, "patience has no effect without photos for val"),
            (("--val", "0", *sets("search_size=true")), 2, "search_size has no effect without photos for val"),
            (("--recipe", "gone.toml"), 2, "gone.toml does not exist"),
            (("--recipe", "{broken}"), 3, "cannot be read as settings"),
            (("--recipe", "{unknown}"), 2, "there is no setting 'learning_rate'"),
            (("--from", "gone.pth"), 3, "gone.pth"),
            (("--from", "convnext_tinny"), 3, "the nearest names are"),
            (("-d", "abacus"), 4, "the device 'abacus' is not there"),
        ],
    )
    def test_what_cannot_be_done(
        self, convnext: Run, tmp_path: Path, arguments: tuple[str, ...], status: int, said: str
    ) -> None:
        data = place(tmp_path / "photos", 8)
        (tmp_path / "broken.toml").write_text("lr = = 1")
        (tmp_path / "unknown.toml").write_text("learning_rate = 1")
        files = {"broken": tmp_path / "broken.toml", "unknown": tmp_path / "unknown.toml"}
        base = ("--from", "scratch", "--arch", "test_convnext2", "--size", "32", "--epochs", "1")
        if arguments[0] == "--from" or "start=3" in arguments:
            base = ()
        done = convnext(*TRAIN, data, "-o", tmp_path / "run", *base, *(a.format(**files) for a in arguments))
        assert (done.status, done.out) == (status, ""), done.err
        assert said in done.err and done.err.splitlines()[-1].startswith("hint: ")
        assert not (tmp_path / "run").exists()

    def test_an_architecture_is_for_scratch(self, convnext: Run, folders: Path, model: Path, tmp_path: Path) -> None:
        for more in (("--from", model), ()):
            done = convnext(*TRAIN, folders, "-o", tmp_path / "run", *more, "--arch", "convnext_tiny")
            assert done.status == 2 and "--arch has no effect unless start is scratch" in done.err

    def test_a_recipe_and_what_wins_over_it(self, convnext: Run, folders: Path, tmp_path: Path, undrawn: None) -> None:
        (tmp_path / "mine.toml").write_text(
            'start = "scratch"\narch = "test_convnext2"\nsize = 64\nbatch_size = 4\n'
            "minutes = 500.0\nlr = 0.01\nema = 0.5\n"
        )
        target = tmp_path / "run"
        given = ("--recipe", tmp_path / "mine.toml", "--size", "32", "--epochs", "0.01", *sets("lr=0.02"))
        assert convnext(*TRAIN, folders, "-o", target, *given).status == 0
        recipe = tomllib.loads((target / "recipe.toml").read_text())
        wanted = {"size": 32, "batch_size": 4, "minutes": 500.0, "lr": 0.02, "ema": 0.5, "epochs": 0.01}
        assert recipe.items() >= wanted.items()
        # and a run's own recipe makes the run again
        (tmp_path / "own.toml").write_text("".join(f"{line}\n" for line in without_clock(target)))
        for name in ("once", "again"):
            assert convnext(*TRAIN, folders, "-o", tmp_path / name, "--recipe", tmp_path / "own.toml").status == 0
        the_same_model(tmp_path / "again", tmp_path / "once")
        assert without_clock(tmp_path / "again") == without_clock(target)

    def test_quiet_and_json(self, convnext: Run, folders: Path, model: Path, tmp_path: Path, undrawn: None) -> None:
        done = convnext(*TRAIN, folders, "-o", tmp_path / "run", "--from", model, *ONE_STEP, "-q", "--json")
        assert done.status == 0 and not done.err and json.loads(done.out) == facts(tmp_path / "run")
