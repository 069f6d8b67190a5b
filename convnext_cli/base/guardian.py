"""A process beside the program, for the moments in which no Python of the program can run any more.

It is a copy of the program from its start, and only waits. Where the program does not react to being asked to stop,
because a native call does not return or holds the interpreter's lock, it ends the program. It does the same where a
photo keeps all of Python from running for far longer than it may take. And a process that crashes or is killed cannot
report anything any more, so the guardian reports which photos it worked on.
"""

from __future__ import annotations

import os
import select
import signal
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass

# Bytes that the program sends beside the numbers of signals.
REACTED, ALIVE = b"\x00", b"\xff"
ENDED = "interrupted within a step that did not end; finished work is kept"
_SOON = 0.5  # seconds after which a reaction is late: for the second signal, and for a note after the first
_THREAD = 1.0  # seconds that the program's own thread has to end it, with the exit status of an interruption
_LOOK = 0.05  # seconds between looks while a reaction is waited for
_BEAT = 1.0  # the same while photos are worked on
_MESSAGE = b"\x1e"  # before and behind each message; between them is what a crash wrote
_ASKED = (signal.SIGINT, signal.SIGTERM)


@dataclass(frozen=True)
class LastWords:
    """The facts about a program that was ended.

    Args:
        notes: path of the file that names the photos it worked on.
        command: the command that it ran.
        crash: the output of the crash handler.
        stalled: whether Python did not run for too long.
    """

    notes: str
    command: str
    crash: bytes
    stalled: bool


Speak = Callable[[LastWords], None]


class Guardian:
    """The program's end of the pipes to its guardian.

    Args:
        signals: descriptor to which the system writes the numbers of signals, and the program its reactions.
        orders: descriptor through which the guardian asks the program to end.
        words: descriptor to which messages and crashes are written.
    """

    def __init__(self, signals: int, orders: int, words: int) -> None:
        self.signals, self.orders, self.words = signals, orders, words

    def send(self, byte: bytes) -> None:
        """Send REACTED or ALIVE."""
        with suppress(OSError):
            os.write(self.signals, byte)

    def watch(self, notes: str, command: str, seconds: float) -> None:
        """Report that the program starts to work on photos.

        Args:
            notes: path of the file that names them.
            command: the command that works on them.
            seconds: the program is ended when it has not sent ALIVE for so long.
        """
        self._write("\0".join((notes, command, str(seconds))).encode("utf-8", "surrogatepass"))

    def release(self) -> None:
        """Report that all photos are done."""
        self._write(b"")

    def _write(self, message: bytes) -> None:
        with suppress(OSError):
            os.write(self.words, _MESSAGE + message + _MESSAGE)

    def leave(self) -> None:
        """Detach a forked copy of the program, whose end is not the end of the program."""
        with suppress(OSError):
            nowhere = os.open(os.devnull, os.O_RDWR)
            for descriptor in (self.signals, self.orders, self.words):  # crash handlers know these numbers
                os.dup2(nowhere, descriptor, inheritable=False)
            os.close(nowhere)


def start(patience: float, speak: Speak) -> Guardian | None:
    """Start the guardian; None where the system cannot fork. Call it before the program starts threads.

    Args:
        patience: seconds that the program has to react to SIGTERM.
        speak: called in the guardian when the program was ended while it worked on photos.
    """
    if not hasattr(os, "fork"):
        return None
    program = os.getpid()
    try:
        (hears, signals), (orders, asks), (reads, words) = os.pipe(), os.pipe(), os.pipe()
        process = os.fork()
    except OSError:  # no more processes: the program runs without a guardian
        return None
    if not process:
        try:
            for descriptor in (signals, orders, words):
                os.close(descriptor)
            _serve(_Program(program, asks, patience), hears, reads, speak)
        finally:
            os._exit(0)
    for descriptor in (asks, reads):
        os.close(descriptor)
    os.set_blocking(signals, False)  # `hears` stays open: a guardian that is gone breaks no pipe
    guardian = Guardian(signals, orders, words)
    os.register_at_fork(after_in_child=guardian.leave)
    return guardian


