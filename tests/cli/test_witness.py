"""Last words: a program that crashes or is killed does not leave its user without the names of the photos."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from convnext_cli.jobs import in_flight
from tests.helpers.deadly_photos import command, environment, poisoned
from tests.helpers.photos import encoded, picture
from tests.helpers.tiers import slow_except
from tests.helpers.weights import write_model


def run(tmp_path: Path, home: Path, kind: str, *arguments: object, folders: tuple[str, ...] = ("",)) -> tuple[int, str]:
    """How a command ends, and what it says, where one of four photos is poison. folders: that they are in, in turn."""
    for number in range(4):
        data = encoded(picture(60, 50, seed=number), "JPEG")
        photo = tmp_path / "photos" / folders[number % len(folders)] / f"{number}\x1b.jpg"
        photo.parent.mkdir(parents=True, exist_ok=True)
        photo.write_bytes(poisoned(data, kind) if number == 2 else data)
    (tmp_path / "temporary").mkdir()
    model = write_model(tmp_path / "small.safetensors")
    process = subprocess.Popen(
        command(*arguments, "-t", 1, *([] if arguments[0] == "train" else ["-m", model, "-b", 1])),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        cwd=tmp_path,
        env=environment(tmp_path / "hook") | {"CONVNEXT_HOME": str(home), "TMPDIR": str(tmp_path / "temporary")},
    )
    _, err = process.communicate()  # until nobody has standard error any more
    assert not list((tmp_path / "temporary").glob("convnext-*"))  # torch leaves others
    return process.returncode, err


@pytest.mark.parametrize(
    ("kind", "number", "how"),
    slow_except(
        [
            ("segfault", signal.SIGSEGV, "a library crashed (segmentation fault)"),
            ("abort", signal.SIGABRT, "a library crashed (aborted)"),
            ("memory", signal.SIGKILL, "the program was ended"),
        ],
        ("segfault", signal.SIGSEGV, "a library crashed (segmentation fault)"),
    ),
)
def test_classify_names_the_photos_that_it_was_at(
    tmp_path: Path, home: Path, kind: str, number: signal.Signals, how: str
) -> None:
    status, err = run(tmp_path, home, kind, "classify", "-r", "photos", "-f", "csv")
    assert status == -number
    assert f"error: {how} while it worked on photos/2\\x1b.jpg" in err
    assert "hint: convnext label" in err
    assert "Traceback" not in err and "File " not in err


@pytest.mark.parametrize(
    "command_line",
    slow_except(
        ["evaluate --by-index photos", "train photos -o run --from small.safetensors"], "evaluate --by-index photos"
    ),
)
def test_commands_for_labelled_photos_name_them_too(tmp_path: Path, home: Path, command_line: str) -> None:
    status, err = run(tmp_path, home, "segfault", *command_line.split(), folders=("0", "1"))
    assert status == -signal.SIGSEGV, err
    assert "while it worked on photos/0/2\\x1b.jpg" in err
    assert "hint: move these photos away" in err


def test_label_says_how_it_goes_on(tmp_path: Path, home: Path) -> None:
    status, err = run(tmp_path, home, "segfault", "label", "photos", "-o", "labels.csv")
    assert status == -signal.SIGSEGV
    assert "photos/2\\x1b.jpg" in err
    assert "hint: run the same command again" in err


def test_a_run_that_ends_as_it_should_has_no_last_words(tmp_path: Path, home: Path) -> None:
    status, err = run(tmp_path, home, "exit", "classify", "-r", "photos", "-f", "csv")
    assert status == 7
    assert "the program was ended while it worked on" in err
    (tmp_path / "photos" / "2\x1b.jpg").unlink()
    done = subprocess.run(
        command("classify", "-r", tmp_path / "photos", "-m", tmp_path / "small.safetensors"),
        capture_output=True,
        text=True,
        env=os.environ | {"CONVNEXT_HOME": str(home)},
    )
    assert done.returncode == 0
    assert "error" not in done.stderr


@pytest.mark.parametrize(
    "command_line",
    slow_except(["classify -r -f csv photos", "label -o labels.csv photos"], "label -o labels.csv photos"),
)
def test_a_library_that_ends_the_process_does_not_end_it_well(tmp_path: Path, home: Path, command_line: str) -> None:
    status, err = run(tmp_path, home, "leave", *command_line.split())
    assert status == 70
    assert "the program was ended while it worked on photos/2\\x1b.jpg" in err


def test_a_library_that_ends_the_process_at_a_single_photo_does_not_end_it_well(tmp_path: Path, home: Path) -> None:
    status, _ = run(tmp_path, home, "leave", "classify", "photos/2\x1b.jpg")
    assert status == 70


def test_a_program_in_which_no_python_runs_is_ended_though_it_takes_no_time(tmp_path: Path) -> None:
    notes = in_flight.InFlight(tmp_path / "notes")
    notes.begin("/asleep.jpg")
    code = (
        "import ctypes, sys; from pathlib import Path\n"
        "from convnext_cli import cli; from convnext_cli.base import interruption\n"
        "from convnext_cli.cli import process, witness\n"
        "process.own(); witness._LEAST = 0.1\n"
        "interruption.guard(cli._speak)\n"
        "with witness.watching(Path(sys.argv[1]), 'label', 0.1):\n"
        "    ctypes.PyDLL(None).sleep(1000)\n"
    )
    done = subprocess.run([sys.executable, "-c", code, tmp_path / "notes"], capture_output=True, text=True)
    assert done.returncode == -signal.SIGKILL
    assert "because nothing else could run while it worked on /asleep.jpg" in done.stderr


@pytest.mark.slow
def test_a_program_that_is_stopped_for_a_while_goes_on(tmp_path: Path) -> None:
    if not sys.platform.startswith("linux"):
        pytest.skip("other systems do not show that a process is stopped")
    code = (
        "import os, signal, subprocess, sys, time; from pathlib import Path\n"
        "from convnext_cli import cli; from convnext_cli.base import interruption\n"
        "from convnext_cli.cli import process, witness\n"
        "process.own(); witness._LEAST = 0.1\n"
        "interruption.guard(cli._speak)\n"
        "with witness.watching(Path(sys.argv[1]), 'label', 0.3):\n"
        "    subprocess.Popen(['sh', '-c', f'sleep 5; kill -CONT {os.getpid()}'])\n"
        "    os.kill(os.getpid(), signal.SIGSTOP)\n"
        "    print('goes on', flush=True)\n"
        "os._exit(0)\n"
    )
    done = subprocess.run([sys.executable, "-c", code, tmp_path / "notes"], capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, "goes on\n", "")


def test_a_loop_that_lets_no_thread_run_ends_the_process() -> None:
    if not hasattr(signal, "setitimer"):
        pytest.skip("this system has no such timer")
    code = "from convnext_cli.cli import witness\nwith witness.heartbeat(0.3):\n    sum(iter(int, 1))"
    assert subprocess.run([sys.executable, "-c", code]).returncode == -signal.SIGVTALRM
    code = "import time\nfrom convnext_cli.cli import witness\n"
    code += "with witness.heartbeat(0.3):\n    end = time.process_time() + 2\n    while time.process_time() < end: pass"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
