"""The measuring loop: warm up until it is flat, then take samples. Runs in the worker, beside the network alone.

A call takes an array and gives an array in the host's memory, so the copy there, the network and the copy back are all
inside, and a call is over when its result is: no device runs on behind the clock.
"""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import cycle
from typing import Protocol

import numpy as np

from convnext_cli.benchmarking.inputs import Batch
from convnext_cli.benchmarking.statistics import is_warm
from convnext_cli.model.card import Card

Call = Callable[[Batch], object]
Next = Callable[[], Batch]
Clock = Callable[[], float]

WARM_SECONDS = 0.5  # one look at whether it is flat
WARM_LIMIT = 20.0  # seconds after which a warm-up is given up
FEWEST, MOST = 10, 20_000  # samples of a run
_FEWEST_WARM = 3


class Subject(Protocol):
    """Anything that is measured; engines are subjects."""

    name: str
    device: str
    dtype: str
    card: Card
    notes: list[str]

    def __call__(self, batch: Batch) -> np.ndarray:
        """(N, 3, H, W) float32 -> an array in the host's memory."""
        ...

    def close(self) -> None: ...


@dataclass
class Run:
    """What a loop saw. seconds: of each call; wall: from the first call's start to the last one's end.

    warm: whether the first tenth was as fast as the last half. collections: of the garbage collector, meanwhile.
    """

    seconds: list[float] = field(default_factory=list)
    wall: float = 0.0
    warm: bool = True
    collections: int = 0


def first(call: Call, batch: Batch, clock: Clock = time.perf_counter) -> float:
    """Seconds of the first call, in which networks are compiled and autotuned, and memory is touched."""
    start = clock()
    call(batch)
    return clock() - start


def warm_up(call: Call, next_input: Next, clock: Clock = time.perf_counter, limit: float = WARM_LIMIT) -> float:
    """Call until the times are flat, at least ``WARM_SECONDS``; gives the seconds that it took."""
    start = clock()
    while True:
        look = _loop(call, next_input, clock, WARM_SECONDS, _FEWEST_WARM, MOST)
        if is_warm(look.seconds) or clock() - start > limit:
            return clock() - start


def sample(call: Call, next_input: Next, seconds: float, clock: Clock = time.perf_counter, fewest: int = FEWEST) -> Run:
    """Samples for so many seconds. If they began during the warm-up, they are taken again."""
    with garbage_left_alone() as collections:
        for _ in range(3):
            run = _loop(call, next_input, clock, seconds, fewest, MOST)
            run.warm = is_warm(run.seconds)
            if run.warm:
                break
        run.collections = collections()
    return run


def turn(call: Call, next_input: Next, seconds: float, clock: Clock = time.perf_counter) -> Run:
    """One turn beside others: a call that does not count, since the others had the caches, then samples."""
    with garbage_left_alone() as collections:
        call(next_input())
        run = _loop(call, next_input, clock, seconds, 1, MOST)
        run.collections = collections()
    return run


def side_by_side(
    call: Call, kinds: dict[str, Next], seconds: float, clock: Clock = time.perf_counter
) -> dict[str, list[float]]:
    """Seconds of calls with several kinds of input in turns, at least three rounds of each."""
    seconds_of: dict[str, list[float]] = {name: [] for name in kinds}
    end = clock() + seconds
    with garbage_left_alone():
        order = cycle((list(kinds), list(reversed(kinds))))
        while len(seconds_of[min(kinds, key=lambda name: len(seconds_of[name]))]) < 3 or clock() < end:
            for name in next(order):
                batch = kinds[name]()
                start = clock()
                call(batch)
                seconds_of[name].append(clock() - start)
    return seconds_of


@contextmanager
def garbage_left_alone() -> Iterator[Callable[[], int]]:
    """No collection of garbage while a network is measured; gives a count of those that happened all the same."""
    gc.collect()
    gc.freeze()
    was_on = gc.isenabled()
    gc.disable()
    before = _collections()
    try:
        yield lambda: _collections() - before
    finally:
        gc.unfreeze()
        if was_on:
            gc.enable()


def _collections() -> int:
    return sum(generation["collections"] for generation in gc.get_stats())


def _loop(call: Call, next_input: Next, clock: Clock, seconds: float, fewest: int, most: int) -> Run:
    times: list[float] = []
    batch = next_input()
    begin = start = clock()
    while True:
        call(batch)
        end = clock()
        times.append(end - start)
        if len(times) >= most or (len(times) >= fewest and end - begin >= seconds):
            return Run(times, end - begin)
        batch = next_input()
        start = clock()
