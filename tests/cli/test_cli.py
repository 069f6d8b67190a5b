"""The group of commands: start-up, completion, terminals, defects."""

from __future__ import annotations

import os
import pty
import select
import subprocess
import sys
from pathlib import Path

import click
import pytest

from convnext_cli.cli import COMMANDS, render
from convnext_cli.cli import convnext as group
from tests.helpers.command import Run
from tests.helpers.paths import ROOT, SAMPLES
from tests.helpers.tiers import slow_except

COMMAND = [sys.executable, "-m", "convnext_cli"]


def test_help_and_version(convnext: Run) -> None:
    for flag in ("-h", "--help"):
        done = convnext(flag)
        assert done.status == 0
        assert all(name in done.out for name in COMMANDS)
        assert "Exit status" in done.out
    assert convnext("--version").out.startswith("convnext, version ")


def test_no_command_shows_help_without_an_error(convnext: Run) -> None:
    done = convnext()
    assert done.status == 2
    assert done.err.startswith("Usage:")
    assert "error" not in done.err.split("Exit status")[0]


def test_rows_on_a_terminal_cannot_move_the_cursor() -> None:
    class Bytes:
        def __init__(self) -> None:
            self.seen = b""

        def write(self, data: bytes) -> None:
            self.seen += data

    stream = Bytes()
    render.screen(stream).write("a\x1b[31m\tb\x9b\u202e\n日本".encode())
    assert stream.seen.decode() == "a\\x1b[31m\tb\\x9b\\u202e\n日本"


def test_the_table_of_commands_is_true() -> None:
    context = click.Context(group)
    for name in COMMANDS:
        command = group.get_command(context, name)
        assert command is not None
        assert command.name == ("bench" if name == "benchmark" else name)
    assert group.get_command(context, "missing") is None


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_scripts(convnext: Run, shell: str) -> None:
    done = convnext("completion", shell)
    assert done.status == 0
    assert "_CONVNEXT_COMPLETE" in done.out
    subprocess.run(["bash", "-n"], input=done.out, text=True, check=shell == "bash", capture_output=True)


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("convnext cl", {"classify"}),
        ("convnext classify --forma", {"--format"}),
        (
            "convnext classify -m convnextv2_at",
            {"convnextv2_atto", "convnextv2_atto.fcmae", "convnextv2_atto.fcmae_ft_in1k"},
        ),
    ],
)
def test_completion_completes_without_torch(words: str, expected: set[str]) -> None:
    code = (
        "import sys; sys.argv = ['convnext']; import convnext_cli.cli as c\n"
        "try: c.run([])\nfinally: assert 'torch' not in sys.modules"
    )
    environment = os.environ | {
        "_CONVNEXT_COMPLETE": "bash_complete",
        "COMP_WORDS": words,
        "COMP_CWORD": str(len(words.split()) - 1),
    }
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True)
    found = [line.split(",") for line in done.stdout.split()]
    assert {name for kind, name in found if kind == "plain"} == expected, done.stderr
    assert ["file", words.split()[-1]] in found or words.split()[-1].startswith("-")


def on_a_terminal(*arguments: str, **environment: str) -> str:
    """What the command draws on a real terminal of 100 columns."""
    ours, theirs = pty.openpty()
    variables = {k: v for k, v in os.environ.items() if k not in ("COLUMNS", "NO_COLOR", "FORCE_COLOR")}
    variables |= {"TERM": "xterm-256color", "COLUMNS": "100"} | environment
    process = subprocess.Popen(
        [*COMMAND, *arguments], stdin=theirs, stdout=theirs, stderr=theirs, env=variables, cwd=ROOT
    )
    os.close(theirs)
    seen = b""
    while select.select([ours], [], [], 60)[0]:
        try:
            block = os.read(ours, 65536)
        except OSError:  # Linux's way to say that the other side is closed
            break
        if not block:
            break
        seen += block
    process.wait(timeout=60)
    os.close(ours)
    return seen.decode()


def test_colour_and_bars_on_a_terminal() -> None:
    seen = on_a_terminal("classify", SAMPLES[1])
    assert "\x1b[" in seen
    assert "█" in seen
    assert "espresso" in seen


def test_no_color_is_obeyed() -> None:
    seen = on_a_terminal("classify", SAMPLES[1], NO_COLOR="1")
    assert "█" in seen
    assert "\x1b[3" not in seen


def test_a_dumb_terminal_gets_neither() -> None:
    seen = on_a_terminal("classify", SAMPLES[1], TERM="dumb")
    assert "\x1b" not in seen
    assert "█" not in seen


def test_thumbnails() -> None:
    seen = on_a_terminal("classify", "--show", SAMPLES[0], COLORTERM="truecolor")
    assert seen.count("▀") >= render.THUMBNAIL_WIDTH * 8
    assert "\x1b[38;2;" in seen


@pytest.mark.parametrize("columns", slow_except(["26", "40", "46", "60", "78"], "26", "60"))
def test_the_score_is_never_cut(columns: str) -> None:
    seen = on_a_terminal("classify", "-q", "-k", "2", "--show", SAMPLES[1], COLUMNS=columns, NO_COLOR="1")
    assert "0.9991" in seen
    assert "…" not in seen


