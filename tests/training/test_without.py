"""Training without val, without test, and without class folders."""

from __future__ import annotations

import json
import shutil
import zipfile
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from convnext_cli import checkpoints
from tests.helpers.command import Run
from tests.helpers.training import (
    EVALUATE,
    TRAIN,
    evaluations,
    facts,
    killed_at,
    nothing,
    nth,
    place,
    sets,
    tensors_of,
    the_same_model,
)

NONE = ("--val", "0", "--test", "0")


class TestVal:
    @pytest.fixture
    def data(self, tmp_path: Path) -> Path:
        return place(tmp_path / "photos", 10)

    def test_the_last_weights_are_taken(self, convnext: Run, data: Path, model: Path, tmp_path: Path) -> None:
        target = tmp_path / "run"
        done = convnext(*TRAIN, data, "-o", target, "--from", model, "--epochs", "3", "-b", "8", "--val", "0")
        assert done.status == 0, done.err
        assert "note: without val the last weights are taken" in done.err
        assert "the last weights, of epoch 3.0" in done.err and "no temperature was fitted" in done.err
        found = facts(target)
        assert found["photos"] == {"train": 32, "val": 0, "test": 8}
        assert found["results"].keys() == {"best_step", "best_epoch", "size", "temperature", "test"}
        assert found["results"]["temperature"] is None and found["results"]["best_step"] == 12
        assert not evaluations(target) and "val" not in done.out and "test" in done.out
        assert all(
            torch.equal(tensor, load_file(target / "checkpoints" / "ema.safetensors")[name])
            for name, tensor in tensors_of(target).items()
        )
        card = checkpoints.read_card(target)
        assert card.temperature is None and set(card.metrics) == {"test top-1"}
        assert sorted(path.name for path in target.glob("*.png")) == ["curves.png"]
        shown = convnext(*EVALUATE, data, "-m", target, "--json")
        assert shown.status == 0 and json.loads(shown.out)["top1"]["photos"] == 8

    def test_nothing_is_measured_without_both(
        self, convnext: Run, data: Path, model: Path, tmp_path: Path, undrawn: None
    ) -> None:
        target = tmp_path / "run"
        done = convnext(*TRAIN, data, "-o", target, "--from", model, "--epochs", "1", "-b", "8", *NONE)
        assert done.status == 0 and not done.out, done.err
        assert "without val" in done.err and "without test nothing measures the model" in done.err
        assert facts(target)["photos"] == {"train": 40, "val": 0, "test": 0}
        assert not checkpoints.read_card(target).metrics
        shown = convnext(*EVALUATE, data, "-m", target)
        assert shown.status == 0 and "was trained on all of these photos" in shown.err

    def test_a_classifier_alone(self, convnext: Run, data: Path, model: Path, tmp_path: Path, undrawn: None) -> None:
        target = tmp_path / "run"
        done = convnext(*TRAIN, data, "-o", target, "--from", model, "--freeze", *NONE)
        assert done.status == 0, done.err
        assert "solved with a penalty of 0.01" in done.err and not (target / "log.jsonl").exists()
        assert facts(target)["results"]["penalty"] == 0.01
        assert bool(tensors_of(target)["head.weight"].isfinite().all())

    def test_from_scratch_without_a_search_of_sizes(
        self, convnext: Run, data: Path, tmp_path: Path, undrawn: None
    ) -> None:
        from tests.helpers.training import SCRATCH

        done = convnext(*TRAIN, data, "-o", tmp_path / "run", *SCRATCH, "--epochs", "1", "-b", "8", *NONE)
        assert done.status == 0 and facts(tmp_path / "run")["results"]["size"] == 32

    def test_it_goes_on(self, convnext: Run, data: Path, model: Path, tmp_path: Path, undrawn: None) -> None:
        given = (data, "--from", model, "--epochs", "3", "-b", "8", *NONE)
        from convnext_cli.training.run_folder import RunFolder

        assert convnext(*TRAIN, *given, "-o", tmp_path / "whole").status == 0
        killed_at(lambda: nth(RunFolder, "write_state", 2, nothing), *TRAIN, *given, "-o", tmp_path / "cut")
        done = convnext(*TRAIN, *given, "-o", tmp_path / "cut")
        assert done.status == 0 and "resuming at step" in done.err, done.err
        the_same_model(tmp_path / "cut", tmp_path / "whole")

    def test_bad_photos_are_left_out_all_the_same(
        self, convnext: Run, data: Path, model: Path, tmp_path: Path, undrawn: None
    ) -> None:
        (data / "red" / "bad.png").write_bytes(b"no photo")
        given = ("--from", model, "--epochs", "1", "-b", "8", *NONE, "--skip-bad")
        assert convnext(*TRAIN, data, "-o", tmp_path / "run", *given).status == 0

    def test_data_with_train_and_test_alone(
        self, convnext: Run, folders: Path, model: Path, tmp_path: Path, undrawn: None
    ) -> None:
        shutil.copytree(folders, tmp_path / "data")
        shutil.rmtree(tmp_path / "data" / "val")
        given = ("--from", model, "--epochs", "1", "-b", "8", "--val", "0", *sets("ema=0"))
        done = convnext(*TRAIN, tmp_path / "data", "-o", tmp_path / "run", *given)
        assert done.status == 0 and facts(tmp_path / "run")["photos"] == {"train": 32, "val": 0, "test": 12}


