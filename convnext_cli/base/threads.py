"""Processor threads: how many this process may use, how decoding and the engine share them, limited places, and work
that is given up when it does not end."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path
from typing import Any, Protocol, TypeVar

from convnext_cli.base.errors import UsageError

T = TypeVar("T")
# Processor time alone does not show that work hangs: it may wait for threads of its own. On a machine with so many
# programs for each processor, sound work still stays within its limit.
CROWD = 10
_LOOK = 0.1  # seconds between looks at the time that a call takes
# Work that was given up and whose thread still runs, in the whole process.
abandoned: dict[Any, None] = {}


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


def call_in_time(call: Callable[[], T], seconds: float) -> T:
    """Call a function that may never return, such as one of a runtime that is given a hostile file.

    It runs in another thread, since a native call cannot be interrupted. If it takes too long, that thread is
    abandoned: it goes on until it ends or the process does.

    Args:
        call: the function.
        seconds: of processor time that its thread may take. Where the system cannot measure that, and while the thread
            waits, time counts a tenth.

    Raises:
        TimeoutError: it takes longer.
    """
    future: Future[T] = Future()
    clocks: list[int] = []

    def run() -> None:
        if hasattr(time, "pthread_getcpuclockid"):
            clocks.append(time.pthread_getcpuclockid(threading.get_ident()))
        try:
            future.set_result(call())
        except BaseException as error:
            future.set_exception(error)
        abandoned.pop(future, None)

    threading.Thread(target=run, name="bounded call", daemon=True).start()
    waited, last = 0.0, time.monotonic()
    while True:
        with suppress(TimeoutError):
            return future.result(_LOOK)
        if future.done():  # with a TimeoutError of its own, or just now
            return future.result()
        now = time.monotonic()
        waited += min(now - last, 2 * _LOOK)  # time in which the process was stopped does not count
        last = now
        used = 0.0
        with suppress(OSError):  # the thread has just ended
            used = max(map(time.clock_gettime, clocks), default=0.0)
        if max(used, waited / CROWD) > seconds:
            abandoned[future] = None
            if future.done():
                abandoned.pop(future, None)
                return future.result()
            raise TimeoutError


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
