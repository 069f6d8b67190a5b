"""The registry of runtimes: a new one is a folder and a line, and nothing else has to know of it."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from convnext_cli import runtimes
from convnext_cli.runtimes import registry
from tests.helpers.command import Run
from tests.helpers.paths import SAMPLES
from tests.helpers.weights import SMALL, write_model

# A runtime whose files are the card and the path of the weights: torch runs them.
EXPORT = """
def refuse(card, plan):
    pass

def write(checkpoint, card, plan, path):
    path.write_text(card.to_json() + "\\n" + str(checkpoint.path))
"""
CARD = """
def read_card(path):
    return path.read_text().splitlines()[0]
"""
FILE = """
from pathlib import Path

import torch

from convnext_cli import checkpoints
from convnext_cli.model.card import Card

class Toy:
    name, device, notes = "toy", "cpu", []

    def __init__(self, weights):
        self.network = checkpoints.build(checkpoints.load(Path(weights)))

    @torch.inference_mode()
    def run(self, x):
        return [self.network(torch.from_numpy(x)).logits.numpy()]

    def close(self):
        pass

def open_file(path, *, device, threads):
    card, weights = path.read_text().splitlines()
    return Toy(weights), Card.from_json(card)
"""


@pytest.fixture
def toy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> registry.Format:
    """The recipe of docs/architecture.md, followed to the letter: a folder beside the others, and a line."""
    folder = tmp_path / "more" / "toy"
    folder.mkdir(parents=True)
    for name, text in {"__init__": "", "export": EXPORT, "card": CARD, "toy_file": FILE}.items():
        (folder / f"{name}.py").write_text(text)
    monkeypatch.setattr(runtimes, "__path__", [*runtimes.__path__, str(folder.parent)])
    line = registry.Format(
        *("toy", ".toy", "a toy", "toy", "numpy"), writer="toy.export", card="toy.card", reader="toy.toy_file"
    )
    monkeypatch.setitem(registry.FORMATS, "toy", line)
    yield line
    for name in [name for name in sys.modules if name.startswith("convnext_cli.runtimes.toy")]:
        del sys.modules[name]


def test_a_runtime_is_a_folder_and_a_line(convnext: Run, toy: registry.Format, tmp_path: Path) -> None:
    model, file = write_model(tmp_path / "small.safetensors", SMALL), tmp_path / "small.toy"
    done = convnext("export", "-m", str(model), "-o", str(file))
    assert done.status == 0, done.err
    assert "checked in toy" in done.err
    info = json.loads(convnext("models", "info", str(file), "--json").out)
    assert info["architecture"] is not None
    rows = [
        [json.loads(line) for line in convnext("classify", *SAMPLES, "-m", str(path), "-f", "jsonl").out.splitlines()]
        for path in (file, model)
    ]
    labels = [[[guess["label"] for guess in row["predictions"]] for row in part] for part in rows]
    assert labels[0] == labels[1]
    assert len(labels[0]) == len(SAMPLES)


@pytest.mark.parametrize("name", registry.FORMATS)
def test_every_line_names_modules_that_are_there(name: str) -> None:
    line, folder = registry.FORMATS[name], Path(registry.__file__).parent
    for module in filter(None, (line.writer, line.card, line.reader)):
        assert (folder / f"{module.replace('.', '/')}.py").is_file()


def test_a_suffix_means_its_first_format() -> None:
    formats = [registry.format_of(Path(f"model{line.suffix.upper()}")) for line in registry.FORMATS.values()]
    assert [line.suffix for line in registry.FORMATS.values()] == [line and line.suffix for line in formats]
    assert registry.format_of(Path("a.pt2")) is registry.FORMATS["torch-export"]
    assert registry.format_of(Path("a.safetensors")) is None
