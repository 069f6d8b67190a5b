"""Photos that may end the process that decodes them, in a process that may be ended: the parent's side.

``isolated_worker.py`` is the other one. A process serves until it dies; then the next request starts another.
"""

from __future__ import annotations

import contextlib
import pickle
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from queue import Empty, Queue
from threading import Thread
from typing import IO

from convnext_cli.base.errors import PhotoError, UnavailableError
from convnext_cli.base.threads import CROWD
from convnext_cli.jobs.isolated_worker import PhotoRequest, ShardRequest
from convnext_cli.photos.photo import Photo
from convnext_cli.predict.decode_threads import USUAL, Limit
from convnext_cli.predict.preprocess import Preprocessor, Ready

_LOOK = 0.25  # seconds between looks at the time that it takes
_TRIES = 3  # processes that may be ended from outside before it is the photo that ended them
_AHEAD = 2  # answers that may wait: photos of a shard may be large
# The system sends the first when memory runs out. All of them can come from people, too.
_FROM_OUTSIDE = {"SIGKILL", "SIGTERM", "SIGINT", "SIGHUP", "SIGQUIT"}
_START = "import sys; sys.path[:] = {path!r}; from convnext_cli.jobs import isolated_worker as w; w.serve()"
_ENDED = object()


class DiedError(Exception):
    """The process was ended while it was at a photo. status: as ``subprocess`` has it."""

    def __init__(self, status: int) -> None:
        super().__init__(status)
        self.signal = _signal(status)
        self.status = status

    @property
    def problem(self) -> PhotoError:
        """The error of the photo's row."""
        if self.signal == "SIGKILL":
            message = "it ended the program by SIGKILL, most likely because memory ran out"
        elif self.signal is not None:
            message = f"it ended the program by {self.signal}: a defect in the library that reads it"
        else:
            message = f"it ended the program, with status {self.status}"
        return PhotoError("crashed", message)


