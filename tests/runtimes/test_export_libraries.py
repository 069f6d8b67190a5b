"""``convnext export`` and ``convert`` where a library is missing, or was installed badly: exit 4 with the pip line."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.helpers.command import Run
from tests.helpers.tiers import slow_except
from tests.helpers.weights import write_model

GONE = """
import sys
class Finder:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == {library!r}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)
sys.meta_path.insert(0, Finder())
"""
BROKEN = "raise {error}('libmissing.so.1: cannot open shared object file')"


COMMANDS = {
    "export": ("export", "-m", "small.safetensors", "-o", "a.onnx"),
    "convert": ("convert", "small.safetensors", "a.pth", "--to", "official"),  # which has no need of openvino
}


@pytest.mark.parametrize(
    ("command", "library", "how"),
    slow_except(
        [
            (command, library, how)
            for command, library in (("export", "torch"), ("export", "openvino"), ("convert", "torch"))
            for how in ("missing", "ImportError", "OSError")
        ],
        *(("export", "torch", "missing"), ("export", "openvino", "OSError"), ("convert", "torch", "ImportError")),
    ),
)
def test_a_library_that_is_not_there(library: str, how: str, command: str, tmp_path: Path, home: Path) -> None:
    write_model(tmp_path / "small.safetensors")
    shadow = tmp_path / "shadow"
    (shadow / library).mkdir(parents=True)
    if how == "missing":
        (shadow / library).rmdir()
        (shadow / "sitecustomize.py").write_text(GONE.format(library=library))
    else:
        (shadow / library / "__init__.py").write_text(BROKEN.format(error=how))
    environment = os.environ | {"PYTHONPATH": str(shadow)}
    done = subprocess.run(
        [sys.executable, "-m", "convnext_cli", *COMMANDS[command]],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
    )
    if how == "missing":
        said = f"error: {library} is not installed\nhint: pip install {library}\n"
    else:
        said = (
            f"error: {library} cannot be loaded: libmissing.so.1: cannot open shared object file\n"
            f"hint: pip install --force-reinstall {library}\n"
        )
    assert (done.returncode, done.stderr) == (4, said)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["shadow", "small.safetensors"]


@pytest.mark.parametrize("error", [ImportError("cannot import name 'exir'"), OSError("libextension.so: cannot open")])
def test_an_executorch_that_cannot_be_loaded(
    error: Exception, convnext: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Finder:
        def find_spec(self, name: str, path: object = None, target: object = None) -> None:
            if name == "convnext_cli.runtimes.executorch.program":
                raise error

    pytest.importorskip("executorch", reason="needs executorch")
    monkeypatch.delitem(sys.modules, "convnext_cli.runtimes.executorch.program", raising=False)
    monkeypatch.delattr("convnext_cli.runtimes.executorch.program", raising=False)
    monkeypatch.setattr(sys, "meta_path", [Finder(), *sys.meta_path])
    model = write_model(tmp_path / "small.safetensors")
    done = convnext("export", "-m", model, "-o", tmp_path / "a.pte", "--no-check")
    assert done.status == 4
    assert f"ExecuTorch cannot be loaded: {error}" in done.err and "pip install executorch" in done.err
