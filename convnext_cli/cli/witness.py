"""Last words: which photos the program worked on when it was ended, whatever ended it.

A process that crashes or is killed cannot say anything any more. So another one waits for its end, reads its notes
(``jobs/in_flight.py``), and says it. And where a decoder computes for ever and lets no other thread run, so that
nobody can give its photo up, the system ends the process.
"""

from __future__ import annotations

import contextlib
import faulthandler
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from threading import Event, Thread
from typing import TYPE_CHECKING

from convnext_cli import cli
from convnext_cli.jobs import in_flight

if TYPE_CHECKING:
    from convnext_cli.predict.predictor import Predictor

# Nothing is imported before the end: it must not take a processor from the photos.
_START = """
import sys
last_words = sys.stdin.buffer.read()
sys.path[:] = {path!r}
from convnext_cli.cli import witness
witness.speak(last_words)
"""
_FATAL = b"Fatal Python error: "  # how faulthandler begins
_NAMED = 10
# Seconds of processor time, of all threads, in which no thread of Python could run. No sound call takes as long.
_STANDSTILL = 300.0
HINTS = {
    "classify": "convnext label goes on after such an end, and gives the photo that caused it a row of its own",
    "label": "give the same command again: it goes on, and tries these photos last, in another process",
}


@contextlib.contextmanager
def of_classify(predictor: Predictor) -> Iterator[None]:
    """Say which photos ``classify`` worked on, should the process be ended."""
    if not cli.owns_process():
        yield
        return
    with tempfile.TemporaryDirectory(prefix="convnext-") as folder:
        notes = in_flight.InFlight(Path(folder) / "notes")
        predictor.in_flight = notes
        try:
            with watching(notes.path, "classify"):
                yield
        finally:
            predictor.in_flight = None
            notes.close()


@contextlib.contextmanager
def watching(notes: Path, command: str) -> Iterator[None]:
    """Have another process wait for the end of this one, and end this one where it stands still.

    notes: where this process writes them. command: a key of ``HINTS``.
    """
    if not cli.owns_process():
        yield
        return
    with heartbeat(_STANDSTILL), _witness(notes, command):
        yield


@contextlib.contextmanager
def _witness(notes: Path, command: str) -> Iterator[None]:
    try:
        stderr: int = sys.stderr.fileno()
    except (OSError, AttributeError, ValueError):
        stderr = subprocess.DEVNULL
    try:
        process = subprocess.Popen(
            [sys.executable, "-I", "-c", _START.format(path=sys.path), str(notes.absolute()), command],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=stderr,
            start_new_session=True,  # it outlives a signal to all processes of the terminal
        )
    except OSError:  # no process more: it goes without
        yield
        return
    assert process.stdin is not None
    ours = not faulthandler.is_enabled()
    if ours:  # it writes the kind of crash to the witness
        faulthandler.enable(process.stdin, all_threads=False)
    try:
        yield
    finally:
        if ours:
            faulthandler.disable()
        process.kill()  # there is nothing to say
        process.wait()
        process.stdin.close()


@contextlib.contextmanager
def heartbeat(seconds: float) -> Iterator[None]:
    """Have the system end this process after so much processor time in which no thread of Python could run."""
    if not hasattr(signal, "setitimer"):
        yield
        return
    limit = seconds * ((os.cpu_count() or 1) + 1)  # other threads, of the network for one, may compute meanwhile
    ended = Event()

    def beat() -> None:
        while not ended.is_set():
            signal.setitimer(signal.ITIMER_VIRTUAL, limit)
            ended.wait(min(1.0, seconds / 4))
        signal.setitimer(signal.ITIMER_VIRTUAL, 0.0)

    thread = Thread(target=beat, name="heartbeat", daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


def speak(last_words: bytes) -> None:
    """Say what the process that started this one worked on. last_words: of its own, if it had any."""
    path, command = sys.argv[1:]
    notes = in_flight.read(Path(path))
    if command == "classify":
        with contextlib.suppress(OSError):
            Path(path).unlink()
            Path(path).parent.rmdir()
    if not notes.paths:
        return
    from convnext_cli.cli import render

    photos = [os.path.relpath(photo) if photo.startswith(os.getcwd() + "/") else photo for photo in notes.paths]  # noqa: PTH109
    more = f" and {len(photos) - _NAMED} more" if len(photos) > _NAMED else ""
    how = "the program was ended"
    if _FATAL in last_words:
        crash = last_words.split(_FATAL, 1)[1].split(b"\n", 1)[0].decode(errors="replace")
        how = f"a library crashed ({crash.strip().lower()})"
    render.error(f"{how} while it worked on {', '.join(photos[:_NAMED])}{more}", HINTS[command])
