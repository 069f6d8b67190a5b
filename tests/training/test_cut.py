"""A run that is cut anywhere, or parted among processes, comes to the same end."""

from __future__ import annotations

import io
import json
import os
import signal
import socket
import subprocess
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from convnext_cli.base.errors import UsageError
from convnext_cli.training import classifier_head, finish
from convnext_cli.training.distributed import Processes
from convnext_cli.training.loop import Trainer
from convnext_cli.training.run_folder import RunFolder
from tests.helpers.command import Run
from tests.helpers.tiers import slow_except
from tests.helpers.training import (
    ONE_STEP,
    RANDOM,
    SAME,
    SCRATCH,
    TRAIN,
    called,
    evaluations,
    facts,
    killed_at,
    log,
    moved,
    nothing,
    nth,
    photos_of,
    place,
    recipe_of,
    sets,
    start_of,
    started,
    tensors_of,
    the_same_model,
    until_evaluated,
)

CUT = {
    "trivial": (*SCRATCH, *RANDOM, *sets("augment=trivial", "optimiser=adamw", "layer_decay=0.9")),
    "affine": (*SCRATCH, *RANDOM, *sets("augment=affine")),  # and Muon
}
WORKERS = {"trivial": "1", "affine": "0"}  # whole batches are changed in the process itself


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


