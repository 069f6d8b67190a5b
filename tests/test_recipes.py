"""The recipes of docs/architecture.md are true: each is followed in a copy of the package, with no other change."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from convnext_cli.model.card import Card, Export
from convnext_cli.model.config import ConvNextConfig
from tests.helpers.paths import ROOT

sys.path.insert(0, str(ROOT / "tools"))
from make_map import PACKAGE, PAGE

# The steps of each recipe, by its heading: a file, the beginning of a line in it, and a text. The text is put below
# that line; with ^, above it; with a colon between two words, the first is replaced by the second there. Without a
# line the text is a new file.
RECIPES: dict[str, list[tuple[str, str, str]]] = {
    "A layout of another library": [
        (
            "checkpoints/layouts/example.py",
            "",
            "from convnext_cli.checkpoints.layouts.layout import Layout, Target\n"
            'EXAMPLE = Layout("example", r"torso\\.0\\.0\\.spatial\\.weight", '
            '(("torso.{i}.{j}.spatial", "stages.{i}.{j}.dwconv"),), target=Target("example", (".example",)))\n',
        ),
        (
            "checkpoints/layouts/registry.py",
            "from convnext_cli.checkpoints.layouts.layout import Layout",
            "from convnext_cli.checkpoints.layouts.example import EXAMPLE",
        ),
        ("checkpoints/layouts/registry.py", "ALL: ", "    EXAMPLE,"),
    ],
    "A runtime or an export format": [
        ("runtimes/example/__init__.py", "", '"""Example."""\n'),
        (
            "runtimes/example/export.py",
            "",
            "def refuse(card, plan): ...\ndef write(checkpoint, card, plan, path): path.write_text(card.to_json())\n",
        ),
        (
            "runtimes/example/example_file.py",
            "",
            "import numpy as np\n"
            "from convnext_cli.model.card import Card\n"
            "def open_file(path, *, device, threads): return File(), Card.from_json(path.read_text())\n"
            "class File:\n"
            '    name, device, notes = "example", "cpu", []\n'
            "    def run(self, x): return [np.full((len(x), 1000), 3, np.float32)]\n"
            "    def close(self): ...\n",
        ),
        ("runtimes/example/card.py", "", "def read_card(path): return path.read_text()\n"),
        (
            "runtimes/registry.py",
            "_ALL = (",
            '    Format("example", ".example", "an example", "example", "numpy", writer="example.export", '
            'card="example.card", reader="example.example_file"),',
        ),
    ],
    "An output format": [
        (
            "predict/writers.py",
            "class JsonlWriter:",
            "^class ExampleWriter:\n"
            "    def __init__(self, stream, k): self._stream = stream\n"
            "    def write(self, row): self._stream.write(row.path.encode())\n"
            "    def close(self): self._stream.flush()\n\n",
        ),
        ("predict/writers.py", "_ALL = (", '    Format("example", ExampleWriter, (".example",)),'),
    ],
    "A form of labelled data": [
        (
            "datasets/example.py",
            "",
            "from convnext_cli.datasets.labelled import Dataset, LabelledPhoto\n"
            'def read(path): return Dataset(path, "example", ("cat",), (LabelledPhoto("cat.jpg", "cat"),))\n',
        ),
        ("datasets/labelled.py", "Form = Literal[", 'Literal[:Literal["example", '),
        (
            "datasets/open_data.py",
            "    if is_shard(path):",
            '^    if head.startswith(b"example"):\n'
            "        from convnext_cli.datasets import example\n\n"
            "        return example.read(path)",
        ),
    ],
    "A command": [
        (
            "diagnosis/example.py",
            "",
            "from dataclasses import dataclass\n"
            "from convnext_cli.base.listener import SILENT\n"
            "@dataclass(frozen=True)\n"
            "class ExampleRequest:\n"
            "    word: str\n"
            "def example(request, listener=SILENT): return request.word.upper()\n",
        ),
        (
            "cli/example.py",
            "",
            "import click\n"
            '@click.command(help="An example.")\n'
            '@click.argument("word")\n'
            "def example(word):\n"
            "    from convnext_cli import ExampleRequest, example\n"
            "    click.echo(example(ExampleRequest(word)))\n",
        ),
        ("__init__.py", "_HOME = {", '    "example": "diagnosis.example", "ExampleRequest": "diagnosis.example",'),
        ("cli/__init__.py", "COMMANDS = {", '    "example": "An example.",'),
    ],
    "A training setting": [
        ("training/settings.py", "    seed: int = ", "    example: int = setting(0, _whole(0), TRAINED)"),
        ("training/settings_changes.py", "    seed: int | None = None", "    example: int | None = None"),
    ],
    "A photo format": [
        ("photos/formats.py", "READABLE = {", '    "example": "Example",'),
        ("photos/formats.py", "_SIGNATURES: ", '    (b"example", "example"),'),
        ("photos/formats.py", "_IMAGES = (", '    ".example "'),
        (
            "photos/decode.py",
            '    if name == "bmp":',
            '^    if name == "example":\n'
            "        from PIL.BmpImagePlugin import BmpImageFile\n\n"
            '        return BmpImageFile(io.BytesIO(data.removeprefix(b"example")))',
        ),
    ],
}


@pytest.fixture(scope="module")
def copy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a copy of the package in which every recipe was followed."""
    folder = tmp_path_factory.mktemp("copy")
    package = folder / "convnext_cli"
    shutil.copytree(PACKAGE, package, ignore=shutil.ignore_patterns("__pycache__", "*.so"))
    for steps in RECIPES.values():
        for name, line, text in steps:
            path = package / name
            if not line:
                path.parent.mkdir(exist_ok=True)
                assert not path.exists()
                path.write_text(text)
                continue
            lines = path.read_text().split("\n")
            places = [place for place, there in enumerate(lines) if there.startswith(line)]
            assert len(places) == 1, f"{name}: {line!r} begins {len(places)} lines"
            old, colon, new = text.partition(":")
            if colon and old in line:
                lines[places[0]] = lines[places[0]].replace(old, new)
            else:
                lines.insert(places[0] + (not text.startswith("^")), text.removeprefix("^"))
            path.write_text("\n".join(lines))
    return folder


