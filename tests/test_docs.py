"""README and docs are true: their examples run, their tables are current."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
import tarfile
from functools import reduce
from pathlib import Path

import numpy as np
import pytest

from convnext_cli.engines import onnx_graph
from convnext_cli.errors import FAILURE_KINDS
from convnext_cli.rows import arrow_table
from tests.conftest import ROOT, SAMPLES
from tests.photos_made import encoded, picture
from tests.training.foreign import write_foreign
from tests.weights_made import SMALL, random_tensors

sys.path.insert(0, str(ROOT / "tools"))
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
# What an example needs that a test must not do: install, the network, make itself, a person's own files.
NOT_RUN = ("make ", "pip ", "convnext models pull", "convnext models use", "eval ", "find ", "convnext completion fish")


def blocks(language: str) -> list[tuple[str, str]]:
    fence = re.compile(rf"^```{language}\n(.*?)^```", re.S | re.M)
    return [(page.name, code) for page in PAGES for code in fence.findall(page.read_text())]


def commands() -> list[tuple[str, str]]:
    # a budget is spent in any case, and what is left to choice is minutes
    shorter = (("--time 15m", "--time 10s"), ("train clothes -o run &&", "train clothes -o run --time 10s &&"))
    return [
        (page, reduce(lambda text, pair: text.replace(*pair), shorter, line.split("  #")[0].strip()))
        for page, code in blocks("sh")
        for line in code.replace("\\\n", " ").splitlines()
        if line.startswith("convnext ") and not line.startswith(NOT_RUN)
    ]


@pytest.fixture
def place(tmp_path: Path, home: Path) -> Path:
    """A folder with the files that the examples name, and the models that they name among the user's weights."""
    photo = (ROOT / "samples" / "cat.jpg").read_bytes()
    for name in ("photo.jpg", "holiday/beach.jpg", "holiday/day two/IMG_1.heic"):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(photo)
    (tmp_path / "samples").symlink_to(ROOT / "samples")
    (tmp_path / "my_checkpoint.pth").symlink_to(ROOT / "weights" / "default.safetensors")
    for name in ("convnext_tiny.fb_in1k", "convnext_tiny.in12k_ft_in1k"):
        (home / "weights" / name).mkdir(parents=True)
        (home / "weights" / name / "model.safetensors").symlink_to(ROOT / "weights" / "default.safetensors")
    (tmp_path / "onnx_ten_lines.py").symlink_to(ROOT / "docs" / "onnx_ten_lines.py")
    (tmp_path / "photos").mkdir()
    for i in range(40):
        (tmp_path / "photos" / f"{i}.jpg").write_bytes(Path(SAMPLES[i % 3]).read_bytes())
    for sample, name in zip(SAMPLES, ("tabby", "espresso", "obelisk"), strict=True):
        (tmp_path / "labelled" / name).mkdir(parents=True)
        (tmp_path / "labelled" / name / "1.jpg").symlink_to(sample)
    for place, name in enumerate(("dress", "hat", "shoes")):
        for i in range(8):
            path = tmp_path / "clothes" / name / f"{i}.jpg"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(encoded(picture(90, 90, seed=8 * place + i)))
    shutil.make_archive(str(tmp_path / "clothing-144"), "zip", tmp_path / "clothes")
    for number in range(2):
        with tarfile.open(tmp_path / f"shard-{number:03d}.tar", "w") as tar:
            for sample, name in zip(SAMPLES, ("tabby", "espresso", "obelisk"), strict=True):
                (tmp_path / "label").write_text(name)
                tar.add(sample, f"{name}.jpg")
                tar.add(tmp_path / "label", f"{name}.cls")
    tensors = {name: tensor.numpy() for name, tensor in random_tensors(SMALL).items()}
    onnx_graph.save(onnx_graph.graph(SMALL, tensors), tmp_path / "model.onnx")
    write_foreign(tmp_path / "teacher.onnx", np.random.default_rng(0).standard_normal((3, 4)), np.zeros(4))
    (tmp_path / "teacher-classes.txt").write_text("shoes\nscarf\ndress\nhat")
    (tmp_path / "names.txt").write_text("\n".join(f"name {i}" for i in range(200)))
    parquet = pytest.importorskip("pyarrow.parquet")
    (tmp_path / "labels").mkdir()
    parquet.write_table(arrow_table([]), tmp_path / "labels" / "part-1.parquet")
    return tmp_path


@pytest.mark.parametrize(("page", "command"), commands(), ids=lambda value: value[:60])
def test_commands_run(page: str, command: str, place: Path, home: Path) -> None:
    environment = os.environ | {"PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}
    done = subprocess.run(["bash", "-c", command], cwd=place, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, f"{page}: {command}\n{done.stderr}"
    assert done.stdout or "-o" in shlex.split(command) or command.startswith("convnext convert ")  # which writes files


@pytest.mark.parametrize(("page", "code"), blocks("python"), ids=lambda value: value[:40])
def test_python_runs(page: str, code: str, place: Path, home: Path) -> None:
    done = subprocess.run([sys.executable, "-c", code], cwd=place, capture_output=True, text=True)
    assert done.returncode == 0, f"{page}\n{done.stderr}"


def test_reference_is_current() -> None:
    import make_reference

    assert make_reference.TARGET.read_text() == make_reference.reference(), "run: make docs"


def test_failure_kinds_are_documented() -> None:
    text = (ROOT / "docs" / "usage.md").read_text()
    assert all(f"`{kind}`" in text for kind in FAILURE_KINDS)


def test_links_lead_somewhere() -> None:
    for page in PAGES:
        for target in re.findall(r"\]\(([^)#]+)[^)]*\)", page.read_text()):
            if not target.startswith("http"):
                assert (page.parent / target).exists(), f"{page.name}: {target}"