class TestClassFolders:
    @pytest.fixture(params=["loose", "zip", "splits"])
    def data(self, request: pytest.FixtureRequest, tmp_path: Path) -> Path:
        """Photos that are not in class folders."""
        photos = sorted(place(tmp_path / "made", 3).rglob("*.png"))
        folder = tmp_path / "holiday"
        places = ("train", "val") if request.param == "splits" else (".",)
        for number, photo in enumerate(photos):
            target = folder / places[number % len(places)] / photo.name
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(photo, target)
        if request.param != "zip":
            return folder
        with zipfile.ZipFile(tmp_path / "holiday.zip", "w") as file:
            for path in sorted(folder.iterdir()):
                file.write(path, path.name)
        return tmp_path / "holiday.zip"

    def test_a_drawing_says_how_they_should_lie(self, convnext: Run, data: Path, model: Path, tmp_path: Path) -> None:
        for command in ((*TRAIN, data, "-o", tmp_path / "run", "--from", model), (*EVALUATE, data, "-m", model)):
            done = convnext(*command)
            assert done.status == 3, done.err
            lines = done.err[done.err.index("error: ") :].splitlines()
            assert "not in class folders" in lines[0] or "is in a class folder" in lines[0]
            assert lines[2:7] == [
                f"    {data.name}{'' if data.suffix else '/'}",
                "    ├── NAME-OF-A-CLASS/",
                "    │   └── 000.png, …",
                "    └── NAME-OF-ANOTHER/",
                f"        └── {lines[6].strip('└─ ').removesuffix(', …')}, …",
            ]
            assert lines[-1].startswith("hint: move the photos into one folder for each class")
        assert not (tmp_path / "run").exists()

    def test_one_class_alone(self, convnext: Run, model: Path, tmp_path: Path) -> None:
        data = place(tmp_path / "data", 4, ("red",))
        done = convnext(*TRAIN, data, "-o", tmp_path / "run", "--from", model)
        assert done.status == 3 and "one class alone, red" in done.err and "├── NAME-OF-A-CLASS/" in done.err

    def test_photos_beside_class_folders_are_not_drawn(self, convnext: Run, model: Path, tmp_path: Path) -> None:
        data = place(tmp_path / "data", 4)
        shutil.copy(data / "red" / "300.png", data / "loose.png")
        done = convnext(*TRAIN, data, "-o", tmp_path / "run", "--from", model)
        assert done.status == 3 and "1 photo has no class" in done.err and "├──" not in done.err
