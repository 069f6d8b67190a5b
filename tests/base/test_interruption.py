"""Signals while the main thread is within a native call that never returns."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from convnext_cli.base import guardian
from tests.helpers.tiers import slow_except

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="Windows ends a process at once")

# A lock that is taken twice: no signal makes this call return.
STUCK = """
import ctypes, signal, subprocess
from convnext_cli.base import interruption
signal.signal(signal.SIGINT, signal.default_int_handler)  # whoever runs the tests may ignore it
interruption.PATIENCE = {patience}
interruption.guard()
lock = ctypes.create_string_buffer(128)
ctypes.CDLL(None).pthread_mutex_lock(lock)
subprocess.Popen(["sh", "-c", "sleep 1; echo stuck"])  # when the main thread is in the call
try:
    ctypes.{library}(None).pthread_mutex_lock(lock)
finally:
    print("returned", flush=True)
"""
# Whether other threads of Python run meanwhile, and how the process ends. An exit status is for a thread to give.
CALLS = pytest.mark.parametrize(("library", "status"), [("CDLL", 130), ("PyDLL", -signal.SIGKILL)])


def begin(code: str) -> subprocess.Popen[str]:
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "stuck\n"
    return process


@CALLS
def test_sigterm_ends_a_stuck_call(library: str, status: int) -> None:
    process = begin(STUCK.format(library=library, patience=0.2))
    process.send_signal(signal.SIGTERM)
    out, err = process.communicate(timeout=60)
    assert process.returncode == status and out == ""
    assert err == "interrupted within a step that did not end; finished work is kept\n"


def test_a_program_that_takes_long_to_end_is_announced_once(capfd: pytest.CaptureFixture[str]) -> None:
    # This process is not the parent of the one that is looked at, so nothing is killed, as if it took forever.
    asked, asks = os.pipe()
    program = guardian._Program(os.getpid(), asks, patience=0)
    program.hear(bytes([signal.SIGTERM]))
    ends = time.monotonic() + 2 * guardian._THREAD
    while time.monotonic() < ends:
        program.look()
        time.sleep(guardian._LOOK)
    assert capfd.readouterr().err == f"{guardian.ENDED}\n"
    assert os.read(asked, 10) == bytes([signal.SIGTERM])
    for descriptor in (asked, asks):
        os.close(descriptor)


@CALLS
@pytest.mark.parametrize("second", slow_except([signal.SIGINT, signal.SIGTERM], signal.SIGINT))
def test_the_second_signal_ends_a_stuck_call(library: str, status: int, second: signal.Signals) -> None:
    process = begin(STUCK.format(library=library, patience=60))
    assert process.stderr is not None
    process.send_signal(signal.SIGINT)
    assert "Ctrl-C again ends it at once" in process.stderr.readline()
    assert process.poll() is None
    process.send_signal(second)
    process.communicate(timeout=60)
    assert process.returncode == status


# The first signal is handled; what follows takes longer than the patience with a call that does not return.
FINISHING = """
import signal, time
from convnext_cli.base import interruption
signal.signal(signal.SIGINT, signal.default_int_handler)
interruption.PATIENCE = 0.2
interruption.guard()
try:
    print("stuck", flush=True)
    time.sleep(60)
except KeyboardInterrupt:
    ends = time.monotonic() + 1
    while time.monotonic() < ends:
        time.sleep(0.1)
    print("finished", flush=True)
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_process_that_reacts_is_left_alone(number: signal.Signals) -> None:
    process = begin(FINISHING)
    process.send_signal(number)
    out, err = process.communicate(timeout=60)
    assert (process.returncode, out, err) == (0, "finished\n", "")


def test_a_handler_of_its_own_counts_as_a_reaction() -> None:
    """Training goes on to the end of its step, and does not raise."""
    code = FINISHING.replace(
        'print("stuck"',
        'import signal; signal.signal(signal.SIGTERM, interruption.noting(lambda *_: None)); print("stuck"',
    ).replace("time.sleep(60)", "time.sleep(1); raise KeyboardInterrupt")
    process = begin(code)
    process.send_signal(signal.SIGTERM)
    out, err = process.communicate(timeout=60)
    assert (process.returncode, out, err) == (0, "finished\n", "")


def test_an_ignored_signal_stays_ignored() -> None:
    """As ``nohup`` and shells' background jobs start it."""
    code = (
        "import signal; signal.signal(signal.SIGINT, signal.SIG_IGN)\n"
        "from convnext_cli.base import interruption; interruption.guard()\n"
        "assert signal.getsignal(signal.SIGINT) == signal.SIG_IGN"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_a_library_that_breaks_when_it_is_interrupted_is_an_interruption() -> None:
    code = (
        "import os, signal, sys; signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        "from convnext_cli import cli; from convnext_cli.base import interruption\n"
        "interruption.guard()\n"
        "def call(*_, **__):\n"
        "    try: os.kill(os.getpid(), signal.SIGINT)\n"
        "    except KeyboardInterrupt: raise ImportError('already registered') from None\n"
        "cli.convnext.main = call\n"
        "sys.exit(cli.run([]))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (130, "interrupted\n")


# A module that loses an exception while it is imported, as libraries in C do.
LOSING = """
import time
try:
    print("stuck", flush=True)
    time.sleep(1)
except BaseException:
    pass
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_that_comes_during_an_import_is_not_lost(number: signal.Signals, tmp_path: Path) -> None:
    (tmp_path / "losing.py").write_text(LOSING)
    code = (
        "import signal, sys, time\n"
        "from convnext_cli.base import interruption\n"
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        "interruption.guard()\n"
        f"sys.path.insert(0, {str(tmp_path)!r})\n"
        "try:\n"
        "    import losing\n"
        "    time.sleep(10)\n"
        "    print('it went on')\n"
        "except KeyboardInterrupt:\n"
        "    print('interrupted')\n"
    )
    process = begin(code)
    process.send_signal(number)
    out, _ = process.communicate(timeout=60)
    assert (process.returncode, out) == (0, "interrupted\n")
