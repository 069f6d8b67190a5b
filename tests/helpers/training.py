"""Labelled photos, runs and models for the tests of training."""

from __future__ import annotations

import contextlib
import io
import json
import multiprocessing
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from safetensors.torch import load_file

from convnext_cli.checkpoints import canonical
from convnext_cli.cli import render, run
from convnext_cli.labels import LabelSet
from convnext_cli.model.card import Card
from convnext_cli.model.network import ConvNextForImageClassification
from convnext_cli.model.preprocessing import Preprocessing
from convnext_cli.training.distributed import Processes
from convnext_cli.training.initial_network import Start
from convnext_cli.training.listener import SILENT
from convnext_cli.training.loop import Photos, Trainer
from convnext_cli.training.photo_cache import InMemory
from convnext_cli.training.run_folder import RunFolder
from convnext_cli.training.settings import TrainingSettings
from tests.helpers.command import Done
from tests.helpers.photos import encoded, picture
from tests.helpers.weights import SMALL, random_tensors

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
    """The network of a run, without its calibration."""
    return network_of(folder / "model.safetensors")


def network_of(path: Path) -> dict[str, torch.Tensor]:
    return {name: tensor for name, tensor in load_file(path).items() if not name.startswith("calibration.")}


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
    preprocessing = Preprocessing(size=(size, size), resize_to=(size, size), **more)
    card = Card(config, preprocessing, path.stem, labels=LabelSet.from_names("own", names))
    canonical.write(path, tensors, card.replace(sha256=canonical.fingerprint(tensors)))
    return path


LEARN = (*SCRATCH, "--epochs", "12", "-b", "16", "--lr", "0.004", *sets("optimiser=adamw", "ema=0.9", "augment=none"))


def body_of(path: Path) -> dict[str, torch.Tensor]:
    """The weights of a model without its classifier's."""
    return {name: tensor for name, tensor in network_of(path).items() if not name.startswith("head.")}


RANDOM = (
    *("--epochs", "6", "-b", "8", "--lr", "0.003"),
    *sets("drop_path=0.2", "mixup=0.4", "cutmix=1.0", "mix_until=0.8", "ema=0.9", "erasing=0.3", "clip=1.0"),
)


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


def nothing(*arguments: Any, **more: Any) -> None:
    pass


def without_clock(folder: Path) -> list[str]:
    """A run's recipe without its budget in minutes, by which no two runs are the same."""
    return [line for line in (folder / "recipe.toml").read_text().splitlines() if not line.startswith("minutes")]


def recipe_of(**changes: Any) -> TrainingSettings:
    return TrainingSettings(**{"start": "scratch", "arch": "test_convnext2", "size": 32, "batch_size": 4} | changes)


def start_of(classes: int = 4, **changes: Any) -> Start:
    """Random weights, so that every parameter matters."""
    config = SMALL.replace(num_labels=classes, **changes)
    network = ConvNextForImageClassification(config)
    network.load_state_dict(random_tensors(config))
    return Start(network, Preprocessing(size=(32, 32), resize_to=(32, 32)), "", "random weights")


def photos_of(count: int = 8, classes: int = 4) -> Photos:
    kept = InMemory(10**7)
    for number in range(count):
        kept.add(np.asarray(picture(32, 32, seed=number)), count - number - 1)
    rows = torch.arange(count) % classes
    return Photos(kept, rows, kept, rows)


def trainer_of(recipe: TrainingSettings, folder: Path, *, start: Start | None = None, **more: Any) -> Trainer:
    return Trainer(
        *(replace(recipe, epochs=1.0), start or start_of(), photos_of(), ALONE, RunFolder(folder), SILENT),
        dtype="float32",
        workers=0,
        write=lambda path: None,
        **more,
    )
