"""No setting is taken without having an effect."""

from __future__ import annotations

import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import tomli_w
import torch

from convnext_cli.base.errors import UsageError
from convnext_cli.training import classifier_head, setting_effects, settings
from convnext_cli.training.listener import SILENT
from convnext_cli.training.run_folder import RunFolder
from convnext_cli.training.setting_effects import NEEDS, Need
from convnext_cli.training.settings import NAMES, TrainingSettings
from tests.helpers.command import Run
from tests.helpers.paths import ROOT
from tests.helpers.training import (
    ALONE,
    ONE_STEP,
    SCRATCH,
    TRAIN,
    photos_of,
    place,
    sets,
    start_of,
    tensors_of,
    write_labelled,
)

# Every setting with a value that is not its default.
OTHER: dict[str, Any] = {
    "start": "x",
    "arch": "convnext_atto",
    "patch_size": 2,
    "layer_scale": 0.5,
    "size": 64,
    "sizes": [[0.5, 32]],
    "resize": "squash",
    "crop_pct": 0.9,
    "search_size": True,
    "epochs": 3.0,
    "minutes": 5.0,
    "warmup": 0.3,
    "patience": 3,
    "batch_size": 32,
    "accumulate": 2,
    "optimiser": "muon",
    "lr": 0.004,
    "min_lr": 0.2,
    "weight_decay": 0.2,
    "beta2": 0.9,
    "layer_decay": 0.7,
    "clip": 1.0,
    "drop_path": 0.3,
    "ema": 0.9,
    "smoothing": 0.2,
    "mixup": 0.4,
    "cutmix": 1.0,
    "mix_share": 0.5,
    "mix_until": 0.5,
    "augment": "rand",
    "magnitude": 5,
    "operations": 3,
    "scale": 0.5,
    "flip": False,
    "erasing": 0.3,
    "head_scale": 0.1,
    "class_weights": "balanced",
    "freeze": True,
    "teacher": "y",
    "teacher_labels": "names.txt",
    "distil": 0.7,
    "distil_temperature": 4.0,
    "dtype": "float32",
    "compile": True,
    "seed": 3,
}
# Settings beside which each of the needs does not hold, and others beside which all needs of a setting hold.
AGAINST: dict[Need, dict[str, Any]] = {
    settings.TRAINED: {"freeze": True},
    settings.FROM_SCRATCH: {"start": "x"},
    settings.FALLS: {"warmup": 1.0},
    settings.TAUGHT: {"teacher": None},
    settings.HEEDED: {"teacher": "y", "distil": 0.0},
    settings.LABELLED: {"teacher": "y", "distil": 1.0},
    settings.MIXES: {"mixup": 0.0, "cutmix": 0.0},
    settings.SHARED: {"mixup": 0.1, "mix_share": 0.0},
    settings.BEGUN: {"mixup": 0.1, "mix_until": 0.0},
    settings.STRONG: {"augment": "trivial"},
    settings.COUNTED: {"augment": "affine"},
}
FOR: dict[Need, dict[str, Any]] = {
    settings.FROM_SCRATCH: {"start": "scratch", "arch": "convnext_atto"},
    settings.TAUGHT: {"teacher": "y"},
    settings.MIXES: {"mixup": 0.1},
    settings.STRONG: {"augment": "rand"},
    settings.COUNTED: {"augment": "rand"},
}
TRAINED = [name for name in NAMES if settings.TRAINED in NEEDS[name]]


def cases() -> Iterator[tuple[str, Need]]:
    for name in NAMES:
        for need in NEEDS[name]:
            if name not in AGAINST[need]:
                yield name, need


