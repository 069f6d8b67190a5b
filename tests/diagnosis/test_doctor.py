"""convnext doctor: real runs of what is here, and what it says of what is broken."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from convnext_cli import zoo
from convnext_cli.base.errors import UnavailableError
from convnext_cli.cli import render
from convnext_cli.cli.doctor import draw
from convnext_cli.diagnosis import Check, Diagnosis, diagnose, installed, probe, report
from convnext_cli.runtimes import cache
from convnext_cli.runtimes.select import open_engine
from tests.helpers.command import Run


@pytest.fixture(scope="module")
def found() -> Diagnosis:
    return diagnose()


def test_what_is_here_answers_rightly(found: Diagnosis) -> None:
    assert {check.engine for check in found.checks} == {"torch", "openvino", "onnxruntime"}
    for check in found.checks:
        assert check.verdict in ("ok", "skipped"), check
        if check.verdict == "ok":
            assert check.top1_equal and check.difference is not None
            assert check.difference < {"float64": 1e-8, "float32": 1e-6}.get(check.dtype, 2e-2)
    seen = {(check.engine, check.device, check.dtype) for check in found.checks if check.verdict == "ok"}
    assert {("torch", "cpu", dtype) for dtype in ("float64", "float32", "bfloat16", "float16")} <= seen
    assert {("openvino", "cpu", "float32"), ("onnxruntime", "cpu", "float32")} <= seen
    assert found.healthy


def test_engines_tell_versions_and_devices(found: Diagnosis) -> None:
    engines = {engine.name: engine for engine in found.engines}
    assert engines["torch"].facts["cpu_capability"]
    assert engines["openvino"].facts["float32_honoured"] is True
    assert "CPUExecutionProvider" in engines["onnxruntime"].facts["providers"]
    for engine in engines.values():
        assert engine.version and engine.error is None
        assert engine.devices[0]["name"] == "cpu"
    assert found.machine["usable_threads"] >= 1
    json.dumps(found.to_json())


@pytest.mark.parametrize("width", [60, 80, 120])
def test_the_view_fits_the_screen(
    found: Diagnosis, width: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", str(width))
    render.reset()
    draw(found)
    shown = capsys.readouterr().out
    render.reset()
    assert max(map(len, shown.splitlines())) <= width
    for word in ("openvino", "bfloat16", "pyarrow", "cache", "default model"):
        assert word in shown


def broken(tmp_path: Path, modules: dict[str, str]) -> dict[str, str]:
    """An environment in which some modules do other than they should."""
    for name, code in modules.items():
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").write_text(code)
    return os.environ | {"PYTHONPATH": str(tmp_path), "CONVNEXT_HOME": str(tmp_path / "home"), "COLUMNS": "200"}


def test_broken_engines_are_told_and_the_others_still_tried(tmp_path: Path) -> None:
    environment = broken(
        tmp_path,
        {
            "torch": "raise OSError('libtorch_cpu.so: cannot open shared object file')",
            "onnxruntime": "import os, signal; os.kill(os.getpid(), signal.SIGILL)",
        },
    )
    command = [sys.executable, "-m", "convnext_cli", "doctor"]
    done = subprocess.run([*command, "--json"], capture_output=True, text=True, env=environment)
    told = json.loads(done.stdout)
    assert done.returncode == 1, done.stderr
    engines = {engine["name"]: engine for engine in told["engines"]}
    assert "libtorch_cpu.so" in engines["torch"]["error"]
    assert "SIGILL" in engines["onnxruntime"]["error"]
    assert {check["verdict"] for check in told["checks"] if check["engine"] == "openvino"} <= {"ok", "skipped"}
    assert [check for check in told["checks"] if check["engine"] == "openvino"]
    assert not told["healthy"] and len(told["problems"]) == 2

    drawn = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert drawn.returncode == 1
    assert "Traceback" not in drawn.stderr + drawn.stdout
    end = drawn.stdout.partition("problem:")[2]
    assert "libtorch_cpu.so" in end and "pip install --force-reinstall torch" in end


def test_what_is_not_installed_is_no_fault(convnext: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("torch", "openvino"):  # quick
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").write_text("raise ImportError('not in this test')")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    monkeypatch.setitem(installed.LIBRARIES, "no-such-library", ("tests", "pip install no-such-library"))
    done = convnext("doctor")
    assert done.status == 1  # for the two
    assert done.out.count("problem:") == 2
    assert "not installed: pip install onnxruntime onnx" in done.out
    assert "not installed, for tests: pip install no-such-library" in done.out


def check(engine: Any, dtype: str = "float32") -> dict[str, Any]:
    lines: list[dict[str, Any]] = []

    def make() -> Any:
        if isinstance(engine, Exception):
            raise engine
        return engine

    probe._check(lines.append, "torch", "mps", dtype, make)
    assert "trying" in lines[0]
    return lines[1]["check"]


class Tilted:
    """The bundled model on a device that computes wrongly for all photos but the first."""

    dtype = "float32"

    def __init__(self, by: float) -> None:
        self._by = by
        self._engine = open_engine(zoo.resolve("default"), engine="torch", device="cpu")

    def __call__(self, batch: np.ndarray) -> np.ndarray:
        logits = self._engine(batch)
        logits[1:, 0] += self._by
        return logits

    def close(self) -> None:
        self._engine.close()


@pytest.mark.parametrize(("by", "top1"), [(0.1, True), (1e3, False), (float("nan"), False)])
def test_a_device_that_answers_wrongly_is_found(by: float, top1: bool) -> None:
    assert check(Tilted(0))["verdict"] == "ok"
    told = check(Tilted(by))
    assert told["verdict"] == "wrong"
    assert told["top1_equal"] is top1
    assert (told["difference"] is None) is (by != by)
    (problem,) = report._of_checks([Check(**told)])
    assert "torch on mps in float32 gives wrong answers" in problem.what and problem.fails


def test_another_precision_than_the_one_asked_for_is_wrong() -> None:
    told = check(Tilted(0), "bfloat16")
    assert told["verdict"] == "wrong" and "float32" in told["reason"]


@pytest.mark.parametrize(
    ("error", "dtype", "verdict"),
    [
        (RuntimeError("CUDA error: no kernel image is available\nmore"), "float32", "failed"),
        (UnavailableError("torch has no code for it", "install another"), "float32", "failed"),
        (TypeError("MPS does not know bfloat16"), "bfloat16", "skipped"),
        (TypeError("MPS does not know float32"), "float32", "failed"),
    ],
)
def test_a_device_that_fails_is_told_with_the_reason(error: Exception, dtype: str, verdict: str) -> None:
    told = check(error, dtype)
    assert told["verdict"] == verdict
    assert str(error).splitlines()[0] in told["reason"] and "\n" not in told["reason"]
    assert len(list(report._of_checks([Check(**told)]))) == (verdict == "failed")


def test_a_gpu_without_code_and_a_driver_without_gpu_are_problems(found: Diagnosis) -> None:
    facts: dict[str, object] = {"architectures": ["sm_90"], "why_no_cuda": "", "driver": ""}
    engine = replace(found.engines[0], facts=facts)
    device = {"name": "cuda:0", "description": "Old GPU", "memory_bytes": 2**32, "capability": "6.1"}
    (problem,) = report._of_engines([replace(engine, devices=[device | {"has_kernels": False}])])
    assert "Old GPU" in problem.what and "sm_90" in problem.what and problem.fails
    assert not list(report._of_engines([replace(engine, devices=[device | {"has_kernels": True}])]))
    facts = {"why_no_cuda": "it shows no GPU", "driver": "the NVIDIA driver 570 is loaded"}
    (problem,) = report._of_engines([replace(engine, facts=facts, devices=[])])
    assert not problem.fails


def test_a_default_that_cannot_be_used_is_a_problem(home: Path, found: Diagnosis) -> None:
    (home / "config.toml").write_text('model = "convnext_nowhere"')
    folders = installed.folders()
    (problem,) = report._of_folders(folders)
    assert "convnext_nowhere" in problem.what and "models use default" in problem.hint
    assert not replace(found, problems=[problem]).healthy
    (home / "config.toml").write_text("model = ")
    assert list(report._of_folders(installed.folders()))


def test_the_cache_is_counted_and_damage_is_told(home: Path) -> None:
    card = zoo.local_files.embedded_card(zoo.resolve("default"))
    assert card is not None
    for dtype in ("float32", "bfloat16"):
        with cache.making(card, "openvino", dtype, 0.0) as folder:
            (folder / "model.bin").write_bytes(b"1234")
    folders = installed.folders()
    assert (folders.prepared, folders.prepared_damaged) == (2, 0) and folders.cache_bytes > 8
    (cache.entries()[0].folder / "model.bin").write_bytes(b"1235")
    folders = installed.folders()
    assert folders.prepared_damaged == 1
    (problem,) = report._of_folders(folders)
    assert not problem.fails


@pytest.mark.skipif(os.name == "nt" or os.geteuid() == 0, reason="needs a user who may not write everywhere")
def test_a_folder_that_cannot_be_written_is_told(home: Path) -> None:
    home.chmod(0o500)
    try:
        assert len(list(report._of_folders(installed.folders()))) == 2
    finally:
        home.chmod(0o700)
