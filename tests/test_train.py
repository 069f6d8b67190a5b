"""``convnext train``: it learns, it can be cut anywhere, and what it says of itself is what others find."""

from __future__ import annotations

import contextlib
import csv
import io
import json
import math
import multiprocessing
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import tomllib
import zipfile
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import click
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from safetensors.torch import load_file

from convnext_cli import checkpoints
from convnext_cli.card import Card
from convnext_cli.checkpoints import canonical
from convnext_cli.cli import render, run
from convnext_cli.config import VARIANTS
from convnext_cli.datasets import Dataset, LabelledPhoto
from convnext_cli.errors import ModelError, UsageError
from convnext_cli.labels import LabelSet
from convnext_cli.model import ConvNextForImageClassification, DropPath
from convnext_cli.photos.recipe import Recipe
from convnext_cli.training import augment, choose, finish, head, mix, optimise, plots, precision, schedule, seeds
from convnext_cli.training import run as runs
from convnext_cli.training.batches import Plan
from convnext_cli.training.data import TrainingData
from convnext_cli.training.folder import RunFolder
from convnext_cli.training.judge import fit_temperature, judge, normaliser
from convnext_cli.training.loop import Photos, Trainer
from convnext_cli.training.pixels import InMemory
from convnext_cli.training.processes import Processes
from convnext_cli.training.recipe import TrainingRecipe
from convnext_cli.training.start import Start, from_weights, scratch
from convnext_cli.training.teacher import FileTeacher, ModelTeacher
from tests.conftest import Done, Run
from tests.photos_made import encoded, picture
from tests.weights_made import SMALL, random_tensors

COLOURS = {"blue": (40, 70, 220), "green": (60, 190, 70), "grey": (150, 150, 150), "red": (210, 50, 50)}
SAME = ("-d", "cpu", "-t", "1", "--dtype", "float32")
TRAIN = ("train", *SAME, "-j", "0")
SCRATCH = ("--from", "scratch", "--arch", "test_convnext2", "--size", "32")
EVALUATE = ("evaluate", "-e", "torch", "-t", "1")
TIMES = ("seconds", "images_per_second")
ALONE = Processes(0, 1, torch.device("cpu"))


def sets(*settings: str) -> tuple[str, ...]:
    return tuple(part for setting in settings for part in ("--set", setting))


ONE_STEP = ("--epochs", "0.01", "-b", "4", *sets("optimiser=adamw", "search_size=false"))


def tinted(name: str, seed: int) -> bytes:
    """A noisy photo of one colour."""
    noise = np.asarray(picture(36 + seed % 5, 34 + seed % 3, seed=seed), np.float32)
    return encoded(Image.fromarray((0.5 * noise + 0.5 * np.array(COLOURS[name])).astype(np.uint8)))


def place(folder: Path, each: int, names: tuple[str, ...] = tuple(COLOURS), first: int = 0) -> Path:
    """So many photos in a folder of each colour."""
    for name in names:
        (folder / name).mkdir(parents=True, exist_ok=True)
        for number in range(first, first + each):
            seed = 100 * list(COLOURS).index(name) + number
            (folder / name / f"{seed:03}.png").write_bytes(tinted(name, seed))
    return folder


def split(folder: Path, train: int = 8, val: int = 3, test: int = 3, names: tuple[str, ...] = tuple(COLOURS)) -> Path:
    """The same, in folders for the splits."""
    first = 0
    for name, each in (("train", train), ("val", val), ("test", test)):
        place(folder / name, each, names, first)
        first += each
    return folder


def called(*arguments: object) -> Done:
    """The command in this process, for what several tests share."""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        render.reset()
        render.set_quiet(False)
        status = run([*map(str, arguments)])
    render.reset()
    return Done(status, out.getvalue(), err.getvalue())


def facts(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "run.json").read_text())  # type: ignore[no-any-return]


def log(folder: Path) -> list[dict[str, Any]]:
    """What was logged, apart from the times that it took."""
    lines = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    return [{name: value for name, value in line.items() if name not in TIMES} for line in lines]


def evaluations(folder: Path) -> list[dict[str, Any]]:
    return [line for line in log(folder) if "val_loss" in line]


def tensors_of(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "model.safetensors")


def the_same_model(folder: Path, other: Path) -> None:
    """To the last bit."""
    for name in ("model.safetensors", "checkpoints/best.safetensors", "checkpoints/ema.safetensors"):
        found, wanted = load_file(folder / name), load_file(other / name)
        assert found.keys() == wanted.keys()
        assert not [key for key, tensor in wanted.items() if not torch.equal(tensor, found[key])], name
    assert facts(folder)["results"] == facts(other)["results"]


def moved(folder: Path, other: dict[str, torch.Tensor]) -> float:
    """How far the weights of a run are from others at most."""
    found = tensors_of(folder)
    assert found.keys() == other.keys()
    return max(float((found[name] - tensor).abs().max()) for name, tensor in other.items())


def write_labelled(path: Path, names: tuple[str, ...], *, size: int = 32, seed: int = 0, **more: Any) -> Path:
    """A model of random weights that knows these classes."""
    config = SMALL.replace(num_labels=len(names))
    tensors = random_tensors(config, seed)
    recipe = Recipe(size=(size, size), resize_to=(size, size), **more)
    card = Card(config, recipe, path.stem, labels=LabelSet.from_names("own", names))
    canonical.write(path, tensors, card.replace(sha256=canonical.fingerprint(tensors)))
    return path


@pytest.fixture
def undrawn(monkeypatch: pytest.MonkeyPatch) -> None:
    """No pictures, which take longer than these small runs."""
    monkeypatch.setattr(plots, "available", lambda: False)


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Class folders with splits."""
    return split(tmp_path_factory.mktemp("data") / "split")


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Weights that know other classes."""
    return write_labelled(tmp_path_factory.mktemp("model") / "other.safetensors", tuple("abcdefg"))


# ---------------------------------------------------------------------- a run from scratch

LEARN = (*SCRATCH, "--epochs", "12", "-b", "16", "--lr", "0.004", *sets("optimiser=adamw", "ema=0.9", "augment=none"))


@pytest.fixture(scope="module")
def learnt(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, Done]:
    """Data in class folders, a run on it, and what it said."""
    folder = tmp_path_factory.mktemp("learnt")
    data = place(folder / "photos", 20)
    for copy in ("copy.png", "another copy.png"):
        shutil.copy(data / "red" / "300.png", data / "red" / copy)
    target = folder / "colours"
    return data, target, called(*TRAIN, data, "-o", target, *LEARN)


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
        # an evaluation after each epoch
        assert [line["epoch"] for line in evaluations(target)] == [float(number) for number in range(1, 13)]

    def test_what_the_run_says(self, learnt: tuple[Path, Path, Done]) -> None:
        data, target, _ = learnt
        found = facts(target)
        assert found["data"] == [str(data)] and found["classes"] == list(COLOURS)
        assert sum(found["photos"].values()) == 82 and min(found["photos"].values()) >= 8
        assert (found["seed"], found["device"], found["dtype"], found["processes"]) == (0, "cpu", "float32", 1)
        assert torch.__version__.startswith(found["environment"]["versions"]["torch"])
        recipe = tomllib.loads((target / "recipe.toml").read_text())
        assert TrainingRecipe(**recipe).to_dict() == recipe
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
        assert all(counts[name, part] == 3 for name in ("blue", "green", "grey") for part in ("val", "test"))
        sides = {row["split"] for row in rows if Path(row["path"]).name in ("300.png", "copy.png", "another copy.png")}
        assert len(sides) == 1 and "2 photos are there more than once" in done.err

    def test_the_card(self, learnt: tuple[Path, Path, Done]) -> None:
        target = learnt[1]
        found, results = facts(target), facts(target)["results"]
        loaded = checkpoints.load(target, verify=True)
        card = loaded.card
        assert loaded.layout == "canonical" and card.name == "colours" and card.architecture == "test_convnext2"
        assert list(card.label_set().names) == list(COLOURS)
        assert card.config == VARIANTS["test_convnext2"].replace(num_labels=4, image_size=32)
        assert card.recipe.size == (results["size"],) * 2
        assert card.temperature == results["temperature"]
        assert card.training == tomllib.loads((target / "recipe.toml").read_text())
        for name in ("val", "test"):
            assert card.metrics[f"{name} top-1"] == pytest.approx(100 * results[name]["top1"], abs=1e-3)
            assert card.metrics[f"{name} ece"] == pytest.approx(results[name]["ece"], abs=1e-4)
        assert card.metrics["val ece without temperature"] == pytest.approx(results["val_ece_before"], abs=1e-4)
        assert f"{found['photos']['train']} photos of 4 classes" in card.description

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
        assert "photos are few to train from scratch (below 50,000)" in learnt[2].err

    def test_finished_again_does_nothing(self, convnext: Run, learnt: tuple[Path, Path, Done]) -> None:
        data, target, done = learnt
        before = {path: (path.stat().st_mtime_ns, path.stat().st_ino) for path in target.rglob("*")}
        again = convnext(*TRAIN, data, "-o", target, *LEARN)
        assert again.status == 0 and again.out.split() == done.out.split()
        assert {path: (path.stat().st_mtime_ns, path.stat().st_ino) for path in target.rglob("*")} == before
        shown = convnext(*TRAIN, "-o", target, "--json")
        assert shown.status == 0 and json.loads(shown.out) == facts(target)

    def test_another_seed_is_another_beginning(self) -> None:
        begun = [scratch(_recipe(seed=seed), 4).network.state_dict() for seed in (0, 0, 1)]
        assert all(torch.equal(begun[0][name], begun[1][name]) for name in begun[0])
        assert not torch.equal(begun[0]["head.weight"], begun[2]["head.weight"])


