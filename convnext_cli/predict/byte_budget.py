"""Bytes that wait in memory, bounded by their sum and not by how many items they make."""

from __future__ import annotations

import functools
import threading
from contextlib import AbstractContextManager, nullcontext
from typing import Any

from convnext_cli.base.threads import usable_threads
from convnext_cli.predict.decode_threads import Task

# Bytes of a file above which it counts as large: its bytes are held until it is decoded.
LARGE = 32 * 2**20
_LARGE_FILES = 256 * 2**20  # bytes of large files that may be held, and those of one for each thread


class ByteBudget:
    """A budget of bytes. One item that is larger than all of it goes alone."""

    def __init__(self, most: int) -> None:
        self._most, self._used = most, 0
        self._held: dict[object, int] = {}
        self._closed = False
        self._changed = threading.Condition()

    def take(self, item: object, size: int) -> None:
        """Wait until an item of this size fits in, or the budget is closed. Items are known by identity."""
        with self._changed:
            self._changed.wait_for(lambda: self._closed or not self._held or self._used + size <= self._most)
            self._held[id(item)] = size
            self._used += size

    def give(self, item: object) -> None:
        """The bytes of an item are no longer needed; what was given already, or never taken, stays so."""
        with self._changed:
            size = self._held.pop(id(item), None)
            if size is not None:
                self._used -= size
                self._changed.notify_all()

    def close(self) -> None:
        """Let all go on that wait."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()


class ByteQueue:
    """A budget of bytes for items that are taken in the order of their numbers. The next one to be taken never waits,
    so that those behind it cannot hold it up."""

    def __init__(self, most: int) -> None:
        self._most, self._next = most, 0
        self._held: dict[int, int] = {}
        self._closed = False
        self._changed = threading.Condition()

    def admit(self, number: int, size: int) -> None:
        """Wait until an item of this size fits in, is the next one, was taken without it, or the queue is closed."""
        with self._changed:
            self._changed.wait_for(
                lambda: self._closed or number <= self._next or sum(self._held.values()) + size <= self._most
            )
            if number >= self._next:
                self._held[number] = size

    def take(self) -> None:
        """The next item is taken over, with its bytes."""
        with self._changed:
            self._held.pop(self._next, None)
            self._next += 1
            self._changed.notify_all()

    def close(self) -> None:
        """Let all go on that wait."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()


class _Room:
    """Room for the bytes of a file, as something that a task holds."""

    def __init__(self, budget: ByteBudget, size: int) -> None:
        self._budget, self._size = budget, size

    def acquire(self) -> None:
        self._budget.take(self, self._size)

    def release(self) -> None:
        self._budget.give(self)


@functools.cache
def _large_files() -> ByteBudget:
    return ByteBudget(_LARGE_FILES + LARGE * usable_threads())


def room_for(size: int, task: Task[Any, Any]) -> AbstractContextManager[None]:
    """Let a task read a file of this size when there is room for its bytes, and hold it meanwhile."""
    return task.alone(_Room(_large_files(), size)) if size > LARGE else nullcontext()