class Isolated:
    """Reads, decodes and prepares one photo at a time in another process.

    preprocessor: its time limit holds here too. still: called now and then while a photo is read.
    """

    def __init__(self, preprocessor: Preprocessor, still: Callable[[], None] = lambda: None) -> None:
        self._still = still
        self._preprocessor = replace(preprocessor, in_flight=None)
        self._limit = Limit.of(preprocessor.timeout)
        self._process: subprocess.Popen[bytes] | None = None
        self._answers: Queue[tuple[object, ...] | None] = Queue(_AHEAD)

    def ready(
        self,
        photo: Photo,
        at: Callable[[str], contextlib.AbstractContextManager[None]] = lambda _: contextlib.nullcontext(),
        memory: int | None = None,
    ) -> Ready:
        """The result of ``Preprocessor.prepare``, or an error that says how the process ended.

        Args:
            photo: the photo.
            at: entered while the photo is read.
            memory: bytes that it may take, where the system can limit that.
        """
        try:
            (ready,) = self._try(lambda: self._ask(PhotoRequest(photo, memory), at(photo.path)))
        except DiedError as died:
            return Ready(photo, error=died.problem)
        except TimeoutError:
            return Ready(photo, error=PhotoError("timeout", self._limit.exceeded))
        assert isinstance(ready, Ready)
        ready.photo = photo
        return ready

    def members(
        self,
        opened: Callable[[Photo], Iterator[Photo]],
        shard: Photo,
    ) -> Iterator[Photo]:
        """The photos in a shard; where reading it ends the process, the last one is the shard itself, and says so."""
        try:
            for photo in self._try(lambda: self._ask(ShardRequest(opened, shard), contextlib.nullcontext())):
                assert isinstance(photo, Photo)
                yield photo
        except DiedError as died:
            yield Photo(shard.path, problem=died.problem)
        except TimeoutError:
            yield Photo(shard.path, problem=PhotoError("corrupt", self._limit.exceeded))

    def _try(self, ask: Callable[[], Iterator[object]]) -> Iterator[object]:
        """The answers, from another process if one was ended from outside: that does not mean a bad photo."""
        handed_on = 0
        for left in reversed(range(_TRIES)):
            try:
                for number, answer in enumerate(ask()):
                    if number >= handed_on:
                        yield answer
                        handed_on += 1
                return
            except DiedError as died:
                if died.signal not in _FROM_OUTSIDE or not left:
                    raise

    def _ask(
        self, request: PhotoRequest | ShardRequest, at: contextlib.AbstractContextManager[None]
    ) -> Iterator[object]:
        process = self._start()
        assert process.stdin is not None
        with at:
            with contextlib.suppress(BrokenPipeError):  # its end is seen below
                pickle.dump(request, process.stdin)
                process.stdin.flush()
            while (answer := self._answer(process, self._limit)) is not _ENDED:
                yield answer

    def _start(self) -> subprocess.Popen[bytes]:
        """The process, started and ready. Raises UnavailableError when it does not become ready."""
        if self._process is not None:
            return self._process
        self._answers = Queue(_AHEAD)
        self._process = process = subprocess.Popen(
            [sys.executable, "-P", "-c", _START.format(path=sys.path)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            start_new_session=True,  # Ctrl-C is for the parent, which ends it
        )
        assert process.stdin is not None
        Thread(target=_listen, args=(process.stdout, self._answers), daemon=True).start()
        with contextlib.suppress(BrokenPipeError):
            pickle.dump((self._preprocessor, self._limit), process.stdin)
            process.stdin.flush()
        try:
            self._answer(process, USUAL)
        except (DiedError, TimeoutError) as error:
            raise UnavailableError(
                "photos that may have ended an earlier run are decoded in a separate process, and none can be started",
                "free some memory, and run the same command again",
            ) from error
        return process

    def _answer(self, process: subprocess.Popen[bytes], limit: Limit) -> object:
        """The next answer, or ``_ENDED``. Raises DiedError and TimeoutError; then the process is gone."""
        waited, last, before = 0.0, time.monotonic(), _processor_time(process.pid)
        while True:
            try:
                answer = self._answers.get(timeout=_LOOK)
                break
            except Empty:
                now = time.monotonic()
                waited += min(now - last, 2 * _LOOK)  # not while this process itself was stopped
                last = now
                self._still()
            # its decoders may have threads of their own, all of which count
            used = _processor_time(process.pid) - before
            if used > 2 * limit.computing or waited > limit.reading + CROWD * limit.computing:
                self.close()
                raise TimeoutError
        if answer is None:
            status = process.wait()
            self.close()
            if _signal(status) == "SIGVTALRM":  # it had its own limit
                raise TimeoutError
            raise DiedError(status)
        return _ENDED if answer == ("end",) else answer[1]

    def close(self) -> None:
        """End the process at once."""
        process, self._process = self._process, None
        if process is None:
            return
        process.kill()
        process.wait()
        for stream in (process.stdin, process.stdout):
            if stream is not None:
                with contextlib.suppress(OSError):
                    stream.close()


def _listen(stream: IO[bytes], answers: Queue[tuple[object, ...] | None]) -> None:
    """Hand on the answers of the process, and None at its end."""
    with contextlib.suppress(EOFError, OSError, pickle.UnpicklingError, ValueError):
        while True:
            answers.put(pickle.load(stream))  # our own
    answers.put(None)


def _signal(status: int) -> str | None:
    """The signal that ended a process, by name."""
    if status >= 0:
        return None
    try:
        return signal.Signals(-status).name
    except ValueError:  # a real-time signal
        return f"signal {-status}"


def _processor_time(pid: int) -> float:
    """Seconds of all threads of a process; 0 where the system does not tell them."""
    if not sys.platform.startswith("linux"):
        return 0.0
    try:
        return time.clock_gettime(~pid << 3 | 2)  # clock_getcpuclockid(3), which Python does not have
    except OSError:  # it is gone
        return 0.0