def test_without_matplotlib(convnext: Run, folders: Path, tmp_path: Path, undrawn: None) -> None:
    done = convnext(*TRAIN, folders, "-o", tmp_path / "run", *SCRATCH, *ONE_STEP)
    assert done.status == 0 and "pictures are not drawn: pip install matplotlib" in done.err
    assert not list((tmp_path / "run").glob("*.png"))


class TestBudget:
    @pytest.mark.parametrize(
        ("text", "minutes"), [("90s", 1.5), ("20m", 20), ("1.5h", 90), ("7", 7), (" 2H ", 120), ("0.5", 0.5)]
    )
    def test_times(self, text: str, minutes: float) -> None:
        from convnext_cli.cli.train import _Minutes

        assert _Minutes().convert(text, None, None) == pytest.approx(minutes)

    @pytest.mark.parametrize("text", ["", "m", "0", "-5m", "5x", "nan", "inf", "1e9h", "1h30m"])
    def test_no_times(self, text: str) -> None:
        from convnext_cli.cli.train import _Minutes

        with pytest.raises(click.BadParameter, match="is no time such as"):
            _Minutes().convert(text, None, None)

    def test_time_that_is_spent_before_the_first_step(
        self, convnext: Run, folders: Path, model: Path, tmp_path: Path
    ) -> None:
        target = tmp_path / "run"
        done = convnext(*TRAIN, folders, "-o", target, "--from", model, "--time", "0.001s", "-b", "4")
        assert done.status == 0, done.err
        assert [line["step"] for line in log(target)] == [0] and facts(target)["results"]["best_step"] == 0
        assert all(torch.equal(tensors_of(target)[name], tensor) for name, tensor in _body(model).items())

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


def _body(path: Path) -> dict[str, torch.Tensor]:
    """The weights of a model without its classifier's."""
    return {name: tensor for name, tensor in load_file(path).items() if not name.startswith("head.")}


# ---------------------------------------------------------------------- given weights


class TestFromWeights:
    NAMES = ("grey", "lilac", "blue", "red", "green")

    @pytest.fixture
    def knowing(self, tmp_path: Path) -> Path:
        return write_labelled(tmp_path / "knowing.safetensors", self.NAMES)

    def test_rows_of_known_classes_are_kept_in_any_order(self, knowing: Path) -> None:
        before = load_file(knowing)
        for classes in (self.NAMES, tuple(COLOURS), ("red", "grey")):
            start = from_weights(_recipe(start="x", arch=""), knowing, classes)
            rows = [self.NAMES.index(name) for name in classes]
            state = start.network.state_dict()
            assert torch.equal(state["head.weight"], before["head.weight"][rows])
            assert torch.equal(state["head.bias"], before["head.bias"][rows])
            assert all(torch.equal(state[name], tensor) for name, tensor in _body(knowing).items())
            assert any("own rows for these" in note for note in start.notes) == (classes != self.NAMES)

    def test_the_classifier_is_new_when_one_class_is_unknown(self, knowing: Path) -> None:
        recipe = _recipe(start="x", arch="", head_scale=2.0)
        start = from_weights(recipe, knowing, ("blue", "pink", "red"))
        state = start.network.state_dict()
        assert state["head.weight"].shape == (3, 32) and not state["head.bias"].any()
        assert 0.03 < float(state["head.weight"].std()) < 0.05  # 0.02, twice
        assert all(torch.equal(state[name], tensor) for name, tensor in _body(knowing).items())
        assert any("the classifier is new: 3 classes, which knowing does not know" in note for note in start.notes)

    def test_two_classes_of_one_row_do_not_count_as_known(self, knowing: Path) -> None:
        start = from_weights(_recipe(start="x", arch=""), knowing, ("Blue", "blue", "red"))
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
        recipe = checkpoints.read_card(target).recipe
        assert recipe.size == (64, 64) and recipe.mean == grey["mean"] and recipe.std == grey["std"]
        assert [line["size"] for line in log(target) if "loss" in line] == [64]

    def test_it_goes_through_smaller_sizes(self, convnext: Run, folders: Path, tmp_path: Path, undrawn: None) -> None:
        path = write_labelled(tmp_path / "larger.safetensors", ("a", "b"), size=64)
        target = tmp_path / "run"
        given = ("--from", path, "--epochs", "2", "-b", "4", *sets("sizes=[[0.5, 32]]"))
        assert convnext(*TRAIN, folders, "-o", target, *given).status == 0
        assert [(line["step"], line["size"]) for line in log(target) if "loss" in line] == [
            *((1, 32), (8, 32), (10, 64), (16, 64)),
        ]


# ---------------------------------------------------------------------- cut and taken up again

RANDOM = (
    *("--epochs", "6", "-b", "8", "--lr", "0.003"),
    *sets("drop_path=0.2", "mixup=0.4", "cutmix=1.0", "mix_until=0.8", "ema=0.9", "erasing=0.3", "clip=1.0"),
)
CUT = {
    "trivial": (*SCRATCH, *RANDOM, *sets("augment=trivial", "optimiser=adamw", "layer_decay=0.9")),
    "affine": (*SCRATCH, *RANDOM, *sets("augment=affine")),  # and Muon, where torch has it
}
Whole = Callable[[str], tuple[tuple[str, ...], Path]]


@pytest.fixture(scope="module")
def whole(folders: Path, tmp_path_factory: pytest.TempPathFactory) -> Whole:
    """Arguments of a run by its augmentation, and its folder after it came to its end undisturbed."""
    made: dict[str, Path] = {}

    def of(name: str) -> tuple[tuple[str, ...], Path]:
        arguments = (str(folders), *CUT[name])
        if name not in made:
            made[name] = tmp_path_factory.mktemp(name) / "run"
            done = called(*TRAIN, *arguments, "-o", made[name])
            assert done.status == 0, done.err
        return arguments, made[name]

    return of


def started(*arguments: object, to: int = subprocess.PIPE, **variables: str) -> subprocess.Popen[str]:
    """The command as a process, and a group, of its own. to: where its output goes."""
    return subprocess.Popen(
        [sys.executable, "-m", "convnext_cli", "train", *SAME, *map(str, arguments)],
        stdout=to,
        stderr=to,
        text=True,
        env=os.environ | variables,
        start_new_session=True,
    )


def until_evaluated(process: subprocess.Popen[str], target: Path, times: int) -> None:
    """Wait until this run was evaluated so often."""
    deadline = time.monotonic() + 120
    while True:
        with contextlib.suppress(OSError):
            if (target / "log.jsonl").read_text().count("val_loss") >= times:
                return
        assert time.monotonic() < deadline
        with contextlib.suppress(subprocess.TimeoutExpired):
            raise AssertionError(f"it ended with {process.wait(0.01)}: {process.communicate()}")


def killed_at(moment: Callable[[], None], *arguments: object) -> None:
    """Run the command in a process that kills itself. moment: has it do so, by what it replaces."""

    def work() -> None:
        moment()
        done = called(*arguments)
        print(done.err, file=sys.stderr)  # for whoever looks for why it was not killed
        os._exit(done.status)

    process = multiprocessing.get_context("fork").Process(target=work)
    process.start()
    process.join(120)
    assert process.exitcode == -signal.SIGKILL


def kill() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def nth(owner: Any, name: str, number: int, last: Callable[..., Any]) -> None:
    """Have ``last`` called in place of a function at its nth call, and the process killed then."""
    real, calls = getattr(owner, name), iter(range(1, 10_000))

    def counted(*arguments: Any, **more: Any) -> Any:
        if next(calls) < number:
            return real(*arguments, **more)
        last(*arguments, **more)
        return kill()

    setattr(owner, name, counted)


