"""``train`` from Python: as the command, to the last bit."""

from __future__ import annotations

import dataclasses
import pickle
import signal
from pathlib import Path
from typing import Any

import pytest
import torch

from convnext_cli import SettingsChanges, TrainListener, TrainRequest, train
from convnext_cli.base.errors import UsageError
from convnext_cli.training.settings import SCRATCH, TrainingSettings
from tests.helpers.command import Run
from tests.helpers.training import SAME, evaluations, facts, sets, the_same_model

pytestmark = pytest.mark.usefixtures("undrawn")
STEPS = {"epochs": 2.0, "batch_size": 8, "optimiser": "adamw", "search_size": False, "dtype": "float32"}


def request_for(folders: Path, model: Path, output: Path, **changes: Any) -> TrainRequest:
    settings = SettingsChanges(start=str(model), **STEPS)  # type: ignore[arg-type]
    request = TrainRequest(data=(folders,), output=output, settings=settings, device="cpu", threads=1, workers=0)
    return dataclasses.replace(request, **changes)


class Heard(TrainListener):
    """Keeps what a run reports; interrupts it after a step if that is asked for."""

    def __init__(self, *, interrupt: bool = False) -> None:
        self.interrupt = interrupt
        self.notes: list[str] = []
        self.stages: list[tuple[str, int | None]] = []
        self.items = 0
        self.begun: list[TrainingSettings] = []
        self.shares: list[float] = []
        self.evaluations: list[dict[str, Any]] = []

    def note(self, text: str) -> None:
        self.notes.append(text)

    def stage(self, name: str, total: int | None = None) -> None:
        self.stages.append((name, total))

    def advance(self, done: int = 1, *, failed: int = 0) -> None:
        self.items += done

    def begins(self, settings: TrainingSettings, facts: dict[str, Any]) -> None:
        self.begun.append(settings)

    def step(self, done: float, values: dict[str, Any]) -> None:
        self.shares.append(done)

    def evaluated(self, done: float, values: dict[str, Any]) -> None:
        self.evaluations.append(values)
        if self.interrupt:
            self.interrupt = False
            signal.raise_signal(signal.SIGINT)


def test_as_the_command(convnext: Run, folders: Path, model: Path, tmp_path: Path) -> None:
    request = request_for(folders, model, tmp_path / "called" / "run")
    assert pickle.loads(pickle.dumps(request)) == request
    heard, threads = Heard(), torch.get_num_threads()
    result = train(pickle.loads(pickle.dumps(request)), listener=heard)
    assert torch.get_num_threads() == threads
    done = convnext(
        *("train", *SAME, "-j", "0", folders, "-o", tmp_path / "typed" / "run", "--from", model),
        *("--epochs", "2", "-b", "8", *sets("optimiser=adamw", "search_size=false")),
    )
    assert done.status == 0, done.err
    the_same_model(tmp_path / "called" / "run", tmp_path / "typed" / "run")
    assert facts(result.folder)["asked"] == facts(tmp_path / "typed" / "run")["asked"]
    assert (result.finished, result.trained, result.model) == (True, True, result.folder / "model.safetensors")
    assert result.facts == facts(result.folder)
    assert result.val is not None and result.test is not None
    assert (result.val.photos, result.val.top1) == (12, result.facts["results"]["val"]["top1"])
    assert result.test.photos == 12 and result.val.top5 is None  # of four classes
    assert sorted(result.classes) == ["blue", "green", "grey", "red"]
    assert ("reading train", 32) in heard.stages and ("reading val", 12) in heard.stages
    assert heard.items == sum(total or 0 for _, total in heard.stages)
    assert [settings.epochs for settings in heard.begun] == [2.0]
    assert heard.shares == sorted(heard.shares) and len(heard.evaluations) == len(evaluations(result.folder)) == 2


def test_the_same_request_again_continues(folders: Path, model: Path, tmp_path: Path) -> None:
    whole = train(request_for(folders, model, tmp_path / "whole" / "run"))
    request = request_for(folders, model, tmp_path / "cut" / "run")
    cut = train(request, listener=Heard(interrupt=True))
    assert not cut.finished and cut.model is None and cut.val is None
    heard = Heard()
    result = train(request, listener=heard)
    assert result.finished and result.trained and len(heard.evaluations) == 1
    assert any("resuming at step" in note for note in heard.notes)
    the_same_model(whole.folder, result.folder)
    again = train(TrainRequest(output=request.output, device="cpu", threads=1))  # it knows its data
    assert again.finished and not again.trained and again.facts == result.facts


def test_a_file_of_settings_gives_way_to_the_request(folders: Path, model: Path, tmp_path: Path) -> None:
    (tmp_path / "recipe.toml").write_text("epochs = 9.0\nlr = 0.002\n")
    request = request_for(folders, model, tmp_path / "run", settings_file=tmp_path / "recipe.toml")
    heard = Heard(interrupt=True)
    train(request, listener=heard)
    assert (heard.begun[0].epochs, heard.begun[0].lr) == (2.0, 0.002)


def test_every_model_is_fetched_by_its_name(folders: Path, model: Path, tmp_path: Path) -> None:
    names: list[str] = []

    def refuse(name: str) -> None:
        names.append(name)
        raise UsageError("declined")

    with pytest.raises(UsageError, match="declined"):
        train(request_for(folders, model, tmp_path / "run"), fetch=refuse)
    assert names == [str(model)] and not (tmp_path / "run").exists()


def test_changes_have_every_setting() -> None:
    settings = {field.name: field.type for field in dataclasses.fields(TrainingSettings)}
    changes = {field.name: field.type for field in dataclasses.fields(SettingsChanges)}
    assert {name: kind.removesuffix(" | None") for name, kind in settings.items()} == {
        name: kind.removesuffix(" | None") for name, kind in changes.items()
    }
    assert all(field.default is None for field in dataclasses.fields(SettingsChanges))
    assert SettingsChanges(size=96, flip=False).values() == {"size": 96, "flip": False}


@pytest.mark.parametrize(
    "changes",
    [
        {"data": "photos/"},
        {"val": 1.0},
        {"test": -0.1},
        {"threads": 0},
        {"workers": -1},
        {"memory": -1.0},
        {"timeout": 0.0},
        {"settings": SettingsChanges(size=0)},
        {"settings": SettingsChanges(optimiser="sgd")},  # type: ignore[arg-type]
        {"settings": SettingsChanges(start=SCRATCH, freeze=True)},
    ],
    ids=str,
)
def test_impossible_requests(changes: dict[str, Any]) -> None:
    with pytest.raises(UsageError):
        TrainRequest(**changes)


@pytest.mark.parametrize("setting", ["start", "teacher"])
def test_an_empty_name_of_a_model(folders: Path, model: Path, tmp_path: Path, setting: str) -> None:
    request = request_for(folders, model, tmp_path / "run")
    request = dataclasses.replace(request, settings=dataclasses.replace(request.settings, **{setting: ""}))
    with pytest.raises(UsageError, match="is empty"):
        train(request)
