"""What all tests share."""

from __future__ import annotations

import dataclasses
import logging
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import settings

from tests.helpers.command import Done, Run
from tests.helpers.order import in_order

if TYPE_CHECKING:
    from tests.helpers.fake_hub import Hub

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


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    items[:] = in_order(items)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """Print the seed of the random order, which pytest-randomly leaves out under -q."""
    if config.pluginmanager.hasplugin("randomly"):
        terminalreporter.write_line(f"the same order again: --randomly-seed={config.getoption('randomly_seed')}")


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


@pytest.fixture
def torch_threads() -> Iterator[None]:
    """Give torch its threads back: a training run sets how many there are, for the whole process."""
    import torch

    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.fixture
def hub(home: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    """A hub with one model, reached as users reach a mirror; retries do not wait."""
    from convnext_cli.zoo import fetch
    from tests.helpers.fake_hub import REPOSITORY, WEIGHTS, Hub

    for name in os.environ:
        if name.lower().endswith("_proxy") or name in ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE", "HF_TOKEN"):
            monkeypatch.delenv(name)
    monkeypatch.setattr(fetch, "patience", dataclasses.replace(fetch.patience, first=0.0))
    with Hub() as server:
        server.add(REPOSITORY, "model.safetensors", WEIGHTS, large=True)
        server.add(REPOSITORY, "config.json", b'{"architecture": "convnext_tiny"}')
        monkeypatch.setenv("HF_ENDPOINT", server.url)
        yield server


@pytest.fixture(scope="module")
def s3_server() -> Iterator[str]:
    """The address of moto's server, which ends with the file: its threads would not survive a fork in another test."""
    from moto.server import ThreadedMotoServer

    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    running = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    running.start()
    host, port = running.get_host_and_port()
    yield f"http://{host}:{port}"
    running.stop()
