"""Processor threads: how many this process may use, how decoding and the engine share them, and limited places."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Protocol

from convnext_cli.base.errors import UsageError


def environment_number(name: str, default: int) -> int:
    """A number that another program (torchrun) put into the environment.

    Raises:
        UsageError: the value is not a number.
    """
    value = os.environ.get(name, "")
    if not value:
        return default
    if not (value.isascii() and value.isdigit() and len(value) < 10):
        raise UsageError(f"{name} in the environment is not a number: {value[:40]!r}", f"unset {name}")
    return int(value)


class Budget:
    """A number of threads that decoding and the engine share, so that they never run more together.

    The engine takes the whole budget at once. Decoders wait while it runs, and none starts while it waits.
    """

    def __init__(self, threads: int) -> None:
        self._free = self._all = threads
        self._waiting = False
        self._changed = threading.Condition()

    def one(self) -> Share:
        """Wait until one decoder may run, and return its share, to be released when it has ended."""
        self.acquire()
        return Share(self)

    def acquire(self) -> None:
        """Wait for one thread and take it."""
        with self._changed:
            self._changed.wait_for(lambda: self._free > 0 and not self._waiting)
            self._free -= 1

    def release(self) -> None:
        """Give one thread back."""
        self.give(1)

    @contextmanager
    def all_threads(self) -> Iterator[None]:
        """Hold all threads, for the engine."""
        with self._changed:
            self._waiting = True
            try:
                self._changed.wait_for(lambda: self._free == self._all)
                self._free = 0
            finally:
                self._waiting = False
                self._changed.notify_all()
        try:
            yield
        finally:
            self.give(self._all)

    def give(self, threads: int) -> None:
        """Return threads to the budget."""
        with self._changed:
            self._free += threads
            self._changed.notify_all()


class Share:
    """One thread of a budget, which is returned once."""

    def __init__(self, budget: Budget) -> None:
        self._budget: Budget | None = budget
        self._lock = threading.Lock()

    def release(self) -> None:
        """Return the thread to the budget. Calling twice is harmless."""
        with self._lock:
            budget, self._budget = self._budget, None
        if budget is not None:
            budget.give(1)

    def __enter__(self) -> Share:
        return self

    def __exit__(self, *_: object) -> None:
        self.release()


class Place(Protocol):
    """A lock, a semaphore or something else that is held for a while; another thread may release it."""

    def acquire(self) -> object: ...

    def release(self) -> None: ...


class Holder(Protocol):
    """Work whose time is measured, and which may be given up while it holds places."""

    def hold(self, place: Place) -> AbstractContextManager[None]: ...


_work = threading.local()  # holder: the work that the thread does now


def works_for(holder: Holder | None) -> None:
    """Set the work that the calling thread does from now on."""
    _work.holder = holder


@contextmanager
def held(place: Place) -> Iterator[None]:
    """Hold a place. Waiting does not count towards the work's timeout, and work that is given up releases the place."""
    holder: Holder | None = getattr(_work, "holder", None)
    if holder is not None:
        with holder.hold(place):
            yield
        return
    place.acquire()
    try:
        yield
    finally:
        place.release()


def usable_threads() -> int:
    """Processors that this process may use: its affinity, and its container's quota, rounded down; at least 1."""
    affinity = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min([affinity, *quotas()]))


def quotas(root: Path = Path("/sys/fs/cgroup"), own: Path = Path("/proc/self/cgroup")) -> list[int]:
    """Whole processors that the cgroups of this process grant, v2 and v1; every ancestor's limit counts."""
    processors = []
    try:
        lines = own.read_text().splitlines()
    except OSError:
        return []
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if controllers and "cpu" not in controllers.split(","):
            continue
        group = Path(path.lstrip("/"))
        for folder in (group, *group.parents):
            try:
                if controllers:
                    quota = (root / "cpu" / folder / "cpu.cfs_quota_us").read_text().strip()
                    period = (root / "cpu" / folder / "cpu.cfs_period_us").read_text().strip()
                else:
                    quota, period = (root / folder / "cpu.max").read_text().split()
                if quota not in ("max", "-1"):
                    processors.append(int(quota) // int(period))
            except (OSError, ValueError):  # not limited at this level
                continue
    return processors