def _half_a_checkpoint(values: Any, file: Any) -> None:
    whole = io.BytesIO()
    torch.serialization.save(values, whole)
    file.write(whole.getvalue()[: len(whole.getvalue()) // 2])
    file.flush()


def _half_a_line(folder: RunFolder, values: dict[str, Any]) -> None:
    with folder.log.open("a") as file:
        file.write(json.dumps(values)[:20])


MOMENTS: dict[str, tuple[Any, str, int, Callable[..., Any]]] = {
    "before the run is noted": (RunFolder, "write_facts", 1, nothing),
    "before the first step": (Trainer, "run", 1, nothing),
    "in the first line of the log": (RunFolder, "add_to_log", 1, _half_a_line),
    "after lines of the log, before the first checkpoint": (RunFolder, "write_state", 1, nothing),
    "between an evaluation and its checkpoint": (RunFolder, "write_state", 3, nothing),
    "in the midst of a checkpoint": (torch, "save", 3, _half_a_checkpoint),
    "in the midst of a line of the log": (RunFolder, "add_to_log", 5, _half_a_line),
    "after the last checkpoint": (finish, "calibrate", 1, nothing),
    "before the results are noted": (RunFolder, "write_facts", 2, nothing),
}


@pytest.mark.skipif(not hasattr(os, "fork"), reason="processes are killed as on Unix")
class TestCut:
    @pytest.mark.parametrize(
        "moment",
        slow_except(
            MOMENTS, "in the first line of the log", "in the midst of a checkpoint", "before the results are noted"
        ),
    )
    def test_killed_at_a_moment(self, whole: Whole, tmp_path: Path, moment: str, undrawn: None) -> None:
        arguments, undisturbed = whole("trivial")
        target = tmp_path / "run"
        killed_at(lambda: nth(*MOMENTS[moment]), *TRAIN, *arguments, "-o", target)
        assert not (target / "model.safetensors").exists() or "results" not in facts(target)
        done = called(*TRAIN, *arguments, "-o", target)
        assert done.status == 0, done.err
        the_same_model(target, undisturbed)
        assert log(target) == log(undisturbed)

    @pytest.mark.slow
    @pytest.mark.parametrize(("name", "kills"), [("trivial", (1, 4)), ("affine", (3,))])
    def test_killed_from_outside(
        self, whole: Whole, tmp_path: Path, name: str, kills: tuple[int, ...], undrawn: None
    ) -> None:
        arguments, undisturbed = whole(name)
        target = tmp_path / "run"
        for times in kills:
            # a pipe would stay open until its worker has noticed
            process = started(*arguments, "-o", target, "-j", WORKERS[name], to=subprocess.DEVNULL)
            until_evaluated(process, target, times)
            process.kill()
            assert process.wait() == -signal.SIGKILL
        done = called(*TRAIN, *arguments, "-o", target)
        assert done.status == 0, done.err
        assert "resuming at step " in done.err
        the_same_model(target, undisturbed)
        assert log(target) == log(undisturbed)

    @pytest.mark.slow
    @pytest.mark.parametrize(("name", "number"), [("trivial", signal.SIGINT), ("affine", signal.SIGTERM)])
    def test_asked_to_stop(
        self, whole: Whole, tmp_path: Path, name: str, number: signal.Signals, undrawn: None
    ) -> None:
        arguments, undisturbed = whole(name)
        target = tmp_path / "run"
        process = started(*arguments, "-o", target, "-j", WORKERS[name])
        until_evaluated(process, target, 2)
        os.killpg(process.pid, number)  # as a terminal does it, to all processes
        out, err = process.communicate(timeout=120)
        assert process.returncode == 130, err
        assert f"interrupted; run the same command again to resume it in {target}" in err
        assert not out and "Traceback" not in err and not (target / "model.safetensors").exists()
        steps = torch.load(target / "checkpoints" / "last.pt", weights_only=True)["progress"]["step"]
        assert 8 <= steps < 24
        done = called(*TRAIN, *arguments, "-o", target)
        assert done.status == 0, done.err
        assert f"resuming at step {steps}" in done.err
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
        killed_at(lambda: nth(Trainer, "run", 1, nothing), *TRAIN, *given, "-o", target)
        done = called(*TRAIN, "-o", target)
        assert done.status == 0, done.err
        the_same_model(target, tmp_path / "undisturbed")

    def test_a_batch_larger_than_the_data_goes_on(self, tmp_path: Path, undrawn: None) -> None:
        """The batch was made smaller then; the same command asks for the large one again."""
        data = place(tmp_path / "photos", 10)
        given = (data, *SCRATCH, "--epochs", "1", "-b", "512")
        whole = called(*TRAIN, *given, "-o", tmp_path / "whole")
        assert "the batch has 24 photos, because there are only 24 to train on" in whole.err
        target = tmp_path / "run"
        killed_at(lambda: nth(Trainer, "run", 1, nothing), *TRAIN, *given, "-o", target)
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

    @pytest.mark.slow
    def test_two_processes_are_as_one(self, folders: Path, model: Path, alone: Path, tmp_path: Path) -> None:
        target = tmp_path / "run"
        both = self.both(folders, "-o", target, "--from", model, *PARTED)
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

    def both(self, *arguments: object) -> list[subprocess.Popen[str]]:
        """The command in two processes, as torchrun starts them."""
        shared = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": _free_port()}
        return [started(*arguments, "-j", "0", RANK=rank, LOCAL_RANK=rank, **shared) for rank in "01"]

    @pytest.mark.slow
    @pytest.mark.parametrize("asked", [(0,), (0, 1)], ids=["the first", "both"])
    def test_two_processes_are_asked_to_stop(
        self, folders: Path, model: Path, tmp_path: Path, asked: tuple[int, ...], undrawn: None
    ) -> None:
        target = tmp_path / "run"
        # far more epochs than there is time for
        arguments = (folders, "-o", target, "--from", model, *PARTED, "--epochs", "500")
        both = self.both(*arguments)
        until_evaluated(both[0], target, 1)
        for rank in asked:
            both[rank].terminate()
        told = [process.communicate(timeout=60) for process in both]
        assert both[0].returncode == 130 and "run the same command again" in told[0][1], told
        assert both[1].returncode == 0 and not told[1][0] and "Traceback" not in told[1][1], told
        # one process can go on with what two began
        killed_at(lambda: nth(RunFolder, "write_state", 1, nothing), *TRAIN, *arguments)
        assert len(evaluations(target)) > 1

    def test_freeze_is_refused_before_the_data_is_opened(
        self, convnext: Run, folders: Path, tmp_path: Path, model: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("RANK", "0")
        monkeypatch.setenv("WORLD_SIZE", "2")
        monkeypatch.setattr(import_module("convnext_cli.training.train"), "open_data", None)
        done = convnext("train", folders, "-o", tmp_path / "run", "--from", model, "--freeze")
        assert done.status == 2 and "needs one process" in done.err and "without torchrun" in done.err

    def test_freeze_wants_one_process(self) -> None:
        start, photos = start_of(), photos_of()
        with pytest.raises(UsageError, match="needs one process"):
            classifier_head.solve(
                *(recipe_of(start="x", arch="", freeze=True), start, photos, None),
                *(Processes(0, 2, torch.device("cpu")), RunFolder(Path("x")), None),
                dtype="float32",
                threads=1,
            )
