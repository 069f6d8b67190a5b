"""Interruption: Ctrl-C and SIGTERM raise KeyboardInterrupt, and end a native call that never returns.

Python runs its signal handlers between two steps of its own, in the main thread. While that thread is within a call of
a runtime that does not return, no handler runs, and neither Ctrl-C nor SIGTERM would end the process. So the system
reports each signal at once to a separate process (``base/guardian.py``), which makes sure that the program ends.

A signal that comes while a module is imported is raised after the import. Libraries in C run Python of their own while
they are imported, and some of them lose an exception that is raised then: the program would go on to its end.
"""

from __future__ import annotations

import _thread
import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from types import FrameType

from convnext_cli.base.guardian import ENDED, REACTED, Guardian, Speak, start

Handler = Callable[[int, FrameType | None], object]

PATIENCE = 5.0  # seconds that the main thread has after SIGTERM, for the batch that it is at
_LOOK = 0.02  # seconds between looks while an import is waited for
_SIGNALS = (signal.SIGINT, signal.SIGTERM)

guardian: Guardian | None = None  # of this process
_was_asked = False


def interrupt(number: int, frame: FrameType | None) -> None:
    """The handler of both signals: raises KeyboardInterrupt, so that finished work is kept."""
    if _is_in_import(frame) and hasattr(signal, "pthread_kill"):
        _thread.start_new_thread(_send_after_import, (number,))  # a Thread takes locks that this thread may hold
        return
    _react()
    signal.default_int_handler(number, frame)


def _is_in_import(frame: FrameType | None) -> bool:
    """Whether a module is being imported somewhere below this frame of a stack."""
    while frame is not None:
        if frame.f_code.co_filename.startswith("<frozen importlib"):
            return True
        frame = frame.f_back
    return False


def _send_after_import(number: int) -> None:
    """Send a signal to the main thread again, as if for the first time, once it imports nothing."""
    main = threading.main_thread().ident
    if main is None:
        return
    while _is_in_import(sys._current_frames().get(main)):
        time.sleep(_LOOK)
    if guardian is not None:
        guardian.send(REACTED)
    signal.pthread_kill(main, number)


def was_asked() -> bool:
    """Whether the main thread has reacted to a signal since ``forget``."""
    return _was_asked


def forget() -> None:
    """A command begins: signals that ended an earlier one of this process are not meant for it."""
    global _was_asked
    _was_asked = False


def noting(handler: Handler) -> Handler:
    """Wrap a signal handler that does not raise, so that its run is recorded and the process continues."""

    def noted(number: int, frame: FrameType | None) -> None:
        _react()
        handler(number, frame)

    return noted


def _react() -> None:
    global _was_asked
    _was_asked = True
    if guardian is not None:
        guardian.send(REACTED)


def guard(speak: Speak = lambda _: None) -> None:
    """Have both signals raise KeyboardInterrupt in the main thread, which calls this, and end stuck native calls.

    SIGINT stays ignored where the caller ignores it, as ``nohup`` and background jobs of shells do.

    Args:
        speak: as for ``guardian.start``.
    """
    global guardian
    guardian = start(PATIENCE, speak)
    for number in _SIGNALS:
        if number == signal.SIGTERM or signal.getsignal(number) != signal.SIG_IGN:
            signal.signal(number, interrupt)
    if guardian is None:
        return
    signal.set_wakeup_fd(guardian.signals, warn_on_full_buffer=False)
    os.register_at_fork(after_in_child=_leave)
    threading.Thread(target=_obey, args=(guardian,), name="interruption", daemon=True).start()


def _leave() -> None:
    """Detach a forked copy: signals to it are not meant for the program."""
    global guardian
    guardian = None
    signal.set_wakeup_fd(-1)


def _obey(guardian: Guardian) -> None:
    """End the process where the guardian finds that the main thread does not react to a signal."""
    while data := os.read(guardian.orders, 1):
        if _is_ours(signal.getsignal(data[0])):
            _end()
        guardian.send(REACTED)


def _is_ours(handler: object) -> bool:
    """Whether a handler records that it ran."""
    return handler is interrupt or getattr(handler, "__name__", "") == "noted"


def _end() -> None:
    with suppress(Exception):  # a closed standard error changes nothing
        print(ENDED, file=sys.stderr, flush=True)
    os._exit(130)
