"""Bytes that wait in memory, bounded by their sum and not by how many items they make."""

from __future__ import annotations

import threading


class BytesInFlight:
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