@pytest.mark.parametrize("columns", slow_except(["0", "-1", "²", "many", "1" * 30], "-1", "²"))
def test_an_impossible_width_is_ignored(columns: str) -> None:
    seen = on_a_terminal("classify", "-q", "-k", "2", SAMPLES[1], COLUMNS=columns, LINES=columns, NO_COLOR="1")
    assert "espresso" in seen and "0.9991" in seen
    environment = os.environ | {"COLUMNS": columns}
    command = [*COMMAND, "classify", "-q", "-k", "2", SAMPLES[1]]
    done = subprocess.run(command, env=environment, cwd=ROOT, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "") and "espresso" in done.stdout


def test_an_error_is_red_on_a_terminal() -> None:
    seen = on_a_terminal("classify", "gone.jpg")
    assert "\x1b[1;31merror:" in seen
    assert "hint:" in seen


def test_a_defect_is_reported_without_a_traceback(convnext: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(**_: object) -> None:
        raise ZeroDivisionError("a defect [red]")

    monkeypatch.setattr(group.get_command(click.Context(group), "classify"), "callback", broken)
    done = convnext("classify", SAMPLES[0])
    assert done.status == 70
    assert "unexpected ZeroDivisionError: a defect [red]" in done.err
    assert "Traceback" not in done.err
    monkeypatch.setenv("CONVNEXT_DEBUG", "1")
    monkeypatch.setenv("HF_TOKEN", "a defect")
    done = convnext("classify", SAMPLES[0])
    assert done.status == 70
    assert "Traceback" in done.err
    assert "a defect" not in done.err, "a traceback is free of secrets too"


def test_python_m() -> None:
    done = subprocess.run([*COMMAND, "--version"], capture_output=True, text=True, check=True)
    assert done.stdout.startswith("convnext, version ")


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain.jpg", "plain.jpg"),
        ("ümläut 日本 👍🏽.jpg", "ümläut 日本 👍🏽.jpg"),
        ("a\nb\tc\x1b[31m\x7f", "a\\nb\\tc\\x1b[31m\\x7f"),
        ("bad\udcfc", "bad\\xfc"),
        ("\u202egpj.exe", "\\u202egpj.exe"),
    ],
)
def test_plain(text: str, shown: str) -> None:
    assert render.plain(text) == shown


def test_noise_of_c_libraries_is_kept_off(capfd: pytest.CaptureFixture[str]) -> None:
    with render.c_libraries_silenced():
        os.write(2, b"libtiff: noise\n")
        print("ours", file=sys.stderr)
    os.write(2, b"after\n")
    assert "noise" not in (said := capfd.readouterr().err)
    assert "ours" in said
    assert "after" in said


def test_gpu_gives_the_same_labels(convnext: Run) -> None:
    import json

    from convnext_cli.runtimes.torch.engine import devices

    device = devices()[0]
    if device == "cpu":
        pytest.skip("torch sees no GPU here")
    cpu, gpu = (json.loads(convnext("classify", "-d", d, "--json", *SAMPLES).out) for d in ("cpu", device))
    for a, b in zip(cpu, gpu, strict=True):
        assert a["predictions"][0]["label"] == b["predictions"][0]["label"]
        assert b["predictions"][0]["score"] == pytest.approx(a["predictions"][0]["score"], abs=1e-2)


def test_half_precision_ranks_alike(convnext: Run) -> None:
    import json

    done = [convnext("classify", "--dtype", dtype, "--json", *SAMPLES) for dtype in ("float32", "bfloat16")]
    if "this processor does not compute in bfloat16" in done[1].err:
        pytest.skip("this processor does not compute in bfloat16")
    full, half = (json.loads(each.out) for each in done)
    assert Path(full[0]["path"]).exists()
    for a, b in zip(full, half, strict=True):
        scores = {p["index"]: p["score"] for p in b["predictions"]}
        assert a["predictions"][0]["index"] == b["predictions"][0]["index"]
        assert scores[a["predictions"][0]["index"]] == pytest.approx(a["predictions"][0]["score"], abs=0.03)


HOSTILE = "\x1b[31mred\x1b]0;title\x07 \x9b2J \u202e\u2066 \r \x00 \x7f"


def test_no_text_moves_the_cursor(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """Whatever is drawn, even where a view forgets to escape it."""
    from rich.panel import Panel
    from rich.progress import Progress
    from rich.text import Text

    render.reset()
    monkeypatch.setenv("COLUMNS", "200")
    table = render.table("a", HOSTILE)
    table.add_row(Text(HOSTILE), "b")
    for shown in (HOSTILE, Text(HOSTILE), table, Panel(HOSTILE), Panel(Text(HOSTILE), title=HOSTILE)):
        render.out().print(shown, markup=False)
        render.err().print(shown, soft_wrap=True, style="bold", markup=False)
    with Progress(console=render.err()) as bars:
        bars.add_task(HOSTILE, total=1)
    render.note(HOSTILE)
    render.error(HOSTILE, HOSTILE)
    seen = capsys.readouterr()
    for sign in "\x1b\x07\x9b\u202e\u2066\r\x00\x7f":
        assert sign not in seen.out + seen.err, repr(sign)
    assert "\\x1b[31mred" in seen.out and "\\u202e" in seen.out