class _Program:
    """The program as the guardian sees it. Time in which it was stopped, as by Ctrl-Z, does not count."""

    def __init__(self, pid: int, asks: int, patience: float) -> None:
        self._pid, self._asks, self._patience = pid, asks, patience
        self._clock, self._last = 0.0, time.monotonic()
        self._alive = 0.0
        self.heard = b""
        self.stalled = False
        self._calm()

    def _calm(self) -> None:
        self._number: int | None = None  # of a signal without a reaction
        self._arrived = 0.0
        self._ends_at = self._kills_at = float("inf")
        self._remarked = False

    def watched(self) -> tuple[str, str, float] | None:
        """Notes, command and seconds while the program works on photos; None otherwise."""
        message = self.heard.split(_MESSAGE)[-2:-1]
        if not message or not message[0]:
            return None
        notes, command, seconds = message[0].decode("utf-8", "surrogatepass").split("\0")
        return notes, command, float(seconds)

    def crash(self) -> bytes:
        """The output of the crash handler."""
        return b"".join(self.heard.split(_MESSAGE)[::2])

    def pause(self) -> float | None:
        """Seconds until the program has to be checked."""
        if self._number is not None:
            return _LOOK
        return _BEAT if self.watched() else None

    def hear(self, byte: bytes) -> None:
        """Handle one byte from the pipe of signals."""
        if byte == ALIVE:
            self._alive = self._clock
        elif byte == REACTED:
            self._alive = self._clock
            self._calm()
        elif byte[0] in _ASKED:
            if self._number is not None:
                self._ends_at = min(self._ends_at, self._clock + _SOON)
            else:
                self._arrived = self._clock
                if byte[0] == signal.SIGTERM:
                    self._ends_at = self._clock + self._patience
            self._number = byte[0]

    def look(self) -> None:
        """End the program if its time is up."""
        now = time.monotonic()
        if not self._is_stopped():
            self._clock += min(now - self._last, 2 * _BEAT)
        self._last = now
        if self._number is not None:
            self._await_reaction(self._number)
        watched = self.watched()
        if watched is None:
            self._alive = self._clock
        elif self._clock > self._alive + watched[2]:
            self.stalled = True
            self._kill()

    def _await_reaction(self, number: int) -> None:
        if self._clock >= self._kills_at:
            _say(ENDED)
            self._kill()
            self._calm()  # a program takes a moment to end, in which nothing is left to say
        elif self._clock >= self._ends_at and self._kills_at == float("inf"):
            self._kills_at = self._clock + _THREAD
            with suppress(OSError):
                os.write(self._asks, bytes([number]))
        elif self._ends_at == float("inf") and not self._remarked and self._clock > self._arrived + 2 * _SOON:
            self._remarked = True
            _say("waiting for a step that cannot be interrupted; Ctrl-C again ends it at once")

    def _kill(self) -> None:
        """End the program by a signal, and not by the status of an interruption: only the program could set that, and
        none of its Python can run."""
        if os.getppid() == self._pid:  # otherwise it has ended, and its id may belong to another process
            with suppress(OSError):
                os.kill(self._pid, signal.SIGKILL)

    def _is_stopped(self) -> bool:
        if not sys.platform.startswith("linux"):
            return False
        try:
            with open(f"/proc/{self._pid}/stat", "rb") as file:  # noqa: PTH123 - pathlib takes long to import
                return file.read().rpartition(b")")[2].split()[0] in (b"T", b"t")
        except (OSError, IndexError):
            return False


def _serve(program: _Program, hears: int, reads: int, speak: Speak) -> None:
    """Wait for the end of the program."""
    os.setsid()  # a signal to the terminal's process group must not reach this process
    for ignored in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT, signal.SIGTSTP):
        signal.signal(ignored, signal.SIG_IGN)
    nowhere = os.open(os.devnull, os.O_RDWR)
    for descriptor in (0, 1):  # readers of the program's output must not wait for this process
        os.dup2(nowhere, descriptor)
    open_pipes = [hears, reads]
    while open_pipes:
        ready, _, _ = select.select(open_pipes, [], [], program.pause())
        for pipe in ready:
            data = os.read(pipe, 65536)
            if not data:
                open_pipes.remove(pipe)
            elif pipe == reads:
                program.heard += data
            else:
                for number in data:
                    program.hear(bytes([number]))
        if open_pipes:
            program.look()
    if watched := program.watched():
        speak(LastWords(watched[0], watched[1], program.crash(), program.stalled))


def _say(text: str) -> None:
    with suppress(Exception):  # a closed standard error changes nothing
        print(text, file=sys.stderr, flush=True)