class TestTable:
    def test_it_has_every_setting(self) -> None:
        assert set(NEEDS) == set(NAMES) == set(OTHER)
        defaults = TrainingSettings().to_dict()
        assert not [name for name, value in OTHER.items() if defaults.get(name) == value]
        assert {need for needs in NEEDS.values() for need in needs} == set(AGAINST)

    @pytest.mark.parametrize(("name", "need"), [(n, d) for n, d in cases()])
    def test_a_setting_whose_need_is_not_met(self, name: str, need: Need) -> None:
        recipe = TrainingSettings(**{name: OTHER[name]} | AGAINST[need])
        with pytest.raises(UsageError, match="no effect") as caught:
            setting_effects.check(recipe, {name: ""})
        assert setting_effects.option(name) in str(caught.value)
        with pytest.raises(UsageError, match=f"mine.toml sets {name}, which has no effect"):
            setting_effects.check(recipe, {name: "mine.toml"})
        setting_effects.check(recipe, {})  # chosen by the program
        assert name not in setting_effects.in_force(recipe)

    @pytest.mark.parametrize("name", NAMES)
    def test_a_setting_whose_needs_are_met(self, name: str) -> None:
        beside: dict[str, Any] = {}
        for need in NEEDS[name]:
            beside |= FOR.get(need, {})
        recipe = TrainingSettings(**{"start": "x"} | beside | {name: OTHER[name]})
        setting_effects.check(recipe, {name: ""})
        setting_effects.check(recipe, {name: "mine.toml"})
        assert setting_effects.in_force(recipe)[name] == OTHER[name]

    def test_a_file_of_an_earlier_version_lists_defaults(self) -> None:
        recipe = TrainingSettings(start="x", freeze=True)
        setting_effects.check(recipe, dict.fromkeys(NAMES, "old.toml"))
        with pytest.raises(UsageError, match="lr has no effect"):
            setting_effects.check(recipe, {"lr": ""})

    def test_all_of_one_cause_are_named(self) -> None:
        recipe = TrainingSettings(freeze=True)
        with pytest.raises(UsageError) as caught:
            setting_effects.check(recipe, dict.fromkeys(("minutes", "mixup", "compile"), ""))
        assert caught.value.message == (
            "--time, mixup, --compile have no effect with freeze, which fits the classifier alone"
        )
        assert caught.value.hint == "leave them out"

    def test_a_solved_classifier_is_the_same_whatever_they_are(self, tmp_path: Path) -> None:
        solved = []
        for number, changes in enumerate(({}, {name: OTHER[name] for name in TRAINED})):
            start, folder = start_of(), RunFolder(tmp_path / str(number))
            folder.make()
            recipe = TrainingSettings(**{"start": "x", "size": 32, "batch_size": 4, "freeze": True} | changes)
            given = (recipe, start, photos_of(), None, ALONE, folder, SILENT)
            classifier_head.solve(*given, dtype="float32", threads=1)
            solved.append(start.network.state_dict())
        assert all(torch.equal(tensor, solved[1][name]) for name, tensor in solved[0].items())

    def test_the_recipe_of_the_default_has_no_idle_setting(self) -> None:
        values = tomllib.loads((ROOT / "weights" / "recipe.toml").read_text())
        values["teacher"] = "logits.npy"  # of the command
        setting_effects.check(TrainingSettings(**values), dict.fromkeys(values, "weights/recipe.toml"))


