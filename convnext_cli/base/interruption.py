"""Being asked to stop: Ctrl-C and SIGTERM raise KeyboardInterrupt, and end a native call that never returns.

Python runs its signal handlers between two steps of its own, in the main thread. While that thread is within a call of
a runtime that does not return, no handler runs, and neither Ctrl-C nor SIGTERM would end the process. So a thread of
its own hears of each signal at once, and ends the process where the main thread does not react.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from types import FrameType
from typing import Any

Handler = Callable[[int, FrameType | None], Any]

PATIENCE = 5.0  # seconds that the main thread has after SIGTERM, for the batch that it is at
_SOON = 0.5  # seconds after which a reaction is late: for the second signal, and for a remark after the first
_SIGNALS = (signal.SIGINT, signal.SIGTERM)

_reactions = 0  # signals that the main thread has reacted to


def interrupt(number: int, frame: FrameType | None) -> None:
    """The handler of both signals: raises KeyboardInterrupt, so that finished work is kept."""
    global _reactions
    _reactions += 1
    signal.default_int_handler(number, frame)


def was_asked() -> bool:
    """Whether the main thread has reacted to a signal."""
    return _reactions > 0


def noting(handler: Handler) -> Handler:
    """A handler that is known to have run, so that the process goes on. For handlers that do not raise."""

    def noted(number: int, frame: FrameType | None) -> None:
        global _reactions
        _reactions += 1
        handler(number, frame)

    return noted


def guard() -> None:
    """Have both signals raise KeyboardInterrupt in the main thread, which calls this, and end stuck native calls.

    SIGINT stays ignored where the caller ignores it, as ``nohup`` and background jobs of shells do.
    """
    for number in _SIGNALS:
        if number == signal.SIGTERM or signal.getsignal(number) != signal.SIG_IGN:
            signal.signal(number, interrupt)
    if os.name == "nt":  # there SIGTERM ends the process by itself
        return
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    signal.set_wakeup_fd(writing, warn_on_full_buffer=False)
    os.register_at_fork(after_in_child=lambda: signal.set_wakeup_fd(-1))  # signals of a copy are not this process's
    threading.Thread(target=_watch, args=(reading,), name="interruption", daemon=True).start()


def _watch(reading: int) -> None:
    """End the process where the main thread does not react to a signal. Reads a byte for each that arrives."""
    reactions = 0
    while data := os.read(reading, 1):
        if data[0] in _SIGNALS and _is_ours(signal.getsignal(data[0])):
            reactions = _await_reaction(data[0], reading, reactions)


def _await_reaction(number: int, reading: int, before: int) -> int:
    """Wait until the main thread has reacted to more signals than ``before``, and return how many that are.

    Otherwise end the process: PATIENCE seconds after SIGTERM, and soon after a second signal of either kind.
    """
    import select

    arrived, ends_at = time.monotonic(), float("inf")
    if number == signal.SIGTERM:
        ends_at = arrived + PATIENCE
    remarked = False
    while True:
        more, _, _ = select.select([reading], [], [], 0.05)
        if (reactions := _reactions) > before:
            if more:  # their bytes came before the reactions to them
                os.read(reading, 1024)
            return reactions
        now = time.monotonic()
        if more and (second := os.read(reading, 1)[0]) in _SIGNALS:
            number, ends_at = second, min(ends_at, now + _SOON)
        if now >= ends_at:
            _end()
        if not remarked and number == signal.SIGINT and ends_at == float("inf") and now > arrived + 2 * _SOON:
            remarked = True
            _say("waiting for a step that cannot be interrupted; Ctrl-C again ends it at once")


def _is_ours(handler: Any) -> bool:
    """Whether a handler is counted when it runs."""
    return handler is interrupt or getattr(handler, "__name__", "") == "noted"


def _end() -> None:
    _say("interrupted within a step that did not end; finished work is kept")
    os._exit(130)


def _say(text: str) -> None:
    with suppress(Exception):  # a standard error that is gone changes nothing
        print(text, file=sys.stderr, flush=True)
