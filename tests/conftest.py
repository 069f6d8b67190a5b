"""What all tests share."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest
from hypothesis import settings

# A processor of its own for each of the workers side by side: threads that wait for one another at each step of a
# network are many times slower where another test has their processors. And no connection, whatever a library wants.
os.environ.setdefault("OMP_NUM_THREADS", "1")
if (worker := os.environ.get("PYTEST_XDIST_WORKER", "")) and hasattr(os, "sched_setaffinity"):
    usable = sorted(os.sched_getaffinity(0))
    os.sched_setaffinity(0, {usable[int(worker.removeprefix("gw")) % len(usable)]})
os.environ["HF_HUB_OFFLINE"] = "1"
# no test is about the time that it takes
settings.register_profile("untimed", deadline=None)
settings.load_profile("untimed")

ROOT = Path(__file__).resolve().parent.parent
SAMPLES = sorted(str(path) for path in (ROOT / "samples").glob("*.jpg"))


class Done(NamedTuple):
    """How a command ended."""

    status: int
    out: str
    err: str


Run = Callable[..., Done]


@pytest.fixture
def home(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Empty folders for weights, cache and settings."""
    folder = tmp_path_factory.mktemp("home")
    monkeypatch.setenv("CONVNEXT_HOME", str(folder))
    monkeypatch.setenv("HF_HOME", str(folder / "hf"))
    monkeypatch.setenv("TORCH_HOME", str(folder / "torch"))
    monkeypatch.setenv("COLUMNS", "200")
    return folder


@pytest.fixture
def convnext(home: Path, capfd: pytest.CaptureFixture[str]) -> Run:
    """Run a command in this process: exit status, standard output, standard error."""
    from convnext_cli.cli import render, run

    def call(*arguments: str) -> Done:
        render.reset()
        render.set_quiet(False)
        capfd.readouterr()
        status = run([*map(str, arguments)])
        return Done(status, *capfd.readouterr())

    return call


@pytest.fixture
def random_moment() -> Callable[[float], float]:
    """A number of seconds below the most that is given, another one at each call; the same in each run of the test."""
    import random

    generator = random.Random(7)
    return lambda most: generator.uniform(0.0, most)
