"""Disturbance: whether something else used the machine while it was measured."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

LIMIT = 0.05
_STAT = Path("/proc/stat")
_TRIES = 3
_STEPS = 2_000_000  # of the loop: some 50 ms


@dataclass(frozen=True)
class Disturbance:
    """Shares of 1. stolen: time that other guests of the host took. others: time that other processes took on the
    processors that this one may use. slower: by how much a fixed loop took longer afterwards. None: not known."""

    stolen: float | None
    others: float | None
    slower: float

    def reasons(self) -> list[str]:
        """What disturbed, in words; none where nothing did."""
        causes = []
        if (self.stolen or 0) > LIMIT:
            causes.append(f"disturbed: the host took {self.stolen:.0%} of the processor away")
        if (self.others or 0) > LIMIT:
            causes.append(f"disturbed: other processes took {self.others:.0%} of the processor")
        if abs(self.slower) > LIMIT:
            much = f"{abs(self.slower):.0%} {'more' if self.slower > 0 else 'less'}"
            causes.append(f"disturbed: a fixed loop took {much} time afterwards")
        return causes


class Watch:
    """From its making to ``stop``. What the worker uses counts as ours once it has ended."""

    def __init__(self, clock: Callable[[], float] = time.perf_counter, stat: Path = _STAT) -> None:
        self._clock, self._stat = clock, stat
        self._loop = calibrate(clock)
        self._before = _jiffies(stat)
        self._own = _own_seconds()

    def stop(self) -> Disturbance:
        after, own = _jiffies(self._stat), _own_seconds() - self._own
        stolen = others = None
        if self._before and after:
            busy, steal, total = (b - a for a, b in zip(self._before, after, strict=True))
            if total > 0:
                stolen = steal / total
                others = max(0.0, (busy - own * os.sysconf("SC_CLK_TCK")) / total)
        return Disturbance(stolen, others, calibrate(self._clock) / self._loop - 1)


def calibrate(clock: Callable[[], float] = time.perf_counter) -> float:
    """Seconds of a fixed piece of work, the best of a few."""
    best = float("inf")
    for _ in range(_TRIES):
        start = clock()
        for _ in range(_STEPS):
            pass
        best = min(best, clock() - start)
    return best


def _jiffies(stat: Path) -> tuple[int, int, int] | None:
    """Busy, stolen and all ticks of the processors that this process may use; None where the system does not tell."""
    try:
        lines = stat.read_text().splitlines()
    except OSError:
        return None
    mine = {f"cpu{i}" for i in os.sched_getaffinity(0)} if hasattr(os, "sched_getaffinity") else set[str]()
    busy = steal = total = 0
    for line in lines:
        name, *values = line.split()
        if name in mine:
            user, nice, system, idle, wait, irq, soft, stolen = map(int, values[:8])
            busy += user + nice + system + irq + soft
            steal += stolen
            total += user + nice + system + idle + wait + irq + soft + stolen
    return (busy, steal, total) if total else None


def _own_seconds() -> float:
    """Processor seconds of this process and of the children that have ended."""
    times = os.times()
    return times.user + times.system + times.children_user + times.children_system
