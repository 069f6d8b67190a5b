"""Inspecting is not running: cards come from the containers, and no program file is opened by its runtime."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import warnings
import zipfile
from pathlib import Path

import pytest
import torch

from convnext_cli.base.errors import ModelError
from convnext_cli.runtimes import inspection
from tests.helpers.command import Run
from tests.helpers.exports import Plan as ExportPlan
from tests.helpers.exports import checkpoint, written
from tests.helpers.paths import ROOT

FORMS = {"torchscript": "a.ts", "torch-export": "a.pt2", "onnx": "a.onnx", "openvino": "a.xml", "tflite": "a.tflite"}


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("exports")
    for form, name in FORMS.items():
        written(form, checkpoint(folder), ExportPlan(size=(64, 64)), folder / name)
    return folder


class Payload(torch.nn.Module):
    """Writes the file "pwned" while it is loaded."""

    def __init__(self) -> None:
        super().__init__()
        self.x = torch.zeros(1)

    @torch.jit.export
    def __getstate__(self):  # type: ignore[no-untyped-def]
        return (self.x, self.training)

    @torch.jit.export
    def __setstate__(self, state: tuple[torch.Tensor, bool]) -> None:
        self.x = state[0]
        self.training = state[1]
        self.x = torch.from_file("pwned", True, 1, dtype=torch.uint8).copy_(torch.tensor([80], dtype=torch.uint8))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.zeros(x.shape[0], 7)


@pytest.fixture
def evil(files: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    with zipfile.ZipFile(files / "a.ts") as archive:
        card = archive.read(next(name for name in archive.namelist() if name.endswith("extra/convnext")))
    monkeypatch.chdir(tmp_path)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.jit.save(torch.jit.script(Payload()), "evil.ts", _extra_files={"convnext": card.decode()})
    (tmp_path / "pwned").unlink(missing_ok=True)  # scripting may run it too
    return tmp_path / "evil.ts"


@pytest.mark.parametrize(
    "arguments",
    [["models", "info"], ["models", "info", "--json"], ["models", "verify"], ["models", "path"], ["models", "use"]],
)
def test_inspecting_a_program_does_not_run_it(arguments: list[str], evil: Path, convnext: Run) -> None:
    done = convnext(*arguments, evil)
    assert done.status in (0, 1), done.err
    for more in (["models", "list"], ["doctor", "--help"], ["completion", "bash"]):
        assert convnext(*more).status == 0
    assert not Path("pwned").exists()


def test_opening_a_program_says_that_it_is_one(evil: Path, convnext: Run) -> None:
    done = convnext("classify", "-m", evil, ROOT / "samples/cat.jpg", "-f", "jsonl")
    assert Path("pwned").exists()
    assert done.err.count("evil.ts is a program, and opening it runs it") == 1


def test_data_for_runtimes_is_not_called_a_program(files: Path, convnext: Run) -> None:
    done = convnext("classify", "-m", files / "a.xml", ROOT / "samples/cat.jpg", "-f", "jsonl")
    assert done.status == 0 and "is a program" not in done.err


@pytest.mark.parametrize("form", FORMS)
def test_cards_of_all_containers_are_read(form: str, files: Path, convnext: Run) -> None:
    done = convnext("models", "info", files / FORMS[form], "--json")
    assert done.status == 0, done.err
    told = json.loads(done.out)
    assert (told["export"]["format"], told["classes"], told["input"]) == (form, 7, [64, 64])


def test_no_runtime_is_loaded_for_it(files: Path) -> None:
    names = [str(files / name) for form, name in FORMS.items() if form not in ("tflite", "openvino")]
    code = (
        "import sys; from pathlib import Path; from convnext_cli.runtimes import inspection\n"
        "for name in sys.argv[1:]: assert inspection.inspect(Path(name))[0] is not None\n"
        "assert not {'torch', 'onnx', 'onnxruntime', 'openvino'} & set(sys.modules), sys.modules.keys()"
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    subprocess.run([sys.executable, "-c", code, *names], check=True, env=environment)


@pytest.mark.parametrize("form", FORMS)
def test_damaged_containers_are_status_3(form: str, files: Path, tmp_path: Path, convnext: Run) -> None:
    path = tmp_path / FORMS[form]
    (tmp_path / "a.bin").write_bytes((files / "a.bin").read_bytes())
    data = (files / FORMS[form]).read_bytes()
    for part in (b"", data[:10], data[: len(data) // 2], data[: len(data) // 3] + bytes(64), os.urandom(2000)):
        path.write_bytes(part)
        try:
            card, _ = inspection.inspect(path)
        except ModelError as error:
            assert error.hint and path.name.split(".")[0] in error.message
        else:
            assert card is None or form == "onnx"
        assert convnext("models", "info", path).status in (0, 3)
