"""Habits from other programs: names of commands and options, options before the photo, folders, defaults."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from convnext_cli.cli import types
from tests.helpers.command import Run
from tests.helpers.paths import SAMPLES

CAT, COFFEE, ROCKET = SAMPLES


@pytest.fixture
def holiday(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of two photos, one of them deeper and called as a phone calls it; the test runs beside it."""
    for photo, name in ((CAT, "a.jpg"), (COFFEE, "day two/IMG.HEIC")):
        (tmp_path / "holiday" / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(photo, tmp_path / "holiday" / name)
    monkeypatch.chdir(tmp_path)
    return tmp_path / "holiday"


def paths(text: str) -> list[str]:
    return [json.loads(line)["path"] for line in text.splitlines()]


# Folders and globs


@pytest.mark.parametrize("before", [[], ["classify"], ["predict"]])
def test_a_folder_is_looked_into_and_that_is_said(convnext: Run, holiday: Path, before: list[str]) -> None:
    done = convnext(*before, "holiday", "-f", "jsonl")
    assert done.status == 0
    assert paths(done.out) == ["holiday/a.jpg", "holiday/day two/IMG.HEIC"]
    assert sum("searching the folder holiday" in line for line in done.err.splitlines()) == 1
    assert convnext(*before, "-r", "holiday", "-f", "jsonl").out == done.out


def test_a_folder_that_a_list_or_a_glob_names_is_not(convnext: Run, holiday: Path) -> None:
    # `find` prints folders and the photos in them: each photo has one row
    Path("list").write_text("holiday/day two\nholiday/a.jpg\n")
    done = convnext("classify", "--files-from", "list", "-f", "jsonl")
    assert done.status == 1
    assert paths(done.out) == ["holiday/day two", "holiday/a.jpg"]
    assert len(paths(convnext("classify", "holiday/**/*", "-f", "jsonl").out)) == 3


def test_recursive_is_accepted_everywhere(convnext: Run, holiday: Path) -> None:
    assert convnext("label", "-r", "holiday", "-o", "rows.jsonl").status == 0
    assert len(Path("rows.jsonl").read_text().splitlines()) == 2


@pytest.mark.parametrize("glob", ["holiday/**/*.heic", "holiday/**/*.HEIC", "holiday/**/*.Heic", "holiday/*/img.heic"])
def test_a_glob_matches_suffixes_in_any_case(convnext: Run, holiday: Path, glob: str) -> None:
    done = convnext(glob, "-f", "jsonl")
    if "img" in glob:  # only the suffix is taken loosely
        assert done.status == 2
        return
    assert paths(done.out) == ["holiday/day two/IMG.HEIC"]


def test_globs_of_label_match_suffixes_in_any_case(convnext: Run, holiday: Path) -> None:
    for option, left in (("--include", "IMG.HEIC"), ("--exclude", "a.jpg")):
        convnext("label", "holiday", "-o", f"{left}.jsonl", option, "*.heic")
        (path,) = paths(Path(f"{left}.jsonl").read_text())
        assert path.endswith(left)


# The short form


@pytest.mark.parametrize("words", [["-k", "1", CAT], ["-k1", CAT], ["--top=1", CAT], [CAT, "-k", "1"], ["--", CAT]])
def test_options_may_come_before_the_photo(convnext: Run, words: list[str]) -> None:
    wanted = convnext("classify", *words)
    done = convnext(*words)
    assert (done.status, done.out) == (0, wanted.out)


def test_the_command_comes_before_its_options(convnext: Run, holiday: Path) -> None:
    done = convnext("-v", "label", "holiday")
    assert done.status == 2
    assert "The command comes first: convnext label -v" in done.err
    assert convnext("-q", "models", "list").status == 2


def test_an_option_without_its_value_names_its_command(convnext: Run) -> None:
    for words, command in (
        (["classify", "-m"], "convnext classify --help"),
        (["label", "--undo"], "convnext label --help"),
        (["models", "list", "--sort"], "convnext models list --help"),
    ):
        done = convnext(*words)
        assert done.status == 2
        assert f"hint: {command}" in done.err


# Names that other programs have taught


@pytest.mark.parametrize(
    ("taught", "ours"),
    [
        (["--topk", "2"], ["-k", "2"]),
        (["--top-k", "2"], ["-k", "2"]),
        (["--conf", "0.5"], ["--min-score", "0.5"]),
        (["--threshold", "0.5"], ["--min-score", "0.5"]),
        (["--imgsz", "64"], ["--size", "64"]),
        (["--img-size", "64"], ["--size", "64"]),
        (["--batch", "1"], ["-b", "1"]),
        (["--device", "CPU"], ["--device", "cpu"]),
        (["--dtype", "fp32"], ["--dtype", "float32"]),
    ],
    ids=" ".join,
)
def test_options_that_others_taught(convnext: Run, taught: list[str], ours: list[str]) -> None:
    done = convnext("classify", *taught, "-f", "jsonl", *SAMPLES)
    assert done.status == 0
    assert done.out == convnext("classify", *ours, "-f", "jsonl", *SAMPLES).out


@pytest.mark.parametrize("words", [["--half"], ["--dtype", "half"], ["--dtype", "fp16"]])
def test_half_is_float16(convnext: Run, words: list[str]) -> None:
    done = convnext("classify", *words, "-e", "openvino", CAT)  # which does not compute in it
    assert done.status != 0
    assert "float16" in done.err


def test_words_for_devices_and_precisions() -> None:
    import click

    def device(text: str) -> str | None:
        return types.device(None, None, text)  # type: ignore[arg-type]

    assert [device(word) for word in ("0", "1", "CPU", "cuda:1", "CUDA", "cuda:all")] == [
        "cuda:0",
        "cuda:1",
        "cpu",
        "cuda:1",
        "cuda",
        "cuda:all",
    ]
    assert device("gpu") in ("cuda", "mps")
    choice = types.dtypes("float32", "bfloat16", "float16", "int8")
    assert [choice.convert(word, None, None) for word in ("fp32", "FP16", "half", "bf16", "int8")] == [
        "float32",
        "float16",
        "float16",
        "bfloat16",
        "int8",
    ]
    with pytest.raises(click.BadParameter):  # a precision that the command does not have is not one by another name
        types.dtypes("float32").convert("half", None, None)


def test_hidden_names_are_documented_in_one_place_and_not_in_help(convnext: Run) -> None:
    page = (Path(__file__).parent.parent.parent / "docs" / "usage.md").read_text()
    shown = convnext("classify", "--help").out + convnext("export", "--help").out + convnext("--help").out
    for name in ("--topk", "--top-k", "--conf", "--threshold", "--half", "--batch", "--imgsz", "--img-size"):
        assert re.search(rf"`[^`|]*{name}\b", page), name
        assert name == "--batch" or f"{name} " not in shown
    for name in ("predict", "version", "list", "help"):
        assert f"`convnext {name}" in page
        assert f"\n  {name} " not in shown


def test_commands_that_others_taught(convnext: Run) -> None:
    assert convnext("predict", CAT).out == convnext("classify", CAT).out
    assert convnext("version").out == convnext("--version").out
    assert convnext("list", "atto").out == convnext("models", "list", "atto").out
    assert convnext("help").out == convnext("--help").out
    assert convnext("help", "models", "list").out == convnext("models", "list", "--help").out
    done = convnext("help", "nosuch")
    assert done.status == 2
    assert "there is no command 'nosuch'" in done.err


# Defaults for outputs


def test_export_names_its_file(convnext: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    done = convnext("export", "--format", "openvino", "--no-check")
    assert done.status == 0, done.err
    assert Path("default.xml").exists()
    assert "default.xml" in done.err
    assert convnext("export", "--format", "openvino", "--no-check").status != 0  # nothing is replaced


def test_export_is_onnx_and_says_what_is_missing(
    convnext: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import sys

    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(sys.modules, "onnx", None)
    for name in [name for name in sys.modules if name.startswith(("convnext_cli.runtimes.onnx.export", "onnx."))]:
        monkeypatch.delitem(sys.modules, name)
    done = convnext("export", "--no-check")
    assert done.status == 4
    assert "onnx" in done.err
    assert "convnext export -o default.xml" in done.err
    assert list(tmp_path.iterdir()) == []


def test_help_after_options_in_the_short_form() -> None:
    """In a process of its own: click makes the help option of a command once."""
    command = [sys.executable, "-m", "convnext_cli", "-k", "1", SAMPLES[0], "-h"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0 and "Usage: convnext classify" in done.stdout
