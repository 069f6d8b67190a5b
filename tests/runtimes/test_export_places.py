"""Where ``convnext export`` may write: nothing of a user's goes, and nothing of its own is left."""

from __future__ import annotations

import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

from convnext_cli import checkpoints
from convnext_cli.base.errors import UsageError
from convnext_cli.runtimes.exporting import placement
from convnext_cli.runtimes.registry import FORMATS
from tests.helpers.command import Run
from tests.helpers.disk import files_limited_to, listing
from tests.helpers.tiers import slow_except
from tests.helpers.weights import write_model

FORMS = {".onnx": "onnx", ".xml": "openvino", ".ts": "torchscript", ".pt2": "torch-export", ".mlpackage": "coreml"}


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return write_model(tmp_path / "small.safetensors")


@pytest.mark.parametrize(
    ("name", "folder"),
    [
        ("d.onnx", "d.onnx"),
        ("d.xml", "d.xml"),
        ("d.xml", "d.bin"),
        ("d.ts", "d.ts"),
        ("d.mlpackage", "d.mlpackage"),
    ],
)
def test_a_folder_of_other_things_is_never_replaced(
    name: str, folder: str, convnext: Run, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if name.endswith(".mlpackage") and find_spec("coremltools") is None:
        pytest.skip("needs coremltools")
    monkeypatch.setattr(checkpoints, "load", unreached)
    (tmp_path / folder / "Data").mkdir(parents=True)
    (tmp_path / folder / "Data" / "thesis.tex").write_text("years")
    before = listing(tmp_path)
    done = convnext("export", "-m", model, "-o", tmp_path / name, "--overwrite", "--no-check")
    assert (done.status, listing(tmp_path)) == (2, before), done.err
    assert "thesis.tex" in done.err or "is a folder" in done.err


def unreached(*given: object, **more: object) -> None:
    raise AssertionError("the work has begun")


def test_a_package_is_replaced_by_a_package_alone(tmp_path: Path) -> None:
    package = tmp_path / "d.mlpackage"
    (package / "Data" / "com.apple.CoreML" / "weights").mkdir(parents=True)
    for name in (
        "Manifest.json",
        *(f"Data/com.apple.CoreML/{file}" for file in ("model.mlmodel", "weights/weight.bin")),
    ):
        (package / name).write_text("part")
    placement.refuse_place(package, overwrite=True, folder=True)
    (package / "weights.bin").write_text("mine")
    with pytest.raises(UsageError, match=r"holds other files than a package's, and is not replaced: weights\.bin"):
        placement.refuse_place(package, overwrite=True, folder=True)
    (tmp_path / "file.mlpackage").write_text("a file")
    with pytest.raises(UsageError, match="is no folder"):
        placement.refuse_place(tmp_path / "file.mlpackage", overwrite=True, folder=True)


@pytest.mark.parametrize("way", ["itself", "through a link", "a link to it", "a hard link"])
@pytest.mark.parametrize(
    ("source", "out"),
    [("v2.pt2", "v2.pt2"), ("v2.bin", "v2.xml"), ("v2.onnx.data", "v2.onnx")],
    ids=["the file", "the .bin beside it", "the .data beside it"],
)
def test_the_weights_are_never_written_over(
    source: str, out: str, way: str, convnext: Run, model: Path, tmp_path: Path
) -> None:
    (tmp_path / "own").mkdir()
    given = weights = model.rename(tmp_path / "own" / source)
    if way == "through a link":
        given = tmp_path / "link.bin"
        given.symlink_to(weights)
    elif way in ("a link to it", "a hard link"):
        (tmp_path / "out").mkdir()
        there = tmp_path / "out" / source
        there.symlink_to(weights) if way == "a link to it" else there.hardlink_to(weights)
    target = (tmp_path / "out" if (tmp_path / "out").exists() else tmp_path / "own") / out
    before, content = listing(tmp_path), weights.read_bytes()
    done = convnext("export", "-m", given, "-o", target, "--overwrite", "--no-check")
    assert (done.status, listing(tmp_path)) == (2, before), done.err
    assert "what is to be exported" in done.err
    assert weights.read_bytes() == content


@pytest.mark.parametrize("name", ["d.onnx", "d.xml", "d.bin"])
def test_what_came_there_meanwhile_is_not_replaced(
    name: str, convnext: Run, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two exports to one name: the second to be done is told so."""
    form = "onnx" if name.endswith(".onnx") else "openvino"
    writer, target = FORMATS[form].load_writer(), tmp_path / f"d{FORMATS[form].suffix}"
    write = writer.write

    def slow(*arguments: object) -> None:
        write(*arguments)  # type: ignore[arg-type]
        (tmp_path / name).write_text("the other's")

    monkeypatch.setattr(writer, "write", slow)
    done = convnext("export", "-m", model, "-o", target, "--no-check")
    assert done.status == 2 and f"{name} is there already" in done.err
    assert [path.name for path in tmp_path.iterdir() if path != model] == [name]
    assert (tmp_path / name).read_text() == "the other's"


def test_a_link_is_written_through(convnext: Run, model: Path, tmp_path: Path) -> None:
    (tmp_path / "store").mkdir()
    (tmp_path / "store" / "real.ts").write_text("former")
    (tmp_path / "store" / "real.ts").chmod(0o640)
    (tmp_path / "d.ts").symlink_to(tmp_path / "store" / "real.ts")
    assert convnext("export", "-m", model, "-o", tmp_path / "d.ts", "--no-check").status == 2
    assert convnext("export", "-m", model, "-o", tmp_path / "d.ts", "--no-check", "--overwrite").status == 0
    assert (tmp_path / "d.ts").is_symlink()
    assert (tmp_path / "store" / "real.ts").stat().st_size > 10_000
    assert (tmp_path / "store" / "real.ts").stat().st_mode & 0o777 == 0o640
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["d.ts", "real.ts", "small.safetensors", "store"]


@pytest.mark.skipif(sys.platform == "win32", reason="limits of file sizes are POSIX")
@pytest.mark.parametrize("suffix", slow_except(FORMS, ".onnx", ".xml", ".ts"))
def test_a_full_disk_leaves_nothing(suffix: str, convnext: Run, model: Path, tmp_path: Path) -> None:
    if suffix == ".mlpackage":
        pytest.importorskip("coremltools", reason="needs coremltools")
    before = listing(tmp_path)
    with files_limited_to(20_000):
        done = convnext("export", "-m", model, "-o", tmp_path / f"full{suffix}", "--no-check")
    assert (done.status, listing(tmp_path)) == (74, before), done.err
    assert f"full{suffix} cannot be written: File too large" in done.err


@pytest.mark.skipif(sys.platform == "win32", reason="limits of file sizes are POSIX")
def test_a_full_disk_is_no_fault_of_the_compiler(
    convnext: Run, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import torch._inductor

    def broken(*given: object, **more: object) -> None:
        raise RuntimeError("C++ compile error: ld terminated with signal 25")

    monkeypatch.setattr(torch._inductor, "aoti_compile_and_package", broken)
    before = listing(tmp_path)
    with files_limited_to(20_000):
        done = convnext("export", "--to", "aoti", "-m", model, "-o", tmp_path / "full.pt2", "--no-check")
    assert (done.status, listing(tmp_path)) == (74, before), done.err
    done = convnext("export", "--to", "aoti", "-m", model, "-o", tmp_path / "full.pt2", "--no-check")
    assert (done.status, listing(tmp_path)) == (4, before), done.err


def test_what_a_killed_export_left_goes_with_the_next(convnext: Run, model: Path, tmp_path: Path) -> None:
    code = (
        "import os, sys, signal; from pathlib import Path; from convnext_cli.runtimes.exporting import placement\n"
        "with placement.room(Path(sys.argv[1])) as made:\n"
        "    (made / 'half').write_text('half'); os.kill(os.getpid(), signal.SIGKILL)"
    )
    subprocess.run([sys.executable, "-c", code, tmp_path / "d.onnx"], check=False)
    (left,) = tmp_path.glob(".convnext-*.part")
    mine = tmp_path / left.name.replace(left.name.split("-")[1], str(os.getppid()))  # of a process that lives
    mine.mkdir()
    (tmp_path / ".convnext-other.part").mkdir()  # of somebody else, or another machine
    (tmp_path / ".convnext-1-00000000-00000000.part").mkdir()
    assert convnext("export", "-m", model, "-o", tmp_path / "d.onnx", "--no-check").status == 0
    assert not left.exists()
    assert len(list(tmp_path.glob(".convnext-*.part"))) == 3


def test_temporary_files_lie_in_the_room(tmp_path: Path) -> None:
    """Compilers and libraries ask for a place in several ways."""
    import tempfile

    before = (tempfile.gettempdir(), dict(os.environ))
    with placement.room(tmp_path / "d.pt2") as made:
        found = (tempfile.mkdtemp(), os.environ["TMPDIR"], os.environ["TORCHINDUCTOR_CACHE_DIR"])
        assert all(Path(each).is_relative_to(made.parent) for each in found)
        assert list(made.iterdir()) == []
    assert (tempfile.gettempdir(), dict(os.environ)) == before
    assert list(tmp_path.iterdir()) == []