def _half_a_checkpoint(values: Any, file: Any) -> None:
    whole = io.BytesIO()
    torch.serialization.save(values, whole)
    file.write(whole.getvalue()[: len(whole.getvalue()) // 2])
    file.flush()


def _half_a_line(folder: RunFolder, values: dict[str, Any]) -> None:
    with folder.log.open("a") as file:
        file.write(json.dumps(values)[:20])


def _nothing(*arguments: Any, **more: Any) -> None:
    pass


MOMENTS: dict[str, tuple[Any, str, int, Callable[..., Any]]] = {
    "before the run is noted": (RunFolder, "write_facts", 1, _nothing),
    "before the first step": (Trainer, "run", 1, _nothing),
    "in the first line of the log": (RunFolder, "add_to_log", 1, _half_a_line),
    "after lines of the log, before the first checkpoint": (RunFolder, "write_state", 1, _nothing),
    "between an evaluation and its checkpoint": (RunFolder, "write_state", 3, _nothing),
    "in the midst of a checkpoint": (torch, "save", 3, _half_a_checkpoint),
    "in the midst of a line of the log": (RunFolder, "add_to_log", 5, _half_a_line),
    "after the last checkpoint": (finish, "fit_temperature", 1, _nothing),
    "before the results are noted": (RunFolder, "write_facts", 2, _nothing),
}


@pytest.mark.skipif(not hasattr(os, "fork"), reason="processes are killed as on Unix")
class TestCut:
    @pytest.mark.parametrize("moment", MOMENTS)
    def test_killed_at_a_moment(self, whole: Whole, tmp_path: Path, moment: str, undrawn: None) -> None:
        arguments, undisturbed = whole("trivial")
        target = tmp_path / "run"
        killed_at(lambda: nth(*MOMENTS[moment]), *TRAIN, *arguments, "-o", target)
        assert not (target / "model.safetensors").exists() or "results" not in facts(target)
        done = called(*TRAIN, *arguments, "-o", target)
        assert done.status == 0, done.err
        the_same_model(target, undisturbed)
        assert log(target) == log(undisturbed)

    @pytest.mark.parametrize(("name", "kills"), [("trivial", (1, 4)), ("affine", (3,))])
    def test_killed_from_outside(
        self, whole: Whole, tmp_path: Path, name: str, kills: tuple[int, ...], undrawn: None
    ) -> None:
        arguments, undisturbed = whole(name)
        target = tmp_path / "run"
        for times in kills:
            # a pipe would stay open until its worker has noticed
            process = started(*arguments, "-o", target, "-j", "1", to=subprocess.DEVNULL)
            until_evaluated(process, target, times)
            process.kill()
            assert process.wait() == -signal.SIGKILL
        done = called(*TRAIN, *arguments, "-o", target)
        assert done.status == 0, done.err
        assert "going on at step " in done.err
        the_same_model(target, undisturbed)
        assert log(target) == log(undisturbed)

    @pytest.mark.parametrize(("name", "number"), [("trivial", signal.SIGINT), ("affine", signal.SIGTERM)])
    def test_asked_to_stop(
        self, whole: Whole, tmp_path: Path, name: str, number: signal.Signals, undrawn: None
    ) -> None:
        arguments, undisturbed = whole(name)
        target = tmp_path / "run"
        process = started(*arguments, "-o", target, "-j", "1")
        until_evaluated(process, target, 2)
        os.killpg(process.pid, number)  # as a terminal does it, to all processes
        out, err = process.communicate(timeout=120)
        assert process.returncode == 130, err
        assert f"interrupted; the same command goes on: {target} has all that is needed" in err
        assert not out and "Traceback" not in err and not (target / "model.safetensors").exists()
        steps = torch.load(target / "checkpoints" / "last.pt", weights_only=True)["progress"]["step"]
        assert 8 <= steps < 24
        done = called(*TRAIN, *arguments, "-o", target)
        assert done.status == 0, done.err
        assert f"going on at step {steps}" in done.err
        the_same_model(target, undisturbed)
        assert log(target) == log(undisturbed)

    def test_workers_do_not_matter(self, whole: Whole, tmp_path: Path, undrawn: None) -> None:
        arguments, undisturbed = whole("trivial")
        done = called("train", *SAME, "-j", "2", *arguments, "-o", tmp_path / "run")
        assert done.status == 0, done.err
        the_same_model(tmp_path / "run", undisturbed)

    def test_without_its_data_it_goes_on_with_what_it_had(self, folders: Path, tmp_path: Path, undrawn: None) -> None:
        """Shares and seed of the splits too."""
        data = place(tmp_path / "photos", 10)
        given = (data, *SCRATCH, *ONE_STEP, "--seed", "5", "--val", "0.3", "--test", "0.2")
        target = tmp_path / "run"
        assert called(*TRAIN, *given, "-o", tmp_path / "undisturbed").status == 0
        killed_at(lambda: nth(Trainer, "run", 1, _nothing), *TRAIN, *given, "-o", target)
        done = called(*TRAIN, "-o", target)
        assert done.status == 0, done.err
        the_same_model(target, tmp_path / "undisturbed")

    def test_a_batch_larger_than_the_data_goes_on(self, tmp_path: Path, undrawn: None) -> None:
        """The batch was made smaller then; the same command asks for the large one again."""
        data = place(tmp_path / "photos", 10)
        given = (data, *SCRATCH, "--epochs", "1", "-b", "512")
        target = tmp_path / "run"
        killed_at(lambda: nth(Trainer, "run", 1, _nothing), *TRAIN, *given, "-o", target)
        done = called(*TRAIN, *given, "-o", target)
        assert done.status == 0, done.err

    def test_what_a_killed_process_left_does_not_matter(self, whole: Whole, tmp_path: Path, undrawn: None) -> None:
        """In containers the next process has the number of the last one."""
        arguments, undisturbed = whole("trivial")
        target = tmp_path / "run"
        killed_at(lambda: nth(torch, "save", 2, _half_a_checkpoint), *TRAIN, *arguments, "-o", target)
        (left,) = (target / "checkpoints").glob(".convnext-*.part")
        _, _, name = left.name.removeprefix(".").split("-")
        left.rename(left.with_name(f".convnext-{os.getpid()}-{name}"))
        done = called(*TRAIN, *arguments, "-o", target)
        assert done.status == 0, done.err
        the_same_model(target, undisturbed)


# ---------------------------------------------------------------------- several processes, parts of a batch

PARTED = (
    *("--epochs", "5", "-b", "16", "--lr", "0.002"),
    *sets("optimiser=adamw", "drop_path=0.3", "mixup=0.4", "cutmix=1.0", "augment=trivial", "ema=0.3", "beta2=0.98"),
    *sets("layer_decay=0.9", "clip=0.05", "weight_decay=0.1"),
)


def _free_port() -> str:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return str(found.getsockname()[1])


@pytest.fixture(scope="module")
def alone(folders: Path, model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of one process that takes each batch whole."""
    target = tmp_path_factory.mktemp("alone") / "run"
    done = called(*TRAIN, folders, "-o", target, "--from", model, *PARTED)
    assert done.status == 0, done.err
    return target


class TestParted:
    def same_to_rounding(self, target: Path, alone: Path, model: Path) -> None:
        begun = load_file(model)
        far = max(
            float((tensor - begun[name]).abs().max())
            for name, tensor in tensors_of(alone).items()
            if not name.startswith("head.")
        )
        assert moved(target, tensors_of(alone)) < 1e-3 * far
        for found, wanted in zip(log(target), log(alone), strict=True):
            assert found == pytest.approx(wanted, abs=1e-5)

    def test_two_processes_are_as_one(self, folders: Path, model: Path, alone: Path, tmp_path: Path) -> None:
        target = tmp_path / "run"
        shared = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": _free_port()}
        both = [
            started(folders, "-o", target, "--from", model, *PARTED, "-j", "0", RANK=rank, LOCAL_RANK=rank, **shared)
            for rank in "01"
        ]
        (out, err), (other_out, other_err) = (process.communicate(timeout=180) for process in both)
        assert [process.returncode for process in both] == [0, 0], err + other_err
        assert "in 2 processes" in err and "top-1" in out and not other_out
        assert facts(target)["processes"] == 2
        self.same_to_rounding(target, alone, model)

    def test_passes_are_as_one(self, folders: Path, model: Path, alone: Path, tmp_path: Path, undrawn: None) -> None:
        target = tmp_path / "run"
        done = called(*TRAIN, folders, "-o", target, "--from", model, *PARTED, *sets("accumulate=2"))
        assert done.status == 0, done.err
        self.same_to_rounding(target, alone, model)

    def test_freeze_wants_one_process(self) -> None:
        start, photos = _start(), _photos()
        with pytest.raises(UsageError, match="needs one process"):
            head.solve(
                *(_recipe(start="x", arch="", freeze=True), start, photos, None),
                *(Processes(0, 2, torch.device("cpu")), RunFolder(Path("x")), None),
                dtype="float32",
                workers=0,
            )


# ---------------------------------------------------------------------- only the classifier


class TestFreeze:
    def objective(self, x: torch.Tensor, rows: torch.Tensor, w: torch.Tensor, b: torch.Tensor, **of: Any) -> Any:
        """As docs/train.md states it, written anew. x: standardised features. of: smoothing, penalty, weights."""
        classes, n = len(b), len(x)
        share = of.get("weights", torch.ones(classes, dtype=torch.float64))
        target = torch.full((n, classes), of["smoothing"] / classes, dtype=torch.float64)
        target[torch.arange(n), rows] += 1 - of["smoothing"]
        likelihood = (x @ w.T + b).log_softmax(1)
        return -(target * share * likelihood).sum() / n + of["penalty"] * w.square().sum()

    @pytest.mark.parametrize("weighted", [False, True])
    def test_the_solution_is_that_of_newton(self, weighted: bool) -> None:
        rng = np.random.default_rng(3)
        rows = torch.from_numpy(rng.integers(0, 3, 60))
        x = torch.from_numpy(rng.normal(size=(60, 4)) * [1, 5, 0.1, 2] + [0, 3, 1, -2])
        x[:, 1] += 3 * rows
        weights = torch.tensor([0.5, 1.0, 2.0]) if weighted else None
        of = {"smoothing": 0.1, **({"weights": weights.double()} if weights is not None else {})}
        deviation = x.std(0) + 1e-6
        standard = (x - x.mean(0)) / deviation
        for fit in head.fits(x, rows, x[:30], rows[:30], weights, 0.1):
            of["penalty"] = fit.penalty

            def value(flat: torch.Tensor, of: dict[str, Any] = of) -> Any:
                # a shift of all classes changes nothing: the small term makes the solution the one
                return (
                    self.objective(standard, rows, flat[:12].view(3, 4), flat[12:], **of) + 1e-9 * flat.square().sum()
                )

            flat = torch.zeros(15, dtype=torch.float64)
            for _ in range(30):
                slope = torch.autograd.functional.jacobian(value, flat)
                curve = torch.autograd.functional.hessian(value, flat)
                flat = flat - torch.linalg.solve(curve, slope)
            own = flat[:12].view(3, 4) / deviation
            wanted = x @ own.T + flat[12:] - own @ x.mean(0)
            found = x @ fit.weight.double().T + fit.bias.double()
            assert torch.allclose(found.softmax(1), wanted.softmax(1), atol=2e-4), fit.penalty
            assert fit.loss == pytest.approx(float(F.cross_entropy(wanted[:30], rows[:30])), abs=1e-3)
            assert fit.top1 == float((wanted[:30].argmax(1) == rows[:30]).double().mean())

    def test_a_run(self, convnext: Run, folders: Path, model: Path, tmp_path: Path) -> None:
        target = tmp_path / "run"
        done = convnext(*TRAIN, folders, "-o", target, "--from", model, "--freeze", *sets("smoothing=0.05"))
        assert done.status == 0, done.err
        state = tensors_of(target)
        assert all(torch.equal(state[name], tensor) for name, tensor in _body(model).items())
        lines = evaluations(target)
        assert [line["penalty"] for line in lines] == [0.1, 0.01, 0.001, 1e-4, 1e-5, 1e-6]
        best = max(lines, key=lambda line: (line["val_top1"], -line["val_loss"]))
        # the slope of what is to be least, by each of the photos as convnext classify would read it, and mirrored
        loaded = checkpoints.load(target)
        network, paths = checkpoints.build(loaded), sorted((folders / "train").rglob("*.png"))
        pixels = torch.stack(
            [torch.from_numpy(loaded.card.recipe.apply(Image.open(path).convert("RGB"))) for path in paths]
        )
        with torch.inference_mode():
            features = torch.cat([network.pool([*network.hidden_states(x)][-1]) for x in (pixels, pixels.flip(-1))])
        x = features.clone().double()
        rows = torch.tensor([list(COLOURS).index(path.parent.name) for path in paths]).repeat(2)
        deviation = x.std(0) + 1e-6
        standard = (x - x.mean(0)) / deviation
        w = (state["head.weight"].double() * deviation).requires_grad_(True)
        b = (state["head.bias"].double() + state["head.weight"].double() @ x.mean(0)).requires_grad_(True)
        slopes = [
            torch.cat([slope.flatten() for slope in torch.autograd.grad(value, (w, b))]).norm()
            for value in (
                self.objective(standard, rows, w, b, smoothing=0.05, penalty=best["penalty"]),
                self.objective(standard, rows, 1.02 * w, b, smoothing=0.05, penalty=best["penalty"]),
            )
        ]
        assert float(slopes[0]) < 2e-4 and float(slopes[0]) < 0.2 * float(slopes[1])
        assert (target / "curves.png").exists()
        results = facts(target)["results"]
        found = json.loads(convnext(*EVALUATE, folders, "-m", target, "--split", "test", "--json").out)
        assert found["top1"]["right"] == round(results["test"]["top1"] * found["photos"])
        again = convnext(*TRAIN, folders, "-o", target, "--from", model, "--freeze", *sets("smoothing=0.05"))
        assert again.status == 0 and log(target) == lines

    def test_nothing_random_matters(
        self, convnext: Run, folders: Path, model: Path, tmp_path: Path, undrawn: None
    ) -> None:
        more = sets("drop_path=0.5", "mixup=1.0", "cutmix=1.0", "erasing=0.9", "augment=rand", "seed=9", "ema=0")
        for name, settings in (("plain", ()), ("random", more)):
            done = convnext(*TRAIN, folders, "-o", tmp_path / name, "--from", model, "--freeze", *settings)
            assert done.status == 0, done.err
        assert moved(tmp_path / "plain", tensors_of(tmp_path / "random")) == 0


# ---------------------------------------------------------------------- a teacher


class TestTeacher:
    CLASSES = ("a", "b", "c", "d")

    def loss_of(self, trainer: Trainer, x: torch.Tensor, target: torch.Tensor, said: torch.Tensor) -> float:
        """As the papers have it. target: of the labels. said: the teacher's scores, softened."""
        recipe = trainer.recipe
        found = trainer.network(x).logits.double()
        hard = -(target * found.log_softmax(1)).sum(1).mean()
        heat = recipe.distil_temperature
        apart = (said * (said.log() - (found / heat).log_softmax(1))).sum(1).mean()
        return float(((1 - recipe.distil) * hard + recipe.distil * heat**2 * apart).detach())

    def test_a_model(self, tmp_path: Path) -> None:
        names = ("d", "a", "c", "b", "e")
        path = write_labelled(tmp_path / "teacher.safetensors", names, seed=5, mean=(0.4,) * 3, std=(0.3,) * 3)
        start = _start()
        teacher = ModelTeacher(path, self.CLASSES, start.recipe, ALONE.device, torch.float32)
        recipe = _recipe(distil=0.3, distil_temperature=3.0, smoothing=0.1)
        trainer = _trainer(recipe, tmp_path, start=start, teacher=teacher)
        numbers = torch.tensor([3, 1, 6, 2])
        pixels = torch.stack([trainer.photos.train[int(number)] for number in numbers])
        x = normaliser(start.recipe, ALONE.device)(pixels)
        rows = trainer.photos.train_labels[numbers]
        blend = mix.Mix(0.7, None)
        mixed = 0.7 * x + 0.3 * x[[1, 0, 3, 2]]
        hard = F.one_hot(rows, 4).double() * 0.9 + 0.1 / 4
        target = 0.7 * hard + 0.3 * hard[[1, 0, 3, 2]]
        # the teacher's own view of the mixed photos: their pixels, by its own mean and deviation
        mean, std = (torch.tensor(values).view(3, 1, 1) for values in (start.recipe.mean, start.recipe.std))
        network = checkpoints.build(checkpoints.load(path))
        answers = network(((mixed * std + mean) - 0.4) / 0.3).logits.double()[:, [names.index(n) for n in self.CLASSES]]
        wanted = self.loss_of(trainer, mixed, target, (answers / 3).softmax(1))
        found = float(trainer._loss(x, rows, numbers, blend).detach())
        assert found == pytest.approx(wanted, rel=2e-5)
        assert found != pytest.approx(
            float(_trainer(recipe, tmp_path, start=start)._loss(x, rows, numbers, blend).detach())
        )

    def test_a_file(self, tmp_path: Path) -> None:
        said = np.random.default_rng(2).normal(size=(8, 4)).astype(np.float32) * 3
        np.save(tmp_path / "said.npy", said)
        recipe = _recipe(distil=0.6, distil_temperature=2.0, smoothing=0.0)
        trainer = _trainer(recipe, tmp_path, teacher=FileTeacher(tmp_path / "said.npy", 8, 4))
        numbers = torch.tensor([5, 0, 7, 2])
        x = torch.randn(4, 3, 32, 32, generator=torch.Generator().manual_seed(1))
        rows = trainer.photos.train_labels[numbers]
        other = [1, 0, 3, 2]
        box = mix.Mix(0.5, (0.25, 0.0, 0.5))  # a quarter of the photo
        mixed = x.clone()
        mixed[:, :, 8:24, 0:16] = x[other][:, :, 8:24, 0:16]
        hard = F.one_hot(rows, 4).double()
        answers = (torch.from_numpy(said[numbers.numpy()]).double() / 2).softmax(1)
        # what was said of the whole photos is mixed as they are
        wanted = self.loss_of(trainer, mixed, 0.75 * hard + 0.25 * hard[other], 0.75 * answers + 0.25 * answers[other])
        assert float(trainer._loss(x, rows, numbers, box).detach()) == pytest.approx(wanted, rel=2e-5)

    def test_rows_of_a_file_are_the_photos_in_the_order_of_the_data(
        self, convnext: Run, folders: Path, tmp_path: Path, undrawn: None
    ) -> None:
        """A teacher that is always wrong in the same way teaches that."""
        said = np.zeros((32, 4), np.float32)
        for number in range(32):
            said[number, (number // 8 + 1) % 4] = 12.0
        np.save(tmp_path / "said.npy", said)
        target = tmp_path / "run"
        given = (*LEARN, "--epochs", "20", *sets("distil=1.0", "search_size=false"))
        done = convnext(*TRAIN, folders, "-o", target, *given, "--teacher", tmp_path / "said.npy")
        assert done.status == 0, done.err
        paths = sorted((folders / "train").rglob("*.png"))
        rows = json.loads(convnext("classify", "-e", "torch", "-m", target, "--json", *paths).out)
        answers = [row["predictions"][0]["label"] for row in rows]
        names = list(COLOURS)
        wrong = [names[(names.index(path.parent.name) + 1) % 4] for path in paths]
        assert sum(answer == each for answer, each in zip(answers, wrong, strict=True)) > 22

    def test_a_run_with_a_model(self, convnext: Run, folders: Path, model: Path, tmp_path: Path, undrawn: None) -> None:
        path = write_labelled(tmp_path / "teacher.safetensors", ("grey", "red", "x", "green", "blue"), seed=4)
        for name, more in (("with", ("--teacher", path)), ("without", ())):
            given = ("--from", model, "--epochs", "1", "-b", "8", *more)
            assert convnext(*TRAIN, folders, "-o", tmp_path / name, *given).status == 0
        assert moved(tmp_path / "with", tensors_of(tmp_path / "without")) > 0
        assert tomllib.loads((tmp_path / "with" / "recipe.toml").read_text())["teacher"] == str(path)
        # going on wants the teacher again
        assert convnext(*TRAIN, folders, "-o", tmp_path / "with", "--from", model, "--teacher", path).status == 0

    @pytest.mark.parametrize(
        ("make", "said"),
        [
            (lambda path: np.save(path, np.zeros((31, 4), np.float32)), "has logits of (31, 4)"),
            (lambda path: np.save(path, np.zeros((32, 5), np.float32)), "32 photos and 4 classes"),
            (lambda path: np.save(path, np.zeros((32, 4), np.int64)), "has logits of (32, 4)"),
            (lambda path: np.save(path, np.full((32, 4), np.nan, np.float32)), "holds logits that are no numbers"),
            (lambda path: path.write_bytes(b"no array"), "cannot be read as logits"),
            (_nothing, "cannot be read as logits"),
        ],
    )
    def test_a_file_that_does_not_fit(
        self, convnext: Run, folders: Path, model: Path, tmp_path: Path, make: Any, said: str
    ) -> None:
        make(tmp_path / "said.npy")
        given = ("--from", model, *ONE_STEP, "--teacher", tmp_path / "said.npy")
        done = convnext(*TRAIN, folders, "-o", tmp_path / "run", *given)
        assert done.status == 3 and said in done.err and done.err.splitlines()[-1].startswith("hint: ")
        # the run has not begun, so a mended command may
        assert convnext(*TRAIN, folders, "-o", tmp_path / "run", "--from", model, *ONE_STEP).status == 0

    def test_a_model_that_does_not_know_the_classes(
        self, convnext: Run, folders: Path, model: Path, tmp_path: Path
    ) -> None:
        done = convnext(*TRAIN, folders, "-o", tmp_path / "run", "--from", model, *ONE_STEP, "--teacher", model)
        assert done.status == 3 and "the teacher other does not know blue and 3 more classes" in done.err
        done = convnext(*TRAIN, folders, "-o", tmp_path / "run", "--from", model, *ONE_STEP, "--teacher", "gone.pth")
        assert done.status == 3 and "gone.pth" in done.err


# ---------------------------------------------------------------------- data


def _photo_without_class(data: Path) -> str:
    shutil.copy(data / "train" / "red" / "300.png", data / "train" / "loose.png")
    return "1 photo has no class: {data}/train/loose.png"


def _empty_class(data: Path) -> str:
    (data / "train" / "violet").mkdir()
    return "1 class has no photo: violet"


def _class_of_val_alone(data: Path) -> str:
    shutil.rmtree(data / "train" / "red")
    return "that train has not: red"


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

    def test_a_class_that_loses_all_photos(self, convnext: Run, tmp_path: Path, model: Path) -> None:
        data = split(tmp_path / "data", 2, 2, 2)
        for path in (data / "train" / "red").iterdir():
            path.write_bytes(b"no photo")
        done = convnext(*TRAIN, data, "-o", tmp_path / "run", "--from", model, *ONE_STEP, "--skip-bad")
        assert done.status == 3 and "the class red has none" in done.err and not (tmp_path / "run").exists()

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
        assert done.status == 0 and "1 class has one photo alone: grey" in done.err
        with (tmp_path / "run" / "splits.csv").open(newline="") as file:
            assert [row["split"] for row in csv.DictReader(file) if row["label"] == "grey"] == ["train"]

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

    def test_val_is_taken_from_train(
        self, convnext: Run, folders: Path, tmp_path: Path, model: Path, undrawn: None
    ) -> None:
        data = tmp_path / "data"
        shutil.copytree(folders, data, ignore=shutil.ignore_patterns("val"))
        done = convnext(*TRAIN, data, "-o", tmp_path / "run", "--from", model, *ONE_STEP, "--val", "0.25")
        assert done.status == 0, done.err
        assert facts(tmp_path / "run")["photos"] == {"train": 24, "val": 8, "test": 12}
        with (tmp_path / "run" / "splits.csv").open(newline="") as file:
            rows = list(csv.DictReader(file))
        parts = {(Path(row["path"]).relative_to(data).parts[0], row["split"]) for row in rows}
        assert parts == {("train", "train"), ("train", "val"), ("test", "test")}

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
            ([], 2, "Missing argument"),
            (["{empty}"], 3, "there is no photo in"),
            (["{data}", "{data}"], 2, "only parquet files can be several"),
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
        assert done.status == 3 and "wants all photos in memory" in done.err

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
        assert done.status == 3 and "a photo cannot be read any more: missing" in done.err


# ---------------------------------------------------------------------- a folder that holds something


@pytest.fixture(scope="module")
def short(folders: Path, model: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[tuple[Any, ...], Path]:
    """Arguments of a run of two epochs, and its folder; it was killed after the first."""
    target = tmp_path_factory.mktemp("short") / "run"
    arguments = (folders, "--from", model, "--epochs", "2", "-b", "8")
    killed_at(lambda: nth(RunFolder, "write_state", 2, _nothing), *TRAIN, *arguments, "-o", target)
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
        assert done.status == 0 and "going on at step 4" in done.err, done.err

    def test_other_photos_for_a_finished_run(
        self, convnext: Run, learnt: tuple[Path, Path, Done], tmp_path: Path
    ) -> None:
        """Its figures are not those of these photos."""
        done = convnext(*TRAIN, place(tmp_path / "other", 9), "-o", learnt[1], *LEARN)
        assert done.status == 2 and "are not those that the run in" in done.err and not done.out

    def test_overwrite(self, convnext: Run, cut: tuple[tuple[Any, ...], Path], undrawn: None) -> None:
        done = convnext(*cut[0], "--overwrite", "--seed", "7")
        assert done.status == 0, done.err
        assert facts(cut[1])["seed"] == 7 and "going on" not in done.err
        assert [line["step"] for line in log(cut[1])] == [1, 4, 4, 8, 8]

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
                assert done.status == 2 and "is there, and holds no run" in done.err
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
        assert done.status == 3 and "last.pt is of another run" in done.err

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


# ---------------------------------------------------------------------- settings


class TestSettings:
    @pytest.mark.parametrize(
        ("arguments", "status", "said"),
        [
            (sets("nonsense=1"), 2, "there is no setting 'nonsense'"),
            (sets("mixap=0.2"), 2, "near: mixup"),
            (sets("lr=-1"), 2, "lr must be a number from 0 to 10"),
            (sets("lr=nan"), 2, "lr must be a number"),
            (sets("lr=true"), 2, "lr must be a number"),
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
            (sets("sizes=3"), 2, "the recipe does not work"),
            (sets("sizes=[[0.5, 64], [0.3, 32]]"), 2, "sizes must have rising shares"),
            (sets("patch_size=0"), 2, "patch_size must be a whole number"),
            (("--lr", "0"), 2, "--lr"),
            (("--lr", "nan"), 2, "nan"),
            (("--epochs", "inf"), 2, "inf"),
            (("--time", "5x"), 2, "is no time such as 90s, 20m or 1.5h"),
            (("--size", "5000"), 2, "size must be at most 4096"),
            (("--size", "16"), 3, "photos of 16 pixels are too small for this network"),
            (("--arch", "convnext_tinny"), 2, "arch must be a known variant"),
            (("-b", "7"), 2, "a batch of 7 photos cannot be parted evenly"),
            (("-b", "1"), 2, "--batch-size"),
            (("-b", "16", *sets("accumulate=3")), 2, "take a --batch-size that 6 divides"),
            (("--freeze",), 2, "freeze needs weights to begin with"),
            (("--val", "0.6", "--test", "0.5"), 2, "--val and --test must be shares"),
            (("--val", "0"), 2, "--val and --test must be shares"),
            (("--recipe", "gone.toml"), 2, "gone.toml does not exist"),
            (("--recipe", "{broken}"), 3, "cannot be read as a recipe"),
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
            assert done.status == 2 and "--arch is for --from scratch" in done.err

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
        (tmp_path / "own.toml").write_text("".join(f"{line}\n" for line in _without_clock(target)))
        for name in ("once", "again"):
            assert convnext(*TRAIN, folders, "-o", tmp_path / name, "--recipe", tmp_path / "own.toml").status == 0
        the_same_model(tmp_path / "again", tmp_path / "once")
        assert _without_clock(tmp_path / "again") == _without_clock(target)

    def test_quiet_and_json(self, convnext: Run, folders: Path, model: Path, tmp_path: Path, undrawn: None) -> None:
        done = convnext(*TRAIN, folders, "-o", tmp_path / "run", "--from", model, *ONE_STEP, "-q", "--json")
        assert done.status == 0 and not done.err and json.loads(done.out) == facts(tmp_path / "run")


# ---------------------------------------------------------------------- the parts


def _without_clock(folder: Path) -> list[str]:
    """A run's recipe without its budget in minutes, by which no two runs are the same."""
    return [line for line in (folder / "recipe.toml").read_text().splitlines() if not line.startswith("minutes")]


def _recipe(**changes: Any) -> TrainingRecipe:
    return TrainingRecipe(**{"start": "scratch", "arch": "test_convnext2", "size": 32, "batch_size": 4} | changes)


def _start(classes: int = 4, **changes: Any) -> Start:
    """Random weights, so that every parameter matters."""
    config = SMALL.replace(num_labels=classes, **changes)
    network = ConvNextForImageClassification(config)
    network.load_state_dict(random_tensors(config))
    return Start(network, Recipe(size=(32, 32), resize_to=(32, 32)), "", "random weights")


def _photos(count: int = 8, classes: int = 4) -> Photos:
    kept = InMemory(10**7)
    for number in range(count):
        kept.add(np.asarray(picture(32, 32, seed=number)), count - number - 1)
    rows = torch.arange(count) % classes
    return Photos(kept, rows, kept, rows)


class _Silent:
    def step(self, done: float, values: dict[str, Any]) -> None: ...

    def judged(self, done: float, values: dict[str, Any]) -> None: ...


def _trainer(recipe: TrainingRecipe, folder: Path, *, start: Start | None = None, **more: Any) -> Trainer:
    return Trainer(
        *(recipe.replace(epochs=1.0), start or _start(), _photos(), ALONE, RunFolder(folder), _Silent()),
        dtype="float32",
        workers=0,
        write=lambda path: None,
        **more,
    )


class TestSchedule:
    def test_the_rate_rises_straight_and_falls_as_a_cosine(self) -> None:
        recipe = _recipe(warmup=0.2, min_lr=0.1)
        at = {done: schedule.lr_factor(recipe, done) for done in (0.0, 0.05, 0.1, 0.2, 0.4, 0.6, 1.0, 1.5)}
        cosine = 0.1 + 0.9 * (1 + math.cos(math.pi / 4)) / 2
        wanted = {0.0: 0.0, 0.05: 0.25, 0.1: 0.5, 0.2: 1.0, 0.4: cosine, 0.6: 0.55, 1.0: 0.1, 1.5: 0.1}
        assert at == pytest.approx(wanted)

    def test_without_a_rise_or_a_fall(self) -> None:
        assert schedule.lr_factor(_recipe(warmup=0), 0.0) == 1.0
        assert schedule.lr_factor(_recipe(warmup=1.0), 1.0) == pytest.approx(1.0)

    def test_sizes(self) -> None:
        recipe = _recipe(size=96, sizes=[[0.3, 32], [0.6, 64]])
        assert [schedule.size_at(recipe, done) for done in (0, 0.29, 0.3, 0.59, 0.6, 1)] == [32, 32, 64, 64, 96, 96]
        assert recipe.largest == 96 and _recipe(size=32, sizes=[[0.5, 64]]).largest == 64

    def test_the_average_forgets_the_first_weights_soon(self) -> None:
        recipe = _recipe(ema=0.99)
        found = [schedule.ema_decay(recipe, step) for step in range(2000)]
        assert found[0] == 0.1 and found == sorted(found) and found[-1] == 0.99


class TestSeeds:
    def test_unlike_parts_have_unlike_seeds(self) -> None:
        parts = [
            (seed, what, *key) for seed in (0, 1, 11) for what in ("mix", "photo") for key in ((1, 11), (11, 1), (111,))
        ]
        found = [seeds.seed_of(*each) for each in parts]
        assert len(set(found)) == len(parts) and all(0 <= seed < 2**63 for seed in found)

    def test_equal_parts_draw_equally(self) -> None:
        draws = [torch.rand(4, generator=seeds.generator(3, "x", 5)) for _ in range(2)]
        assert torch.equal(*draws)
        assert seeds.numpy(3, "x").random() == seeds.numpy(3, "x").random() != seeds.numpy(3, "y").random()


class TestPlan:
    PLAN = Plan(23, 6, seed=4)

    def taken(self, count: int, first: int = 0, rank: int = 0, world: int = 1) -> list[tuple[int, list[int]]]:
        numbers = self.PLAN.numbers(first, rank, world)
        return [(epoch, some.tolist()) for epoch, some in (next(numbers) for _ in range(count))]

    def test_each_photo_at_most_once_an_epoch(self) -> None:
        steps = self.taken(9)
        assert [epoch for epoch, _ in steps] == [0, 0, 0, 1, 1, 1, 2, 2, 2]
        for epoch in range(3):
            seen = [number for each, some in steps if each == epoch for number in some]
            assert len(set(seen)) == len(seen) == 18 and set(seen) <= set(range(23))
        assert steps[0][1] != steps[3][1]
        # those that were left over are not always the same
        assert len({number for _, some in self.taken(60) for number in some}) == 23

    @pytest.mark.parametrize("first", [1, 3, 4, 8])
    def test_the_same_from_any_step_on(self, first: int) -> None:
        assert self.taken(9 - first, first) == self.taken(9)[first:]

    def test_processes_part_each_batch(self) -> None:
        parts = [self.taken(5, 1, rank, 3) for rank in range(3)]
        for (epoch, some), *others in zip(self.taken(5, 1), *parts, strict=True):
            assert [number for _, part in others for number in part] == some
            assert {each for each, _ in others} == {epoch}


class TestMix:
    RECIPE = _recipe(mixup=0.3, cutmix=1.0, mix_share=0.8, mix_until=0.75, seed=1)

    def test_targets_are_what_the_pixels_are(self) -> None:
        kinds = Counter()
        labels = torch.eye(4)[torch.tensor([0, 1, 2, 3])]
        for step in range(60):
            found = mix.draw(self.RECIPE, step, 0.5)
            if found is None:
                kinds["none"] += 1
                continue
            kinds["cutmix" if found.box else "mixup"] += 1
            edge = 33 + step % 3
            # each photo is filled with its class, so that pixels count what is there
            x = labels[:, :3].view(4, 3, 1, 1).expand(4, 3, edge, edge)
            target = found.blended(labels, edge)
            assert torch.allclose(target.sum(1), torch.ones(4))
            assert torch.allclose(mix.apply(found, x).mean((2, 3)), target[:, :3], atol=1e-5)
            assert 0 <= found.share <= 1
        assert min(kinds[kind] for kind in ("none", "cutmix", "mixup")) > 4

    def test_partners_are_neighbours(self) -> None:
        assert mix.neighbours(torch.arange(6)).tolist() == [1, 0, 3, 2, 5, 4]
        with pytest.raises(ValueError, match="no pairs"):
            mix.neighbours(torch.arange(3))

    def test_parts_of_a_batch_are_mixed_as_the_whole(self) -> None:
        x = torch.rand(8, 3, 16, 16)
        for step in range(10):
            found = mix.draw(self.RECIPE.replace(mix_share=1.0), step, 0.0)
            assert found is not None
            whole = mix.apply(found, x)
            assert torch.equal(torch.cat([mix.apply(found, part) for part in x.split(2)]), whole)

    def test_when_nothing_is_mixed(self) -> None:
        assert all(mix.draw(self.RECIPE, step, 0.75) is None for step in range(20))
        assert mix.draw(_recipe(mixup=0, cutmix=0), 1, 0.0) is None
        only = [mix.draw(_recipe(cutmix=1.0), step, 0.0) for step in range(20)]
        assert all(found is not None and found.box is not None for found in only)

    def test_smoothing(self) -> None:
        found = mix.one_hot(torch.tensor([2, 0]), 4, 0.1)
        assert torch.allclose(found, torch.tensor([[0.025, 0.025, 0.925, 0.025], [0.925, 0.025, 0.025, 0.025]]))


class TestAugment:
    PHOTO = torch.from_numpy(np.array(picture(50, 40))).permute(2, 0, 1)

    @pytest.mark.parametrize("kind", ["none", "rand", "trivial"])
    def test_a_photo_depends_on_its_key_alone(self, kind: str) -> None:
        recipe = _recipe(augment=kind, erasing=0.5)
        found = []
        for state in (1, 2):
            torch.manual_seed(state)
            before = torch.get_rng_state()
            found.append([augment.OnePhoto(recipe)(self.PHOTO, 24, 0, number) for number in range(12)])
            assert torch.equal(torch.get_rng_state(), before)
        assert all(torch.equal(*pair) for pair in zip(*found, strict=True))
        assert all(photo.shape == (3, 24, 24) and photo.dtype == torch.uint8 for photo in found[0])
        assert len({photo.numpy().tobytes() for photo in found[0]}) == 12
        assert not torch.equal(augment.OnePhoto(recipe.replace(seed=1))(self.PHOTO, 24, 0, 0), found[0][0])

    def neutral(self, photos: int) -> torch.Tensor:
        """Draws by which nothing is done."""
        drawn = torch.full((photos, augment.DRAWN), 0.5)
        drawn[:, 0] = 1.0  # the whole area
        drawn[:, [4, 5, 11, 16]] = 0.99  # no mirror, no rotation, no grey, no hole
        return drawn

    def test_a_batch_can_be_left_as_it_is(self) -> None:
        pixels = torch.stack([torch.from_numpy(np.array(picture(24, 24, seed=i))).permute(2, 0, 1) for i in range(3)])
        recipe = _recipe(augment="affine", erasing=0.5, magnitude=10)
        drawn = self.neutral(3)
        found = augment.affine(pixels, drawn, 24, recipe)
        assert torch.allclose(found, pixels.float() / 255, atol=1e-5)
        drawn[:, 4] = 0.1
        assert torch.allclose(augment.affine(pixels, drawn, 24, recipe), pixels.flip(-1).float() / 255, atol=1e-5)
        unflipped = augment.affine(pixels, drawn, 24, recipe.replace(flip=False))
        assert torch.allclose(unflipped, pixels.float() / 255, atol=1e-5)

    @pytest.mark.parametrize("column", [0, 1, 6, 7, 8, 9, 10, 12])
    def test_every_draw_matters(self, column: int) -> None:
        pixels = torch.stack([torch.from_numpy(np.array(picture(24, 24))).permute(2, 0, 1)] * 2)
        drawn = self.neutral(2)
        drawn[:, 0], drawn[:, 5], drawn[:, 16] = 0.6, 0.0, 0.0
        drawn[1, column] = 0.2
        first, second = augment.affine(pixels, drawn, 24, _recipe(augment="affine", erasing=0.5, magnitude=10))
        assert float((first - second).abs().max()) > 0.02

    def test_parts_of_a_batch_are_changed_as_the_whole(self) -> None:
        recipe = _recipe(augment="affine", erasing=0.5)
        pixels = torch.stack([torch.from_numpy(np.array(picture(24, 24, seed=i))).permute(2, 0, 1) for i in range(8)])
        drawn = augment.draw(recipe, 8, 3)
        whole = augment.affine(pixels, drawn, 32, recipe)
        parts = [augment.affine(pixels[s], drawn[s], 32, recipe) for s in (slice(0, 2), slice(2, 8))]
        assert torch.allclose(torch.cat(parts), whole, atol=1e-6)
        assert whole.shape == (8, 3, 32, 32) and 0 <= float(whole.min()) <= float(whole.max()) <= 1
        assert torch.equal(augment.draw(recipe, 8, 3), drawn) and not torch.equal(augment.draw(recipe, 8, 4), drawn)


class TestOptimise:
    @pytest.mark.parametrize("name", VARIANTS)
    def test_every_parameter_has_a_depth_which_rises(self, name: str) -> None:
        config = VARIANTS[name].replace(num_labels=3)
        depths = {each: optimise.depth_of(each, config) for each in config.shapes()}
        found = list(depths.values())
        assert found == sorted(found) and found[0] == 0
        assert sorted(set(found)) == list(range(max(found) + 1))
        top = {each for each, depth in depths.items() if depth == max(found)}
        assert {"head.weight", "head.bias"} <= top and not any("blocks" in n or "stages" in n for n in top)

    def test_groups_of_three_blocks(self) -> None:
        config = VARIANTS["convnext_tiny"]
        named = {
            "downsample_layers.0.0.weight": 0,
            "stages.0.2.gamma": 1,
            "downsample_layers.1.1.weight": 2,
            "stages.2.0.dwconv.weight": 3,
            "stages.2.2.dwconv.weight": 3,
            "stages.2.3.dwconv.weight": 4,
            "stages.2.8.pwconv1.bias": 5,
            "stages.3.2.norm.weight": 6,
            "norm.weight": 7,
            "head.weight": 7,
        }
        assert {name: optimise.depth_of(name, config) for name in named} == named

    @pytest.mark.parametrize("name", ["test_convnext2", "convnextv2_atto"])
    def test_what_decays(self, name: str) -> None:
        network = ConvNextForImageClassification(VARIANTS[name].replace(num_labels=3))
        kept = {each for each, parameter in network.named_parameters() if not optimise.decays(parameter, each)}
        wanted = {each for each in VARIANTS[name].shapes() if each.endswith(("bias", "gamma", "beta"))}
        norms = {each for each in VARIANTS[name].shapes() if ".norm." in each or each == "norm.weight"}
        norms |= {f"downsample_layers.{stage}.{int(stage == 0)}.weight" for stage in range(4)}
        assert kept == wanted | norms

    @pytest.mark.parametrize("kind", ["adamw", "muon"])
    def test_every_parameter_is_in_one_group_whose_rate_rises(self, kind: str) -> None:
        if kind == "muon" and not hasattr(torch.optim, "Muon"):
            pytest.skip("this torch has no Muon")
        network = _start().network
        made = optimise.optimisers(network, _recipe(optimiser=kind, layer_decay=0.5, weight_decay=0.3, lr=0.02))
        optimise.set_rate(made, 0.01)
        names = {id(parameter): name for name, parameter in network.named_parameters()}
        rates, decays = {}, {}
        for optimiser in made:
            for group in optimiser.param_groups:
                for parameter in group["params"]:
                    name = names.pop(id(parameter))
                    rates[name], decays[name] = group["lr"], group["weight_decay"]
                    assert isinstance(optimiser, torch.optim.AdamW) == (
                        kind == "adamw" or ".pwconv" not in name or parameter.ndim < 2
                    )
        assert not names
        top = optimise.depth_of("head.weight", network.config)
        for name, rate in rates.items():
            assert rate == pytest.approx(0.01 * 0.5 ** (top - optimise.depth_of(name, network.config)))
            assert decays[name] == (0.3 if optimise.decays(network.get_parameter(name), name) else 0.0)

    def test_without_decay_all_have_one_rate(self) -> None:
        made = optimise.optimisers(_start().network, _recipe(optimiser="adamw", layer_decay=1.0))
        optimise.set_rate(made, 0.01)
        assert {group["lr"] for group in made[0].param_groups} == {0.01}

    def test_the_average(self) -> None:
        network = _start().network
        begun = [parameter.detach().clone() for parameter in network.parameters()]
        average = optimise.Average(network)
        with torch.no_grad():
            for parameter in network.parameters():
                parameter.add_(1.0)
        average.update(0.75)
        for value, before in zip(average.values, begun, strict=True):
            assert torch.allclose(value, before + 0.25, atol=1e-6)
        own = [parameter.detach().clone() for parameter in network.parameters()]
        kept = [value.clone() for value in average.values]
        average.swap()
        assert all(torch.equal(p, value) for p, value in zip(network.parameters(), kept, strict=True))
        average.swap()
        assert all(torch.equal(p, before) for p, before in zip(network.parameters(), own, strict=True))
        assert all(torch.equal(value, before) for value, before in zip(average.values, kept, strict=True))


class TestStep:
    def test_drop_path_is_drawn_for_all_and_parted(self, tmp_path: Path) -> None:
        recipe = _recipe(drop_path=0.5, batch_size=8)
        start = _start(drop_path_rate=0.5)
        trainer = _trainer(recipe, tmp_path, start=start)
        kept = trainer.paths.draw(0, 3, 400)
        rates = [module.rate for module in start.network.modules() if isinstance(module, DropPath) and module.rate]
        assert kept.shape == (len(rates), 400) and set(kept.unique().tolist()) == {0.0, 1.0}
        assert kept.mean(1).tolist() == pytest.approx([1 - rate for rate in rates], abs=0.08)
        assert torch.equal(trainer.paths.draw(0, 3, 400), kept) and not torch.equal(trainer.paths.draw(0, 4, 400), kept)

    def test_a_step_with_class_weights(self, tmp_path: Path) -> None:
        weights = torch.tensor([0.5, 1.0, 2.0, 0.1])
        trainer = _trainer(_recipe(smoothing=0.2), tmp_path, weights=weights)
        x = torch.randn(4, 3, 32, 32, generator=torch.Generator().manual_seed(2))
        rows = torch.tensor([0, 2, 2, 1])
        likelihood = trainer.network(x).logits.log_softmax(1)
        target = F.one_hot(rows, 4) * 0.8 + 0.05
        wanted = -(weights * target * likelihood).sum(1).mean()
        assert float(trainer._loss(x, rows, rows, None).detach()) == pytest.approx(float(wanted.detach()), rel=1e-5)

    def test_a_loss_that_is_no_number_ends_it(
        self, convnext: Run, folders: Path, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        real = Trainer._loss
        monkeypatch.setattr(Trainer, "_loss", lambda *arguments: real(*arguments) * math.nan)
        given = ("--from", model, "--epochs", "2", "-b", "8")
        done = convnext(*TRAIN, folders, "-o", tmp_path / "run", *given)
        assert done.status == 3 and "the loss is nan at step 1" in done.err and "take a lower --lr" in done.err


class TestJudge:
    def test_the_temperature_has_the_least_loss(self) -> None:
        rng = np.random.default_rng(5)
        rows = torch.from_numpy(rng.integers(0, 5, 200))
        for scale in (0.2, 1.0, 7.0):
            logits = torch.from_numpy(scale * (rng.normal(size=(200, 5)) + 2 * np.eye(5)[rows.numpy()]))
            found = fit_temperature(logits.float(), rows)
            grid = np.exp(np.linspace(math.log(found) - 0.5, math.log(found) + 0.5, 201))
            losses = [float(F.cross_entropy(logits / each, rows)) for each in grid]
            assert float(F.cross_entropy(logits / found, rows)) <= min(losses) + 1e-9
            assert abs(math.log(grid[int(np.argmin(losses))] / found)) < 0.01

    def test_answers_that_are_all_right_have_a_finite_temperature(self) -> None:
        assert 1 / 65 < fit_temperature(10 * torch.eye(4), torch.arange(4)) < 0.5

    def test_figures(self) -> None:
        logits = torch.tensor([[3.0, 1, 0, -1, -2, -3], [0.0, 2, 1, -1, -2, -3], [5.0, 4, 3, 2, 1, 0]])
        found = judge(logits, torch.tensor([0, 2, 5]))
        assert (found["top1"], found["top5"]) == (1 / 3, 2 / 3)
        assert found["loss"] == pytest.approx(float(F.cross_entropy(logits, torch.tensor([0, 2, 5]))))
        confident = logits.softmax(1).max(1).values
        assert 0 <= found["ece"] <= float(confident.max())
        assert judge(logits, torch.tensor([0, 2, 5]), 2.0)["loss"] == pytest.approx(
            float(F.cross_entropy(logits / 2, torch.tensor([0, 2, 5])))
        )


class TestChoose:
    def chosen(
        self, photos: int, *, device: str = "cpu", counts: list[int] | None = None, **given: Any
    ) -> TrainingRecipe:
        counts = counts or [photos // 10] * 10
        start = given.setdefault("start", "scratch")
        card = None if start == "scratch" else Card(SMALL, Recipe(size=(64, 64), resize_to=(64, 64)))
        return choose.choose(given, photos=photos, counts=counts, card=card, device=device)

    def test_small_data_with_weights(self) -> None:
        found = self.chosen(400, start="default")
        assert (found.batch_size, found.size, found.start, found.arch) == (32, 64, "default", "")
        assert found.layer_decay < 1 and found.epochs == 40 and found.lr < 1e-3

    def test_large_data_from_scratch(self) -> None:
        found = self.chosen(100_000, device="cuda")
        assert (found.batch_size, found.epochs, found.arch) == (1024, 50, "convnext_atto")
        assert found.layer_decay == 1 and found.mixup > 0 and found.cutmix > 0 and found.drop_path > 0
        assert self.chosen(100_000).batch_size < 1024
        assert self.chosen(100_000, epochs=5.0).mixup == 0  # too short for that

    @pytest.mark.parametrize("start", ["scratch", "default"])
    @pytest.mark.parametrize("photos", [20, 33, 500, 5000, 50_000, 1_300_000])
    def test_of_any_size(self, photos: int, start: str) -> None:
        for device in ("cpu", "cuda"):
            found = self.chosen(photos, device=device, start=start)
            assert found.batch_size % 2 == 0 and 2 <= found.batch_size <= photos
            assert found.epochs is not None and 5 <= found.epochs <= 300 and found.minutes is None

    def test_more_photos_need_fewer_epochs(self) -> None:
        epochs = [self.chosen(photos).epochs or 0 for photos in (100, 20_000, 100_000, 1_000_000)]
        assert epochs == sorted(epochs, reverse=True) and epochs[0] > epochs[-1]

    def test_what_is_given_wins(self) -> None:
        found = self.chosen(1000, minutes=3.0, lr=0.5, batch_size=16, class_weights="none", counts=[10, 990])
        assert (found.minutes, found.epochs, found.lr, found.batch_size) == (3.0, None, 0.5, 16)
        assert found.class_weights == "none"
        assert self.chosen(1000, counts=[10, 990]).class_weights == "balanced"
        assert self.chosen(1000, counts=[400, 600]).class_weights == "none"

    def test_weights_of_classes_are_one_on_average(self) -> None:
        photos = tuple(LabelledPhoto(str(i), "a" if i < 3 else "b") for i in range(12))
        data = TrainingData(Dataset("x", "folders", ("a", "b"), photos), ("a", "b"), photos, photos, (), parted=False)
        found = runs._class_weights(_recipe(class_weights="balanced"), data)
        assert found is not None
        assert found.tolist() == pytest.approx([2.0, 2 / 3])
        assert sum(float(found[data.rows[photo.label]]) for photo in photos) == pytest.approx(12)
        assert runs._class_weights(_recipe(class_weights="none"), data) is None


class TestPrecision:
    @pytest.fixture
    def network(self) -> ConvNextForImageClassification:
        return _start().network

    def test_it_measures_and_changes_nothing(self, network: ConvNextForImageClassification) -> None:
        before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
        assert precision.fastest(network, _recipe(), ALONE) in ("float32", "bfloat16")
        assert all(torch.equal(tensor, before[name]) for name, tensor in network.state_dict().items())
        assert all(parameter.grad is None for parameter in network.parameters())

    @pytest.mark.parametrize(("first", "wanted"), [(0.0, "float32"), (1.0, "bfloat16")])
    def test_all_processes_take_the_first_ones(
        self, network: ConvNextForImageClassification, first: float, wanted: str
    ) -> None:
        class Second(Processes):
            def shared(self, *values: float) -> list[float]:
                return [first]

        assert precision.fastest(network, _recipe(), Second(1, 2, torch.device("cpu"))) == wanted

    def test_a_device_that_does_not_know_it(
        self, network: ConvNextForImageClassification, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        real = torch.autocast

        def autocast(device: str, dtype: torch.dtype, *, enabled: bool = True) -> Any:
            if enabled:
                raise RuntimeError("no bfloat16 here")
            return real(device, dtype, enabled=False)

        monkeypatch.setattr(torch, "autocast", autocast)
        assert precision.fastest(network, _recipe(), ALONE) == "float32"

    @pytest.mark.parametrize("faster", ["float32", "bfloat16"])
    def test_the_faster_one(
        self, network: ConvNextForImageClassification, monkeypatch: pytest.MonkeyPatch, faster: str
    ) -> None:
        now, real = [0.0], torch.autocast

        def autocast(device: str, dtype: torch.dtype, *, enabled: bool = True) -> Any:
            now[0] += 1.0 if str(dtype).endswith(faster) else 2.0
            return real(device, dtype, enabled=enabled)

        monkeypatch.setattr(torch, "autocast", autocast)
        monkeypatch.setattr(precision.time, "perf_counter", lambda: now[0])
        assert precision.fastest(network, _recipe(), ALONE) == faster


class TestRecipe:
    def test_there_and_back(self) -> None:
        recipe = _recipe(sizes=[[0.3, 32]], teacher="x.npy", minutes=3.5, patch_size=2)
        assert TrainingRecipe(**tomllib.loads(recipe.to_toml())) == recipe

    @pytest.mark.parametrize("name", ["warmup", "min_lr", "mix_share", "mix_until", "erasing", "distil", "smoothing"])
    def test_shares(self, name: str) -> None:
        for wrong in (-0.1, 1.1, math.nan, "x", None, True):
            with pytest.raises(ValueError, match=name):
                _recipe(**{name: wrong})
        assert getattr(_recipe(**{name: 0.5}), name) == 0.5


@pytest.fixture(autouse=True)
def _threads() -> Iterator[None]:
    """A run sets how many threads torch has, for the whole process."""
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def test_a_model_that_cannot_be_trained_at_this_size(tmp_path: Path, model: Path) -> None:
    with pytest.raises(ModelError, match="too small for this network"):
        from_weights(_recipe(start="x", arch="", size=24), model, ("a", "b"))
