"""Threads that decode photos, none of which can hold the others up.

A photo that takes longer than its limit (a network share that hangs, a decoder that loops) is given up: its thread is
left to itself, another one takes its place, and what it held goes back. Only a few threads are left to themselves; when
one more would be, the work ends with an error that names the photos. Threads are daemons, so that one that never
returns does not keep the process from ending.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass
from queue import SimpleQueue
from typing import Any, Generic, Literal, TypeVar

from convnext_cli.base.errors import ConvNextError
from convnext_cli.base.threads import Budget, Place, works_for

_AHEAD = 4  # items a thread
_ABANDONED = 4  # threads that may be left to themselves, or as many as decode, if those are more
_NAMED = 10  # photos that an error names
# A decoder may wait for threads of its own, so processor time alone does not show that it hangs. On a machine with so
# many programs for each processor a sound photo still takes no more than its limit.
CROWD = 10
T = TypeVar("T")
R = TypeVar("R")
Stage = Literal["waiting", "reading", "computing"]


@dataclass(frozen=True)
class Limit:
    """What one photo may take. reading: seconds. computing: seconds of processor time. Waiting for others is free."""

    reading: float
    computing: float

    @classmethod
    def of(cls, seconds: float | None) -> Limit:
        """The same limit for both, or the usual one."""
        return USUAL if seconds is None else cls(seconds, seconds)

    @property
    def exceeded(self) -> str:
        """What is said of a photo that took longer."""
        if self.reading == self.computing:
            return f"it took more than {self.reading:g} seconds to read or to decode"
        return f"it took more than {self.reading:g} seconds to read, or {self.computing:g} seconds to decode"


# Many times what any sound photo takes: slow lines with many readers, slow processors.
USUAL = Limit(reading=3600.0, computing=120.0)
# Tasks that were given up and still run, in the whole process.
_left_alone: dict[Any, None] = {}


def left_alone() -> int:
    """How many threads of this process are at a photo that was given up."""
    return len(_left_alone)


class GivenUp(BaseException):
    """Ends the work on a photo that was given up while it waited."""


class _Held:
    """A place, to be given back once."""

    def __init__(self, place: Place) -> None:
        self._place: Place | None = place
        self._lock = threading.Lock()

    def release(self) -> None:
        with self._lock:
            place, self._place = self._place, None
        if place is not None:
            place.release()


class Task(Generic[T, R]):
    """One photo on its way. item: the photo."""

    def __init__(self, item: T, budget: Budget, places: threading.Semaphore | None = None) -> None:
        self.item = item
        self._budget, self._places = budget, places
        self._future: Future[R | None] = Future()
        self._lock = threading.Lock()  # of the next two
        self._ended = False
        self._held: list[_Held] = []
        self._stage: Stage = "waiting"
        self._counted: Stage = "waiting"  # the stage at the last tick
        self._seconds: dict[Stage, float] = {"waiting": 0.0, "reading": 0.0, "computing": 0.0}
        self._clock: int | None = None  # of the processor time of its thread
        self._from = 0.0

    def start(self) -> None:
        """It reads from now on."""
        self._stage = "reading"

    def compute(self) -> None:
        """Wait for a thread of the budget, and go on with it."""
        if self._places is not None:
            self._take(self._places)
        self._take(self._budget)
        if hasattr(time, "pthread_getcpuclockid"):
            self._clock = time.pthread_getcpuclockid(threading.get_ident())
            self._from = time.clock_gettime(self._clock)
        self._stage = "computing"

    def wait(self, until: Callable[[], None]) -> None:
        """Call what waits for others; that is not counted. Raises GivenUp when the task has ended meanwhile."""
        before, self._stage = self._stage, "waiting"
        until()
        with self._lock:
            if self._ended:
                raise GivenUp
        self._stage = before

    @contextmanager
    def alone(self, place: Place) -> Iterator[None]:
        """Hold a place among few; waiting for it is not counted."""
        hold = self._take(place)
        try:
            yield
        finally:
            hold.release()

    def _take(self, place: Place) -> _Held:
        """A place that is given back when the task ends, if not before. Raises GivenUp when it has ended meanwhile."""
        before, self._stage = self._stage, "waiting"
        place.acquire()
        hold = _Held(place)
        with self._lock:
            ended = self._ended
            if not ended:
                self._held.append(hold)
        if ended:
            hold.release()
            raise GivenUp
        self._stage = before
        return hold

    def tick(self, seconds: float) -> None:
        """So much time has passed: it is counted for the stage that the task is in, and was in at the last tick."""
        stage = self._stage
        if stage == self._counted:
            self._seconds[stage] += seconds
        self._counted = stage

    def exceeds(self, limit: Limit, times: int = 1) -> bool:
        """Whether it has taken more than so many times its limit."""
        if self._seconds["reading"] > times * limit.reading:
            return True
        taken = self._seconds["computing"]
        if self._clock is not None:
            taken = max(taken / CROWD, self._processor_time())
        return taken > times * limit.computing

    def _processor_time(self) -> float:
        assert self._clock is not None
        try:
            return time.clock_gettime(self._clock) - self._from
        except OSError:  # its thread has ended
            return 0.0

    def end(self, answer: R | None = None, error: BaseException | None = None) -> bool:
        """Give back what it holds and let ``result`` go on; whether this was the first end."""
        with self._lock:
            if self._ended:
                return False
            self._ended = True
            held = self._held
        for hold in reversed(held):
            hold.release()
        if error is not None:
            self._future.set_exception(error)
        else:
            self._future.set_result(answer)
        return True

    def result(self) -> R | None:
        """The answer, when it is there; None when its time was up. Raises what the work raised."""
        return self._future.result()


class Decoders(Generic[T, R]):
    """A pool of threads.

    count: of those that compute at once; more may read (``grow``). work: makes the answer for an item; it is handed the
    item's task, to call ``compute`` before it needs a processor.
    budget: processor threads that are shared with the engine. limit: seconds for reading one item, and of processor
    time for computing with it; None for the usual ones.
    """

    def __init__(
        self, count: int, work: Callable[[T, Task[T, R]], R], budget: Budget, limit: float | None = None
    ) -> None:
        self._work, self._budget, self._limit, self._count = work, budget, Limit.of(limit), count
        self._waiting: SimpleQueue[Task[T, R] | None] = SimpleQueue()
        self._running: dict[Task[T, R], None] = {}
        self._abandoned: dict[Task[T, R], None] = {}
        self._computing = threading.Semaphore(count)
        self._closed = threading.Event()
        for _ in range(count):
            self._thread(self._run)
        self._thread(self._watch)

    def submit(self, item: T) -> Task[T, R]:
        """Begin with an item when a thread is free; threads take them in order."""
        task: Task[T, R] = Task(item, self._budget, self._computing)
        self._waiting.put(task)
        return task

    def in_order(self, items: Iterable[T]) -> Generator[Task[T, R], None, None]:
        """The task of each item, in their order, when a few more for each thread are begun; ``close`` at the end."""
        ahead: deque[Task[T, R]] = deque()
        try:
            for item in items:
                ahead.append(self.submit(item))
                if len(ahead) > _AHEAD * self._count:
                    yield ahead.popleft()
            while ahead:
                yield ahead.popleft()
        finally:
            self.close()

    def grow(self, count: int) -> None:
        """Have at least so many threads, where reading is waiting: for a network, not for a processor."""
        for _ in range(self._count, count):
            self._thread(self._run)
        self._count = max(self._count, count)

    def close(self) -> None:
        """Let the threads end when they have done what they are at; what waits is not begun."""
        self._closed.set()
        while not self._waiting.empty():
            self._waiting.get()
        for _ in range(self._count):
            self._waiting.put(None)

    def _thread(self, target: Callable[[], None]) -> None:
        threading.Thread(target=target, name="decode", daemon=True).start()

    def _run(self) -> None:
        while (task := self._waiting.get()) is not None:
            works_for(task)
            task.start()
            self._running[task] = None
            try:
                answer = self._work(task.item, task)
            except BaseException as error:
                first = task.end(error=error)
            else:
                first = task.end(answer)
            self._running.pop(task, None)
            if not first:  # given up, and this thread was replaced
                self._abandoned.pop(task, None)
                _left_alone.pop(task, None)
                return

    def _watch(self) -> None:
        """Look at the tasks now and then. Time in which this thread stood still, as in a process that was stopped, is
        no time of theirs."""
        every = min(1.0, self._limit.reading / 4, self._limit.computing / 4)
        last = time.monotonic()
        while not self._closed.wait(every):
            now = time.monotonic()
            for task in list(self._running):
                task.tick(min(now - last, 2 * every))
                if task.exceeds(self._limit):
                    self._give_up(task)
            last = now

    def _give_up(self, task: Task[T, R]) -> None:
        if len(self._abandoned) < max(_ABANDONED, self._count):
            # noted before: its thread may end at this moment
            self._abandoned[task] = _left_alone[task] = None
            if task.end():
                self._running.pop(task, None)
                self._thread(self._run)
            else:
                self._abandoned.pop(task, None)
                _left_alone.pop(task, None)
        elif task.exceeds(self._limit, times=2) and task.end(error=self._too_many(task)):
            self._running.pop(task, None)

    def _too_many(self, last: Task[T, R]) -> ConvNextError:
        _left_alone[last] = None
        names = [str(getattr(task.item, "path", task.item)) for task in (*self._abandoned, last)]
        more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
        return ConvNextError(
            f"{len(names)} photos hang and hold a thread each, so no more can be decoded: "
            f"{', '.join(names[:_NAMED])}{more}",
            "take these photos away, or see why they cannot be read; the same command then goes on",
        )
