"""A limit on the bytes that wait in memory: on their sum, not on the number of items."""

from __future__ import annotations

import functools
import threading
from contextlib import AbstractContextManager, nullcontext

from convnext_cli.base.threads import usable_threads
from convnext_cli.predict.decode_threads import R, T, Task

# Bytes of a file above which it counts as large: its bytes are held until it is decoded.
LARGE = 32 * 2**20
_LARGE_FILES = 256 * 2**20  # bytes of large files that may be held; one more file for each thread is added


class ByteBudget:
    """A budget of bytes. An item that is larger than the budget is admitted alone."""

    def __init__(self, most: int) -> None:
        self._most, self._used = most, 0
        self._held: dict[object, int] = {}
        self._closed = False
        self._changed = threading.Condition()

    def take(self, item: object, size: int) -> None:
        """Wait until an item of this size fits, or the budget is closed. Items are compared by identity."""
        with self._changed:
            self._changed.wait_for(lambda: self._closed or not self._held or self._used + size <= self._most)
            self._held[id(item)] = size
            self._used += size

    def give(self, item: object) -> None:
        """Return the bytes of an item. Calling twice, or for an item that was never taken, is harmless."""
        with self._changed:
            size = self._held.pop(id(item), None)
            if size is not None:
                self._used -= size
                self._changed.notify_all()

    def close(self) -> None:
        """Let all waiting threads continue."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()


class ByteQueue:
    """A budget of bytes for items that are taken in the order of their numbers.

    The next item is always admitted, so that those after it cannot block it.
    """

    def __init__(self, most: int) -> None:
        self._most, self._next = most, 0
        self._held: dict[int, int] = {}
        self._closed = False
        self._changed = threading.Condition()

    def admit(self, number: int, size: int) -> None:
        """Wait until an item of this size fits, is the next one or was already taken, or the queue is closed."""
        with self._changed:
            self._changed.wait_for(
                lambda: self._closed or number <= self._next or sum(self._held.values()) + size <= self._most
            )
            if number >= self._next:
                self._held[number] = size

    def take(self) -> None:
        """Take the next item, and return its bytes to the budget."""
        with self._changed:
            self._held.pop(self._next, None)
            self._next += 1
            self._changed.notify_all()

    def close(self) -> None:
        """Let all waiting threads continue."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()


class _Room:
    """Room for the bytes of a file, as a place that a task holds."""

    def __init__(self, budget: ByteBudget, size: int) -> None:
        self._budget, self._size = budget, size

    def acquire(self) -> None:
        self._budget.take(self, self._size)

    def release(self) -> None:
        self._budget.give(self)


@functools.cache
def _large_files() -> ByteBudget:
    return ByteBudget(_LARGE_FILES + LARGE * usable_threads())


def room_for(size: int, task: Task[T, R]) -> AbstractContextManager[None]:
    """Hold room for the bytes of a file while a task reads and decodes it.

    Args:
        size: of the file, in bytes.
        task: the task that reads it.
    """
    return task.hold(_Room(_large_files(), size)) if size > LARGE else nullcontext()
