"""What training does before its first step: measured, announced, and not counted."""

from __future__ import annotations

import json
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from convnext_cli.base import machine
from convnext_cli.cli import render, train_view
from convnext_cli.model.network import ConvNextForImageClassification
from convnext_cli.training import precision, setup
from convnext_cli.training.distributed import Processes
from convnext_cli.training.loop import Trainer
from tests.helpers.command import Run
from tests.helpers.training import ALONE, ONE_STEP, TRAIN, log, recipe_of, start_of, started, trainer_of

LACKING, NATIVE = ("avx2", "fma"), ("avx512_bf16", "avx512f", "avx2")


class TestPrecision:
    @pytest.fixture(autouse=True)
    def _native(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(machine, "instruction_sets", lambda: NATIVE)

    @pytest.fixture
    def network(self) -> ConvNextForImageClassification:
        return start_of().network

    def clocked(self, monkeypatch: pytest.MonkeyPatch, bfloat16: float) -> list[str]:
        """Have a step take one second in float32, and so many in bfloat16; the steps that are taken."""
        now, steps, real = [0.0], list[str](), torch.autocast

        def autocast(device: str, dtype: torch.dtype, *, enabled: bool = True) -> Any:
            steps.append(str(dtype).removeprefix("torch."))
            now[0] += bfloat16 if enabled else 1.0
            return real(device, dtype, enabled=enabled)

        monkeypatch.setattr(torch, "autocast", autocast)
        monkeypatch.setattr(precision.time, "perf_counter", lambda: now[0])
        return steps

    def test_it_measures_and_changes_nothing(self, network: ConvNextForImageClassification) -> None:
        before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
        assert precision.fastest(network, recipe_of(), ALONE) in ("float32", "bfloat16")
        assert all(torch.equal(tensor, before[name]) for name, tensor in network.state_dict().items())
        assert all(parameter.grad is None for parameter in network.parameters())

    @pytest.mark.parametrize(("first", "wanted"), [(0.0, "float32"), (1.0, "bfloat16")])
    def test_all_processes_take_the_first_ones(
        self, network: ConvNextForImageClassification, first: float, wanted: str
    ) -> None:
        class Second(Processes):
            def shared(self, *values: float) -> list[float]:
                return [first]

        assert precision.fastest(network, recipe_of(), Second(1, 2, torch.device("cpu"))) == wanted

    def test_a_device_that_does_not_know_it(
        self, network: ConvNextForImageClassification, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        real = torch.autocast

        def autocast(device: str, dtype: torch.dtype, *, enabled: bool = True) -> Any:
            if enabled:
                raise RuntimeError("no bfloat16 here")
            return real(device, dtype, enabled=False)

        monkeypatch.setattr(torch, "autocast", autocast)
        assert precision.fastest(network, recipe_of(), ALONE) == "float32"

    @pytest.mark.parametrize(
        ("bfloat16", "faster", "pairs"),
        [(0.5, "bfloat16", 4), (0.95, "float32", 4), (1.1, "float32", 4), (1.3, "float32", 1), (18, "float32", 1)],
    )
    def test_the_faster_one(
        self,
        network: ConvNextForImageClassification,
        monkeypatch: pytest.MonkeyPatch,
        bfloat16: float,
        faster: str,
        pairs: int,
    ) -> None:
        """And no more than one pair where that is clear."""
        steps, said, counts = self.clocked(monkeypatch, bfloat16), list[str](), list[tuple[int, int]]()
        recipe = recipe_of()
        progress = lambda *count: counts.append(count)  # noqa: E731
        assert precision.fastest(network, recipe, ALONE, said.append, progress) == faster
        most = 8 * min(16, recipe.batch_size)
        assert counts == [(most * done // 8, most) for done in range(2 * pairs + 1)] + [(most, most)]
        assert steps == ["float32", "bfloat16"] * pairs
        assert len(said) == 2 and f"takes {bfloat16:.2f} times as long: training in {faster}" in said[1]

    def test_a_slow_device_is_not_asked_for_long(
        self, network: ConvNextForImageClassification, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        steps = self.clocked(monkeypatch, 0.5)
        monkeypatch.setattr(precision, "_LONGEST", 2.0)
        assert precision.fastest(network, recipe_of(), ALONE) == "bfloat16" and len(steps) == 4

    def test_the_processor_is_asked_first(
        self, network: ConvNextForImageClassification, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        steps = self.clocked(monkeypatch, 0.5)
        monkeypatch.setattr(machine, "instruction_sets", lambda: LACKING)
        said: list[str] = []
        assert precision.fastest(network, recipe_of(), ALONE, said.append) == "float32"
        assert not steps and not said

    @pytest.mark.parametrize(
        ("names", "native"),
        [(("avx2",), False), (("avx512f", "avx512_vnni"), False), (("amx_bf16",), True), (("bf16", "asimd"), True)],
    )
    def test_what_processors_say(self, names: tuple[str, ...], native: bool) -> None:
        assert precision.may_be_native(names) == native
        assert precision.may_be_native(())  # a system that names none


def test_nothing_is_measured_for_a_classifier_alone(
    convnext: Run, folders: Path, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, undrawn: None
) -> None:
    def fastest(*_: Any) -> str:
        raise AssertionError("measured")

    monkeypatch.setattr(precision, "fastest", fastest)
    done = convnext(*TRAIN, folders, "-o", tmp_path / "run", "--from", model, "--freeze", "--dtype", "auto")
    assert done.status == 0, done.err
    assert json.loads((tmp_path / "run" / "run.json").read_text())["dtype"] == "float32"


class TestBudget:
    @pytest.fixture
    def clock(self, monkeypatch: pytest.MonkeyPatch) -> list[float]:
        """Seconds to add to the clock."""
        real, more = time.perf_counter, [0.0]
        monkeypatch.setattr(time, "perf_counter", lambda: real() + more[0])
        return more

    def test_reading_and_measuring_do_not_count(
        self,
        convnext: Run,
        folders: Path,
        model: Path,
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
        clock: list[float],
        undrawn: None,
    ) -> None:
        load = setup.load

        def slow(*arguments: Any, **more: Any) -> Any:
            clock[0] += 3600
            return load(*arguments, **more)

        def fastest(*_: Any) -> str:
            clock[0] += 3600
            return "float32"

        monkeypatch.setattr(setup, "load", slow)
        monkeypatch.setattr(precision, "fastest", fastest)
        target = tmp_path / "run"
        given = ("--from", model, "--dtype", "auto", "--time", "30m", "--epochs", "1", "-b", "4", "--lr", "0.001")
        assert convnext(*TRAIN, folders, "-o", target, *given).status == 0
        lines = [json.loads(line) for line in (target / "log.jsonl").read_text().splitlines()]
        assert lines[-1]["step"] == 8 and lines[-1]["seconds"] < 600
        assert lines[0]["lr"] < 0.2 * 0.001  # it warms up

    def test_a_step_is_taken_however_short_the_time(
        self, convnext: Run, folders: Path, model: Path, tmp_path: Path, undrawn: None
    ) -> None:
        target = tmp_path / "run"
        done = convnext(*TRAIN, folders, "-o", target, "--from", model, "--time", "0.001s", "-b", "4")
        assert done.status == 0, done.err
        assert log(target)[-1]["step"] == 1

    def test_compiling_does_not_count(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, clock: list[float]
    ) -> None:
        """The first step at each size is where torch compiles."""
        recipe = recipe_of(size=64, sizes=[[0.5, 32]], augment="none", epochs=2.0)
        trainer = trainer_of(recipe, tmp_path)
        trainer.recipe = replace(recipe, compile=True)  # the network itself is not compiled: that takes a minute
        trainer.total = 4
        step, slow = Trainer._step, {0: 1000.0, 2: 1000.0}

        def with_a_wait(self: Trainer, *arguments: Any) -> Any:
            clock[0] += slow.get(self.state.step, 5.0)
            return step(self, *arguments)

        monkeypatch.setattr(Trainer, "_step", with_a_wait)
        trainer.folder.make()
        assert 10 <= trainer.run().spent < 100


class TestTold:
    """What a person sees of the photos that are read."""

    def test_a_line_at_once_and_one_now_and_then(
        self, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(train_view, "EVERY", 60.0)
        render.reset()
        render.set_quiet(False)
        now = [100.0]
        view = train_view.LiveView(quiet=False, clock=lambda: now[0])
        for done in range(1, 1001):
            view.progress("reading train", done, 1000)
            now[0] += 0.25
        view.progress("reading val", 1, 1)
        assert capsys.readouterr().err.splitlines() == [
            "reading train: 1,000 photos",
            "reading train: 241 of 1,000 photos, 4.0/s, 3 min left",
            "reading train: 481 of 1,000 photos, 4.0/s, 2 min left",
            "reading train: 721 of 1,000 photos, 4.0/s, 70 s left",
            "reading train: 961 of 1,000 photos, 4.0/s, 10 s left",
            "reading val: 1 photo",
        ]

    def test_a_line_now_and_then_between_evaluations(
        self, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(train_view, "EVERY", 60.0)
        render.reset()
        render.set_quiet(False)
        now = [100.0]
        view = train_view.LiveView(quiet=False, clock=lambda: now[0])
        for step in range(1, 6):
            now[0] += 30.0
            values = {"epoch": step / 10, "loss": 2.0, "images_per_second": 3.0, "seconds": 30.0 * step}
            view.step(step / 10, values)
        assert capsys.readouterr().err.splitlines() == [
            "20 %, epoch 0.2: loss 2.000, 3 photos/s, 4 min left",
            "40 %, epoch 0.4: loss 2.000, 3 photos/s, 3 min left",
        ]

    def test_a_line_before_torch_is_loaded(self, tmp_path: Path) -> None:
        (tmp_path / "torch.py").write_text("raise SystemExit(9)")
        for more, told in (((), "loading PyTorch\n"), (("-q",), "")):
            process = started("data", "-o", tmp_path / "run", *more, PYTHONPATH=str(tmp_path))
            assert process.communicate(timeout=60) == ("", told) and process.returncode == 9

    def test_quiet(self, capsys: pytest.CaptureFixture[str]) -> None:
        train_view.LiveView(quiet=True).progress("reading train", 1, 10)
        assert capsys.readouterr().err == ""

    def test_all_that_takes_long_is_announced(
        self, convnext: Run, folders: Path, model: Path, tmp_path: Path, undrawn: None
    ) -> None:
        done = convnext(*TRAIN, folders, "-o", tmp_path / "frozen", "--from", model, "--freeze")
        lines = done.err.splitlines()
        for line in ("reading train: 32 photos", "reading val: 12 photos", "reading test: 12 photos"):
            assert line in lines
        compiling = lines.index("note: compiling the network with OpenVINO, which computes its features")
        assert compiling < lines.index("computing the features of train: 32 photos")
        assert "note: fitting the classifier to these features" in lines
        for name in ("val", "test"):
            assert f"computing the answers for {name} at 32 pixels: 12 photos" in lines
        done = convnext(*TRAIN, folders.parent / "split" / "train", "-o", tmp_path / "run", "--from", model, *ONE_STEP)
        assert "comparing the photos, for splits without copies: 32 photos" in done.err.splitlines()