class TestCommand:
    @pytest.mark.parametrize("name", [name for name in TRAINED if name != "teacher"])
    def test_frozen(self, convnext: Run, folders: Path, model: Path, tmp_path: Path, name: str) -> None:
        value = tomli_w.dumps({"x": OTHER[name]}).removeprefix("x = ").strip()
        given = (*TRAIN, folders, "-o", tmp_path / "run", "--from", model)
        done = convnext(*given, "--freeze", "--set", f"{name}={value}")
        assert done.status == 2 and "no effect with freeze" in done.err, done.err
        assert done.err.splitlines()[-1].startswith("hint: ")
        (tmp_path / "mine.toml").write_text(f"freeze = true\n{name} = {value}\n")
        done = convnext(*given, "--recipe", tmp_path / "mine.toml")
        assert done.status == 2 and f"mine.toml sets {name}, which has no effect with freeze" in done.err, done.err
        assert not (tmp_path / "run").exists()

    @pytest.mark.parametrize(
        ("more", "said"),
        [
            (("--freeze", "--compile"), "--compile has no effect with freeze"),
            (("--freeze", "--epochs", "2"), "--epochs has no effect with freeze"),
            (("--freeze", "--time", "5m"), "--time has no effect with freeze"),
            (("--freeze", "--teacher", "x"), "--teacher has no effect with freeze"),
            (("--freeze", "-b", "8"), "--batch-size has no effect with freeze"),
            (("--freeze", "-j", "2"), "--workers has no effect with freeze"),
            (("--freeze", "--seed", "2"), "--seed has no effect with freeze on data that has its splits"),
            ((*sets("augment=affine"), "-j", "2"), "--workers has no effect with augment = affine"),
            (sets("distil=0.3"), "distil has no effect without a teacher"),
            (sets("mix_share=0.3"), "mix_share has no effect without mixup or cutmix"),
            (sets("mixup=0.3", "mix_until=0"), "mixup has no effect with mix_until = 0"),
            (sets("magnitude=3"), "magnitude has no effect unless augment is rand or affine"),
            (sets("augment=affine", "operations=3"), "operations has no effect unless augment is rand"),
            (("--arch", "convnext_tiny"), "--arch has no effect unless start is scratch"),
            (("--val", "0.3"), "--val has no effect on data that has a val split"),
            (("--test", "0"), "--test has no effect on data that has a test split"),
        ],
    )
    def test_others(
        self, convnext: Run, folders: Path, model: Path, tmp_path: Path, more: tuple[str, ...], said: str
    ) -> None:
        done = convnext(*TRAIN, folders, "-o", tmp_path / "run", "--from", model, *more)
        assert done.status == 2 and said in done.err, done.err
        assert done.err.splitlines()[-1].startswith("hint: ") and not (tmp_path / "run").exists()

    def test_from_scratch(self, convnext: Run, folders: Path, tmp_path: Path, undrawn: None) -> None:
        done = convnext(*TRAIN, folders, "-o", tmp_path / "run", *SCRATCH, *ONE_STEP, "--pull")
        assert done.status == 2 and "--pull has no effect from scratch" in done.err
        # mixup is chosen for long runs from scratch alone
        done = convnext(*TRAIN, folders, "-o", tmp_path / "run", *SCRATCH, *ONE_STEP, *sets("mix_until=0.5"))
        assert done.status == 2 and "mix_until has no effect without mixup or cutmix" in done.err
        long = (*SCRATCH, "--epochs", "40", "--time", "0.01s", "-b", "4", *sets("mix_until=0.5", "search_size=false"))
        assert convnext(*TRAIN, folders, "-o", tmp_path / "run", *long).status == 0

    def test_a_classifier_that_is_not_new(
        self, convnext: Run, folders: Path, model: Path, tmp_path: Path, undrawn: None
    ) -> None:
        knowing = write_labelled(tmp_path / "knowing.safetensors", ("blue", "green", "grey", "red"))
        given = (*TRAIN, folders, "-o", tmp_path / "run", *ONE_STEP, *sets("head_scale=0.5"))
        done = convnext(*given, "--from", knowing)
        assert done.status == 2 and "head_scale has no effect on the classifier of knowing" in done.err
        assert convnext(*given, "--from", model).status == 0

    def test_a_seed_parts_data_without_splits(self, convnext: Run, model: Path, tmp_path: Path, undrawn: None) -> None:
        data = place(tmp_path / "photos", 8)
        done = convnext(*TRAIN, data, "-o", tmp_path / "run", "--from", model, "--freeze", "--seed", "3")
        assert done.status == 0, done.err

    def test_a_run_that_goes_on(self, convnext: Run, folders: Path, model: Path, tmp_path: Path, undrawn: None) -> None:
        given = (*TRAIN, folders, "-o", tmp_path / "run", "--from", model, "--freeze")
        assert convnext(*given).status == 0
        done = convnext(*given, *sets("mixup=0.0"))
        assert done.status == 2 and "mixup has no effect with freeze" in done.err

    def test_a_frozen_runs_own_recipe_makes_it_again(
        self, convnext: Run, folders: Path, model: Path, tmp_path: Path, undrawn: None
    ) -> None:
        one, two = tmp_path / "one", tmp_path / "two"
        assert convnext(*TRAIN, folders, "-o", one, "--from", model, "--freeze", *sets("smoothing=0.2")).status == 0
        done = convnext(*TRAIN, folders, "-o", two, "--from", model, "--recipe", one / "recipe.toml")
        assert done.status == 0, done.err
        assert all(torch.equal(tensor, tensors_of(two)[name]) for name, tensor in tensors_of(one).items())
        values = tomllib.loads((one / "recipe.toml").read_text())
        assert values["freeze"] and values["smoothing"] == 0.2 and not values.keys() & set(TRAINED)

    def test_weights_that_were_frozen_keep_their_optimiser(
        self, convnext: Run, folders: Path, tmp_path: Path, undrawn: None
    ) -> None:
        made, frozen, tuned = tmp_path / "made", tmp_path / "frozen", tmp_path / "tuned"
        more = (*SCRATCH, "--epochs", "0.01", "-b", "4", *sets("optimiser=muon", "search_size=false"))
        assert convnext(*TRAIN, folders, "-o", made, *more).status == 0
        assert convnext(*TRAIN, folders, "-o", frozen, "--from", made, "--freeze").status == 0
        assert convnext(*TRAIN, folders, "-o", tuned, "--from", frozen, "--epochs", "0.01", "-b", "4").status == 0
        assert tomllib.loads((tuned / "recipe.toml").read_text())["optimiser"] == "muon"
