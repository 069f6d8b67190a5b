"""The built wheel, installed away from the checkout, carries what it needs."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from tests.helpers.paths import ROOT, SAMPLES


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A wheel, built from a copy of the tracked files so that nothing lying about gets in."""
    source, target = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("wheel")
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"], cwd=ROOT, capture_output=True
    )
    if listed.returncode:
        pytest.skip("the tree is no git checkout")
    for name in filter(None, os.fsdecode(listed.stdout).split("\0")):
        copy = source / name
        copy.parent.mkdir(parents=True, exist_ok=True)
        if (ROOT / name).is_file():
            copy.write_bytes((ROOT / name).read_bytes())
    build = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(target), str(source)]
    done = subprocess.run(build, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    (found,) = target.glob("*.whl")
    return found


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    target = tmp_path_factory.mktemp("site")
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index", "--target", str(target)]
    subprocess.run([*pip, str(wheel)], check=True, capture_output=True)
    return target


def run(installed: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"PYTHONPATH": str(installed), "CONVNEXT_HOME": str(installed / "home")}
    return subprocess.run(
        [sys.executable, *arguments], cwd=installed, env=environment, capture_output=True, text=True, check=True
    )


def test_contents(wheel: Path) -> None:
    names = set(zipfile.ZipFile(wheel).namelist())
    assert {
        "convnext_cli/py.typed",
        "convnext_cli/weights/default.safetensors",
        "convnext_cli/weights/README.md",
        "convnext_cli/zoo/zoo.toml",
        "convnext_cli/labels/imagenet-1k.tsv.xz",
    } <= names
    packaged = {str(path.relative_to(ROOT)) for path in (ROOT / "convnext_cli").rglob("*.py")}
    assert packaged <= names
    assert not any(name.startswith(("tests/", "tools/", "benchmarks/")) for name in names)


def test_the_installed_wheel_classifies(installed: Path) -> None:
    where = run(installed, "-c", "import convnext_cli; print(convnext_cli.__file__)").stdout
    assert Path(where.strip()).is_relative_to(installed)
    (row,) = json.loads(run(installed, "-m", "convnext_cli", "classify", "--json", SAMPLES[0]).stdout)
    assert row["status"] == "ok"
    assert len(row["predictions"]) == 5


def test_the_installed_wheel_has_labels_and_zoo(installed: Path) -> None:
    code = "from convnext_cli import labels, zoo; print(len(labels.load('imagenet-22k')), zoo.find('tiny').name)"
    assert run(installed, "-c", code).stdout.split() == ["21841", "convnext_tiny.fb_in1k"]


def test_the_console_script_is_there(installed: Path) -> None:
    script = installed / "bin" / "convnext"
    assert script.exists() or (installed / "Scripts").exists()
