"""Threads that decode photos. A photo that hangs does not block the others.

A photo that takes longer than its limit (a network share that hangs, a decoder that loops) is given up: its thread is
abandoned, another one replaces it, and the places that it held are released. Only a few threads may be abandoned; at
one more, the work ends with an error that names the photos. Threads are daemons, so that one that never
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
from typing import Generic, Literal, TypeVar

from convnext_cli.base.errors import ConvNextError
from convnext_cli.base.threads import CROWD, Budget, Place, abandoned, works_for

_AHEAD = 4  # items a thread
_ABANDONED = 4  # threads that may be abandoned, or the number of decoding threads, if that is more
_NAMED = 10  # photos that an error names
T = TypeVar("T")
R = TypeVar("R")
Stage = Literal["waiting", "reading", "computing"]


@dataclass(frozen=True)
class Limit:
    """The time that one photo may take. Waiting for other photos does not count.

    Args:
        reading: seconds.
        computing: seconds of processor time.
    """

    reading: float
    computing: float

    @classmethod
    def of(cls, seconds: float | None) -> Limit:
        """The same limit for both; the usual limits for None."""
        return USUAL if seconds is None else cls(seconds, seconds)

    @property
    def exceeded(self) -> str:
        """The message for a photo that took longer."""
        if self.reading == self.computing:
            return f"it took more than {self.reading:g} seconds to read or to decode"
        return f"it took more than {self.reading:g} seconds to read, or {self.computing:g} seconds to decode"


# Many times the time of any sound photo, even with slow connections and slow processors.
USUAL = Limit(reading=3600.0, computing=120.0)


class GivenUp(BaseException):
    """Ends the work on a photo that was given up while it waited."""


class _Held:
    """A place that is held, and released once."""

    def __init__(self, place: Place) -> None:
        self._place: Place | None = place
        self._lock = threading.Lock()

    def release(self) -> None:
        with self._lock:
            place, self._place = self._place, None
        if place is not None:
            place.release()


class Task(Generic[T, R]):
    """The work on one photo.

    Args:
        item: the photo.
        budget: processor threads that are shared with the engine.
        places: places for photos that compute at the same time; None for no limit.
    """

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
        """Start the timeout: the photo is being read."""
        self._stage = "reading"

    def compute(self) -> None:
        """Wait for a thread of the budget; the photo is being decoded from then on."""
        if self._places is not None:
            self._take(self._places)
        self._take(self._budget)
        if hasattr(time, "pthread_getcpuclockid"):
            self._clock = time.pthread_getcpuclockid(threading.get_ident())
            self._from = time.clock_gettime(self._clock)
        self._stage = "computing"

    def wait(self, until: Callable[[], None]) -> None:
        """Call a function that waits for others; the time does not count towards the timeout.

        Raises:
            GivenUp: the task has ended while it waited.
        """
        before, self._stage = self._stage, "waiting"
        until()
        with self._lock:
            if self._ended:
                raise GivenUp
        self._stage = before

    @contextmanager
    def hold(self, place: Place) -> Iterator[None]:
        """Hold a place; waiting for it does not count towards the timeout."""
        hold = self._take(place)
        try:
            yield
        finally:
            hold.release()

    def _take(self, place: Place) -> _Held:
        """Acquire a place, which is released when the task ends, if not before.

        Raises:
            GivenUp: the task has ended while it waited.
        """
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
        """Count the time since the last tick for the present stage, if the task has not changed its stage since."""
        stage = self._stage
        if stage == self._counted:
            self._seconds[stage] += seconds
        self._counted = stage

    def exceeds(self, limit: Limit, times: int = 1) -> bool:
        """Whether the task has taken more than ``times`` its limit."""
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
        """End the task: release its places, and let ``result`` return. False if it had already ended."""
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
        """Wait for the answer; None if the task was given up. Errors of the work are passed on."""
        return self._future.result()


class Decoders(Generic[T, R]):
    """A pool of decoding threads.

    Args:
        count: threads that compute at the same time; more may read (``grow``).
        work: makes the answer for an item. It gets the item's task, and calls ``compute`` before it needs a processor.
        budget: processor threads that are shared with the engine.
        limit: seconds for reading one item, and of processor time for computing with it; None for the usual ones.
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
        """Queue an item; threads take the items in order."""
        task: Task[T, R] = Task(item, self._budget, self._computing)
        self._waiting.put(task)
        return task

    def in_order(self, items: Iterable[T]) -> Generator[Task[T, R], None, None]:
        """Yield the tasks of items in order, while a few more for each thread are queued; ``close`` at the end."""
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
        """Use at least this many threads, for photos behind a network, where reading is mostly waiting."""
        for _ in range(self._count, count):
            self._thread(self._run)
        self._count = max(self._count, count)

    def close(self) -> None:
        """Let the threads end after their present photo; queued photos are not started."""
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
                abandoned.pop(task, None)
                return

    def _watch(self) -> None:
        """Check the tasks now and then. Time in which the process was stopped does not count."""
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
            # noted first: its thread may end at this moment
            self._abandoned[task] = abandoned[task] = None
            if task.end():
                self._running.pop(task, None)
                self._thread(self._run)
            else:
                self._abandoned.pop(task, None)
                abandoned.pop(task, None)
        elif task.exceeds(self._limit, times=2) and task.end(error=self._too_many(task)):
            self._running.pop(task, None)

    def _too_many(self, last: Task[T, R]) -> ConvNextError:
        abandoned[last] = None
        names = [str(getattr(task.item, "path", task.item)) for task in (*self._abandoned, last)]
        more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
        return ConvNextError(
            f"{len(names)} photos block all decoding threads: {', '.join(names[:_NAMED])}{more}",
            "move these photos away, or find out why they cannot be read; then run the same command again",
        )