def run(copy: Path, *arguments: str) -> str:
    """What Python prints with the copy in place of the package."""
    environment = os.environ | {"PYTHONPATH": str(copy), "PYTHONDONTWRITEBYTECODE": "1"}
    done = subprocess.run(
        [sys.executable, *arguments], cwd=copy, env=environment, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


@pytest.mark.parametrize("heading", RECIPES)
def test_a_recipe_names_all_files_that_it_takes(heading: str) -> None:
    _, _, section = PAGE.read_text("utf-8").partition(f"\n### {heading}\n")
    named = set(re.findall(r"`([\w/]+\.py)`", section.partition("\n### ")[0].partition("\n## ")[0]))
    assert named
    for name in named:
        tests_too = ROOT / name if name.startswith("tests/") else PACKAGE / name
        assert re.search("NAME|VERB|ROOM", name) or tests_too.is_file(), f"there is no {name}"
    for name, line, _ in RECIPES[heading]:
        if line:
            assert name in named
        elif not name.endswith("__init__.py"):
            pattern = name.replace("example", "(NAME|VERB)").replace("diagnosis/", "(ROOM|diagnosis)/")
            assert any(re.fullmatch(pattern, other) for other in named), f"the recipe does not name {name}"


def test_a_layout(copy: Path) -> None:
    code = "from convnext_cli.checkpoints.detect import recognise; print(recognise(['torso.0.0.spatial.weight']).name)"
    assert run(copy, "-c", code) == "example"
    assert "example" in run(copy, "-m", "convnext_cli", "convert", "--help")


def test_an_export_format(copy: Path, tmp_path: Path) -> None:
    assert "example" in run(copy, "-m", "convnext_cli", "export", "--help")
    card = Card(ConvNextConfig(num_labels=1000), labels="imagenet-1k", name="m", export=Export("example"))
    (tmp_path / "m.example").write_text(card.to_json())
    photo = str(ROOT / "samples" / "cat.jpg")
    rows = run(copy, "-m", "convnext_cli", "classify", "-m", str(tmp_path / "m.example"), photo, "-f", "lines")
    assert rows.endswith("0.0010")
    assert '"example"' in run(copy, "-m", "convnext_cli", "models", "info", str(tmp_path / "m.example"), "--json")


@pytest.mark.parametrize("command", ["classify", "label"])
def test_an_output_format(copy: Path, command: str) -> None:
    assert "example" in run(copy, "-m", "convnext_cli", command, "--help")


def test_the_suffix_of_an_output_format(copy: Path) -> None:
    code = "from convnext_cli.predict.writers import format_by_suffix; print(format_by_suffix('.EXAMPLE'))"
    assert run(copy, "-c", code) == "example"


def test_a_form_of_data(copy: Path, tmp_path: Path) -> None:
    (tmp_path / "data").write_bytes(b"example\n")
    code = "import sys; from convnext_cli.datasets import open_data; print(open_data(sys.argv[1]).form)"
    assert run(copy, "-c", code, str(tmp_path / "data")) == "example"


def test_a_command(copy: Path) -> None:
    assert run(copy, "-m", "convnext_cli", "example", "word") == "WORD"
    assert "An example." in run(copy, "-m", "convnext_cli", "--help")
    code = "from convnext_cli import ExampleRequest, example; print(example(ExampleRequest('a')))"
    assert run(copy, "-c", code) == "A"


def test_a_training_setting(copy: Path) -> None:
    code = (
        "from dataclasses import replace; from convnext_cli.training.setting_effects import in_force; "
        "from convnext_cli.training.settings_changes import SettingsChanges; "
        "settings = SettingsChanges.parse(['example=3']).complete(); "
        "print(settings.example, [in_force(s).get('example') for s in (settings, replace(settings, freeze=True))])"
    )
    assert run(copy, "-c", code) == "3 [3, None]"


def test_a_photo_format(copy: Path, tmp_path: Path) -> None:
    code = (
        "import io, sys; from PIL import Image; from convnext_cli.photos import decode, find; file = io.BytesIO(); "
        "Image.new('RGB', (3, 2)).save(file, 'BMP'); open('a.example', 'wb').write(b'example' + file.getvalue()); "
        "print([decode.decode(decode.read_file(p.path)).image.size for p in find.Finder().named(['.'])])"
    )
    assert "(3, 2)" in run(copy, "-c", code)
