"""Last words: which photos the program worked on when it was ended, whatever ended it.

A process that crashes or is killed cannot say anything any more. So its guardian (``base/guardian.py``) reads its notes
(``jobs/in_flight.py``) when it has ended, and reports them. And where a decoder lets no other thread run, so that
nobody can give its photo up, the system or the guardian ends the process.
"""

from __future__ import annotations

import contextlib
import faulthandler
import os
import signal
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from threading import Event, Thread
from typing import TYPE_CHECKING

from convnext_cli.base import interruption
from convnext_cli.base.guardian import ALIVE
from convnext_cli.base.threads import CROWD
from convnext_cli.cli import process
from convnext_cli.jobs import in_flight
from convnext_cli.predict.decode_threads import Limit

if TYPE_CHECKING:
    from convnext_cli.base.guardian import Guardian, LastWords

_FATAL = b"Fatal Python error: "  # how faulthandler begins
_NAMED = 10
# Times the limit of a photo after which the system ends the process, if no thread of Python could run meanwhile.
_STANDSTILL = 2.5
_LEAST = 30.0  # seconds that every such call may take
_UNASKED = 70  # exit status when a library ends the program
ends_by_status = False  # whether the process has to be ended by ``os._exit``
_TAKE_AWAY = "move these photos away, or find the one that causes it with convnext label; then run the command again"
HINTS = {
    "classify": "convnext label survives this, and gives the photo a failed row",
    "explain": _TAKE_AWAY,
    "evaluate": _TAKE_AWAY,
    "train": _TAKE_AWAY,
    "label": "run the same command again: it resumes, and tries these photos last, in a separate process",
}


@contextlib.contextmanager
def noting(command: str, timeout: float | None) -> Iterator[in_flight.InFlight | None]:
    """Have the photos named that a command works on if this process is ended; yields where they are to be noted.

    Args:
        command: a key of ``HINTS``, other than ``label``, which keeps its notes.
        timeout: seconds that one photo may take, as for ``Preprocessor``.
    """
    if not process.is_owned():
        yield None
        return
    with tempfile.TemporaryDirectory(prefix="convnext-") as folder:
        notes = in_flight.InFlight(Path(folder) / "notes")
        try:
            with watching(notes.path, command, timeout):
                yield notes
        finally:
            notes.close()


@contextlib.contextmanager
def watching(notes: Path, command: str, timeout: float | None) -> Iterator[None]:
    """Have the photos named if this process is ended, and end it where it stands still.

    Args:
        notes: where this process writes them.
        command: a key of ``HINTS``.
        timeout: seconds that one photo may take, as for ``Preprocessor``.
    """
    guardian = interruption.guardian
    if not process.is_owned() or guardian is None:
        yield
        return
    seconds = Limit.of(timeout).computing
    end_by_status()
    ours = not faulthandler.is_enabled()
    if ours:  # it writes the kind of crash to the guardian
        faulthandler.enable(guardian.words, all_threads=False)
    guardian.watch(str(notes.absolute()), command, max(_LEAST, CROWD * seconds))
    try:
        with heartbeat(max(_LEAST, _STANDSTILL * seconds), guardian):
            yield
    finally:
        if ours:
            faulthandler.disable()
        guardian.release()  # there is nothing to report


@contextlib.contextmanager
def heartbeat(seconds: float, guardian: Guardian | None = None) -> Iterator[None]:
    """Have the system end this process after so much processor time in which no thread of Python could run.

    Args:
        seconds: of processor time of each processor.
        guardian: learns that Python runs.
    """
    limit = seconds * ((os.cpu_count() or 1) + 1)  # other threads, of the network for one, may compute meanwhile
    set_timer: Callable[[float], object] = lambda _: None  # noqa: E731
    if hasattr(signal, "setitimer"):
        set_timer = lambda value: signal.setitimer(signal.ITIMER_VIRTUAL, value)  # noqa: E731
    ended = Event()

    def beat() -> None:
        while not ended.is_set():
            set_timer(limit)
            if guardian is not None:
                guardian.send(ALIVE)
            ended.wait(min(1.0, seconds / 4))
        set_timer(0.0)

    thread = Thread(target=beat, name="heartbeat", daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


def end_by_status() -> None:
    """Have a library that ends the process by ``exit(0)`` not end it as if all were done.

    The process has to be ended by ``os._exit`` from now on.
    """
    global ends_by_status
    if ends_by_status:
        return
    import ctypes

    with contextlib.suppress(OSError, AttributeError):
        libc = ctypes.CDLL(None)
        exit_at_once = ctypes.cast(libc._exit, ctypes.c_void_p)
        libc.__cxa_atexit(exit_at_once, ctypes.c_void_p(_UNASKED), None)
        ends_by_status = True


def speak(last: LastWords) -> None:
    """Report which photos the program worked on, in the guardian."""
    path = Path(last.notes)
    notes = in_flight.read(path)
    if last.command != "label":
        with contextlib.suppress(OSError):
            path.unlink()
            path.parent.rmdir()
    if not notes.paths:
        return
    from convnext_cli.cli import render

    photos = [os.path.relpath(photo) if photo.startswith(os.getcwd() + "/") else photo for photo in notes.paths]  # noqa: PTH109
    more = f" and {len(photos) - _NAMED} more" if len(photos) > _NAMED else ""
    how = "the program was ended"
    if last.stalled:
        how = "the program was ended, because nothing else could run"
    if _FATAL in last.crash:
        crash = last.crash.split(_FATAL, 1)[1].split(b"\n", 1)[0].decode(errors="replace")
        how = f"a library crashed ({crash.strip().lower()})"
    render.error(f"{how} while it worked on {', '.join(photos[:_NAMED])}{more}", HINTS[last.command])
