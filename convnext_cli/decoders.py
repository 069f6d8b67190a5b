"""Threads that decode photos, none of which can hold the others up.

A photo that takes longer than its limit (a network share that hangs, a decoder that loops) is given up: its thread is
left to itself, another one takes its place, and what it held of the budget goes back. Threads are daemons, so that one
that never returns does not keep the process from ending.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from queue import SimpleQueue
from typing import Generic, TypeVar

from convnext_cli.threads import Budget, Share

_AHEAD = 4  # items a thread
T = TypeVar("T")
R = TypeVar("R")


class Task(Generic[T, R]):
    """One photo on its way. item: the photo."""

    def __init__(self, item: T, budget: Budget, places: threading.Semaphore | None = None) -> None:
        self.item = item
        self._budget, self._places = budget, places
        self._future: Future[R | None] = Future()
        self._lock = threading.Lock()  # of the next two
        self._ended = False
        self._share: Share | None = None
        self._used = 0.0
        self._since: float | None = None

    def start(self) -> None:
        """The clock runs: it reads."""
        self._since = time.monotonic()

    @contextmanager
    def alone(self, places: threading.Semaphore) -> Iterator[None]:
        """Take a place among few, and wait for it while the clock stands."""
        self._used = self.seconds()
        self._since = None
        with places:
            self._since = time.monotonic()
            yield

    def compute(self) -> None:
        """Wait for a thread of the budget, while the clock stands, and go on."""
        self._used = self.seconds()
        self._since = None
        if self._places is not None:
            self._places.acquire()
        share = self._budget.one()
        with self._lock:
            given_up = self._ended  # while it waited here
            if not given_up:
                self._share = share
        if given_up:
            self._give_back(share)
        self._since = time.monotonic()

    def _give_back(self, share: Share) -> None:
        share.release()
        if self._places is not None:
            self._places.release()

    def seconds(self) -> float:
        """How long it has been at work."""
        since = self._since
        return self._used + (0.0 if since is None else time.monotonic() - since)

    def end(self, answer: R | None = None, error: BaseException | None = None) -> bool:
        """Give back what it holds and let ``result`` go on; whether this was the first end."""
        with self._lock:
            if self._ended:
                return False
            self._ended = True
            share = self._share
        if share is not None:
            self._give_back(share)
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
    budget: processor threads that are shared with the engine. limit: seconds for one item, waiting for others not
    counted, or None.
    """

    def __init__(
        self, count: int, work: Callable[[T, Task[T, R]], R], budget: Budget, limit: float | None = None
    ) -> None:
        self._work, self._budget, self._limit, self._count = work, budget, limit, count
        self._waiting: SimpleQueue[Task[T, R] | None] = SimpleQueue()
        self._running: dict[Task[T, R], None] = {}
        self._computing = threading.Semaphore(count)
        self._closed = threading.Event()
        for _ in range(count):
            self._thread(self._run)
        if limit is not None:
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
                return

    def _watch(self) -> None:
        assert self._limit is not None
        while not self._closed.wait(min(1.0, self._limit / 4)):
            for task in list(self._running):
                if task.seconds() > self._limit and task.end():
                    self._running.pop(task, None)
                    self._thread(self._run)
